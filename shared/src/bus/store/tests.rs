//! The rules of the store, one by one and then all together against a simulated server with faults.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::bus::{DrainRecord, Tier};

fn record(id: &str, by: &str) -> Record {
    DrainRecord {
        tier: Tier::L4,
        id: id.into(),
        drain: true,
        by: by.into(),
        since_unix_ms: 0,
    }
    .into()
}

fn key(id: &str) -> Key {
    Key::Drain {
        tier: Tier::L4,
        id: id.into(),
    }
}

const NOW: Duration = Duration::from_secs(1);

fn store() -> Store {
    Store::new(true, Life::begin())
}

fn told(revision: u64, published: i64, record: Option<Record>) -> Told {
    Told {
        revision,
        published,
        record,
        by: None,
    }
}

/// A store that has put `a` and heard that it is revision 5.
fn settled() -> Store {
    let mut store = store();
    store.session_started();
    store.session_ready(NOW);
    store.put(record("a", "us"));
    let sent = store.take_unsent(10, NOW);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        store.acknowledged(&key("a"), sent[0].generation, 5, NOW),
        None
    );
    assert_eq!(store.under_way(), 0);
    store
}

#[test]
fn the_echo_of_an_own_change_is_not_news() {
    let mut store = settled();
    assert_eq!(
        store.incoming(&key("a"), told(5, 5, Some(record("a", "us"))), NOW),
        None
    );
    assert_eq!(store.get(&key("a")), Some(&record("a", "us")));
}

#[test]
fn a_newer_change_from_elsewhere_is_news() {
    let mut store = settled();
    let event = store.incoming(&key("a"), told(6, 6, Some(record("a", "them"))), NOW);
    assert_eq!(event, Some(Event::Put(key("a"))));
    assert_eq!(store.get(&key("a")), Some(&record("a", "them")));
    assert_eq!(
        store.incoming(&key("a"), told(7, 7, None), NOW),
        Some(Event::Deleted(key("a")))
    );
    assert_eq!(store.len(), 0);
}

#[test]
fn a_change_that_overtakes_our_acknowledgement_is_not_lost() {
    let mut store = settled();
    store.put(record("a", "us again"));
    let sent = store.take_unsent(1, NOW);
    // Ours became 6, theirs 7, and theirs is told first.
    assert_eq!(
        store.incoming(&key("a"), told(7, 7, Some(record("a", "them"))), NOW),
        None
    );
    assert_eq!(store.get(&key("a")), Some(&record("a", "us again")));
    let event = store.acknowledged(&key("a"), sent[0].generation, 6, NOW);
    assert_eq!(event, Some(Event::Put(key("a"))));
    assert_eq!(store.get(&key("a")), Some(&record("a", "them")));
}

#[test]
fn our_change_under_way_beats_an_earlier_one_from_elsewhere() {
    let mut store = settled();
    store.put(record("a", "us again"));
    let sent = store.take_unsent(1, NOW);
    assert_eq!(
        store.incoming(&key("a"), told(6, 6, Some(record("a", "them"))), NOW),
        None
    );
    assert_eq!(
        store.acknowledged(&key("a"), sent[0].generation, 7, NOW),
        None
    );
    assert_eq!(store.get(&key("a")), Some(&record("a", "us again")));
}

#[test]
fn many_changes_of_a_key_wait_as_one() {
    let mut store = store();
    for by in ["1", "2", "3"] {
        store.put(record("a", by));
    }
    store.delete(&key("a"));
    store.put(record("a", "4"));
    let sent = store.take_unsent(10, NOW);
    assert_eq!(
        sent.iter().map(|change| &change.record).collect::<Vec<_>>(),
        [&Some(record("a", "4"))]
    );
    assert_eq!(store.under_way(), 1);
}

#[test]
fn a_failed_change_is_sent_again() {
    let mut store = store();
    store.put(record("a", "us"));
    assert_eq!(store.take_unsent(10, NOW).len(), 1);
    assert_eq!(store.take_unsent(10, NOW).len(), 0);
    store.failed(&key("a"));
    assert_eq!(store.take_unsent(10, NOW).len(), 1);
}

