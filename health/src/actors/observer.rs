//! The actor of the binary: tells the checker what to probe and the bus what was found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use shared::bus::{Bus, Change, Key, NodeRecord, Prefix, Tier, WatchId, unix_ms};
use shared::telemetry::monotonic;

use super::checker::{Checker, SetChecks};
use crate::checks::Transition;
use crate::observation::{Consequences, Observation};

/// How often the node says that it is there, and looks for offers that ran out.
const BEAT: Duration = Duration::from_secs(2);

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
            bus,
            max_probes,
            checker: None,
            watch: None,
        }
    }

    fn follow(&self, consequences: Consequences) {
        for key in &consequences.delete {
            self.bus.delete(key);
        }
        if consequences.checks_changed
            && let Some(checker) = &self.checker
        {
            checker.do_send(SetChecks(self.view.look().checks()));
        }
    }

    fn beat(&mut self) {
        let consequences = self.view.look().on_time(monotonic(), unix_ms());
        self.follow(consequences);
        self.bus.put(NodeRecord {
            tier: Tier::Health,
            id: self.node.clone(),
            addresses: Vec::new(),
            ready: self.view.look().complete(),
            draining: false,
            forwarding: false,
            load: 0.0,
            software: concat!("weir-health ", env!("CARGO_PKG_VERSION")).to_owned(),
            services: Vec::new(),
            ttl_ms: TRUSTED_FOR.as_millis() as u64,
        });
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
        context.run_interval(BEAT, |observer, _| observer.beat());
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
        let consequences = self.view.look().on_bus(&change, monotonic(), unix_ms());
        self.follow(consequences);
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
            self.bus.delete(&key);
        }
        self.bus.delete(&Key::Node {
            tier: Tier::Health,
            id: self.node.clone(),
        });
        actix::ActorContext::stop(context);
    }
}
