//! Keys, records and their form on the wire.

use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::json;

use super::nats::{Understood, key_of, subject_of, understand};
use super::*;

fn addr() -> SocketAddr {
    SocketAddr::from(([10, 3, 0, 21], 8080))
}

fn node() -> NodeRecord {
    NodeRecord {
        tier: Tier::L4,
        id: "l4-1".into(),
        addresses: vec![addr().ip()],
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.25,
        software: "weir 0.1.0".into(),
        services: vec![ServiceState {
            service: "web".into(),
            vip: [10, 0, 0, 100].into(),
            healthy: 1,
            total: 2,
        }],
        ttl_ms: 3000,
    }
}

fn offer() -> RegistrationRecord {
    RegistrationRecord {
        service: "web".into(),
        addr: addr(),
        node: "l7-1".into(),
        weight: 1,
        draining: false,
        ttl_ms: 3000,
    }
}

fn one_of_each() -> Vec<Record> {
    vec![
        node().into(),
        offer().into(),
        TargetRecord {
            service: "web".into(),
            addr: "[2001:db8::1]:80".parse().unwrap(),
            up: true,
            reason: "connected".into(),
            since_unix_ms: 1,
            seen_by: "l4-1".into(),
        }
        .into(),
        VipRecord {
            vip: "2001:db8::1".parse().unwrap(),
            node: "l4-1".into(),
            state: VipState::Announced,
            why: String::new(),
            since_unix_ms: 1,
        }
        .into(),
        DrainRecord {
            tier: Tier::Bgp,
            id: "b.1".into(),
            drain: true,
            by: "someone".into(),
            since_unix_ms: 1,
        }
        .into(),
    ]
}

#[test]
fn records_and_keys_survive_the_wire() {
    for record in one_of_each() {
        let key = record.key();
        assert_eq!(
            Record::decode(&record.encode().unwrap()),
            Ok(record.clone())
        );
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(key_of(&subject_of(&key)), Some(key.clone()));
        assert_eq!(
            understand(
                Some(&subject_of(&key)),
                None,
                None,
                &record.encode().unwrap()
            ),
            Ok(Understood {
                key,
                record: Some(record),
                by: None
            })
        );
    }
}

#[test]
fn keys_are_written_so_that_an_operator_can_read_them() {
    let keys: Vec<String> = one_of_each()
        .iter()
        .map(|record| record.key().to_string())
        .collect();
    let expected = [
        "node/l4/l4-1",
        "registration/web/10.3.0.21:8080",
        "target/web/[2001:db8::1]:80",
        "vip/2001:db8::1/l4-1",
        "drain/bgp/b.1",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        subject_of(&Record::from(offer()).key()),
        "registration.web.10=2E3=2E0=2E21=3A8080"
    );
}

#[test]
fn subjects_that_are_no_key_are_refused() {
    for subject in [
        "",
        "node",
        "node.l4",
        "node.l4.a.b",
        "node.l5.a",
        "nodes.l4.a",
        "node.l4.a=2Fb",
        "node.l4.a=2",
        "node.l4.=41",
        "node.l4.a=2e",
        "node.l4.=FF",
        "target.web.10=2E3=2E0=2E21",
        "vip.x.a",
    ] {
        assert_eq!(key_of(subject), None, "{subject}");
    }
}

#[test]
fn the_form_on_the_wire_is_fixed() {
    let bytes = Record::from(offer()).encode().unwrap();
    let expected = json!({ "version": 1, "record": { "registration": {
        "service": "web", "addr": "10.3.0.21:8080", "node": "l7-1", "weight": 1, "draining": false, "ttl_ms": 3000
    } } });
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(),
        expected
    );
}