#[test]
fn an_empty_server_is_told_again_and_nothing_is_forgotten() {
    let mut store = settled();
    store.incoming(&key("b"), told(6, 6, Some(record("b", "them"))), NOW);
    store.session_started();
    assert_eq!(store.session_ready(NOW), 1);
    let sent = store.take_unsent(10, NOW);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].record, Some(record("a", "us")));
    assert_eq!(store.get(&key("b")), Some(&record("b", "them")));
}

#[test]
fn a_server_with_an_older_state_is_told_again() {
    let mut store = settled();
    store.session_started();
    assert_eq!(
        store.incoming(&key("a"), told(4, 4, Some(record("a", "us earlier"))), NOW),
        None
    );
    assert_eq!(store.session_ready(NOW), 1);
    assert_eq!(store.get(&key("a")), Some(&record("a", "us")));
}

#[test]
fn what_others_did_while_we_were_away_is_taken_over() {
    let mut store = settled();
    store.incoming(&key("b"), told(6, 6, Some(record("b", "them"))), NOW);
    store.session_started();
    assert_eq!(
        store.incoming(&key("a"), told(9, 9, Some(record("a", "them"))), NOW),
        Some(Event::Put(key("a")))
    );
    assert_eq!(
        store.incoming(&key("b"), told(10, 10, None), NOW),
        Some(Event::Deleted(key("b")))
    );
    assert_eq!(store.session_ready(NOW), 0);
}

#[test]
fn a_delete_made_while_away_reaches_the_server() {
    let mut store = settled();
    store.delete(&key("a"));
    assert_eq!(store.get(&key("a")), None);
    store.session_started();
    assert_eq!(
        store.incoming(&key("a"), told(5, 5, Some(record("a", "us"))), NOW),
        None
    );
    store.session_ready(NOW);
    let sent = store.take_unsent(10, NOW);
    assert_eq!(sent[0].record, None);
    assert_eq!(
        store.acknowledged(&key("a"), sent[0].generation, 6, NOW),
        None
    );
    assert_eq!(store.len(), 0);
}

#[test]
fn a_store_within_the_process_keeps_nothing_of_what_was_deleted() {
    let mut store = Store::new(false, Life::begin());
    store.put(record("a", "us"));
    assert_eq!(store.delete(&key("a")), Some(Event::Deleted(key("a"))));
    assert_eq!((store.len(), store.under_way()), (0, 0));
    assert_eq!(store.delete(&key("a")), None);
}

#[test]
fn the_number_of_keys_is_bounded() {
    let mut store = Store::new(false, Life::begin());
    for number in 0..MAX_KEYS {
        assert!(store.put(record(&number.to_string(), "us")).is_some());
    }
    assert_eq!(store.put(record("one-more", "us")), None);
    assert!(store.is_full_for(&key("one-more")));
    assert!(store.put(record("0", "us again")).is_some());
}

#[test]
fn what_others_put_is_not_taken_back_by_servers_with_an_older_state() {
    let mut store = settled();
    store.incoming(&key("b"), told(6, 60, Some(record("b", "them"))), NOW);
    store.session_started();
    assert_eq!(
        store.incoming(
            &key("b"),
            told(3, 30, Some(record("b", "them earlier"))),
            NOW
        ),
        None
    );
    assert_eq!(store.incoming(&key("a"), told(2, 20, None), NOW), None);
    assert_eq!(store.session_ready(NOW), 1, "ours is put again");
    assert_eq!(store.get(&key("b")), Some(&record("b", "them")));
    // The owner comes back as well.
    let event = store.incoming(&key("b"), told(4, 70, Some(record("b", "them again"))), NOW);
    assert_eq!(event, Some(Event::Put(key("b"))));
}

