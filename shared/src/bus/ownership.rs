//! Who may speak under a key that is one process's own. Pure: time is an argument.
//!
//! A node's record and its registrations are written by one process each. A copy of a node (a cloned machine, a configuration copied with its
//! `node.id`), a left-over of an earlier life, or anybody with access to the bucket may write under the same key. So
//!
//! - **the owner** writes what it has to say again when somebody else wrote, and takes nothing from there;
//! - **a newcomer** that finds a record of another life listens first: if that one goes on being written, its writer lives, and the newcomer stays
//!   silent and says so; if not, it replaces it, by name;
//! - **everybody else** keeps to the life it follows until that is silent for most of its time, is replaced by name, or takes its leave.

use std::time::Duration;

use super::hearing::Heard;
use super::key::Key;
use super::life::{Life, LifeId, Signature};
use super::record::Record;

/// Two writes of another life this far apart are no left-over on its way.
const TWICE: Duration = Duration::from_secs(1);
/// How long another life is spoken of after it was heard last.
const SPOKEN_OF: Duration = Duration::from_secs(15);
/// The owner writes again at most this often: two that share a key must not drive each other.
const AGAIN: Duration = Duration::from_millis(500);
/// Time to live of records without one, to reckon with.
const NO_TTL: Duration = Duration::from_secs(10);

/// Whether one process alone has to write under a key.
pub(super) fn is_owned(key: &Key) -> bool {
    matches!(key, Key::Node { .. } | Key::Registration { .. })
}

/// Another life that writes, or wrote, under a key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rival {
    /// None: a build that doesn't say, or a stranger.
    pub(super) id: Option<LifeId>,
    pub(super) started_unix_ms: u64,
    /// Its first and last write that was heard as it came; none if its record was only found.
    live: Option<(Duration, Duration)>,
    /// How long its record holds.
    ttl: Duration,
}

impl Rival {
    /// Whether it lives beyond doubt.
    fn lives(&self, now: Duration) -> bool {
        self.live.is_some_and(|(first, last)| {
            last.saturating_sub(first) >= TWICE && now.saturating_sub(last) < SPOKEN_OF
        })
    }
}

/// What is known about who else writes under a key of ours.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// We have spoken under it.
    held: bool,
    /// The life whose place we took. Said with every write: one that is overwritten soon may never be told to those who follow.
    replaced: Option<LifeId>,
    rival: Option<Rival>,
    /// The life that took our place.
    successor: Option<LifeId>,
    written_again: Option<Duration>,
}

/// What follows from somebody else's write under a key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Nothing.
    Ignore,
    /// Ours is to be written again.
    WriteAgain,
}

impl Claim {
    /// Somebody else's write was heard: found in the bucket, or as it came.
    pub(super) fn foreign(
        &mut self,
        now: Duration,
        us: &Life,
        by: Option<Signature>,
        record: Option<&Record>,
        found: bool,
    ) -> Foreign {
        let id = by.map(|by| by.id);
        let is_of_us = id.is_some() && id == us.succeeds;
        if by.is_some_and(|by| by.replaces == Some(us.id)) {
            self.successor = id;
        }
        let is_successor = id.is_some() && id == self.successor;
        if is_successor || (is_of_us && self.held) {
            return Foreign::Ignore;
        }
        let Some(record) = record else {
            if !self.held {
                // Whoever wrote it has taken its leave.
                self.rival = None;
                return Foreign::Ignore;
            }
            return self.write_again(now);
        };
        let live = match (found, self.rival) {
            (true, before) => before.and_then(|rival| rival.live),
            (false, Some(rival)) if rival.id == id => {
                Some((rival.live.map_or(now, |(first, _)| first), now))
            }
            (false, _) => Some((now, now)),
        };
        self.rival = Some(Rival {
            id,
            started_unix_ms: by.map_or(0, |by| by.started_unix_ms),
            live,
            ttl: record.ttl().unwrap_or(NO_TTL),
        });
        match (self.held, found) {
            (true, false) => self.write_again(now),
            _ => Foreign::Ignore,
        }
    }

    fn write_again(&mut self, now: Duration) -> Foreign {
        let is_soon = |last: Duration| now.saturating_sub(last) < AGAIN;
        if self.written_again.is_some_and(is_soon) {
            return Foreign::Ignore;
        }
        self.written_again = Some(now);
        Foreign::WriteAgain
    }

    /// Speaks under the key from now on, if it may; whom it replaces. `read_at` is when the bucket had been read.
    pub(super) fn take(
        &mut self,
        now: Duration,
        us: &Life,
        read_at: Option<Duration>,
    ) -> Option<Option<LifeId>> {
        if !self.held {
            if !self.may_take(now, us, read_at) {
                return None;
            }
            self.held = true;
            self.replaced = self.rival.take().map_or(us.succeeds, |rival| rival.id);
        }
        Some(self.replaced)
    }

    /// Whether this process may begin to speak under the key.
    pub(super) fn may_take(&self, now: Duration, us: &Life, read_at: Option<Duration>) -> bool {
        read_at.is_some_and(|read_at| now >= self.free_at(us, read_at))
    }

    /// When this process may begin to speak under the key, if nobody writes meanwhile.
    pub(super) fn free_at(&self, us: &Life, read_at: Duration) -> Duration {
        match self.rival {
            None => read_at,
            Some(rival) if rival.id.is_some() && rival.id == us.succeeds => read_at,
            Some(rival) => match rival.live {
                // It says something at least thrice in its time.
                None => read_at + (rival.ttl / 3 + AGAIN).max(TWICE + AGAIN),
                Some((_, last)) => last + 2 * rival.ttl,
            },
        }
    }

    /// Another life that lives and writes under the key.
    pub(super) fn duplicate(&self, now: Duration) -> Option<Rival> {
        self.rival.filter(|rival| rival.lives(now))
    }

    /// Whether this process keeps silent for another that was there first.
    pub(super) fn yields(&self) -> bool {
        !self.held && self.rival.is_some_and(|rival| rival.live.is_some())
    }

    /// Whether this process has spoken under the key, and thus may go on.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether nobody else is known to write.
    pub(super) fn is_undisputed(&self) -> bool {
        self.rival.is_none()
    }
}

/// Whether what `by` wrote counts for those who follow `writer`, whose last write was heard at `heard_at` and holds for `ttl`.
pub(super) fn follows(
    writer: Option<LifeId>,
    by: Option<Signature>,
    heard_at: Duration,
    ttl: Option<Duration>,
    heard: Option<Heard>,
) -> bool {
    let Some(writer) = writer else {
        return true;
    };
    if by.is_some_and(|by| by.id == writer || by.replaces == Some(writer)) {
        return true;
    }
    let Some(heard) = heard else {
        return false;
    };
    // Before its record runs out, so that the next one is there when it does.
    let patience = ttl.unwrap_or(NO_TTL).max(super::Expiry::SHORTEST) * 2 / 3;
    heard.until.saturating_sub(heard_at.max(heard.since)) >= patience
}

#[cfg(test)]
mod tests;
