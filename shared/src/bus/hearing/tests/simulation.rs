//! A fleet over a bus with faults, by a clock of its own: nobody alive is taken for dead, and the dead are noticed.
//!
//! A failing seed is printed; `WEIR_SEED` replays it.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::*;
use crate::bus::{Change, Expiry, Key, NodeRecord, Record, Tier};

const STEP: Duration = Duration::from_millis(20);
const BEAT: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(4);
const NODES: usize = 4;

fn record(node: usize) -> Record {
    NodeRecord {
        tier: Tier::L4,
        id: format!("l4-{node}"),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: String::new(),
        services: Vec::new(),
        ttl_ms: TTL.as_millis() as u64,
    }
    .into()
}

/// The bucket at its servers.
#[derive(Default)]
struct Bucket {
    /// Without a leader, or a quorum, until then nothing is taken and nothing opened.
    away_until: Duration,
    /// Until then puts are refused, as a full bucket does.
    full_until: Duration,
    revision: u64,
    log: Vec<(u64, usize)>,
}

/// What comes down a connection.
enum Down {
    Taken(Option<Ticket>, u64),
    Refused(Option<Ticket>),
    Current(u64),
    Told(u64, usize),
}

/// A connection, with what is on its way. Held traffic comes late, in order.
#[derive(Default)]
struct Connection {
    up: VecDeque<(Duration, Option<Ticket>)>,
    down: VecDeque<(Duration, Down)>,
    /// The reader's place in the log; none while it is being opened.
    reader: Option<usize>,
    opened_at: Duration,
    /// The reader lives.
    tells: bool,
    unanswered: VecDeque<Duration>,
}

struct Node {
    alive: bool,
    hearing: Hearing,
    expiry: Expiry,
    connection: Option<Connection>,
    retry_at: Duration,
    pause: Duration,
    next_beat: Duration,
    has_beat: bool,
    next_look: Duration,
    latency: Duration,
    up_held_until: Duration,
    down_held_until: Duration,
    taken: Vec<Duration>,
}

