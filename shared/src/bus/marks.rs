//! The marks that deletes leave at the servers, and when this node clears them away. Pure: no clock, no sockets.
//!
//! By its mark a node that was cut off learns of a delete. Kept for ever, marks would fill the bucket, which is bounded and refuses new keys
//! when it is full. So the node that deleted clears its mark after a while; and as it may be gone by then, every node also clears those it
//! found when it connected. Clearing names the mark's revision, so that it never takes what was put since, and twice is as good as once.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::key::Key;
use super::store::MAX_KEYS;

/// Marks to be cleared in this session: revisions mean nothing in the next.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_key: BTreeMap<Key, (Instant, u64)>,
    by_time: BTreeSet<(Instant, Key)>,
}

impl Marks {
    /// There is a mark for `key`, to be cleared at `due`. Beyond as many as a node keeps keys it is left to the next session.
    pub(super) fn add(&mut self, key: Key, revision: u64, due: Instant) {
        self.overwritten(&key);
        if self.by_key.len() < MAX_KEYS {
            self.by_time.insert((due, key.clone()));
            self.by_key.insert(key, (due, revision));
        }
    }

    /// A record was put under `key`: it has no mark any more.
    pub(super) fn overwritten(&mut self, key: &Key) {
        if let Some((due, _)) = self.by_key.remove(key) {
            self.by_time.remove(&(due, key.clone()));
        }
    }

    /// When the next mark is to be cleared.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// A mark that is to be cleared by `now`: its key and revision.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Key, u64)> {
        if self.next_due()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        let (_, revision) = self.by_key.remove(&key)?;
        Some((key, revision))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bus::Tier;

    fn key(id: &str) -> Key {
        Key::Drain {
            tier: Tier::L4,
            id: id.to_owned(),
        }
    }

    #[test]
    fn marks_are_cleared_in_time_unless_overwritten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut marks = Marks::default();
        assert_eq!(marks.next_due(), None);
        marks.add(key("a"), 1, at(30));
        marks.add(key("b"), 2, at(10));
        marks.add(key("c"), 3, at(20));
        marks.overwritten(&key("c"));
        assert_eq!(marks.next_due(), Some(at(10)));
        assert_eq!(marks.take_due(at(9)), None);
        assert_eq!(marks.take_due(at(25)), Some((key("b"), 2)));
        assert_eq!(marks.take_due(at(25)), None);

        // Put and deleted again: the later delete counts.
        marks.add(key("a"), 7, at(40));
        assert_eq!(marks.take_due(at(39)), None);
        assert_eq!(marks.take_due(at(40)), Some((key("a"), 7)));
        assert_eq!(marks.next_due(), None);
    }

    #[test]
    fn marks_are_bounded() {
        let now = Instant::now();
        let mut marks = Marks::default();
        for number in 0..=MAX_KEYS {
            marks.add(key(&number.to_string()), 1, now);
        }
        assert_eq!(marks.by_key.len(), MAX_KEYS);
        assert_eq!(marks.by_time.len(), MAX_KEYS);
    }
}
