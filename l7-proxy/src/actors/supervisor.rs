//! The actor that carries out what [`Node`] decides, and passes health on to the backends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use health::{Check, CheckId, Checker, SetChecks, Transition};
use shared::bus::{Bus, Change, Key, Prefix, Record, Tier};
use tokio::sync::{oneshot, watch};

use super::node::Node;
use crate::accept::Open;
use crate::balance::{Backend, State};
use crate::drain::Course;
use crate::snapshot::Snapshot;

/// How often the node looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Why each backend is in its state, by `upstream/address`; for `/status`.
#[derive(Clone, Debug, Default)]
pub struct Reasons(Arc<Mutex<HashMap<String, String>>>);

impl Reasons {
    /// What the last change of a backend's state was for.
    pub fn of(&self, upstream: &str, backend: std::net::SocketAddr) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&format!("{upstream}/{backend}"))
            .cloned()
    }

    fn set(&self, id: &str, reason: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned(), reason);
    }
}

/// One per process.
pub struct Supervisor {
    node: Node,
    snapshot: Arc<Snapshot>,
    bus: Bus,
    open: Open,
    course: watch::Sender<Course>,
    backends: HashMap<CheckId, Arc<Backend>>,
    reasons: Reasons,
    drain_key: Key,
    finished: Option<oneshot::Sender<()>>,
    withdrawn: bool,
}

impl Supervisor {
    /// Supervises workers that listen to `course`. `finished` hears when the process may exit.
    pub fn new(
        snapshot: Arc<Snapshot>,
        bus: Bus,
        open: Open,
        course: watch::Sender<Course>,
        finished: oneshot::Sender<()>,
    ) -> Supervisor {
        let id = snapshot.config.node.id.clone();
        Supervisor {
            node: Node::new(&snapshot.config),
            snapshot,
            bus,
            open,
            course,
            backends: HashMap::new(),
            reasons: Reasons::default(),
            drain_key: Key::Drain { tier: Tier::L7, id },
            finished: Some(finished),
            withdrawn: false,
        }
    }

    /// Why backends are in their states.
    pub fn reasons(&self) -> Reasons {
        self.reasons.clone()
    }

    fn checks(&mut self) -> Vec<Check> {
        let mut checks = Vec::new();
        for upstream in self.snapshot.upstreams() {
            let Some(settings) = &upstream.settings.health else {
                continue;
            };
            for backend in &upstream.backends {
                let id = CheckId::from(format!("{}/{}", upstream.name, backend.address()));
                checks.push(settings.check(id.clone(), backend.address()));
                self.backends.insert(id, backend.clone());
            }
        }
        checks
    }

    fn tick(&mut self) {
        if self.withdrawn {
            return;
        }
        let limit = self
            .snapshot
            .config
            .listeners
            .iter()
            .map(|listener| listener.max_connections)
            .sum();
        let verdict = self.node.tick(Instant::now(), self.open.total(), limit);
        let before = *self.course.borrow();
        if before != verdict.course {
            tracing::info!(
                phase = verdict.course.phase.name(),
                exiting = verdict.course.exiting,
                connections = self.open.total(),
                "drain"
            );
            self.course.send_replace(verdict.course);
        }
        for record in verdict.records {
            self.bus.put(record);
        }
        if verdict.finished
            && let Some(finished) = self.finished.take()
        {
            let _ = finished.send(());
        }
    }

    fn hear(&mut self, record: Option<&Record>) {
        let drain = match record {
            Some(Record::Drain(drain)) => Some(drain),
            _ => None,
        };
        self.node.want_by_bus(drain, Instant::now());
        self.tick();
    }
}

impl Actor for Supervisor {
    type Context = Context<Supervisor>;

    fn started(&mut self, context: &mut Context<Supervisor>) {
        let checks = self.checks();
        if !checks.is_empty() {
            Checker::new(context.address().recipient())
                .start()
                .do_send(SetChecks(checks));
        }
        self.bus.watch(
            Prefix::Drain(Tier::L7, self.snapshot.config.node.id.clone()),
            context.address().recipient(),
        );
        self.tick();
        context.run_interval(TICK, |supervisor, _| supervisor.tick());
    }
}

impl Handler<Transition> for Supervisor {
    type Result = ();

    fn handle(&mut self, transition: Transition, _: &mut Context<Supervisor>) {
        if let Some(backend) = self.backends.get(&transition.id) {
            backend.set_state(if transition.state.is_up() {
                State::Up
            } else {
                State::Down
            });
            self.reasons.set(transition.id.as_str(), transition.reason);
        }
    }
}

impl Handler<Change> for Supervisor {
    type Result = ();

    fn handle(&mut self, change: Change, _: &mut Context<Supervisor>) {
        match change {
            Change::Snapshot(records) => {
                self.hear(records.iter().find(|record| record.key() == self.drain_key))
            }
            Change::Put(record) if record.key() == self.drain_key => self.hear(Some(&record)),
            Change::Deleted(key) if key == self.drain_key => self.hear(None),
            Change::Put(_) | Change::Deleted(_) | Change::Connected(_) => {}
        }
    }
}

/// Drain (`true`), or serve again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<&'static str, &'static str>")]
pub struct Drain(pub bool);

impl Handler<Drain> for Supervisor {
    type Result = Result<&'static str, &'static str>;

    fn handle(&mut self, Drain(drain): Drain, _: &mut Context<Supervisor>) -> Self::Result {
        let outcome = self.node.want_here(drain, Instant::now());
        self.tick();
        outcome
    }
}

/// Drain, then let the process exit.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Exit;

impl Handler<Exit> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Exit, _: &mut Context<Supervisor>) {
        self.node.exit(Instant::now());
        self.tick();
    }
}

/// Takes back everything this node has put on the bus.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Withdraw;

impl Handler<Withdraw> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Withdraw, _: &mut Context<Supervisor>) {
        self.withdrawn = true;
        for key in self.node.keys() {
            self.bus.delete(&key);
        }
    }
}
