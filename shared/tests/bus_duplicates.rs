//! Two processes with one name, and strangers who write under it, over a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod nats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::bus::{
    Bus, Change, Key, Life, NodeRecord, Prefix, Record, SilentBecause, Tier, unix_ms,
};
use shared::config::sections::BusSection;
use tokio::time::sleep;

use nats::{Server, Watcher, connected, eventually, rogue, section};

/// The record of node l4-1 as `software` writes it: by that they are told apart here.
fn record(software: &str) -> Record {
    NodeRecord {
        tier: Tier::L4,
        id: "l4-1".into(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: software.into(),
        services: Vec::new(),
        ttl_ms: 3000,
    }
    .into()
}

fn key() -> Key {
    record("").key()
}

/// A process that is node l4-1: says so every second until it is dropped.
struct Process {
    bus: Bus,
    lives: Arc<AtomicBool>,
}

impl Process {
    fn start(section: &BusSection, software: &'static str) -> Self {
        Self::of(section, software, Life::begin())
    }

    fn of(section: &BusSection, software: &'static str, life: Life) -> Self {
        let bus = Bus::start_as(section, "l4-1", life);
        let lives = Arc::new(AtomicBool::new(true));
        let (beating, beats) = (bus.clone(), lives.clone());
        actix::spawn(async move {
            while beats.load(Ordering::Relaxed) {
                beating.put(record(software));
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self { bus, lives }
    }

    async fn leave(self) {
        self.lives.store(false, Ordering::Relaxed);
        self.bus.delete(&key());
        assert!(self.bus.flush(Duration::from_secs(5)).await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lives.store(false, Ordering::Relaxed);
    }
}

/// Who was followed, one after the other, by one who is on the bus as well.
fn followed(watcher: &Watcher) -> Vec<String> {
    let mut followed: Vec<String> = Vec::new();
    for change in watcher.heard() {
        let name = match change {
            Change::Put(Record::Node(node)) if node.id == "l4-1" => node.software,
            Change::Deleted(deleted) if deleted == key() => "deleted".to_owned(),
            _ => continue,
        };
        if followed.last() != Some(&name) {
            followed.push(name);
        }
    }
    followed
}

/// A process that has been heard of, and nobody else.
async fn heard_of(section: &BusSection, watcher: &Watcher, software: &'static str) -> Process {
    let process = Process::start(section, software);
    eventually("it to be heard of", || followed(watcher) == [software]).await;
    process
}

async fn follower(section: &BusSection) -> (Bus, Watcher) {
    let bus = Bus::start_as(section, "bgp-1", Life::begin());
    let watcher = Watcher::of(&bus, Prefix::Node(Tier::L4, "l4-1".into()));
    let beating = bus.clone();
    actix::spawn(async move {
        loop {
            let Record::Node(node) = record("") else {
                return;
            };
            beating.put(NodeRecord {
                tier: Tier::Bgp,
                id: "bgp-1".into(),
                ..node
            });
            sleep(Duration::from_secs(1)).await;
        }
    });
    connected(&[&bus]).await;
    (bus, watcher)
}

#[actix::test]
async fn a_second_process_with_a_name_says_so_and_nothing_else_until_the_first_has_left() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let section = section(server.port);
    let (_bus, watcher) = follower(&section).await;
    let first = heard_of(&section, &watcher, "first").await;
    let second = Process::start(&section, "second");
    eventually("the second to see that it is not alone", || {
        second.bus.duplicate().is_some_and(|first| first.silences())
    })
    .await;
    let seen = second.bus.status().duplicate.unwrap();
    assert_eq!(seen.key, key());
    sleep(Duration::from_secs(6)).await;
    assert_eq!(followed(&watcher), ["first"]);
    let silence = second.bus.silence().map(|silence| silence.why);
    assert_eq!(silence, Some(SilentBecause::Duplicate));
    assert_eq!(first.bus.duplicate(), None, "nobody bothers the first");
    assert_eq!(first.bus.silence(), None);

    first.leave().await;
    eventually("the second to be heard of", || {
        followed(&watcher) == ["first", "deleted", "second"]
    })
    .await;
    eventually("nobody to be spoken of", || {
        second.bus.duplicate().is_none()
    })
    .await;
}

#[actix::test]
async fn a_second_process_that_leaves_takes_nothing_of_the_first_along() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let section = section(server.port);
    let (_bus, watcher) = follower(&section).await;
    let first = heard_of(&section, &watcher, "first").await;
    for at_once in [true, false] {
        let second = Process::start(&section, "second");
        connected(&[&second.bus]).await;
        if !at_once {
            sleep(Duration::from_secs(4)).await;
        }
        second.leave().await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(followed(&watcher), ["first"]);
    }
    drop(first);
}

#[actix::test]
async fn what_a_stranger_writes_or_deletes_under_a_nodes_key_changes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let section = section(server.port);
    let (bus, watcher) = follower(&section).await;
    let owner = heard_of(&section, &watcher, "owner").await;
    let operator = async_nats::jetstream::new(rogue(server.port).await);
    let bucket = operator.get_key_value("weir").await.unwrap();
    for _ in 0..3 {
        let false_word = record("stranger").encode().unwrap();
        bucket.put("node.l4.l4-1", false_word.into()).await.unwrap();
        sleep(Duration::from_millis(700)).await;
        bucket.delete("node.l4.l4-1").await.unwrap();
        sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(followed(&watcher), ["owner"]);
    assert_eq!(bus.get(&key()), Some(record("owner")));
    // Who comes later finds the owner's word as well.
    let late = Bus::start_as(&section, "late", Life::begin());
    connected(&[&late]).await;
    eventually("the owner's word to be there again", || {
        late.get(&key()) == Some(record("owner"))
    })
    .await;
    drop(owner);
}

#[actix::test]
async fn a_process_that_was_killed_and_started_again_is_followed_soon() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let section = section(server.port);
    let (_bus, watcher) = follower(&section).await;
    let first = heard_of(&section, &watcher, "first").await;
    drop(first);
    let again = Process::start(&section, "again");
    let began = tokio::time::Instant::now();
    connected(&[&again.bus]).await;
    let silence = again.bus.silence().unwrap();
    assert_eq!(silence.why, SilentBecause::Listening);
    let left = silence.until_unix_ms.unwrap() - unix_ms();
    assert!((1000..=1500).contains(&left), "{left} ms");
    eventually("the new life to be followed", || {
        followed(&watcher) == ["first", "again"]
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(again.bus.duplicate(), None);
    assert_eq!(again.bus.silence(), None);
}

#[actix::test]
async fn a_process_that_takes_over_is_followed_at_once_and_nobody_is_a_duplicate() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(Server::free_port(), store.path()).await;
    let section = section(server.port);
    let (_bus, watcher) = follower(&section).await;
    let life = Life::begin();
    let old = Process::of(&section, "old", life);
    eventually("the old one to be heard of", || {
        followed(&watcher) == ["old"]
    })
    .await;
    let successor = Life {
        succeeds: Some(life.id),
        ..Life::begin()
    };
    let new = Process::of(&section, "new", successor);
    let began = tokio::time::Instant::now();
    eventually("the new one to be followed", || {
        followed(&watcher) == ["old", "new"]
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(1));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(followed(&watcher), ["old", "new"], "both still write");
    assert_eq!((old.bus.duplicate(), new.bus.duplicate()), (None, None));
    old.leave().await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(followed(&watcher), ["old", "new"]);
}
