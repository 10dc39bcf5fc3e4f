//! The bus over a real nats-server: state is shared, faults lose nothing, garbage does nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod nats;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use shared::bus::{
    Bus, Change, NodeRecord, Prefix, Record, RegistrationRecord, ServiceState, TargetRecord, Tier,
};
use shared::config::sections::{BusSection, Transport};
use tokio::time::{Instant, sleep};

use nats::{Server, Watcher, connected, eventually, rogue, section, signal};

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 3, 0, last], 8080))
}

fn target(last: u8, up: bool) -> Record {
    TargetRecord {
        service: "web.example".into(),
        addr: addr(last),
        up,
        reason: "test".into(),
        since_unix_ms: 1,
        seen_by: "l4-1".into(),
    }
    .into()
}

fn offer(last: u8, weight: u32) -> Record {
    RegistrationRecord {
        service: "web.example".into(),
        addr: addr(last),
        node: "l7-1".into(),
        weight,
        draining: false,
        ttl_ms: 5000,
    }
    .into()
}

#[actix::test]
async fn nodes_exchange_state_and_late_joiners_get_all_of_it() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    let two = Bus::start(&section(server.port), "two");
    let watcher = Watcher::of(&two, Prefix::Registrations("web.example".into()));

    one.put(offer(1, 10));
    one.put(target(1, true));
    watcher
        .hears(|change| *change == Change::Put(offer(1, 10)))
        .await;
    one.put(offer(1, 20));
    watcher
        .hears(|change| *change == Change::Put(offer(1, 20)))
        .await;
    one.delete(&offer(1, 0).key());
    watcher
        .hears(|change| *change == Change::Deleted(offer(1, 0).key()))
        .await;
    assert!(one.flush(Duration::from_secs(5)).await);
    assert_eq!(
        watcher.heard()[0],
        Change::Snapshot {
            prefix: Prefix::Registrations("web.example".into()),
            records: vec![]
        }
    );

    let late = Bus::start(&section(server.port), "late");
    connected(&[&late]).await;
    let all = Watcher::of(&late, Prefix::All);
    all.hears(|change| *change == Change::Connected(true)).await;
    assert_eq!(
        all.heard()[..2],
        [
            Change::Snapshot {
                prefix: Prefix::All,
                records: vec![target(1, true)]
            },
            Change::Connected(true)
        ]
    );
    assert_eq!(late.get(&offer(1, 0).key()), None);
}

#[actix::test]
async fn who_joins_knows_all_keys_though_they_are_written_again_meanwhile() {
    const KEYS: u8 = 30;
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    for last in 0..KEYS {
        one.put(offer(last, 0));
    }
    connected(&[&one]).await;
    assert!(one.flush(Duration::from_secs(5)).await);
    let writer = actix::spawn({
        let one = one.clone();
        async move {
            for weight in 1.. {
                for last in 0..KEYS {
                    one.put(offer(last, weight));
                    sleep(Duration::from_micros(200)).await;
                }
            }
        }
    });
    for joiner in 0..40 {
        let late = Bus::start(&section(server.port), &format!("late{joiner}"));
        let watcher = Watcher::of(&late, Prefix::Registrations("web.example".into()));
        watcher
            .hears(|change| *change == Change::Connected(true))
            .await;
        let heard = watcher.heard();
        let until = heard.iter().position(|it| *it == Change::Connected(true));
        let mut known = BTreeSet::new();
        for change in &heard[..until.unwrap()] {
            match change {
                Change::Snapshot { records, .. } => known.extend(records.iter().map(Record::key)),
                Change::Put(record) => drop(known.insert(record.key())),
                _ => {}
            }
        }
        assert_eq!(known.len(), usize::from(KEYS), "joiner {joiner}");
    }
    writer.abort();
}

#[actix::test]
async fn a_killed_server_changes_nothing_and_puts_are_seen_here_meanwhile() {
    let store = tempfile::tempdir().unwrap();
    let mut server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    let two = Bus::start(&section(server.port), "two");
    one.put(offer(1, 10));
    eventually("two to know", || two.get(&offer(1, 0).key()).is_some()).await;

    let watcher = Watcher::of(&two, Prefix::All);
    server.kill();
    watcher
        .hears(|change| *change == Change::Connected(false))
        .await;
    two.put(target(7, true));
    watcher
        .hears(|change| *change == Change::Put(target(7, true)))
        .await;
    two.put(target(7, false));
    two.delete(&target(8, true).key());
    sleep(Duration::from_millis(300)).await;
    assert_eq!(two.get(&offer(1, 0).key()), Some(offer(1, 10)));
    assert!(
        !watcher
            .heard()
            .iter()
            .any(|change| matches!(change, Change::Deleted(_)))
    );
    assert!(
        !two.flush(Duration::from_millis(50)).await,
        "nothing reached a dead server"
    );

    let _again = Server::start(server.port, store.path()).await;
    connected(&[&one, &two]).await;
    assert!(two.flush(Duration::from_secs(5)).await);
    eventually("one to hear what was put meanwhile", || {
        one.get(&target(7, true).key()) == Some(target(7, false))
    })
    .await;
}

