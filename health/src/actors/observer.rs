//! The actor of the binary: tells the checker what to probe and the bus what was found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use shared::bus::{Bus, Change, Key, MAX_REGISTERED, Prefix, Record, Tier, WatchId, unix_ms};
use shared::presence::{BEAT, Presence, bystander};
use shared::telemetry::{WorkerTime, monotonic};

use super::checker::{Checker, SetChecks, SetLimit};
use crate::checks::Transition;
use crate::config::Config;
use crate::observation::{Consequences, Observation};

/// How long others believe it without hearing more.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// What is seen, shared with the admin listener, which reads it.
#[derive(Clone)]
pub struct View(Arc<Mutex<Observation>>);

impl View {
    /// A view of an observation.
    pub fn new(observation: Observation) -> View {
        View(Arc::new(Mutex::new(observation)))
    }

    /// Looks. Nobody may hold on to it: the observer needs it for every change.
    pub fn look(&self) -> MutexGuard<'_, Observation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Observes targets and publishes what it sees.
pub struct Observer {
    node: String,
    view: View,
    presence: Presence,
    bus: Bus,
    max_probes: usize,
    checker: Option<Addr<Checker>>,
    watch: Option<WatchId>,
}

impl Observer {
    /// An observer that begins when started, with at most `max_probes` probes at a time.
    pub fn new(node: &str, view: View, bus: Bus, max_probes: usize) -> Observer {
        Observer {
            node: node.to_owned(),
            view,
            presence: Presence::new(bus.clone()),
            bus,
            max_probes,
            checker: None,
            watch: None,
        }
    }

    fn follow(&self, consequences: Consequences) {
        for key in &consequences.delete {
            self.take_back(key);
        }
        if let Some(key) = &consequences.left_out {
            shared::log_at_most_every!(
                Duration::from_secs(10),
                tracing::Level::WARN,
                %key,
                "a registration is not followed: its service has {MAX_REGISTERED} already"
            );
        }
        if consequences.checks_changed
            && let Some(checker) = &self.checker
        {
            checker.do_send(SetChecks(self.view.look().checks()));
        }
    }

    /// Deletes the record of a target if this node wrote it: the key is the target's, and others who look at it may have spoken since.
    fn take_back(&self, key: &Key) {
        if let Some(Record::Target(target)) = self.bus.get(key)
            && target.seen_by == self.node
        {
            self.bus.delete(key);
        }
    }

    fn beat(&mut self) {
        let consequences = self.view.look().on_time(monotonic(), unix_ms());
        self.follow(consequences);
        let ready = self.view.look().complete();
        let software = concat!("weir-health ", env!("CARGO_PKG_VERSION"));
        let record = bystander(Tier::Health, &self.node, software, ready, TRUSTED_FOR);
        self.presence.say([record.into()]);
    }
}

impl Actor for Observer {
    type Context = Context<Observer>;

    fn started(&mut self, context: &mut Context<Observer>) {
        let checker = Checker::with_limit(context.address().recipient(), self.max_probes).start();
        checker.do_send(SetChecks(self.view.look().checks()));
        self.checker = Some(checker);
        self.watch = Some(self.bus.watch(Prefix::All, context.address().recipient()));
        self.beat();
        let mut time = WorkerTime::new(
            "weir_health_worker_busy_ratio",
            "weir_health_worker_time_seconds",
            0,
        );
        context.run_interval(BEAT, move |observer, _| {
            observer.beat();
            time.tick();
        });
    }
}

impl Handler<Transition> for Observer {
    type Result = ();

    fn handle(&mut self, transition: Transition, _: &mut Context<Observer>) {
        let record = self.view.look().on_transition(transition, unix_ms());
        if let Some(record) = record {
            self.bus.put(record);
        }
    }
}

impl Handler<Change> for Observer {
    type Result = ();

    fn handle(&mut self, change: Change, _: &mut Context<Observer>) {
        // Nothing follows from these, and the heartbeats of a fleet are most of what the bus carries.
        if let Change::Put(Record::Node(_) | Record::Vip(_) | Record::Drain(_)) = change {
            return;
        }
        let consequences = self.view.look().on_bus(&change, monotonic(), unix_ms());
        self.follow(consequences);
    }
}

/// Go on by this configuration. What is observed already keeps its state.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Reload(pub Arc<Config>);

impl Handler<Reload> for Observer {
    type Result = ();

    fn handle(&mut self, Reload(config): Reload, context: &mut Context<Observer>) {
        if let Some(checker) = &self.checker
            && config.max_probes != self.max_probes
        {
            checker.do_send(SetLimit(config.max_probes));
        }
        self.max_probes = config.max_probes;
        let consequences = self
            .view
            .look()
            .on_reload(config.services.clone(), unix_ms());
        self.follow(consequences);
        // Offers for services that are new were not kept: the bus tells them anew.
        if let Some(watch) = self.watch.take() {
            self.bus.unwatch(watch);
            self.watch = Some(self.bus.watch(Prefix::All, context.address().recipient()));
        }
    }
}

/// Takes back all it said, for a clean exit: what nobody observes any more is not known to be down.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TakeBack;

impl Handler<TakeBack> for Observer {
    type Result = ();

    fn handle(&mut self, _: TakeBack, context: &mut Context<Observer>) {
        if let Some(checker) = self.checker.take() {
            checker.do_send(SetChecks(Vec::new()));
        }
        // Its own deletions would only come back to it.
        if let Some(watch) = self.watch.take() {
            self.bus.unwatch(watch);
        }
        for key in self.view.look().keys() {
            self.take_back(&key);
        }
        self.presence.leave();
        actix::ActorContext::stop(context);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use shared::bus::TargetRecord;

    use super::*;
    use crate::config::ObservedService;
    use crate::settings::CheckSettings;

    /// An address where nobody listens.
    fn refused() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
    }

    async fn said(bus: &Bus, key: &Key) -> Record {
        for _ in 0..500 {
            if let Some(record) = bus.get(key) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing said of {key}");
    }

    #[actix::test]
    async fn an_observer_that_stops_leaves_the_word_of_others() {
        let (mine, shared) = (refused(), refused());
        let service = ObservedService {
            name: "web".to_owned(),
            targets: vec![mine, shared],
            from_registrations: false,
            settings: CheckSettings {
                fall: 1,
                ..CheckSettings::default()
            },
        };
        let key = |addr| Key::Target {
            service: "web".to_owned(),
            addr,
        };
        let bus = Bus::local();
        let view = View::new(Observation::new("observer-1", vec![service], 0));
        let observer = Observer::new("observer-1", view, bus.clone(), 4).start();
        let Record::Target(seen) = said(&bus, &key(shared)).await else {
            panic!("not of a target");
        };
        said(&bus, &key(mine)).await;
        assert_eq!((seen.seen_by.as_str(), seen.up), ("observer-1", false));

        let others = TargetRecord {
            seen_by: "l4-1".to_owned(),
            ..seen
        };
        bus.put(others.clone());
        observer.send(TakeBack).await.unwrap();
        assert_eq!(bus.get(&key(mine)), None);
        assert_eq!(bus.get(&key(shared)), Some(others.into()));
    }
}
