//! Whether this process hears what is put on the bus, proven and not assumed. Pure: time is an argument.
//!
//! A connection that lives proves little: the server that reads the bucket for us may be dead, the bucket gone or replaced, its servers without
//! a quorum. The silence of others is theirs only while we would have heard them. What proves that is a **put of our own that comes
//! back**: the servers took it (they have a leader and a quorum, so others could put as well) and told us of it, after all that was put before
//! it, as messages come in their order. The reader's idle heartbeats prove less: they come from a reader of an empty bucket too.
//!
//! ```text
//!   put sent ──> servers took it as revision 7 ──> reader tells of revision 7 or later
//!      s                                                proven: heard all until s
//! ```
//!
//! Proofs that follow each other closely make a stretch, [`Heard`]; whatever is not proven ends it. A new session, a renewed reader, a put refused or
//! held up also gives the others time to come back before the next stretch begins: they may have been cut off with us, and take as long as we may.

use std::collections::VecDeque;
use std::time::Duration;

/// Two proofs further apart don't join: in between the bus may have been away, and records live for [`super::Expiry::SHORTEST`] at least.
const JOINED: Duration = Duration::from_millis(1500);
/// A put that comes back later than this was held up on its way, as those of others may be still.
const PROMPT: Duration = Duration::from_secs(1);
/// Puts closer to the last one than this are not looked at: proofs need not come faster.
const SPACING: Duration = Duration::from_millis(200);
/// How long the reader may leave a put untold that the servers took, before it is renewed. Doubles with each renewal up to the longest: servers
/// that are slow are not helped by having to tell everything again.
const PATIENCE_FIRST: Duration = Duration::from_secs(1);
const PATIENCE_LONGEST: Duration = Duration::from_secs(16);
/// A stretch of this length means that all is well again.
const WELL: Duration = Duration::from_secs(30);
/// Puts waiting for their proof.
const MOST: usize = 64;

/// A stretch in which everything put on the bus was provably heard, by [`crate::telemetry::monotonic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// When others are held to be silent from, at the earliest.
    pub since: Duration,
    /// Until when everything put was heard.
    pub until: Duration,
}

impl Heard {
    /// Within the process nothing can be missed.
    pub const ALWAYS: Self = Self {
        since: Duration::ZERO,
        until: Duration::MAX,
    };
}

/// Names a put whose fate is told later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// Nothing new.
    Noted,
    /// The stretch has grown.
    Heard(Heard),
    /// The servers count from an earlier revision than was known: the bucket is another one, or an older state of it.
    RolledBack,
}

/// The keeper of proofs.
#[derive(Debug)]
pub(super) struct Hearing {
    /// Time others are given to come back after an interruption.
    grace: Duration,
    puts: VecDeque<Put>,
    next_ticket: u64,
    last_looked_at: Option<Duration>,
    /// Whether the reader has told all there was when it began.
    reading: bool,
    /// Highest revision the reader told of.
    told: u64,
    /// Highest revision known of the bucket.
    known: u64,
    heard: Option<Heard>,
    interrupted: bool,
    patience: Duration,
}

#[derive(Debug)]
struct Put {
    ticket: Ticket,
    sent: Duration,
    /// Revisions known when it was sent: its own is higher.
    after: u64,
    /// Its revision, once the servers took it.
    revision: Option<u64>,
    /// When it is overdue to be told of.
    told_by: Duration,
}