#[actix::test]
async fn a_server_that_comes_back_empty_is_told_again() {
    let (store, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    let two = Bus::start(&section(server.port), "two");
    for last in 1..=50 {
        one.put(offer(last, u32::from(last)));
        two.put(target(last, true));
    }
    eventually("each to know all", || {
        one.status().keys == 100 && two.status().keys == 100
    })
    .await;
    let watcher = Watcher::of(&two, Prefix::All);
    server.kill();
    eventually("the loss to be seen", || {
        !one.status().connected && !two.status().connected
    })
    .await;

    let _again = Server::start(server.port, empty.path()).await;
    connected(&[&one, &two]).await;
    let late = Bus::start(&section(server.port), "late");
    eventually("the late joiner to know all", || late.status().keys == 100).await;
    assert_eq!(late.get(&offer(50, 0).key()), Some(offer(50, 50)));
    assert!(
        !watcher
            .heard()
            .iter()
            .any(|change| matches!(change, Change::Deleted(_)))
    );
}

#[actix::test]
async fn what_was_deleted_while_away_is_gone_after_the_reconnect() {
    let store = tempfile::tempdir().unwrap();
    let mut server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    one.put(offer(1, 10));
    assert!(one.flush(Duration::from_secs(10)).await);
    server.kill();
    eventually("the loss to be seen", || !one.status().connected).await;
    one.delete(&offer(1, 0).key());
    let _again = Server::start(server.port, store.path()).await;
    let late = Bus::start(&section(server.port), "late");
    connected(&[&late]).await;
    eventually("the delete to arrive", || {
        late.get(&offer(1, 0).key()).is_none() && one.status().connected
    })
    .await;
    assert!(one.flush(Duration::from_secs(5)).await);
}

#[actix::test]
async fn garbage_of_a_rogue_client_is_counted_and_ignored() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let bus = Bus::start(&section(server.port), "one");
    bus.put(offer(1, 10));
    assert!(bus.flush(Duration::from_secs(10)).await);
    let watcher = Watcher::of(&bus, Prefix::All);

    let rogue = rogue(server.port).await;
    let offered = "registration.web=2Eexample.10=2E3=2E0=2E1=3A8080";
    let newer = br#"{"version":2,"record":{"registration":{"service":"web.example"}}}"#;
    let elsewhere = offer(9, 1).encode().unwrap();
    let garbage: [(&str, &[u8]); 8] = [
        (offered, b""),
        (offered, b"\xff\xfe\x00garbage"),
        (offered, b"{\"version\":1,\"record\":{\"registration\":{}}}"),
        (offered, newer),
        (offered, &elsewhere),
        ("node.l9.x", b"{}"),
        ("a.b.c.d.e", b"{}"),
        ("x", b"{}"),
    ];
    for (sent, (key, value)) in (1..).zip(garbage) {
        rogue
            .publish(format!("$KV.weir.{key}"), value.to_vec().into())
            .await
            .unwrap();
        rogue.flush().await.unwrap();
        eventually("the garbage to be counted", || bus.status().ignored == sent).await;
    }
    bus.put(target(2, true));
    watcher
        .hears(|change| *change == Change::Put(target(2, true)))
        .await;
    assert_eq!(bus.get(&offer(1, 0).key()), Some(offer(1, 10)));
    assert!(bus.status().connected);

    // A node that joins now meets the garbage in its snapshot.
    let late = Bus::start(&section(server.port), "late");
    connected(&[&late]).await;
    assert_eq!(late.get(&target(2, true).key()), Some(target(2, true)));
    // The owner's next put heals the key.
    bus.put(offer(1, 11));
    eventually("the key to be healed", || {
        late.get(&offer(1, 0).key()) == Some(offer(1, 11))
    })
    .await;
}

