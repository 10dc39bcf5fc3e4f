//! A process that starts while the bus is away knows what its earlier life knew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod nats;

use std::time::Duration;

use shared::bus::{
    Bus, Change, DrainRecord, Life, NodeRecord, Prefix, Record, RegistrationRecord, Tier,
};
use tokio::time::sleep;

use nats::{Server, Watcher, connected, eventually, section_of};

fn offer(last: u8) -> Record {
    RegistrationRecord {
        service: "web".into(),
        addr: std::net::SocketAddr::from(([10, 3, 0, last], 8080)),
        node: "l7-1".into(),
        weight: 1,
        draining: false,
        ttl_ms: 10_000,
    }
    .into()
}

fn drain(drain: bool) -> Record {
    DrainRecord {
        tier: Tier::L4,
        id: "l4-1".into(),
        drain,
        by: "test".into(),
        since_unix_ms: 1,
    }
    .into()
}

#[actix::test]
async fn what_was_known_is_used_after_a_restart_without_the_bus_until_it_says_otherwise() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start(Server::free_port(), store.path()).await;
    let more = format!(
        "retry_max = \"200ms\"\nstate_dir = {:?}",
        state.path().display().to_string()
    );
    let section = section_of(&[server.port], &more);
    let others = Bus::start_as(&nats::section(server.port), "l7-1", Life::begin());
    others.put(offer(1));
    others.put(offer(2));
    others.put(drain(true));
    others.put(NodeRecord {
        tier: Tier::L7,
        id: "l7-1".into(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: "test".into(),
        services: Vec::new(),
        ttl_ms: 10_000,
    });
    let first = Bus::start_as(&section, "l4-1", Life::begin());
    let file = state.path().join("bus-l4-1.state");
    eventually("it to be kept", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 4)
    })
    .await;
    server.kill();
    drop(first);

    let again = Bus::start_as(&section, "l4-1", Life::begin());
    let watcher = Watcher::of(&again, Prefix::All);
    watcher
        .hears(|change| {
            let Change::Snapshot { records, .. } = change else {
                return false;
            };
            *records == [offer(1), offer(2), drain(true)]
        })
        .await;
    let status = again.status();
    assert_eq!((status.connected, status.remembered), (false, 3));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(
        again.get(&offer(1).key()),
        Some(offer(1)),
        "nothing runs out"
    );

    // The bus is back, and says otherwise.
    let _server = Server::start(server.port, store.path()).await;
    others.delete(&offer(2).key());
    others.put(drain(false));
    connected(&[&again, &others]).await;
    watcher
        .hears(|change| *change == Change::Deleted(offer(2).key()))
        .await;
    watcher
        .hears(|change| *change == Change::Put(drain(false)))
        .await;
    assert_eq!(again.get(&offer(1).key()), Some(offer(1)));
    eventually("all to be confirmed", || again.status().remembered == 0).await;
    eventually("that to be kept", || {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().count() == 3 && text.contains("\"drain\":false")
    })
    .await;
}

#[actix::test]
async fn a_file_of_garbage_or_a_directory_that_is_not_there_keeps_nobody_from_starting() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("bus-l4-1.state"), b"\xff\xfe garbage").unwrap();
    let missing = state.path().join("missing");
    for directory in [state.path(), &missing] {
        let more = format!("state_dir = {:?}", directory.display().to_string());
        let bus = Bus::start(&section_of(&[Server::free_port()], &more), "l4-1");
        bus.put(offer(1));
        assert_eq!(bus.get(&offer(1).key()), Some(offer(1)));
    }
}
