//! What a routing control that follows another process knows of it: the node's record on the bus, for as long as somebody stands behind it.
//! Pure: time is an argument.
//!
//! Which life of the node is followed, where two share a name, the bus settles.

use std::time::Duration;

use shared::bus::{Change, Expiry, Key, NodeRecord, Record, Tier};

/// A node as it is known from the bus.
#[derive(Debug)]
pub struct Followed {
    key: Key,
    record: Option<NodeRecord>,
    expiry: Expiry,
    /// The record ran out; the node counts as gone until it is put again.
    expired: bool,
    /// The node itself was heard of, not only what the servers kept of it: it may have died before this process began.
    proven: bool,
    /// Everything the servers kept was told.
    connected: bool,
}

impl Followed {
    /// The L4 node of this id, not heard of yet.
    pub fn new(id: &str) -> Self {
        Self {
            key: Key::Node {
                tier: Tier::L4,
                id: id.to_owned(),
            },
            record: None,
            expiry: Expiry::new(),
            expired: false,
            proven: false,
            connected: false,
        }
    }

    /// The node's record, unless it has run out or nobody is known to stand behind it.
    pub fn node(&self) -> Option<&NodeRecord> {
        self.record
            .as_ref()
            .filter(|_| self.proven && !self.expired)
    }

    /// Takes note of what the bus told at `now`; `is_own` if the record was put by this process.
    pub fn observe(&mut self, now: Duration, change: &Change, is_own: bool) {
        self.expiry.observe(now, change);
        match change {
            Change::Snapshot { prefix, records } if prefix.matches(&self.key) => {
                let record = records.iter().find(|record| record.key() == self.key);
                self.take(record);
            }
            Change::Put(record) if record.key() == self.key => {
                self.take(Some(record));
                self.expired = false;
                // Put while connected, it is more than what a dead node left at the servers.
                self.proven |= self.connected;
            }
            Change::Deleted(key) if *key == self.key => self.record = None,
            Change::Connected(connected) => self.connected = *connected,
            _ => {}
        }
        let stays = |record: &NodeRecord| record.ttl_ms == 0 || is_own;
        self.proven |= self.record.as_ref().is_some_and(stays);
    }

    /// Looks at the clock; whether the record has just run out.
    pub fn has_expired(&mut self, now: Duration) -> bool {
        let gone = self.expiry.expired(now).contains(&self.key);
        self.expired |= gone;
        gone
    }

    fn take(&mut self, record: Option<&Record>) {
        self.record = match record {
            Some(Record::Node(node)) => Some(node.clone()),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use shared::bus::{Heard, Prefix};

    use super::*;

    fn node(ttl_ms: u64) -> Record {
        NodeRecord {
            tier: Tier::L4,
            id: "l4-1".into(),
            addresses: Vec::new(),
            ready: true,
            draining: false,
            forwarding: true,
            load: 0.0,
            software: "test".into(),
            services: Vec::new(),
            ttl_ms,
        }
        .into()
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn heard(since: u64, until: u64) -> Change {
        Change::Heard(Heard {
            since: s(since),
            until: s(until),
        })
    }

    #[test]
    fn what_a_dead_node_left_is_no_proof_of_life() {
        let mut followed = Followed::new("l4-1");
        let found = Change::Snapshot {
            prefix: Prefix::Node(Tier::L4, "l4-1".into()),
            records: vec![node(3000)],
        };
        followed.observe(s(0), &found, false);
        followed.observe(s(0), &Change::Connected(true), false);
        assert!(followed.node().is_none());
        followed.observe(s(1), &Change::Put(node(3000)), false);
        assert!(followed.node().is_some());
    }

    #[test]
    fn a_node_is_gone_when_it_was_silent_and_would_have_been_heard() {
        let mut followed = Followed::new("l4-1");
        followed.observe(s(0), &Change::Connected(true), false);
        followed.observe(s(1), &Change::Put(node(3000)), false);
        assert!(!followed.has_expired(s(100)));
        followed.observe(s(4), &heard(0, 4), false);
        assert!(followed.has_expired(s(4)));
        assert!(followed.node().is_none());
        followed.observe(s(5), &Change::Put(node(3000)), false);
        assert!(followed.node().is_some());
    }

    #[test]
    fn snapshots_of_other_prefixes_say_nothing_about_it() {
        let mut followed = Followed::new("l4-1");
        followed.observe(s(1), &Change::Put(node(0)), false);
        let drains = Change::Snapshot {
            prefix: Prefix::Drain(Tier::L4, "l4-1".into()),
            records: Vec::new(),
        };
        followed.observe(s(2), &drains, false);
        assert!(followed.node().is_some());
    }
}