#[actix::test]
async fn many_keys_changed_fast_arrive_with_their_last_value() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    let two = Bus::start(&section(server.port), "two");
    let watcher = Watcher::of(&two, Prefix::AllRegistrations);
    for weight in 0..40 {
        for last in 1..=50 {
            one.put(offer(last, weight));
        }
    }
    assert!(one.flush(Duration::from_secs(20)).await);
    eventually("the last values", || {
        (1..=50).all(|last| two.get(&offer(last, 0).key()) == Some(offer(last, 39)))
    })
    .await;
    eventually("the watcher to hear them", || {
        let heard = watcher.heard();
        (1..=50).all(|last| heard.contains(&Change::Put(offer(last, 39))))
    })
    .await;
    // Per key in order: a weight never goes back.
    for last in 1..=50 {
        let weights: Vec<u32> = watcher
            .heard()
            .iter()
            .filter_map(|change| match change {
                Change::Put(Record::Registration(offer)) if offer.addr == addr(last) => {
                    Some(offer.weight)
                }
                _ => None,
            })
            .collect();
        assert!(weights.is_sorted(), "{weights:?}");
    }
}

#[actix::test]
async fn a_server_that_stops_answering_is_given_up_and_found_again() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let bus = Bus::start(&section(server.port), "one");
    connected(&[&bus]).await;
    signal(&server, "-STOP");
    bus.put(offer(1, 1));
    eventually("the silence to be noticed", || !bus.status().connected).await;
    signal(&server, "-CONT");
    connected(&[&bus]).await;
    assert!(bus.flush(Duration::from_secs(5)).await);
}

#[actix::test]
async fn a_bucket_deleted_by_somebody_is_made_and_filled_again() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let bus = Bus::start(&section(server.port), "one");
    bus.put(offer(1, 1));
    assert!(bus.flush(Duration::from_secs(10)).await);
    let rogue = async_nats::jetstream::new(rogue(server.port).await);
    rogue.delete_stream("KV_weir").await.unwrap();

    bus.put(offer(2, 2));
    let late = Bus::start(&section(server.port), "late");
    eventually("the late joiner to know all", || late.status().keys == 2).await;
    assert_eq!(late.get(&offer(1, 0).key()), Some(offer(1, 1)));
}

#[actix::test]
async fn a_server_without_jetstream_leaves_the_node_on_its_own() {
    let server = Server::without_jetstream().await;
    let bus = Bus::start(&section(server.port), "alone");
    bus.put(offer(1, 1));
    sleep(Duration::from_millis(500)).await;
    assert!(!bus.status().connected);
    assert_eq!(bus.get(&offer(1, 0).key()), Some(offer(1, 1)));
}

#[actix::test]
async fn no_server_at_all_leaves_the_node_on_its_own() {
    let bus = Bus::start(&section(Server::free_port()), "alone");
    let watcher = Watcher::of(&bus, Prefix::All);
    bus.put(offer(1, 1));
    watcher
        .hears(|change| *change == Change::Put(offer(1, 1)))
        .await;
    assert!(!bus.status().connected);
    assert_eq!(bus.status().pending, 1);
    assert!(!watcher.heard().contains(&Change::Connected(true)));
}

#[actix::test]
async fn a_full_bucket_holds_changes_back_until_there_is_room() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let operator = async_nats::jetstream::new(rogue(server.port).await);
    let mut bucket = async_nats::jetstream::stream::Config {
        name: "KV_weir".into(),
        subjects: vec!["$KV.weir.>".into()],
        max_messages_per_subject: 1,
        max_bytes: 2000,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Default::default()
    };
    operator.create_stream(&bucket).await.unwrap();
    let bus = Bus::start(&section(server.port), "one");
    for last in 1..=50 {
        bus.put(offer(last, 1));
    }
    connected(&[&bus]).await;
    sleep(Duration::from_millis(300)).await;
    let status = bus.status();
    assert!(status.connected && status.pending > 0, "{status:?}");
    assert_eq!(status.keys, 50);

    bucket.max_bytes = 1 << 20;
    operator.update_stream(&bucket).await.unwrap();
    assert!(
        bus.flush(Duration::from_secs(10)).await,
        "what was held back was not sent"
    );
    assert_eq!(bus.status().keys, 50);
    // What comes last was refused at first. (The first few are not asked for: nats-server 2.9.10 takes more than fits from a burst,
    // acknowledges it and then drops the oldest.)
    let late = Bus::start(&section(server.port), "late");
    eventually("the late joiner to know the last", || {
        late.get(&offer(50, 0).key()) == Some(offer(50, 1))
    })
    .await;
}

