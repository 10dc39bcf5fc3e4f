//! All checks of one [`Checker`](crate::Checker): which to probe now, and what their findings change.
//!
//! Pure: the actor asks what to launch and when to wake, and reports what the probes found.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::check::{Check, CheckId};
use crate::probe::Finding;
use crate::schedule::{Schedule, Token};
use crate::threshold::{Next, Outcome, State, Threshold};

/// Forgotten entries the schedule may hold, beyond as many as there are checks.
const FORGOTTEN: usize = 64;

/// The checks and their states.
#[derive(Debug)]
pub struct Checks {
    entries: HashMap<Token, Entry>,
    tokens: HashMap<CheckId, Token>,
    schedule: Schedule,
    last_token: Token,
    running: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    check: Arc<Check>,
    threshold: Threshold,
    /// The time that is true of this check in the schedule; entries with other times are left over. None while a probe runs.
    due: Option<Instant>,
    /// When the running or last probe began.
    started: Option<Instant>,
    took: Duration,
    probes: u64,
    /// Whether a transition was ever reported.
    reported: bool,
    reason: String,
    since: Instant,
}

/// A probe to be made now. Each is answered by one [`Checks::finished`].
#[derive(Clone, Debug)]
pub struct Launch {
    /// Goes back with the finding.
    pub token: Token,
    /// What to probe.
    pub check: Arc<Check>,
}

/// A target's state is now known, or has changed.
#[derive(Clone, Debug, PartialEq, Eq, actix::Message)]
#[rtype(result = "()")]
pub struct Transition {
    /// The check.
    pub id: CheckId,
    /// What it probes.
    pub address: SocketAddr,
    /// The state now.
    pub state: State,
    /// Why, in words.
    pub reason: String,
    /// True for the first one of a check, which comes after its first probe, whether or not it differs from the configured
    /// initial state.
    pub first: bool,
}

/// The state of one check, for a status page.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckStatus {
    /// The check.
    pub id: CheckId,
    /// What it probes.
    pub address: SocketAddr,
    /// `tcp`, `udp` or `http`.
    pub kind: &'static str,
    /// The state now.
    pub state: State,
    /// False while that is still the configured initial state.
    pub decided: bool,
    /// What the last probe found, in words.
    pub reason: String,
    /// How long it has been in this state.
    pub since: Duration,
    /// How long the last probe took.
    pub took: Duration,
    /// Probes made so far.
    pub probes: u64,
}

impl Checks {
    /// No checks, at most `limit` probes at a time. `seed` sets them apart from the checks of other nodes.
    pub fn new(seed: u64, limit: usize) -> Checks {
        Checks {
            entries: HashMap::new(),
            tokens: HashMap::new(),
            schedule: Schedule::new(seed),
            last_token: 0,
            running: 0,
            limit: limit.max(1),
        }
    }

    /// Another number of probes at a time; those that run already run on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// Replaces the set of checks. One that is there already keeps its state and its schedule; under changed rules (thresholds,
    /// times) it keeps its state; with another address or probe it is a new check. Of two with the same id the first counts.
    pub fn set(&mut self, checks: Vec<Check>, now: Instant) {
        let mut wanted = HashSet::with_capacity(checks.len());
        let mut new = Vec::new();
        for check in checks {
            if !wanted.insert(check.id.clone()) {
                tracing::warn!(check = %check.id, "two checks have this id; the first one counts");
                continue;
            }
            match self.tokens.get(&check.id).copied() {
                Some(token) if self.adopts(token, &check) => self.change_rules(token, check, now),
                Some(token) => {
                    self.entries.remove(&token);
                    new.push(check);
                }
                None => new.push(check),
            }
        }
        self.tokens.retain(|id, token| {
            let keep = wanted.contains(id);
            if !keep {
                self.entries.remove(token);
            }
            keep
        });
        let batch = new.len();
        for check in new {
            self.enter(check, now, batch);
        }
        self.tidy();
        self.check_invariants();
    }

    /// Takes the next probe to be made, if one is due and fewer run than may.
    pub fn launch(&mut self, now: Instant) -> Option<Launch> {
        while self.running < self.limit {
            let (due, token) = self.schedule.take_due(now)?;
            let Some(entry) = self
                .entries
                .get_mut(&token)
                .filter(|entry| entry.due == Some(due))
            else {
                continue;
            };
            entry.due = None;
            entry.started = Some(now);
            self.running += 1;
            return Some(Launch {
                token,
                check: entry.check.clone(),
            });
        }
        None
    }

