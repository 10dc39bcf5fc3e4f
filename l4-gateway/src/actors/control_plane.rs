//! Owns [`Control`], feeds it and carries out its actions.

mod news;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use bgp_ctl::{NodeIs, RouteControl};
use dataplane::Tables;
use health::{Checker, SetChecks, Transition};
use shared::admin::Asked;
use shared::bus::{Bus, Change, Duplicate, Prefix, Record, WatchId, unix_ms};
use shared::presence::{BEAT, Presence};
use shared::telemetry::monotonic;

use super::board::{Board, Load, ServiceView, TargetView, View};
use crate::attempts::LastSecond;
use crate::config::Config;
use crate::control::{Action, Control, Intended, Pulse, Target, Wish, target_id};
use crate::endpoint::{Endpoint, Ports};
use crate::forwarder::Forwarder;
use crate::names::PROTOCOLS;
use crate::offloads::WrongChecksums;
use crate::rates::{Estimates, Totals};
use crate::worker::{Times, WorkerState};

/// How often time is passed on: offers expire, others hear of this node.
const TICK: Duration = BEAT;

/// Changes of the bus that may wait. When more come, the bus holds back all but the last of each key.
const MAILBOX: usize = 256;

/// Between two snapshots, or two views, at least; and as many times as long as the last one took to make, so that making them takes a fifth of
/// the control side's time at most each.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_FACTOR: u32 = 4;

/// When something that takes time in proportion to all targets may be done again. Whoever asks first has it done, for all who ask until then.
#[derive(Debug, Default)]
struct Throttle {
    next: Duration,
    /// It is set to be done.
    asked: bool,
}

/// What to do about it.
enum Turn {
    Now,
    In(Duration),
    /// Nothing: somebody has been told to wait.
    Asked,
}

impl Throttle {
    fn ask(&mut self, now: Duration) -> Turn {
        if self.asked {
            return Turn::Asked;
        }
        match self.next.checked_sub(now) {
            None | Some(Duration::ZERO) => Turn::Now,
            Some(wait) => {
                self.asked = true;
                Turn::In(wait)
            }
        }
    }

    /// It was done from `began` to `now`.
    fn done(&mut self, began: Duration, now: Duration) {
        self.next = now + PAUSE.max((now - began) * PAUSE_FACTOR);
    }
}

/// Frames are forwarded, or not any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PulseIs {
    /// Whether, or why not.
    pub pulse: Pulse,
    /// A link has come back: whoever is beyond it may know this node's addresses elsewhere, or not at all.
    pub link_is_back: bool,
}

/// The process is about to end: tell others to send elsewhere.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// The process ends now: take the node's record from the bus.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leave;

/// Go on by this configuration, which differs from the one before only in what can change while the node runs. The answer says why it can't be
/// done; nothing has changed then.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), String>")]
pub struct Reload(pub Arc<Config>);

/// An operator wants something of a target. The answer says why there is nothing to want it of.
#[derive(Debug, Message)]
#[rtype(result = "Result<Intended, String>")]
pub struct Intend {
    /// The target's service.
    pub service: String,
    /// The target.
    pub address: SocketAddr,
    /// What is wanted.
    pub wish: Wish,
    /// By whom and why.
    pub asked: Asked,
}

/// What would be forgotten of what operators want if this were the configuration, a line each.
#[derive(Debug, Message)]
#[rtype(result = "Vec<String>")]
pub struct Forgets(pub Arc<Config>);

/// Owns the node's knowledge.
pub struct ControlPlane {
    control: Control,
    forwarder: Arc<Forwarder>,
    bus: Bus,
    watch: Option<WatchId>,
    checker: Addr<Checker>,
    /// Announces the VIPs by what this node says of itself.
    routes: Option<Addr<RouteControl>>,
    presence: Presence,
    board: Board,
    /// Snapshots that a worker may still read; the last holder frees one, and that should not be a worker.
    retired: VecDeque<Arc<Tables>>,
    /// The workers' heartbeats when the snapshot in force was published, until all have moved on.
    published_at: Option<Vec<u64>>,
    /// The workers' times at the last tick, and the frames they had worked on.
    before: Vec<(Times, u64)>,
    loads: Vec<Load>,
    service_rates: Estimates,
    target_rates: Estimates,
    wrong_checksums: WrongChecksums,
    attempts: LastSecond,
    /// When the next snapshot may be built.
    snapshot: Throttle,
    /// When the next [`View`] may be shown.
    view: Throttle,
}