#[actix::test]
async fn a_bucket_for_smaller_records_is_made_to_take_a_node_of_a_thousand_services() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let operator = async_nats::jetstream::new(rogue(server.port).await);
    let bucket = async_nats::jetstream::stream::Config {
        name: "KV_weir".into(),
        subjects: vec!["$KV.weir.>".into()],
        max_messages_per_subject: 1,
        max_message_size: 32 << 10,
        max_bytes: 1 << 20,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Default::default()
    };
    operator.create_stream(&bucket).await.unwrap();
    let service = |number| ServiceState {
        service: format!("service-{number}"),
        vip: Ipv4Addr::new(10, 0, 0, 100).into(),
        healthy: 100,
        total: 100,
    };
    let node = Record::from(NodeRecord {
        tier: Tier::L4,
        id: "l4-1".into(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.1,
        software: "test".into(),
        services: (0..1000).map(service).collect(),
        ttl_ms: 3000,
    });
    assert!(node.encode().unwrap().len() > 32 << 10);
    let one = Bus::start(&section(server.port), "one");
    one.put(node.clone());
    let two = Bus::start(&section(server.port), "two");
    eventually("two to hear of the node", || {
        two.get(&node.key()) == Some(node.clone())
    })
    .await;
    let mut stream = operator.get_stream("KV_weir").await.unwrap();
    assert_eq!(
        stream.info().await.unwrap().config.max_bytes,
        1 << 20,
        "how much it holds is the operator's"
    );
}

/// How many messages the servers keep for a bucket named `weir`, marks of deletes among them.
async fn messages(operator: &async_nats::jetstream::Context) -> u64 {
    let mut stream = operator.get_stream("KV_weir").await.unwrap();
    stream.info().await.unwrap().state.messages
}

async fn eventually_messages(operator: &async_nats::jetstream::Context, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while messages(operator).await != count {
        assert!(Instant::now() < deadline, "waited 20 s for {count}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn forgetful(port: u16) -> BusSection {
    let mut section = section(port);
    let Transport::Nats(nats) = &mut section.transport else {
        panic!("not nats");
    };
    nats.deletes_kept = Duration::from_secs(2);
    section
}

#[actix::test]
async fn deletes_are_forgotten_by_the_servers_after_a_while() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let bus = Bus::start(&forgetful(server.port), "one");
    for last in 1..=20 {
        bus.put(offer(last, 1));
    }
    assert!(bus.flush(Duration::from_secs(5)).await);
    for last in 3..=20 {
        bus.delete(&offer(last, 1).key());
    }
    assert!(bus.flush(Duration::from_secs(5)).await);
    // Deleted, and put again before the mark would have gone.
    bus.put(offer(20, 2));
    assert!(bus.flush(Duration::from_secs(5)).await);
    let operator = async_nats::jetstream::new(rogue(server.port).await);
    assert_eq!(messages(&operator).await, 20, "the marks are kept at first");
    eventually_messages(&operator, 3).await;

    // Nothing else went, and the session goes on.
    let late = Bus::start(&forgetful(server.port), "late");
    connected(&[&late]).await;
    assert_eq!(late.status().keys, 3);
    assert_eq!(late.get(&offer(20, 0).key()), Some(offer(20, 2)));
    bus.put(offer(4, 4));
    eventually("late to hear of it", || late.status().keys == 4).await;
    assert!(bus.status().connected);
}

#[actix::test]
async fn deletes_of_a_node_that_is_gone_are_forgotten_too() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let operator = async_nats::jetstream::new(rogue(server.port).await);
    let gone = Bus::start(&section(server.port), "gone");
    gone.put(offer(1, 1));
    gone.put(offer(2, 1));
    assert!(gone.flush(Duration::from_secs(5)).await);
    gone.delete(&offer(1, 1).key());
    assert!(gone.flush(Duration::from_secs(5)).await);
    drop(gone);
    assert_eq!(messages(&operator).await, 2);

    let young = Bus::start(&section(server.port), "a day is not over");
    let bus = Bus::start(&forgetful(server.port), "one");
    connected(&[&bus, &young]).await;
    eventually_messages(&operator, 1).await;
    assert_eq!(bus.get(&offer(2, 0).key()), Some(offer(2, 1)));
}

/// nats-server 2.9 counts what is still to come of a key's records wrong if some are overwritten while it sends.
#[actix::test]
async fn nodes_that_join_while_keys_are_overwritten_are_connected_at_once() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let one = Bus::start(&section(server.port), "one");
    connected(&[&one]).await;
    (0..100).for_each(|last| one.put(target(last, true)));
    assert!(one.flush(Duration::from_secs(5)).await);
    for round in 0..60 {
        let began = Instant::now();
        let late: Vec<Bus> = (0..6)
            .map(|number| {
                let bus = Bus::start(&section(server.port), &format!("late-{number}"));
                (0..20).for_each(|last| bus.put(target(last + 10 * number, round % 2 == 0)));
                bus
            })
            .collect();
        connected(&late.iter().collect::<Vec<_>>()).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "round {round}: {took:?}");
    }
}
