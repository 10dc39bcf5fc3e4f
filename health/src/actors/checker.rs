//! The actor that carries out [`Checks`].

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use actix::{
    Actor, AsyncContext, Context, Handler, Message, MessageResult, Recipient, SpawnHandle,
};

use crate::check::Check;
use crate::checks::{CheckStatus, Checks, Launch, Transition};
use crate::metrics;
use crate::probe::{Finding, probe};
use crate::schedule::Token;

/// Probes at a time, unless said otherwise. Leaves half of the usual 1024 open files to whoever embeds the checker.
const DEFAULT_LIMIT: usize = 512;

/// Keeps checks running and reports their states.
///
/// Runs on the arbiter it is started on, probes included; sends one [`Transition`] after the first probe of a check and one for each
/// change of its state. Checks that are taken away end without a word.
pub struct Checker {
    checks: Checks,
    to: Recipient<Transition>,
    /// The timer, and when it fires.
    timer: Option<(Instant, SpawnHandle)>,
}

impl Checker {
    /// A checker with no checks yet; start it and send it [`SetChecks`].
    pub fn new(to: Recipient<Transition>) -> Checker {
        Checker::with_limit(to, DEFAULT_LIMIT)
    }

    /// A checker with at most `limit` probes at a time. Each needs an open file; more that are due wait their turn.
    pub fn with_limit(to: Recipient<Transition>, limit: usize) -> Checker {
        let seed = RandomState::new().hash_one(std::process::id());
        Checker {
            checks: Checks::new(seed, limit),
            to,
            timer: None,
        }
    }

    /// Launches what is due, then sleeps until something is.
    fn turn(&mut self, context: &mut Context<Checker>) {
        let now = Instant::now();
        while let Some(launch) = self.checks.launch(now) {
            start(launch, context);
        }
        metrics::running(self.checks.running(), self.checks.overdue(now));
        let wake_at = self.checks.wake_at();
        if self.timer.map(|(at, _)| at) == wake_at {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            context.cancel_future(handle);
        }
        self.timer = wake_at.map(|at| {
            let handle =
                context.run_later(at.saturating_duration_since(now), |checker, context| {
                    checker.timer = None;
                    checker.turn(context);
                });
            (at, handle)
        });
    }
}

/// Probes in a task of its own: the actor polls all futures in its context whenever one is ready, which thousands would make slow.
fn start(launch: Launch, context: &Context<Checker>) {
    let checker = context.address();
    actix_rt::spawn(async move {
        let started = Instant::now();
        let finding = probe(&launch.check).await;
        metrics::probed(&launch.check, finding.outcome, started.elapsed());
        checker.do_send(Finished { launch, finding });
    });
}

impl Actor for Checker {
    type Context = Context<Checker>;
}

/// Replaces the checks: see [`Checks::set`] for what stays the same.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SetChecks(pub Vec<Check>);

impl Handler<SetChecks> for Checker {
    type Result = ();

    fn handle(&mut self, SetChecks(checks): SetChecks, context: &mut Context<Checker>) {
        metrics::register(&checks);
        self.checks.set(checks, Instant::now());
        self.turn(context);
    }
}

/// Allows another number of probes at a time.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct SetLimit(pub(super) usize);

impl Handler<SetLimit> for Checker {
    type Result = ();

    fn handle(&mut self, SetLimit(limit): SetLimit, context: &mut Context<Checker>) {
        self.checks.set_limit(limit);
        self.turn(context);
    }
}

/// Asks for the states of all checks.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<CheckStatus>")]
pub struct Statuses;

impl Handler<Statuses> for Checker {
    type Result = MessageResult<Statuses>;

    fn handle(&mut self, _: Statuses, _: &mut Context<Checker>) -> MessageResult<Statuses> {
        MessageResult(self.checks.statuses(Instant::now()))
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Finished {
    launch: Launch,
    finding: Finding,
}

impl Handler<Finished> for Checker {
    type Result = ();

    fn handle(&mut self, Finished { launch, finding }: Finished, context: &mut Context<Checker>) {
        let now = Instant::now();
        let token: Token = launch.token;
        tracing::trace!(check = %launch.check.id, address = %launch.check.address, ?finding, "probed");
        if let Some(transition) = self.checks.finished(token, finding, now) {
            let Transition {
                id,
                address,
                state,
                reason,
                first,
            } = &transition;
            tracing::info!(check = %id, %address, %state, reason, first, "target is {state}");
            metrics::changed(&launch.check, *first);
            self.to.do_send(transition);
        }
        self.turn(context);
    }
}
