//! When records run out, and when they don't.

use super::*;
use crate::bus::{Prefix, RegistrationRecord, Tier};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn offer_for(ttl_ms: u64) -> Record {
    RegistrationRecord {
        service: "web".into(),
        addr: "10.3.0.21:8080".parse().unwrap(),
        node: "l7-1".into(),
        weight: 1,
        draining: false,
        ttl_ms,
    }
    .into()
}

fn offer() -> Record {
    offer_for(3000)
}

fn heard(since: u64, until: u64) -> Change {
    Change::Heard(Heard {
        since: s(since),
        until: s(until),
    })
}

/// One that hears always, as within the process.
fn hearing() -> Expiry {
    let mut expiry = Expiry::new();
    expiry.observe(s(0), &Change::Heard(Heard::ALWAYS));
    expiry
}

fn snapshot(records: Vec<Record>) -> Change {
    let prefix = Prefix::All;
    Change::Snapshot { prefix, records }
}

#[test]
fn a_record_nobody_puts_again_runs_out() {
    let mut expiry = hearing();
    expiry.observe(s(0), &Change::Put(offer()));
    expiry.observe(s(2), &Change::Put(offer()));
    assert_eq!(expiry.expired(s(4)), []);
    assert_eq!(expiry.expired(s(5)), [offer().key()]);
    assert_eq!(expiry.expired(s(6)), [], "each is told once");
    assert!(expiry.is_expired(&offer().key()));
    expiry.observe(s(7), &Change::Put(offer()));
    assert!(!expiry.is_expired(&offer().key()));
    assert_eq!(expiry.expired(s(10)), [offer().key()]);
}

#[test]
fn nothing_runs_out_while_nothing_proves_that_it_would_be_heard() {
    let mut expiry = Expiry::new();
    expiry.observe(s(0), &Change::Connected(true));
    expiry.observe(s(10), &Change::Put(offer()));
    assert_eq!(expiry.expired(s(100_000)), [], "connected is not hearing");
    expiry.observe(s(100_000), &heard(9, 12));
    assert_eq!(expiry.expired(s(100_000)), []);
    expiry.observe(s(100_000), &heard(9, 13));
    assert_eq!(expiry.expired(s(100_000)), [offer().key()]);
}

#[test]
fn after_an_interruption_a_record_has_its_whole_time_again() {
    let mut expiry = Expiry::new();
    expiry.observe(s(10), &Change::Put(offer()));
    for until in 10..=12 {
        expiry.observe(s(until), &heard(5, until));
        assert_eq!(expiry.expired(s(until)), []);
    }
    for until in 20..=22 {
        expiry.observe(s(until), &heard(20, until));
        assert_eq!(expiry.expired(s(until)), []);
    }
    expiry.observe(s(23), &heard(20, 23));
    assert_eq!(expiry.expired(s(23)), [offer().key()]);
}

#[test]
fn a_stretch_that_has_not_begun_yet_counts_nothing() {
    let mut expiry = Expiry::new();
    expiry.observe(s(1), &Change::Put(offer()));
    expiry.observe(s(4), &heard(8, 4));
    assert_eq!(expiry.expired(s(100)), []);
    expiry.observe(s(11), &heard(8, 11));
    assert_eq!(expiry.expired(s(11)).len(), 1);
}

#[test]
fn a_snapshot_does_not_bring_back_what_ran_out() {
    let mut expiry = hearing();
    expiry.observe(s(0), &snapshot(vec![offer()]));
    assert_eq!(expiry.expired(s(3)), [offer().key()]);
    expiry.observe(s(4), &snapshot(vec![offer()]));
    assert!(expiry.is_expired(&offer().key()));
    assert_eq!(expiry.expired(s(100)), []);
    // The servers have forgotten it.
    expiry.observe(s(101), &snapshot(Vec::new()));
    assert!(!expiry.is_expired(&offer().key()));
}

#[test]
fn a_snapshot_says_nothing_of_keys_outside_its_prefix() {
    let mut expiry = hearing();
    expiry.observe(s(0), &Change::Put(offer()));
    let others = Change::Snapshot {
        prefix: Prefix::Drain(Tier::L4, "l4-1".into()),
        records: Vec::new(),
    };
    expiry.observe(s(2), &others);
    assert_eq!(expiry.expired(s(3)), [offer().key()]);
    expiry.observe(s(4), &others);
    assert!(expiry.is_expired(&offer().key()));
}

#[test]
fn deleted_keys_and_those_without_a_ttl_never_run_out() {
    let mut expiry = hearing();
    expiry.observe(s(0), &Change::Put(offer()));
    expiry.observe(s(1), &Change::Deleted(offer().key()));
    assert_eq!(expiry.expired(s(1000)), []);
    expiry.observe(s(1000), &Change::Put(offer_for(0)));
    assert_eq!(expiry.expired(s(2000)), []);
}

#[test]
fn a_record_lives_longer_than_proofs_are_apart() {
    let mut expiry = Expiry::new();
    expiry.observe(s(0), &Change::Put(offer_for(1000)));
    expiry.observe(s(2), &heard(0, 2));
    assert_eq!(expiry.expired(s(2)), []);
    expiry.observe(s(3), &heard(0, 3));
    assert_eq!(expiry.expired(s(3)).len(), 1);
}