impl ControlPlane {
    /// Starts it in the current actix system. `control` must have made the snapshot that `forwarder` started with.
    pub fn launch(
        mut control: Control,
        forwarder: Arc<Forwarder>,
        bus: Bus,
        board: Board,
        routes: Option<Addr<RouteControl>>,
    ) -> Addr<ControlPlane> {
        control.published(forwarder.tables());
        ControlPlane::create(|context| {
            let checker = Checker::new(context.address().recipient()).start();
            let before = spent(&forwarder);
            let presence = Presence::new(bus.clone());
            ControlPlane {
                control,
                forwarder,
                bus,
                watch: None,
                checker,
                routes,
                presence,
                board,
                retired: VecDeque::new(),
                published_at: None,
                before,
                loads: Vec::new(),
                service_rates: Estimates::default(),
                target_rates: Estimates::default(),
                wrong_checksums: WrongChecksums::default(),
                attempts: LastSecond::default(),
                snapshot: Throttle::default(),
                view: Throttle::default(),
            }
        })
    }

    /// Carries out what follows from an input; has a snapshot built soon if one is needed, and what is known shown.
    fn follow(&mut self, actions: Vec<Action>, context: &mut Context<ControlPlane>) {
        let acted = !actions.is_empty();
        self.carry_out(actions);
        if self.control.is_unsettled() {
            match self.snapshot.ask(monotonic()) {
                Turn::Now => self.settle(),
                Turn::In(wait) => {
                    context.run_later(wait, |control, _| {
                        control.snapshot.asked = false;
                        control.settle();
                    });
                }
                Turn::Asked => {}
            }
        }
        if acted {
            match self.view.ask(monotonic()) {
                Turn::Now => self.show(),
                Turn::In(wait) => {
                    context.run_later(wait, |control, _| {
                        control.view.asked = false;
                        control.show();
                    });
                }
                Turn::Asked => {}
            }
        }
    }

    fn settle(&mut self) {
        let began = monotonic();
        let actions = self.control.settle();
        self.carry_out(actions);
        self.snapshot.done(began, monotonic());
        self.show();
    }