struct Fleet {
    random: StdRng,
    now: Duration,
    bucket: Bucket,
    nodes: Vec<Node>,
    /// Who was taken for dead by whom, and when.
    buried: Vec<(Duration, usize, usize)>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = (0..NODES).map(|_| Node {
            alive: true,
            hearing: Hearing::new(GRACE),
            expiry: Expiry::new(),
            connection: None,
            retry_at: Duration::ZERO,
            pause: Duration::from_millis(50),
            next_beat: Duration::from_millis(random.random_range(0..1000)),
            has_beat: false,
            next_look: Duration::ZERO,
            latency: Duration::from_millis(random.random_range(0..60)),
            up_held_until: Duration::ZERO,
            down_held_until: Duration::ZERO,
            taken: Vec::new(),
        });
        Self {
            nodes: nodes.collect(),
            random,
            now: Duration::ZERO,
            bucket: Bucket::default(),
            buried: Vec::new(),
        }
    }

    fn within(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(least..most))
    }

    /// Runs for so long, with a fault of `faults` kinds about every `mean`.
    fn run(&mut self, time: Duration, mean: Duration, faults: &[fn(&mut Self)]) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let chance = STEP.as_secs_f64() / mean.as_secs_f64();
            if !faults.is_empty() && self.random.random_bool(chance) {
                let number = self.random.random_range(0..faults.len());
                faults[number](self);
            }
            for index in 0..self.nodes.len() {
                if self.nodes[index].alive {
                    self.step(index);
                }
            }
        }
    }

    fn is_away(&self) -> bool {
        self.now < self.bucket.away_until
    }

    fn lose(&mut self, index: usize) {
        let jitter = self.random.random_range(0.5..1.0);
        let (now, node) = (self.now, &mut self.nodes[index]);
        if node.connection.take().is_some() {
            node.pause = Duration::from_millis(50);
        }
        node.hearing.interrupted();
        node.has_beat = true;
        node.retry_at = now + node.pause.mul_f64(jitter);
        node.pause = (node.pause * 2).min(RETRY_MAX);
    }

    fn step(&mut self, index: usize) {
        let jitter = self.random.random_range(0.97..1.03);
        let (now, is_away) = (self.now, self.is_away());
        let node = &mut self.nodes[index];
        if now >= node.next_beat {
            node.next_beat = now + BEAT.mul_f64(jitter);
            node.has_beat = true;
        }
        if node.connection.is_none() && now >= node.retry_at {
            let is_held = now < node.up_held_until.max(node.down_held_until);
            if is_away || is_held {
                self.lose(index);
            } else {
                let open = now + self.within(10, 300);
                let node = &mut self.nodes[index];
                node.hearing.interrupted();
                node.connection = Some(Connection {
                    opened_at: open,
                    tells: true,
                    ..Connection::default()
                });
            }
        }
        let node = &mut self.nodes[index];
        let Some(connection) = &mut node.connection else {
            return;
        };
        if std::mem::take(&mut node.has_beat) {
            let arrives = (now + node.latency).max(node.up_held_until);
            connection.up.push_back((arrives, node.hearing.sent(now)));
            connection.unanswered.push_back(now);
        }
        self.serve(index);
        self.hear(index);
        let node = &mut self.nodes[index];
        if let Some(connection) = &mut node.connection {
            if connection
                .unanswered
                .front()
                .is_some_and(|sent| now - *sent > ANSWER)
            {
                return self.lose(index);
            }
            if now >= node.next_look {
                node.next_look = now + LOOK;
                if node.hearing.deadline().is_some_and(|at| at <= now) {
                    node.hearing.gave_up();
                    self.renew(index);
                }
            }
        }
        let node = &mut self.nodes[index];
        for key in node.expiry.expired(now) {
            let Key::Node { id, .. } = key else {
                continue;
            };
            let dead = id.trim_start_matches("l4-").parse().unwrap();
            if dead != index {
                self.buried.push((now, index, dead));
            }
        }
    }

    fn renew(&mut self, index: usize) {
        let open = self.now + self.within(10, 300);
        let node = &mut self.nodes[index];
        node.hearing.interrupted();
        if let Some(connection) = &mut node.connection {
            connection.reader = None;
            connection.opened_at = open;
            connection.tells = true;
            let is_of_reader =
                |(_, down): &(_, Down)| matches!(down, Down::Told(..) | Down::Current(_));
            connection.down.retain(|down| !is_of_reader(down));
        }
    }

    /// The servers' side of a connection.
    fn serve(&mut self, index: usize) {
        let (now, is_away) = (self.now, self.is_away());
        let node = &mut self.nodes[index];
        let down = (now + node.latency).max(node.down_held_until);
        let Some(connection) = &mut node.connection else {
            return;
        };
        while let Some((_, ticket)) = connection.up.pop_front_if(|(at, _)| *at <= now) {
            if is_away {
                // Nobody answers, or somebody says that there is no such stream.
                continue;
            }
            let answer = if now < self.bucket.full_until {
                Down::Refused(ticket)
            } else {
                self.bucket.revision += 1;
                self.bucket.log.push((self.bucket.revision, index));
                node.taken.push(now);
                Down::Taken(ticket, self.bucket.revision)
            };
            connection.down.push_back((down, answer));
        }
        if !is_away && connection.reader.is_none() && now >= connection.opened_at {
            connection.reader = Some(self.bucket.log.len());
            connection
                .down
                .push_back((down, Down::Current(self.bucket.revision)));
        }
        if let Some(place) = &mut connection.reader
            && connection.tells
        {
            for (revision, of) in self.bucket.log.iter().skip(*place) {
                connection
                    .down
                    .push_back((down, Down::Told(*revision, *of)));
            }
            *place = self.bucket.log.len();
        }
    }

    /// What has come down a connection by now.
    fn hear(&mut self, index: usize) {
        let now = self.now;
        let mut lost = false;
        let mut renew = false;
        let node = &mut self.nodes[index];
        let Some(connection) = &mut node.connection else {
            return;
        };
        while let Some((_, down)) = connection.down.pop_front_if(|(at, _)| *at <= now) {
            let heard = match down {
                Down::Current(revision) => node.hearing.current(now, revision),
                Down::Told(revision, of) => {
                    node.expiry.observe(now, &Change::Put(record(of)));
                    node.hearing.told(now, revision)
                }
                Down::Taken(ticket, revision) => {
                    connection.unanswered.pop_front();
                    match ticket.map(|ticket| node.hearing.acknowledged(now, ticket, revision)) {
                        Some(Acknowledged::Heard(heard)) => Some(heard),
                        Some(Acknowledged::RolledBack) => {
                            renew = true;
                            None
                        }
                        _ => None,
                    }
                }
                Down::Refused(ticket) => {
                    connection.unanswered.pop_front();
                    node.hearing.refused(ticket);
                    lost = ticket.is_none();
                    None
                }
            };
            if let Some(heard) = heard {
                node.expiry.observe(now, &Change::Heard(heard));
            }
        }
        if renew {
            self.renew(index);
        }
        if lost {
            self.lose(index);
        }
    }

    // Faults.

    fn leader_lost(&mut self) {
        self.bucket.away_until = self.now + self.within(100, 12_000);
    }

    fn servers_restart(&mut self) {
        self.bucket.away_until = self.now + self.within(100, 4_000);
        for index in 0..NODES {
            self.lose(index);
        }
    }

    fn one_server_ends(&mut self) {
        for index in 0..NODES {
            if self.random.random_bool(0.4) {
                self.lose(index);
            }
        }
    }

    fn reader_dies(&mut self) {
        let index = self.random.random_range(0..NODES);
        if let Some(connection) = &mut self.nodes[index].connection {
            connection.tells = false;
        }
    }

    fn bucket_rolled_back(&mut self) {
        let back = self.random.random_range(0..=self.bucket.revision);
        self.bucket.revision = back;
        self.bucket.log.clear();
        for node in &mut self.nodes {
            if let Some(connection) = &mut node.connection {
                connection.tells = false;
                connection.reader = connection.reader.map(|_| 0);
            }
        }
    }

    fn bucket_full(&mut self) {
        self.bucket.full_until = self.now + self.within(100, 6_000);
    }

    fn all_held(&mut self) {
        let until = self.now + self.within(500, 6_000);
        for node in &mut self.nodes {
            node.up_held_until = until;
            node.down_held_until = until;
        }
    }

    fn answers_held(&mut self) {
        let index = self.random.random_range(0..NODES);
        self.nodes[index].down_held_until = self.now + self.within(500, 6_000);
    }

    fn puts_held(&mut self) {
        let index = self.random.random_range(0..NODES);
        self.nodes[index].up_held_until = self.now + self.within(500, 6_000);
    }
}

