//! Forgetting what nobody stands behind any more, without trusting clocks or a lost bus.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Change;
use super::key::Key;
use super::record::Record;

/// Expires records by **connected time**: the time this receiver was connected since it last saw a put of the key.
///
/// Clocks of nodes may disagree, so none is compared. While the bus is lost no time passes: fail static. Feed it every [`Change`] and call
/// [`Self::expired`] now and then; `now` is any monotonic time since any fixed start.
///
/// ```
/// use std::time::Duration;
/// use shared::bus::{Change, Expiry};
///
/// let mut expiry = Expiry::new();
/// let second = Duration::from_secs;
/// expiry.observe(second(0), &Change::Connected(true));
/// // ... a record with a ttl of 3 s is put at 1 s, then the bus is lost at 2 s ...
/// expiry.observe(second(2), &Change::Connected(false));
/// assert!(expiry.expired(second(3600)).is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Expiry {
    connected_since: Option<Duration>,
    /// Connected time of all earlier connections.
    connected_before: Duration,
    /// When each key runs out, in connected time.
    deadlines: BTreeMap<Key, Duration>,
}

impl Expiry {
    /// Knows nothing and is not connected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what a watcher was told at `now`.
    pub fn observe(&mut self, now: Duration, change: &Change) {
        match change {
            Change::Snapshot(records) => {
                let earlier = std::mem::take(&mut self.deadlines);
                for record in records {
                    self.seen(now, record);
                    // A snapshot tells what is known, not that the putter is there: it gives no key more time than it had.
                    if let Some(deadline) = earlier.get(&record.key()) {
                        self.deadlines
                            .entry(record.key())
                            .and_modify(|new| *new = (*new).min(*deadline));
                    }
                }
            }
            Change::Put(record) => self.seen(now, record),
            Change::Deleted(key) => {
                self.deadlines.remove(key);
            }
            Change::Connected(true) => {
                self.connected_since.get_or_insert(now);
            }
            Change::Connected(false) => {
                self.connected_before = self.connected_time(now);
                self.connected_since = None;
            }
        }
    }

    /// The keys that ran out by `now`. Each is told once, and again only after a new put.
    pub fn expired(&mut self, now: Duration) -> Vec<Key> {
        let time = self.connected_time(now);
        let expired: Vec<Key> = self
            .deadlines
            .iter()
            .filter(|(_, deadline)| **deadline <= time)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &expired {
            self.deadlines.remove(key);
        }
        expired
    }

    fn seen(&mut self, now: Duration, record: &Record) {
        match record.ttl() {
            Some(ttl) => {
                let deadline = self.connected_time(now).saturating_add(ttl);
                self.deadlines.insert(record.key(), deadline);
            }
            None => {
                self.deadlines.remove(&record.key());
            }
        }
    }

    fn connected_time(&self, now: Duration) -> Duration {
        let current = self
            .connected_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.connected_before + current
    }
}