#[test]
fn what_others_put_into_a_bucket_made_anew_is_news() {
    let mut store = settled();
    store.incoming(&key("a"), told(5, 50, Some(record("a", "us"))), NOW);
    store.incoming(&key("b"), told(6, 60, Some(record("b", "them"))), NOW);
    store.session_started();
    let event = store.incoming(&key("b"), told(1, 70, Some(record("b", "them again"))), NOW);
    assert_eq!(event, Some(Event::Put(key("b"))));
    let event = store.incoming(&key("a"), told(2, 80, Some(record("a", "them"))), NOW);
    assert_eq!(event, Some(Event::Put(key("a"))));
    assert_eq!(store.session_ready(NOW), 0);
}

#[test]
fn acknowledgements_go_on_while_the_servers_state_is_read_anew() {
    let mut store = settled();
    store.put(record("a", "us again"));
    let sent = store.take_unsent(10, NOW);
    store.reading_anew();
    assert_eq!(store.take_unsent(10, NOW), [], "it is on its way");
    assert_eq!(
        store.incoming(&key("a"), told(5, 50, Some(record("a", "us"))), NOW),
        None
    );
    assert_eq!(
        store.acknowledged(&key("a"), sent[0].generation, 6, NOW),
        None
    );
    assert_eq!(store.session_ready(NOW), 0);
    assert_eq!(store.get(&key("a")), Some(&record("a", "us again")));
}

/// Servers that keep the last message of each subject, with its revision and the time.
#[derive(Default, Clone)]
struct Server {
    revision: u64,
    /// Never goes back, whatever is lost.
    clock: i64,
    messages: BTreeMap<Key, (u64, i64, Option<Record>)>,
}

/// A node's connection: what was told so far and which acknowledgements are on their way.
struct Session {
    told: u64,
    snapshot_end: Option<u64>,
    acknowledgements: VecDeque<(Unsent, u64)>,
}

struct Node {
    store: Store,
    session: Option<Session>,
}

struct Simulation {
    random: StdRng,
    server: Server,
    earlier: Server,
    nodes: Vec<Node>,
    counter: u64,
}