fn seeds() -> std::ops::Range<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "which seed to replay is no configuration"
    )]
    match std::env::var("WEIR_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..30,
    }
}

/// Faults of the bus, which hit whoever is on it. No node's own way to it is any worse than the others'.
const OF_THE_BUS: [fn(&mut Fleet); 7] = [
    Fleet::leader_lost,
    Fleet::servers_restart,
    Fleet::one_server_ends,
    Fleet::reader_dies,
    Fleet::bucket_rolled_back,
    Fleet::bucket_full,
    Fleet::all_held,
];

#[test]
fn no_fault_of_the_bus_makes_anybody_look_dead() {
    for seed in seeds() {
        let mut fleet = Fleet::new(seed);
        fleet.run(Duration::from_secs(10), BEAT, &[]);
        let mean = fleet.within(500, 15_000);
        fleet.run(Duration::from_secs(120), mean, &OF_THE_BUS);
        assert_eq!(fleet.buried, [], "seed {seed}");
    }
}

#[test]
fn whoever_looks_dead_was_silent_for_its_whole_time() {
    let mut faults = OF_THE_BUS.to_vec();
    faults.extend([Fleet::answers_held as fn(&mut Fleet), Fleet::puts_held]);
    for seed in seeds() {
        let mut fleet = Fleet::new(seed);
        fleet.run(Duration::from_secs(10), BEAT, &[]);
        let mean = fleet.within(500, 15_000);
        let end = fleet.now + Duration::from_secs(120);
        while fleet.now < end {
            fleet.run(STEP, mean, &faults);
            let now = fleet.now;
            for (_, by, dead) in std::mem::take(&mut fleet.buried) {
                let Heard { since, until } = fleet.nodes[by].hearing.heard(now).unwrap();
                assert!(since + TTL <= until, "seed {seed}");
                let taken = &fleet.nodes[dead].taken;
                let spoke = taken.iter().find(|at| until - TTL < **at && **at < until);
                assert_eq!(
                    spoke, None,
                    "seed {seed}: {by} gave {dead} up at {now:?}, having heard all until {until:?}"
                );
            }
        }
    }
}

#[test]
fn the_dead_are_noticed_in_their_time_whatever_was_before() {
    for seed in seeds() {
        let mut fleet = Fleet::new(seed);
        fleet.run(Duration::from_secs(60), Duration::from_secs(5), &OF_THE_BUS);
        // All is well again, and has been for as long as others are waited for.
        fleet.run(Duration::from_secs(40), BEAT, &[]);
        fleet.buried.clear();
        let dead = fleet.random.random_range(0..NODES);
        fleet.nodes[dead].alive = false;
        let died = fleet.now;
        fleet.run(Duration::from_secs(10), BEAT, &[]);
        let mut noticed: Vec<usize> = fleet.buried.iter().map(|(_, by, _)| *by).collect();
        noticed.sort_unstable();
        let others: Vec<usize> = (0..NODES).filter(|node| *node != dead).collect();
        assert_eq!(noticed, others, "seed {seed}");
        let took = fleet.buried.iter().map(|(at, ..)| *at - died).max();
        assert!(
            took < Some(TTL + BEAT + Duration::from_millis(300)),
            "seed {seed}: {took:?}"
        );
    }
}
