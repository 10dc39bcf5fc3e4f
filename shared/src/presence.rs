//! What a process says of itself on the bus: again and again while it lives, anew when it changes, and taken back when it goes.
//!
//! One mechanism for every tier. The beat has two readers: others, who take a process for gone that is silent, and the process itself, as a record of its own
//! that comes back proves that it hears ([`crate::bus::Heard`]).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bus::{Bus, Key, NodeRecord, Record, Tier};

/// How often a process repeats its records. Proofs of hearing must be closer than 1.5 s to each other.
pub const BEAT: Duration = Duration::from_secs(1);

/// The records of one process.
pub struct Presence {
    bus: Bus,
    said: BTreeMap<Key, Record>,
    gone: bool,
}

impl Presence {
    /// Has said nothing yet.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            said: BTreeMap::new(),
            gone: false,
        }
    }

    /// Says these records, all there are of this process, and takes back what it said before and they don't hold. To be called when something has
    /// changed, and every [`BEAT`].
    pub fn say(&mut self, records: impl IntoIterator<Item = Record>) {
        if self.gone {
            return;
        }
        let records = records.into_iter().map(|record| (record.key(), record));
        let before = std::mem::replace(&mut self.said, records.collect());
        for key in before.keys().filter(|key| !self.said.contains_key(key)) {
            self.bus.delete(key);
        }
        for record in self.said.values() {
            self.bus.put(record.clone());
        }
    }

    /// Takes everything back; nothing is said after it.
    pub fn leave(&mut self) {
        self.gone = true;
        for key in std::mem::take(&mut self.said).into_keys() {
            self.bus.delete(&key);
        }
    }

    /// Falls silent and takes nothing back: the records are those of the process that took over.
    pub fn hand_over(&mut self) {
        self.gone = true;
        self.said.clear();
    }
}

/// The record of a process that forwards nothing itself, trusted for `ttl` without being repeated.
pub fn bystander(tier: Tier, id: &str, software: &str, ready: bool, ttl: Duration) -> NodeRecord {
    NodeRecord {
        tier,
        id: id.to_owned(),
        addresses: Vec::new(),
        ready,
        draining: false,
        forwarding: false,
        load: 0.0,
        software: software.to_owned(),
        services: Vec::new(),
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, ready: bool) -> Record {
        bystander(Tier::Health, id, "test", ready, Duration::from_secs(10)).into()
    }

    #[test]
    fn what_is_no_longer_said_is_taken_back_and_nothing_is_said_after_leaving() {
        let bus = Bus::local();
        let mut presence = Presence::new(bus.clone());
        let (a, b) = (record("a", true).key(), record("b", true).key());
        presence.say([record("a", true), record("b", true)]);
        presence.say([record("a", false)]);
        assert_eq!(bus.get(&a), Some(record("a", false)));
        assert_eq!(bus.get(&b), None);
        presence.leave();
        presence.say([record("a", true)]);
        assert_eq!(bus.get(&a), None);
    }

    #[test]
    fn who_hands_over_leaves_the_records_to_its_successor() {
        let bus = Bus::local();
        let mut presence = Presence::new(bus.clone());
        presence.say([record("a", true)]);
        presence.hand_over();
        presence.say([record("a", false)]);
        presence.leave();
        assert_eq!(bus.get(&record("a", true).key()), Some(record("a", true)));
    }
}