    fn show(&mut self) {
        let began = monotonic();
        self.board.show(Arc::new(self.view()));
        self.view.done(began, monotonic());
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(tables) => self.publish(*tables),
                Action::Put(record) => {
                    if let (Some(routes), Record::Node(node)) = (&self.routes, &record) {
                        routes.do_send(NodeIs {
                            record: node.clone(),
                            hold: self.control.hold().map(str::to_owned),
                        });
                    }
                    match record {
                        Record::Node(_) => self.presence.say([record]),
                        _ => self.bus.put(record),
                    }
                }
                Action::Leave => self.presence.leave(),
                Action::TakeBack(key) => {
                    if let Some(Record::Target(target)) = self.bus.get(&key)
                        && target.seen_by == self.control.node()
                    {
                        self.bus.delete(&key);
                    }
                }
                Action::Check(checks) => self.checker.do_send(SetChecks(checks)),
                Action::Warn(text) => {
                    shared::log_at_most_every!(
                        Duration::from_secs(1),
                        tracing::Level::WARN,
                        "{text}"
                    );
                }
            }
        }
    }

    fn publish(&mut self, tables: Tables) {
        let tables = Arc::new(tables);
        self.control.published(tables.clone());
        self.retired.push_back(self.forwarder.publish(tables));
        self.published_at = Some(self.beats());
    }

    fn beats(&self) -> Vec<u64> {
        self.forwarder
            .worker_states()
            .iter()
            .map(|state| state.heartbeat())
            .collect()
    }

    /// Has the bus tell all it knows, then each change. One watch for all: a snapshot of it is complete, so what it lacks is known to be missing.
    fn watch_bus(&mut self, context: &mut Context<ControlPlane>) {
        if let Some(before) = self.watch.take() {
            self.bus.unwatch(before);
        }
        let to = context.address().recipient();
        self.watch = Some(self.bus.watch(Prefix::All, to));
    }

    fn tick(&mut self, context: &mut Context<ControlPlane>) {
        let spent = spent(&self.forwarder);
        let load = |((times, frames), (before, frames_before)): (&(Times, u64), &(Times, u64))| {
            let busy = self
                .forwarder
                .cycles(times.busy.saturating_sub(before.busy));
            let frames = frames.saturating_sub(*frames_before);
            Load {
                busy: times.busy_share_since(before),
                cycles_per_frame: match frames {
                    0 => 0.0,
                    frames => busy as f64 / frames as f64,
                },
            }
        };
        self.loads = spent.iter().zip(&self.before).map(load).collect();
        self.before = spent;
        let load = self.loads.iter().map(|load| load.busy).fold(0.0, f64::max);
        let now = monotonic();
        if self.service_rates.is_due(now) {
            self.estimate_rates(now);
        }
        self.look_at_attempts();
        self.control.retire(now, self.forwarder.counters());
        let first = self.bus.duplicate().filter(Duplicate::silences);
        self.control.hold_is(first.map(|first| first.to_string()));
        let actions = self.control.tick(now, load);
        self.follow(actions, context);
        self.tidy();
    }

    fn estimate_rates(&mut self, now: Duration) {
        let (counters, tables) = (self.forwarder.counters(), self.forwarder.tables());
        let services = self.control.services();
        let known = services.iter().filter_map(|service| service.id);
        let counted = known.clone().map(|id| (id, counters.service(id).into()));
        self.service_rates.look(now, counted);
        let targets = known.filter_map(|id| tables.service(id));
        let targets = targets.flat_map(|service| service.targets.iter());
        let counted = targets.map(|id| (*id, Totals::from(counters.target(*id))));
        self.target_rates.look(now, counted);
    }

    fn look_at_attempts(&mut self) {
        let (counters, tables) = (self.forwarder.counters(), self.forwarder.tables());
        let targets = tables.targets();
        self.attempts
            .look(targets.map(|target| (target.id, counters.target(target.id))));
    }

    /// Frees old snapshots and numbers once no worker can use them.
    fn tidy(&mut self) {
        let Some(then) = &self.published_at else {
            return;
        };
        // A worker loads the snapshot at the start of a round; two beats later it has finished every round begun before.
        if self
            .beats()
            .iter()
            .zip(then)
            .all(|(now, then)| *now >= then + 2)
        {
            self.published_at = None;
            self.retired.clear();
            self.control.reclaim(self.forwarder.counters());
        }
    }

    fn view(&self) -> View {
        let tables = self.forwarder.tables();
        let services = self.control.services().iter().map(|service| {
            let target = |(address, target): (&SocketAddr, &Target)| {
                let id = service.id;
                let id = id.and_then(|service| target_id(&tables, service, *address));
                TargetView {
                    address: Endpoint(*address),
                    weight: target.weight(),
                    effective_weight: service.effective_weight(*address, target),
                    up: target.is_up(),
                    draining: target.is_draining(),
                    sorry: target.sorry,
                    operator: target.intent.clone(),
                    registered_by: target.offer.as_ref().map(|offer| offer.node.clone()),
                    reason: target
                        .verdict
                        .as_ref()
                        .map_or_else(|| "not probed".into(), |verdict| verdict.reason.clone()),
                    since_unix_ms: target
                        .verdict
                        .as_ref()
                        .map_or(0, |verdict| verdict.since_unix_ms),
                    rates: id.map(|id| self.target_rates.of(&id)).unwrap_or_default(),
                    last_second: id.map(|id| self.attempts.of(&id)).unwrap_or_default(),
                    id,
                }
            };
            ServiceView {
                name: service.settings.name.clone(),
                vip: service.settings.vip,
                protocol: PROTOCOLS.of(service.settings.protocol),
                port: Ports(service.settings.ports),
                mode: service.settings.mode_name(),
                scheduler: service.settings.scheduler_name(),
                client_address: service.settings.client_address_name(),
                persistence: service.settings.policy.persistence,
                persistence_group: service.settings.persistence_group.clone(),
                limits: service.settings.policy.limits,
                rates: service
                    .id
                    .map(|id| self.service_rates.of(&id))
                    .unwrap_or_default(),
                absent_intents: service
                    .absent_intents()
                    .map(|(address, intent)| (Endpoint(*address), intent.clone()))
                    .collect(),
                healthy: service.counts().0,
                sorry: service.is_sorry(),
                targets: service.targets().map(target).collect(),
                id: service.id,
            }
        });
        let (now, counters) = (monotonic(), self.forwarder.counters());
        View {
            not_ready: self.control.ready().err(),
            draining: self.control.is_draining(),
            forwarding: *self.control.pulse() == Pulse::Beating,
            services: services.collect(),
            loads: self.loads.clone(),
            retired_addresses: self.control.retired_addresses(now, counters),
            retired_services: self.control.retired_services(now, counters),
        }
    }
}

