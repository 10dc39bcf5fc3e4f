//! The bus within a process: watchers hear everything in order and nobody waits for a slow one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Context, Handler, Message};
use shared::bus::{Bus, Change, DrainRecord, Heard, Key, Prefix, Record, Tier};

#[derive(Clone, Default)]
struct Watcher {
    heard: Arc<Mutex<Vec<Change>>>,
    /// How long one message takes.
    slowness: Duration,
}

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Handler<Change> for Watcher {
    type Result = ();

    fn handle(&mut self, change: Change, _: &mut Context<Self>) {
        std::thread::sleep(self.slowness);
        self.heard.lock().unwrap().push(change);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Watcher {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}

impl Watcher {
    fn heard(&self) -> Vec<Change> {
        self.heard.lock().unwrap().clone()
    }
}

fn drain(id: usize, by: usize) -> Record {
    let by = by.to_string();
    DrainRecord {
        tier: Tier::L4,
        id: format!("n{id}"),
        drain: true,
        by,
        since_unix_ms: 0,
    }
    .into()
}

async fn eventually(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        actix::clock::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited 10 s");
}

#[actix::test]
async fn a_watcher_hears_a_snapshot_then_changes_in_order() {
    let bus = Bus::local();
    bus.put(drain(1, 0));
    let watcher = Watcher::default();
    bus.watch(
        Prefix::Drain(Tier::L4, "n1".into()),
        watcher.clone().start().recipient(),
    );
    bus.put(drain(1, 1));
    actix::clock::sleep(Duration::from_millis(20)).await;
    bus.put(drain(2, 1));
    bus.delete(&drain(1, 1).key());
    bus.delete(&drain(1, 1).key());
    bus.put(drain(1, 2));
    eventually(|| watcher.heard().len() >= 6).await;
    let expected = [
        Change::Snapshot {
            prefix: Prefix::Drain(Tier::L4, "n1".into()),
            records: vec![drain(1, 0)],
        },
        Change::Connected(true),
        Change::Heard(Heard::ALWAYS),
        Change::Put(drain(1, 1)),
        Change::Deleted(drain(1, 0).key()),
        Change::Put(drain(1, 2)),
    ];
    assert_eq!(watcher.heard(), expected);
    assert!(
        bus.flush(Duration::ZERO).await,
        "within the process nothing is ever pending"
    );
}

#[actix::test]
async fn a_slow_watcher_holds_nobody_up_and_misses_no_last_value() {
    let bus = Bus::local();
    let slow = Watcher {
        slowness: Duration::from_millis(1),
        ..Watcher::default()
    };
    let recipient = {
        let slow = slow.clone();
        let arbiter = actix::Arbiter::new();
        Watcher::start_in_arbiter(&arbiter.handle(), |_| slow).recipient()
    };
    bus.watch(Prefix::All, recipient);
    let started = Instant::now();
    for by in 0..100 {
        for id in 0..100 {
            bus.put(drain(id, by));
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "puts took {:?}",
        started.elapsed()
    );
    eventually(|| {
        let heard = slow.heard();
        (0..100).all(|id| heard.contains(&Change::Put(drain(id, 99))))
    })
    .await;
    assert!(
        slow.heard().len() < 5000,
        "10,000 changes were not coalesced"
    );
}

#[actix::test]
async fn a_watcher_far_behind_is_given_a_new_snapshot() {
    let bus = Bus::local();
    let slow = Watcher {
        slowness: Duration::from_millis(100),
        ..Watcher::default()
    };
    let recipient = {
        let slow = slow.clone();
        let arbiter = actix::Arbiter::new();
        Watcher::start_in_arbiter(&arbiter.handle(), |_| slow).recipient()
    };
    bus.watch(Prefix::All, recipient);
    for id in 0..6000 {
        bus.put(drain(id, 0));
    }
    let full = |change: &Change| matches!(change, Change::Snapshot { records, .. } if records.len() > 4096);
    eventually(|| slow.heard().iter().any(full)).await;
    assert!(slow.heard().len() < 100, "it was told one by one");
}

#[actix::test]
async fn watchers_that_ended_are_forgotten() {
    let bus = Bus::local();
    let watcher = Watcher::default();
    let actor = watcher.clone().start();
    let id = bus.watch(Prefix::All, actor.clone().recipient());
    bus.watch(Prefix::All, actor.clone().recipient());
    assert_eq!(bus.status().watchers, 2);
    bus.unwatch(id);
    assert_eq!(bus.status().watchers, 1);
    actor.send(Stop).await.unwrap();
    eventually(|| {
        bus.put(drain(1, 1));
        bus.status().watchers == 0
    })
    .await;
}

#[actix::test]
async fn a_record_that_is_not_valid_is_counted_and_left_out() {
    let bus = Bus::local();
    let record = DrainRecord {
        tier: Tier::L4,
        id: "../n 1".into(),
        drain: true,
        by: "x".into(),
        since_unix_ms: 0,
    };
    bus.put(record);
    assert_eq!((bus.status().ignored, bus.status().keys), (1, 0));
}

#[actix::test]
async fn puts_from_many_threads_are_all_there() {
    let bus = Bus::local();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let bus = bus.clone();
            std::thread::spawn(move || (0..500).for_each(|id| bus.put(drain(thread * 500 + id, 0))))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(bus.status().keys, 2000);
    assert_eq!(
        bus.get(&Key::Drain {
            tier: Tier::L4,
            id: "n1999".into()
        }),
        Some(drain(1999, 0))
    );
}