#[test]
fn other_versions_are_told_apart_from_garbage() {
    assert_eq!(
        Record::decode(br#"{"version":7,"anything":[1]}"#),
        Err(Invalid::Version(7))
    );
    for garbage in [
        &b""[..],
        b"{}",
        b"null",
        b"\xff",
        b"{\"version\":1}",
        b"{\"version\":-1}",
        b"{\"version\":1,\"record\":{\"node\":{}}}",
    ] {
        assert_eq!(Record::decode(garbage), Err(Invalid::Form));
    }
    assert_eq!(
        Record::decode(&vec![b' '; MAX_RECORD + 1]),
        Err(Invalid::Size)
    );
}

#[test]
fn a_field_added_later_does_not_make_a_record_unreadable() {
    let mut value: serde_json::Value =
        serde_json::from_slice(&Record::from(offer()).encode().unwrap()).unwrap();
    value["record"]["registration"]["colour"] = json!("blue");
    assert_eq!(
        Record::decode(value.to_string().as_bytes()),
        Ok(offer().into())
    );
}

#[test]
fn records_that_make_no_sense_are_not_valid() {
    let wrong: [(Record, Invalid); 9] = [
        (
            NodeRecord {
                id: "a/b".into(),
                ..node()
            }
            .into(),
            Invalid::Name,
        ),
        (
            NodeRecord {
                id: "x".repeat(65),
                ..node()
            }
            .into(),
            Invalid::Name,
        ),
        (
            NodeRecord {
                load: f64::NAN,
                ..node()
            }
            .into(),
            Invalid::Load,
        ),
        (
            NodeRecord {
                load: 1.5,
                ..node()
            }
            .into(),
            Invalid::Load,
        ),
        (
            NodeRecord {
                software: "a\nb".into(),
                ..node()
            }
            .into(),
            Invalid::Text,
        ),
        (
            NodeRecord {
                software: "x".repeat(513),
                ..node()
            }
            .into(),
            Invalid::Text,
        ),
        (
            NodeRecord {
                addresses: vec![addr().ip(); 257],
                ..node()
            }
            .into(),
            Invalid::Count,
        ),
        (
            RegistrationRecord {
                addr: "0.0.0.0:80".parse().unwrap(),
                ..offer()
            }
            .into(),
            Invalid::Address,
        ),
        (
            RegistrationRecord {
                addr: "10.0.0.1:0".parse().unwrap(),
                ..offer()
            }
            .into(),
            Invalid::Address,
        ),
    ];
    for (record, why) in wrong {
        assert_eq!(record.validate(), Err(why));
        assert_eq!(record.encode(), Err(why));
    }
}

#[test]
fn a_node_of_as_many_services_as_there_may_be_fits_a_record() {
    let service = ServiceState {
        service: "x".repeat(64),
        vip: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
        healthy: u32::MAX,
        total: u32::MAX,
    };
    let mut largest = NodeRecord {
        id: "x".repeat(64),
        software: "x".repeat(512),
        addresses: vec![service.vip; MAX_ADDRESSES],
        services: vec![service.clone(); MAX_SERVICES],
        ttl_ms: u64::MAX,
        ..node()
    };
    let bytes = Record::from(largest.clone()).encode().unwrap();
    assert_eq!(
        Record::decode(&bytes),
        Ok(largest.clone().into()),
        "{} bytes",
        bytes.len()
    );
    largest.services.push(service);
    assert_eq!(Record::from(largest).encode(), Err(Invalid::Count));
}

#[test]
fn a_record_under_the_key_of_another_is_refused() {
    let bytes = Record::from(offer()).encode().unwrap();
    assert_eq!(
        understand(Some("node.l4.l4-1"), None, None, &bytes),
        Err(Invalid::Key)
    );
    assert_eq!(
        understand(Some("node.l4.l4-1"), Some("DEL"), None, b"whatever").map(|told| told.record),
        Ok(None)
    );
    assert_eq!(
        understand(Some("node.l4.l4-1"), Some("MERGE"), None, b""),
        Err(Invalid::Form)
    );
    assert_eq!(understand(None, None, None, &bytes), Err(Invalid::Key));
}

#[test]
fn prefixes_match_what_they_name() {
    let keys: Vec<Key> = one_of_each().iter().map(Record::key).collect();
    let matching = |prefix: Prefix| {
        keys.iter()
            .filter(|key| prefix.matches(key))
            .map(Key::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(matching(Prefix::All).len(), 5);
    assert_eq!(
        matching(Prefix::Node(Tier::L4, "l4-1".into())),
        ["node/l4/l4-1"]
    );
    assert_eq!(matching(Prefix::Node(Tier::L4, "l4".into())), [""; 0]);
    assert_eq!(
        matching(Prefix::Registrations("web".into())),
        ["registration/web/10.3.0.21:8080"]
    );
    assert_eq!(matching(Prefix::Registrations("we".into())), [""; 0]);
    assert_eq!(matching(Prefix::AllRegistrations).len(), 1);
    assert_eq!(matching(Prefix::AllVips).len(), 1);
    assert_eq!(
        matching(Prefix::Drain(Tier::Bgp, "b.1".into())),
        ["drain/bgp/b.1"]
    );
    assert_eq!(matching(Prefix::Drain(Tier::L4, "b.1".into())), [""; 0]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..200), subject in "[a-z0-9=.A-F]{0,40}") {
        let _understood = understand(Some(&subject), None, None, &bytes);
    }

    #[test]
    fn every_valid_name_survives_the_subject(id in "[A-Za-z0-9._-]{1,64}") {
        let key = Key::Node { tier: Tier::L7, id };
        prop_assert_eq!(key_of(&subject_of(&key)), Some(key));
    }
}