impl Simulation {
    fn step(&mut self, with_data_loss: bool) {
        let index = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..100) {
            0..20 => {
                self.counter += 1;
                let id = self.random.random_range(0..5).to_string();
                self.nodes[index]
                    .store
                    .put(record(&id, &format!("{index}.{}", self.counter)));
            }
            20..26 => {
                let id = self.random.random_range(0..5).to_string();
                self.nodes[index].store.delete(&key(&id));
            }
            26..52 => self.send(index),
            52..72 => self.acknowledge(index),
            72..92 => self.tell(index),
            92..95 => self.nodes[index].session = None,
            95..97 => self.connect(index),
            97 => self.read_anew(index),
            _ if with_data_loss => {
                // The servers come back with nothing, or with what they had at some time.
                let clock = self.server.clock;
                self.server = match self.random.random_bool(0.5) {
                    true => Server::default(),
                    false => self.earlier.clone(),
                };
                self.server.clock = clock;
                for node in &mut self.nodes {
                    node.session = None;
                }
            }
            _ => self.earlier = self.server.clone(),
        }
    }

    fn connect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.session.is_none() {
            node.store.session_started();
            let snapshot_end = Some(self.server.revision);
            node.session = Some(Session {
                told: 0,
                snapshot_end,
                acknowledgements: VecDeque::new(),
            });
            self.end_snapshot(index);
        }
    }

    /// The node's reader is replaced; the connection lives.
    fn read_anew(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(session) = &mut node.session {
            node.store.reading_anew();
            session.told = 0;
            session.snapshot_end = Some(self.server.revision);
            self.end_snapshot(index);
        }
    }

    /// Ends the snapshot once nothing of it is left to tell.
    fn end_snapshot(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(Session {
            told,
            snapshot_end: ending @ Some(_),
            ..
        }) = &mut node.session
        else {
            return;
        };
        let end = ending.unwrap_or_default();
        if !self
            .server
            .messages
            .values()
            .any(|(revision, ..)| *revision > *told && *revision <= end)
        {
            *ending = None;
            node.store.session_ready(NOW);
        }
    }

    fn send(&mut self, index: usize) {
        let most = self.random.random_range(1..4);
        let is_lost = self.random.random_bool(0.1);
        let node = &mut self.nodes[index];
        let Some(session) = &mut node.session else {
            return;
        };
        for change in node.store.take_unsent(most, NOW) {
            if is_lost {
                node.store.failed(&change.key);
                continue;
            }
            self.server.revision += 1;
            self.server.clock += 1;
            self.server.messages.insert(
                change.key.clone(),
                (
                    self.server.revision,
                    self.server.clock,
                    change.record.clone(),
                ),
            );
            session
                .acknowledgements
                .push_back((change, self.server.revision));
        }
    }

    fn acknowledge(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some((change, revision)) = node
            .session
            .as_mut()
            .and_then(|session| session.acknowledgements.pop_front())
        {
            node.store
                .acknowledged(&change.key, change.generation, revision, NOW);
        }
    }

    fn tell(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(session) = &mut node.session else {
            return;
        };
        let next = self
            .server
            .messages
            .iter()
            .filter(|(_, (revision, ..))| *revision > session.told);
        if let Some((key, (revision, published, record))) =
            next.min_by_key(|(_, (revision, ..))| *revision)
        {
            session.told = *revision;
            let event = node
                .store
                .incoming(key, told(*revision, *published, record.clone()), NOW);
            if matches!(event, Some(Event::Deleted(_))) {
                assert!(record.is_none(), "only a delete deletes");
            }
        }
        self.end_snapshot(index);
    }

    /// Everything arrives.
    fn settle(&mut self) {
        for _ in 0..1000 {
            for index in 0..self.nodes.len() {
                self.connect(index);
                self.send(index);
                self.acknowledge(index);
                self.tell(index);
            }
        }
    }

    fn check(&self) {
        for node in &self.nodes {
            let under_way = node
                .store
                .entries
                .values()
                .filter(|entry| entry.is_under_way())
                .count();
            assert_eq!(under_way, node.store.under_way());
            assert_eq!(
                node.store.unsent.len(),
                node.store
                    .entries
                    .values()
                    .filter(|entry| entry.queued)
                    .count(),
                "every queued key waits once"
            );
        }
    }
}

fn simulate(seed: u64, with_data_loss: bool) -> Simulation {
    let nodes = (0..3)
        .map(|_| Node {
            store: store(),
            session: None,
        })
        .collect();
    let mut simulation = Simulation {
        random: StdRng::seed_from_u64(seed),
        server: Server::default(),
        earlier: Server::default(),
        nodes,
        counter: 0,
    };
    for _ in 0..400 {
        simulation.step(with_data_loss);
        simulation.check();
    }
    simulation.settle();
    simulation.check();
    simulation
}

#[test]
fn all_nodes_end_with_what_the_servers_have_whatever_was_lost_on_the_way() {
    for seed in 0..400 {
        let simulation = simulate(seed, false);
        let truth: Vec<Record> = simulation
            .server
            .messages
            .values()
            .filter_map(|(.., record)| record.clone())
            .collect();
        for node in &simulation.nodes {
            assert_eq!(node.store.matching(&Prefix::All), truth, "seed {seed}");
            assert_eq!(node.store.under_way(), 0, "seed {seed}");
        }
    }
}

#[test]
fn servers_that_lost_everything_have_every_owners_record_again() {
    for seed in 0..400 {
        let simulation = simulate(seed, true);
        for node in &simulation.nodes {
            assert_eq!(node.store.under_way(), 0, "seed {seed}");
            for (key, entry) in node.store.entries.iter().filter(|(_, entry)| entry.own) {
                let at_servers = simulation
                    .server
                    .messages
                    .get(key)
                    .and_then(|(.., record)| record.as_ref());
                assert_eq!(at_servers, entry.record.as_ref(), "seed {seed}");
            }
        }
    }
}
