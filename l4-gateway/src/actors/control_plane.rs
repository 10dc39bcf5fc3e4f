//! Owns [`Control`], feeds it and carries out its actions.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwap;
use dataplane::{Event, ServiceId, Tables, TargetId};
use health::{Checker, SetChecks, Transition};
use serde::Serialize;
use shared::bus::{Bus, Change, Prefix, Record, WatchId, unix_ms};
use shared::telemetry::monotonic;

use crate::config::Config;
use crate::control::{Action, Control, Pulse, RetiredAddress, RetiredService, Target, target_id};
use crate::forwarder::Forwarder;
use crate::names::PROTOCOLS;
use crate::worker::{News, Times, WorkerState};

/// How often time is passed on: offers expire, others hear of this node.
const TICK: Duration = Duration::from_secs(1);

/// Changes of the bus that may wait. When more come, the bus holds back all but the last of each key.
const MAILBOX: usize = 256;

/// Between two snapshots, or two views, at least; and as many times as long as the last one took to make, so that making them takes a fifth of
/// the control side's time at most each.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_FACTOR: u32 = 4;

/// What the control side knows, for `/status` and metrics.
#[derive(Debug, Clone, Default, Serialize)]
pub struct View {
    /// Why the node is not ready; none if it is.
    pub not_ready: Option<String>,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Whether frames are forwarded.
    pub forwarding: bool,
    /// The services, in the order of the configuration.
    pub services: Vec<ServiceView>,
    /// The workers, by number; empty in the first second.
    pub loads: Vec<Load>,
    /// Addresses that left the configuration and are kept for their flows.
    pub retired_addresses: Vec<RetiredAddress>,
    /// Services that left it and still have flows.
    pub retired_services: Vec<RetiredService>,
}

/// What a worker did in the last second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// The share of its time in which it had frames, 0.0 to 1.0.
    pub busy: f64,
    /// CPU cycles of that time for each frame received or taken over; 0 in a second without.
    pub cycles_per_frame: f64,
}

/// A service as the control side knows it.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its port.
    pub port: u16,
    /// Targets that take new flows.
    pub healthy: u32,
    /// All its targets.
    pub targets: Vec<TargetView>,
    /// Its number in the data plane.
    #[serde(skip)]
    pub id: Option<ServiceId>,
}

/// A target as the control side knows it.
#[derive(Debug, Clone, Serialize)]
pub struct TargetView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u16,
    /// What it gets of it now: less while it starts slowly.
    pub effective_weight: f64,
    /// Whether it serves.
    pub up: bool,
    /// Whether it wants no new flows.
    pub draining: bool,
    /// The node that registered it; none for targets of the configuration.
    pub registered_by: Option<String>,
    /// What probes found.
    pub reason: String,
    /// Since when, in milliseconds of Unix time; 0 if nobody probed yet.
    pub since_unix_ms: u64,
    /// Its number in the data plane.
    #[serde(skip)]
    pub id: Option<TargetId>,
}

/// Where ControlPlane leaves its [`View`] for anybody to read.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<ArcSwap<View>>);

impl Board {
    /// The latest view.
    pub fn read(&self) -> Arc<View> {
        self.0.load_full()
    }
}

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
pub struct PulseIs(pub Pulse);

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

/// Owns the node's knowledge.
pub struct ControlPlane {
    control: Control,
    forwarder: Arc<Forwarder>,
    bus: Bus,
    watch: Option<WatchId>,
    checker: Addr<Checker>,
    board: Board,
    /// Snapshots that a worker may still read; the last holder frees one, and that should not be a worker.
    retired: VecDeque<Arc<Tables>>,
    /// The workers' heartbeats when the snapshot in force was published, until all have moved on.
    published_at: Option<Vec<u64>>,
    /// The workers' times at the last tick, and the frames they had worked on.
    before: Vec<(Times, u64)>,
    loads: Vec<Load>,
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
    ) -> Addr<ControlPlane> {
        control.published(forwarder.tables());
        ControlPlane::create(|context| {
            let checker = Checker::new(context.address().recipient()).start();
            let before = spent(&forwarder);
            ControlPlane {
                control,
                forwarder,
                bus,
                watch: None,
                checker,
                board,
                retired: VecDeque::new(),
                published_at: None,
                before,
                loads: Vec::new(),
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
        self.board.0.store(Arc::new(self.view()));
        self.view.done(began, monotonic());
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(tables) => self.publish(*tables),
                Action::Put(record) => self.bus.put(record),
                Action::Delete(key) => self.bus.delete(&key),
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
        self.control.retire(now, self.forwarder.counters());
        let actions = self.control.tick(now, load);
        self.follow(actions, context);
        self.tidy();
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
            let target = |(address, target): (&SocketAddr, &Target)| TargetView {
                address: *address,
                weight: target.weight(),
                effective_weight: service.effective_weight(*address, target),
                up: target.is_up(),
                draining: target.is_draining(),
                registered_by: target.offer.as_ref().map(|offer| offer.node.clone()),
                reason: target
                    .verdict
                    .as_ref()
                    .map_or_else(|| "not probed".into(), |verdict| verdict.reason.clone()),
                since_unix_ms: target
                    .verdict
                    .as_ref()
                    .map_or(0, |verdict| verdict.since_unix_ms),
                id: service
                    .id
                    .and_then(|service| target_id(&tables, service, *address)),
            };
            ServiceView {
                name: service.settings.name.clone(),
                vip: service.settings.vip,
                protocol: PROTOCOLS.of(service.settings.protocol),
                port: service.settings.port,
                healthy: service.counts().0,
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

    fn service_name(&self, id: ServiceId) -> &str {
        let known = self
            .control
            .services()
            .iter()
            .find(|service| service.id == Some(id));
        known.map_or("(removed)", |service| &service.settings.name)
    }

    fn target_address(&self, id: TargetId) -> String {
        let tables = self.forwarder.tables();
        tables.target(id).map_or_else(
            || "(removed)".into(),
            |target| target.config.address.to_string(),
        )
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

    fn handle(&mut self, PulseIs(pulse): PulseIs, context: &mut Context<ControlPlane>) {
        let actions = self.control.pulse_is(pulse);
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

impl Message for News {
    type Result = ();
}

impl Handler<News> for ControlPlane {
    type Result = ();

    /// The data plane repeats an event about once a second at most.
    fn handle(&mut self, News { worker, event }: News, _: &mut Context<ControlPlane>) {
        match event {
            Event::PortsExhausted { service, target } => {
                let (service, target) = (self.service_name(service), self.target_address(target));
                tracing::warn!(
                    worker,
                    service,
                    target,
                    "no local port is free towards the target, new flows are refused: add local_ips"
                );
            }
            Event::FlowTableFull => {
                tracing::warn!(
                    worker,
                    "the flow table is full, new flows are refused: raise workers.flows"
                );
            }
            Event::NoTarget { service } => {
                tracing::warn!(
                    worker,
                    service = self.service_name(service),
                    "no target takes new flows"
                );
            }
            Event::Unresolved { port, address } => {
                tracing::warn!(worker, port = port.0, %address, "the next hop does not answer ARP");
            }
            Event::Learned(_) => {}
        }
    }
}
