//! Two with one name, left-overs and strangers, as the owner, a newcomer and a follower see them.

use super::*;
use crate::bus::{DrainRecord, NodeRecord, Tier};

const TTL: u64 = 3;

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn life() -> Life {
    Life::begin()
}

fn by(life: Life) -> Option<Signature> {
    Some(Signature {
        id: life.id,
        started_unix_ms: 7,
        replaces: None,
    })
}

fn node() -> Record {
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
        ttl_ms: TTL * 1000,
    }
    .into()
}

/// One that has spoken under its key.
fn owner(us: &Life) -> Claim {
    let mut claim = Claim::default();
    assert_eq!(claim.take(s(0.0), us, Some(s(0.0))), Some(None));
    claim
}

#[test]
fn only_a_nodes_record_and_its_registrations_are_owned() {
    let drain = DrainRecord {
        tier: Tier::L4,
        id: "l4-1".into(),
        drain: true,
        by: "x".into(),
        since_unix_ms: 0,
    };
    assert!(is_owned(&node().key()));
    assert!(!is_owned(&Record::from(drain).key()));
}

#[test]
fn an_owner_writes_again_what_others_wrote_or_deleted_and_not_faster_than_it_must() {
    let (us, them) = (life(), life());
    let mut claim = owner(&us);
    for (at, what, expected) in [
        (1.0, Some(node()), Foreign::WriteAgain),
        (1.1, None, Foreign::Ignore),
        (1.6, None, Foreign::WriteAgain),
    ] {
        let found = claim.foreign(s(at), &us, by(them), what.as_ref(), false);
        assert_eq!(found, expected, "at {at}");
    }
    // A stranger who doesn't say who it is.
    let stranger = claim.foreign(s(3.0), &us, None, Some(&node()), false);
    assert_eq!(stranger, Foreign::WriteAgain);
}

#[test]
fn one_write_is_no_duplicate_and_two_a_second_apart_are() {
    let (us, them) = (life(), life());
    let mut claim = owner(&us);
    claim.foreign(s(1.0), &us, by(them), Some(&node()), false);
    claim.foreign(s(1.5), &us, by(them), Some(&node()), false);
    assert_eq!(claim.duplicate(s(1.5)), None);
    claim.foreign(s(2.0), &us, by(them), Some(&node()), false);
    let rival = claim.duplicate(s(2.0)).unwrap();
    assert_eq!((rival.id, rival.started_unix_ms), (Some(them.id), 7));
    assert!(!claim.yields());
    assert_eq!(claim.duplicate(s(60.0)), None, "it is gone");
}

#[test]
fn a_newcomer_replaces_an_earlier_life_that_says_nothing() {
    let (us, earlier) = (life(), life());
    let mut claim = Claim::default();
    claim.foreign(s(1.0), &us, by(earlier), Some(&node()), true);
    assert_eq!(
        claim.take(s(1.0), &us, None),
        None,
        "the bucket is not read"
    );
    assert_eq!(claim.take(s(1.1), &us, Some(s(1.0))), None);
    assert_eq!(claim.take(s(2.4), &us, Some(s(1.0))), None);
    assert_eq!(
        claim.take(s(2.5), &us, Some(s(1.0))),
        Some(Some(earlier.id))
    );
    assert_eq!(
        claim.take(s(2.6), &us, Some(s(1.0))),
        Some(Some(earlier.id)),
        "who missed the first write hears it with the next"
    );
}

#[test]
fn a_newcomer_is_silent_while_another_lives_until_it_leaves_or_dies() {
    let (us, first) = (life(), life());
    let mut claim = Claim::default();
    claim.foreign(s(1.0), &us, by(first), Some(&node()), true);
    for at in [1.5, 2.5, 3.5, 4.5] {
        claim.foreign(s(at), &us, by(first), Some(&node()), false);
        assert_eq!(claim.take(s(at), &us, Some(s(1.0))), None);
    }
    assert!(claim.yields());
    assert!(claim.duplicate(s(4.5)).is_some());
    assert_eq!(claim.take(s(10.4), &us, Some(s(1.0))), None);
    assert_eq!(
        claim.take(s(10.5), &us, Some(s(1.0))),
        Some(Some(first.id)),
        "it has died"
    );

    let mut claim = Claim::default();
    claim.foreign(s(2.0), &us, by(first), Some(&node()), false);
    claim.foreign(s(2.5), &us, by(first), None, false);
    assert_eq!(
        claim.take(s(2.6), &us, Some(s(1.0))),
        Some(None),
        "it took its leave"
    );
}

#[test]
fn a_successor_and_its_predecessor_do_not_get_in_each_others_way() {
    let old = life();
    let new = Life {
        succeeds: Some(old.id),
        ..life()
    };
    let mut claim = Claim::default();
    claim.foreign(s(1.0), &new, by(old), Some(&node()), true);
    claim.foreign(s(1.5), &new, by(old), Some(&node()), false);
    assert_eq!(claim.take(s(1.6), &new, Some(s(1.0))), Some(Some(old.id)));
    // The old one goes on for a while, and neither writes over the other.
    for at in [2.0, 4.0] {
        let heard = claim.foreign(s(at), &new, by(old), Some(&node()), false);
        assert_eq!(heard, Foreign::Ignore);
    }
    let mut before = owner(&old);
    let taking = Signature {
        id: new.id,
        started_unix_ms: 0,
        replaces: Some(old.id),
    };
    for (at, by) in [(1.6, Some(taking)), (2.6, by(new)), (4.6, by(new))] {
        let heard = before.foreign(s(at), &old, by, Some(&node()), false);
        assert_eq!(heard, Foreign::Ignore);
    }
    assert_eq!(before.duplicate(s(4.6)), None);
    assert_eq!(claim.duplicate(s(4.6)), None);
}

#[test]
fn a_follower_keeps_to_a_life_until_it_is_silent_replaced_or_gone() {
    let (first, second) = (life(), life());
    let ttl = Some(Duration::from_secs(TTL));
    let heard = |since: f64, until: f64| {
        Some(Heard {
            since: s(since),
            until: s(until),
        })
    };
    let counts = |by, heard| follows(Some(first.id), by, s(10.0), ttl, heard);
    assert!(counts(by(first), None));
    assert!(!counts(by(second), heard(0.0, 11.9)));
    assert!(!counts(None, heard(0.0, 11.9)), "a stranger");
    assert!(!counts(by(second), None), "it may be us who don't hear");
    assert!(!counts(by(second), heard(11.0, 12.9)));
    assert!(counts(by(second), heard(0.0, 12.0)), "the first is silent");
    let replacing = Signature {
        id: second.id,
        started_unix_ms: 0,
        replaces: Some(first.id),
    };
    assert!(counts(Some(replacing), None));
    // Builds that don't say are followed as before.
    assert!(follows(None, by(second), s(10.0), ttl, None));
    assert!(follows(None, None, s(10.0), ttl, None));
}
