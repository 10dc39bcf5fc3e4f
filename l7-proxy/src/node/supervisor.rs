//! The actor that carries out what [`Node`] decides, and passes health on to the backends.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use health::{CheckId, Checker, SetChecks, Transition};
use shared::bus::{Bus, Change, Key, Prefix, Record, Tier};
use shared::lifecycle::Request;
use shared::presence::Presence;
use tokio::sync::{oneshot, watch};

use super::drain::Drain as Leave;
use super::handover::{Down, Inheritance};
use super::reload::Prepared;
use super::state::Node;
use super::view::{Board, View};
use crate::config::Drain as DrainSettings;
use crate::edge::accept::{Door, Hands};
use crate::exchange::{Course, Phase};
use crate::upstream::{Backend, Member, State, Upstream};

/// How often the node looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Time for the last lines to reach an access log that is left.
const FLUSH_TIME: Duration = Duration::from_secs(2);

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

    fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| stays(id));
    }
}

/// One per process.
pub struct Supervisor {
    node: Node,
    board: Board,
    presence: Presence,
    bus: Bus,
    hands: Hands,
    course: watch::Sender<Course>,
    /// Doors that left the configuration, each with a drain of its own.
    leaving: Vec<(Door, Leave)>,
    checker: Option<Addr<Checker>>,
    backends: HashMap<CheckId, Arc<Backend>>,
    reasons: Reasons,
    drain_key: Key,
    /// Connections that were open when the time was over of the drain that the process exits after.
    cut: usize,
    finished: Option<oneshot::Sender<usize>>,
    withdrawn: bool,
}

impl Supervisor {
    /// Supervises workers that serve what is on the board and are moved on by `hands`. `course` tells others where the node's drain stands,
    /// `finished` hears when the process may exit, and how many connections were cut for it.
    pub fn new(
        board: Board,
        bus: Bus,
        hands: Hands,
        course: watch::Sender<Course>,
        finished: oneshot::Sender<usize>,
    ) -> Supervisor {
        let node = Node::new(&board.load().snapshot.config);
        let id = board.load().snapshot.config.node.id.clone();
        Supervisor {
            node,
            board,
            presence: Presence::new(bus.clone()),
            bus,
            hands,
            course,
            leaving: Vec::new(),
            checker: None,
            backends: HashMap::new(),
            reasons: Reasons::default(),
            drain_key: Key::Drain { tier: Tier::L7, id },
            cut: 0,
            finished: Some(finished),
            withdrawn: false,
        }
    }

    /// Why backends are in their states.
    pub fn reasons(&self) -> Reasons {
        self.reasons.clone()
    }

    /// Has the backends of the current generation checked, and forgets what is known of others.
    fn check(&mut self) {
        let mut checks = Vec::new();
        self.backends.clear();
        for upstream in self.board.load().snapshot.upstreams() {
            for Member { backend, .. } in &upstream.members {
                let Some(settings) = &upstream.settings.health else {
                    // Nobody would bring back a backend that was down when its checks were taken away.
                    backend.set_state(State::Up);
                    continue;
                };
                let id = CheckId::from(format!("{}/{}", upstream.name, backend.address()));
                checks.push(settings.check(id.clone(), backend.address()));
                self.backends.insert(id, backend.clone());
            }
        }
        self.reasons
            .retain(|id| self.backends.contains_key(&CheckId::from(id.to_owned())));
        if let Some(checker) = &self.checker {
            checker.do_send(SetChecks(checks));
        }
    }

    fn tick(&mut self) {
        if self.withdrawn {
            return;
        }
        let now = Instant::now();
        let view = self.board.load_full();
        let connections = view.connections();
        let verdict = self.node.tick(now, connections, view.connection_limit());
        let before = *self.course.borrow();
        if before != verdict.course {
            tracing::info!(
                pid = std::process::id(),
                phase = verdict.course.phase.name(),
                exiting = verdict.course.exiting,
                connections,
                "drain"
            );
            self.cut = match verdict.course {
                Course {
                    phase: Phase::Ended,
                    exiting: true,
                    ..
                } => self.cut.max(connections),
                _ => 0,
            };
            self.course.send_replace(verdict.course);
        }
        for door in &view.doors {
            door.steer(verdict.course);
        }
        self.let_leave(now, verdict.course, &view);
        if !verdict.records.is_empty() {
            self.presence.say(verdict.records);
        }
        if verdict.finished
            && let Some(finished) = self.finished.take()
        {
            let _ = finished.send(self.cut);
        }
    }