impl Hearing {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            puts: VecDeque::new(),
            next_ticket: 0,
            last_looked_at: None,
            reading: false,
            told: 0,
            known: 0,
            heard: None,
            interrupted: true,
            patience: PATIENCE_FIRST,
        }
    }

    /// The session, or the reader, is a new one.
    pub(super) fn interrupted(&mut self) {
        self.reading = false;
        self.told = 0;
        self.known = 0;
        self.puts.clear();
        self.last_looked_at = None;
        self.cut_off();
    }

    /// The reader has told all that was there up to `revision`, and tells of changes from now on.
    pub(super) fn current(&mut self, now: Duration, revision: u64) -> Option<Heard> {
        self.reading = true;
        self.told(now, revision)
    }

    /// A put is on its way. None if it need not be followed.
    pub(super) fn sent(&mut self, now: Duration) -> Option<Ticket> {
        let is_close = |last: Duration| now.saturating_sub(last) < SPACING;
        if self.last_looked_at.is_some_and(is_close) || self.puts.len() >= MOST {
            return None;
        }
        self.last_looked_at = Some(now);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.puts.push_back(Put {
            ticket,
            sent: now,
            after: self.known,
            revision: None,
            told_by: Duration::MAX,
        });
        Some(ticket)
    }

    /// The servers took a put.
    pub(super) fn acknowledged(
        &mut self,
        now: Duration,
        ticket: Ticket,
        revision: u64,
    ) -> Acknowledged {
        let patience = self.patience;
        let Some(put) = self.puts.iter_mut().find(|put| put.ticket == ticket) else {
            return Acknowledged::Noted;
        };
        if revision <= put.after {
            return Acknowledged::RolledBack;
        }
        put.revision = Some(revision);
        put.told_by = now.saturating_add(patience);
        self.known = self.known.max(revision);
        self.prove(now)
            .map_or(Acknowledged::Noted, Acknowledged::Heard)
    }

    /// A put did not go out after all.
    pub(super) fn not_sent(&mut self, ticket: Option<Ticket>) {
        self.puts.retain(|put| Some(put.ticket) != ticket);
    }

    /// The servers did not take a put: others may be refused as well, and silent for it.
    pub(super) fn refused(&mut self, ticket: Option<Ticket>) {
        self.not_sent(ticket);
        self.cut_off();
    }

    /// Others may have been cut off as well.
    fn cut_off(&mut self) {
        self.heard = None;
        self.interrupted = true;
    }

    /// The reader told of a change.
    pub(super) fn told(&mut self, now: Duration, revision: u64) -> Option<Heard> {
        self.told = self.told.max(revision);
        self.known = self.known.max(revision);
        // A reader that works its way through much is no dead one.
        let told_by = now.saturating_add(self.patience);
        for put in self.puts.iter_mut().filter(|put| put.revision.is_some()) {
            put.told_by = told_by;
        }
        self.prove(now)
    }

    /// When the reader is to be given up, if it tells nothing until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let overdue = self.puts.iter().map(|put| put.told_by).min()?;
        (self.reading && overdue < Duration::MAX).then_some(overdue)
    }

    /// The reader was given up: the next one is given more time.
    pub(super) fn gave_up(&mut self) {
        self.patience = (self.patience * 2).min(PATIENCE_LONGEST);
    }

    /// The stretch that lasts, if its last proof is recent.
    pub(super) fn heard(&self, now: Duration) -> Option<Heard> {
        self.heard
            .filter(|heard| now.saturating_sub(heard.until) <= 2 * JOINED)
    }

    fn prove(&mut self, now: Duration) -> Option<Heard> {
        if !self.reading {
            return None;
        }
        let is_proven = |put: &Put| put.revision.is_some_and(|revision| revision <= self.told);
        let last = self.puts.iter().rposition(is_proven)?;
        // What was sent before and is not proven yet proves nothing more.
        let until = self.puts.drain(..=last).next_back()?.sent;
        if now.saturating_sub(until) > PROMPT {
            self.cut_off();
            return None;
        }
        let since = match self.heard {
            Some(heard) if until.saturating_sub(heard.until) <= JOINED => heard.since,
            _ if self.interrupted => until + self.grace,
            _ => until,
        };
        self.interrupted = false;
        let heard = Heard { since, until };
        self.heard = Some(heard);
        if until.saturating_sub(since) >= WELL {
            self.patience = PATIENCE_FIRST;
        }
        Some(heard)
    }
}

#[cfg(test)]
mod tests;