    /// Takes in what a launched probe found.
    pub fn finished(&mut self, token: Token, finding: Finding, now: Instant) -> Option<Transition> {
        debug_assert!(self.running > 0, "each launch finishes once");
        self.running -= 1;
        // The check may have been taken away meanwhile.
        let entry = self.entries.get_mut(&token)?;
        let started = entry.started.unwrap_or(now);
        entry.took = now.saturating_duration_since(started);
        entry.probes += 1;
        let step = entry.threshold.observe(finding.outcome);
        entry.due = Some(match step.next {
            Next::Interval => self.schedule.after(
                token,
                started,
                now,
                entry.check.settings.interval,
                entry.check.settings.jitter,
            ),
            Next::Retry => self
                .schedule
                .at(token, now + entry.check.settings.retry_delay),
        });
        entry.reason = finding.reason;
        if step.change.is_some() {
            entry.since = now;
        }
        // Retries come before the first verdict as before any other, and a probe this node could not make is none.
        let first =
            !entry.reported && step.next == Next::Interval && finding.outcome != Outcome::Unknown;
        if step.change.is_none() && !first {
            return None;
        }
        entry.reported = true;
        Some(Transition {
            id: entry.check.id.clone(),
            address: entry.check.address,
            state: entry.threshold.state(),
            reason: entry.reason.clone(),
            first,
        })
    }

    /// When to ask for launches again; None when only a finished probe or new checks can bring any.
    pub fn wake_at(&self) -> Option<Instant> {
        if self.running < self.limit {
            self.schedule.next_due()
        } else {
            None
        }
    }

    /// Probes running now.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How long the check that waits longest is overdue: above zero for long when `limit` is too low for the checks.
    pub fn overdue(&self, now: Instant) -> Duration {
        self.schedule
            .next_due()
            .map_or(Duration::ZERO, |due| now.saturating_duration_since(due))
    }

    /// The states of all checks, by id.
    pub fn statuses(&self, now: Instant) -> Vec<CheckStatus> {
        let mut statuses: Vec<CheckStatus> = self
            .entries
            .values()
            .map(|entry| CheckStatus {
                id: entry.check.id.clone(),
                address: entry.check.address,
                kind: entry.check.settings.probe.kind(),
                state: entry.threshold.state(),
                decided: entry.threshold.decided(),
                reason: entry.reason.clone(),
                since: now.saturating_duration_since(entry.since),
                took: entry.took,
                probes: entry.probes,
            })
            .collect();
        statuses.sort_by(|one, other| one.id.cmp(&other.id));
        statuses
    }

    /// Entries of checks that went stay in the schedule until they would have been due, an interval later: checks that come and go must not
    /// pile them up meanwhile.
    fn tidy(&mut self) {
        if self.schedule.entries() > 2 * self.entries.len() + FORGOTTEN {
            let entries = &self.entries;
            self.schedule.retain(|due, token| {
                entries
                    .get(&token)
                    .is_some_and(|entry| entry.due == Some(due))
            });
        }
    }

    fn adopts(&self, token: Token, check: &Check) -> bool {
        self.entries.get(&token).is_some_and(|entry| {
            entry.check.address == check.address
                && entry.check.settings.probe == check.settings.probe
        })
    }

    fn change_rules(&mut self, token: Token, check: Check, now: Instant) {
        let Some(entry) = self
            .entries
            .get_mut(&token)
            .filter(|entry| *entry.check != check)
        else {
            return;
        };
        if entry.check.settings.thresholds() != check.settings.thresholds() {
            entry.threshold.set_rules(check.settings.thresholds());
        }
        let interval_changed = entry.check.settings.interval != check.settings.interval;
        entry.check = Arc::new(check);
        if interval_changed && entry.due.is_some() {
            let started = entry.started.unwrap_or(now);
            entry.due = Some(self.schedule.after(
                token,
                started,
                now,
                entry.check.settings.interval,
                entry.check.settings.jitter,
            ));
        }
    }

    fn enter(&mut self, check: Check, now: Instant, batch: usize) {
        self.last_token += 1;
        let token = self.last_token;
        self.tokens.insert(check.id.clone(), token);
        let entry = Entry {
            threshold: Threshold::new(check.settings.thresholds()),
            due: Some(
                self.schedule
                    .enter(token, now, check.settings.interval, batch),
            ),
            started: None,
            took: Duration::ZERO,
            probes: 0,
            reported: false,
            reason: "not probed yet".to_owned(),
            since: now,
            check: Arc::new(check),
        };
        self.entries.insert(token, entry);
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.entries.len(), self.tokens.len());
        debug_assert!(self.tokens.iter().all(|(id, token)| {
            self.entries
                .get(token)
                .is_some_and(|entry| entry.check.id == *id && *token <= self.last_token)
        }));
    }
}

#[cfg(test)]
mod tests;