    /// Turns the drains of the doors that left, and forgets those nobody is behind any more.
    fn let_leave(&mut self, now: Instant, node: Course, view: &View) {
        let before = self.leaving.len();
        self.leaving.retain(|(door, leave)| {
            let own = leave.course(now);
            door.steer(Course {
                phase: own.phase.max(node.phase),
                ..own
            });
            !leave.finished(now, door.behind())
        });
        if self.leaving.len() != before {
            self.board.store(Arc::new(View {
                leaving: self.leaving_doors(),
                ..view.clone()
            }));
        }
    }

    fn leaving_doors(&self) -> Vec<Door> {
        self.leaving.iter().map(|(door, _)| door.clone()).collect()
    }

    /// Serves by another generation from now on. Ends when every worker does.
    fn apply(&mut self, prepared: Prepared) -> impl Future<Output = ()> + use<> {
        let now = Instant::now();
        let before = self.board.load_full();
        let mut next = prepared.view(Some(&before));
        let config = &next.snapshot.config;
        self.node.reconfigure(config);
        let stays = |door: &&Door| {
            next.doors
                .iter()
                .any(|other| other.address() == door.address())
        };
        let drain = DrainSettings {
            grace: Duration::ZERO,
            ..config.drain
        };
        for (_, leave) in &mut self.leaving {
            leave.reconfigure(drain);
        }
        for door in before.doors.iter().filter(|door| !stays(door)) {
            let mut leave = Leave::new(drain);
            leave.start(now, true);
            self.leaving.push((door.clone(), leave));
        }
        next.leaving = self.leaving_doors();
        self.board.store(Arc::new(next));
        let left_log = prepared.log.and_then(|_| before.log.clone());
        let adopted = self.hands.adopt(prepared.equipment);
        self.check();
        self.tick();
        async move {
            adopted.await;
            // Every worker has handed over what it had for the log that is left.
            if let Some((_, writer)) = left_log {
                let ended = tokio::task::spawn_blocking(move || writer.finish(FLUSH_TIME)).await;
                if !ended.unwrap_or(false) {
                    tracing::warn!(
                        "the access log that was left did not take its last lines within {FLUSH_TIME:?}"
                    );
                }
            }
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
        self.checker = Some(Checker::new(context.address().recipient()).start());
        self.check();
        self.bus.watch(
            Prefix::Drain(Tier::L7, self.board.load().snapshot.config.node.id.clone()),
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
            Change::Snapshot { records, .. } => {
                self.hear(records.iter().find(|record| record.key() == self.drain_key))
            }
            Change::Put(record) if record.key() == self.drain_key => self.hear(Some(&record)),
            Change::Deleted(key) if key == self.drain_key => self.hear(None),
            Change::Put(_) | Change::Deleted(_) | Change::Connected(_) | Change::Heard(_) => {}
        }
    }
}

/// Serve by another generation of the configuration. Answered when every worker does; it can't fail.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Apply(pub Prepared);

impl Handler<Apply> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Apply(prepared): Apply, _: &mut Context<Supervisor>) -> Self::Result {
        Box::pin(self.apply(prepared))
    }
}

/// What a process that takes over is given.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Inheritance, String>")]
pub(super) struct Bequeath;

impl Handler<Bequeath> for Supervisor {
    type Result = Result<Inheritance, String>;

    fn handle(&mut self, _: Bequeath, _: &mut Context<Supervisor>) -> Self::Result {
        if self.node.course(Instant::now()).draining() {
            return Err(
                "the node drains: what comes all the same is served by this process".into(),
            );
        }
        let view = self.board.load();
        let sockets = |door: &Door| Ok((door.configured(), door.sockets()?));
        let listeners = view.doors.iter().map(sockets).collect::<io::Result<_>>();
        let down = |upstream: &Arc<Upstream>| {
            let name = upstream.name.to_string();
            let members = upstream.members.iter();
            let down = members.filter(|member| member.backend.state() == State::Down);
            down.map(move |member| Down {
                upstream: name.clone(),
                address: member.backend.address(),
            })
            .collect::<Vec<_>>()
        };
        Ok(Inheritance {
            listeners: listeners.map_err(|error| format!("duplicating sockets: {error}"))?,
            admin: None,
            down: view.snapshot.upstreams().iter().flat_map(down).collect(),
        })
    }
}

/// Another process serves in this one's place, under the same name: stop accepting, drain, exit. Answered with what that one is to be asked.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<Request>")]
pub(super) struct HandOver;

impl Handler<HandOver> for Supervisor {
    type Result = MessageResult<HandOver>;

    fn handle(&mut self, _: HandOver, _: &mut Context<Supervisor>) -> Self::Result {
        let asked = self.node.hand_over(Instant::now());
        self.tick();
        MessageResult(asked)
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
        if self.node.course(Instant::now()).handed_over {
            self.presence.hand_over();
        }
        self.presence.leave();
    }
}
