//! Forgetting what nobody stands behind any more, without trusting clocks or a bus that says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Change;
use super::hearing::Heard;
use super::key::Key;
use super::record::Record;

/// Expires a record when its owner was silent for its whole time to live **while everything put was provably heard**, in one stretch.
///
/// Clocks of nodes may disagree, so none is compared. While nothing proves that this process hears, no time passes (fail static); when it hears
/// again, each record has its whole time once more. Feed it every [`Change`] and call [`Self::expired`] now and then; `now` is
/// [`crate::telemetry::monotonic`].
///
/// ```
/// use std::time::Duration;
/// use shared::bus::{Change, Expiry, Heard};
///
/// let mut expiry = Expiry::new();
/// let second = Duration::from_secs;
/// expiry.observe(second(1), &Change::Heard(Heard { since: second(0), until: second(1) }));
/// // ... a record with a ttl of 3 s is put at 1 s, then nothing proves that we hear ...
/// assert!(expiry.expired(second(3600)).is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Expiry {
    heard: Option<Heard>,
    records: BTreeMap<Key, Seen>,
    /// Keys that ran out and were not put since. The servers still have their records.
    expired: BTreeSet<Key>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Duration,
    ttl: Duration,
}

impl Expiry {
    /// The shortest time a record is given over servers, whatever its own: proofs of hearing, and the beats of its owner, are up to 1.5 s apart.
    pub const SHORTEST: Duration = Duration::from_secs(3);

    /// Knows nothing and has heard nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what a watcher was told at `now`.
    pub fn observe(&mut self, now: Duration, change: &Change) {
        match change {
            Change::Snapshot { prefix, records } => {
                let known: BTreeSet<Key> = records.iter().map(Record::key).collect();
                let stays = |key: &Key| !prefix.matches(key) || known.contains(key);
                self.records.retain(|key, _| stays(key));
                self.expired.retain(stays);
                // What the servers kept of an owner that is gone doesn't bring it back.
                for record in records {
                    if !self.expired.contains(&record.key()) {
                        self.seen(now, record);
                    }
                }
            }
            Change::Put(record) => {
                self.expired.remove(&record.key());
                self.seen(now, record);
            }
            Change::Deleted(key) => {
                self.records.remove(key);
                self.expired.remove(key);
            }
            Change::Heard(heard) => self.heard = Some(*heard),
            Change::Connected(_) => {}
        }
    }

    /// The keys that ran out by `now`. Each is told once, and again only after a new put.
    pub fn expired(&mut self, now: Duration) -> Vec<Key> {
        let Some(heard) = self.heard else {
            return Vec::new();
        };
        let shortest = match heard {
            Heard::ALWAYS => Duration::ZERO,
            _ => Self::SHORTEST,
        };
        let until = heard.until.min(now);
        let is_over = |seen: &Seen| {
            let ttl = seen.ttl.max(shortest);
            until >= seen.at.max(heard.since).saturating_add(ttl)
        };
        let over = self.records.extract_if(.., |_, seen| is_over(seen));
        let over: Vec<Key> = over.map(|(key, _)| key).collect();
        self.expired.extend(over.iter().cloned());
        over
    }

    /// Whether a key ran out and was not put since, though its record is still there.
    pub fn is_expired(&self, key: &Key) -> bool {
        self.expired.contains(key)
    }

    fn seen(&mut self, now: Duration, record: &Record) {
        match record.ttl() {
            Some(ttl) => {
                self.records.insert(record.key(), Seen { at: now, ttl });
            }
            None => {
                self.records.remove(&record.key());
            }
        }
    }
}

#[cfg(test)]
mod tests;