/// The workers' times, and the frames they have worked on.
fn spent(forwarder: &Forwarder) -> Vec<(Times, u64)> {
    let counters = forwarder.counters();
    let of_worker = |(index, state): (u16, Arc<WorkerState>)| {
        let counts = counters.worker(index);
        (state.times(), counts.frames_in + counts.frames_handed_over)
    };
    (0..)
        .zip(forwarder.worker_states())
        .map(of_worker)
        .collect()
}

impl Actor for ControlPlane {
    type Context = Context<ControlPlane>;

    fn started(&mut self, context: &mut Context<ControlPlane>) {
        context.set_mailbox_capacity(MAILBOX);
        let actions = self.control.begin();
        self.follow(actions, context);
        self.watch_bus(context);
        context.run_interval(TICK, ControlPlane::tick);
    }
}

impl Handler<Change> for ControlPlane {
    type Result = ();

    fn handle(&mut self, change: Change, context: &mut Context<ControlPlane>) {
        let actions = self.control.bus(monotonic(), &change);
        if !actions.is_empty() || self.control.is_unsettled() {
            self.follow(actions, context);
        }
    }
}

impl Handler<Transition> for ControlPlane {
    type Result = ();

    fn handle(&mut self, transition: Transition, context: &mut Context<ControlPlane>) {
        let actions = self.control.health(unix_ms(), &transition);
        self.follow(actions, context);
    }
}

impl Handler<PulseIs> for ControlPlane {
    type Result = ();

    fn handle(&mut self, heard: PulseIs, context: &mut Context<ControlPlane>) {
        let actions = self.control.pulse_is(heard.pulse);
        if heard.link_is_back {
            self.control.announce_again();
        }
        self.follow(actions, context);
    }
}

impl Handler<Reload> for ControlPlane {
    type Result = Result<(), String>;

    fn handle(
        &mut self,
        Reload(config): Reload,
        context: &mut Context<ControlPlane>,
    ) -> Result<(), String> {
        let nics = self.forwarder.follow(&config);
        let actions = self
            .control
            .reload(monotonic(), &config, nics)
            .map_err(|error| error.to_string())?;
        self.follow(actions, context);
        self.watch_bus(context);
        // Who asked for it may look at once.
        self.show();
        Ok(())
    }
}

impl Handler<Intend> for ControlPlane {
    type Result = Result<Intended, String>;

    fn handle(
        &mut self,
        intend: Intend,
        context: &mut Context<ControlPlane>,
    ) -> Result<Intended, String> {
        let Intend {
            service,
            address,
            wish,
            asked,
        } = intend;
        let (intended, actions) = self.control.intend(&service, address, wish, asked)?;
        self.follow(actions, context);
        // Who asked for it may look at once.
        self.show();
        Ok(intended)
    }
}

impl Handler<Forgets> for ControlPlane {
    type Result = Vec<String>;

    fn handle(&mut self, Forgets(config): Forgets, _: &mut Context<ControlPlane>) -> Vec<String> {
        self.control.forgets(&config)
    }
}

impl Handler<Stop> for ControlPlane {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<ControlPlane>) {
        let actions = self.control.stop();
        self.follow(actions, context);
    }
}

impl Handler<Leave> for ControlPlane {
    type Result = ();

    fn handle(&mut self, _: Leave, context: &mut Context<ControlPlane>) {
        let actions = self.control.leave();
        self.follow(actions, context);
    }
}
