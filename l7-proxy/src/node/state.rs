//! The node's decisions, pure: whether it drains, what it tells the other nodes, when it may exit.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use shared::bus::{DrainRecord, NodeRecord, Record, RegistrationRecord, Tier};
use shared::lifecycle::Request;
use shared::presence::BEAT;

use super::drain::Drain;
use crate::config::{Config, Registration};
use crate::exchange::Course;

/// How long other nodes trust this node's record without hearing of it again.
const NODE_TTL: Duration = Duration::from_secs(10);

/// A record is repeated this often within its time to live at least.
const REPEATS: u32 = 3;

/// What follows from a look at the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What workers are told.
    pub course: Course,
    /// Records to put on the bus now.
    pub records: Vec<Record>,
    /// The process may exit.
    pub finished: bool,
}

/// The state of this node.
#[derive(Clone, Debug)]
pub struct Node {
    id: String,
    addresses: Vec<IpAddr>,
    registrations: Vec<Registration>,
    drain: Drain,
    /// Asked for here: by signal or command.
    wanted_here: bool,
    /// Asked for on the bus.
    wanted_by_bus: bool,
    exiting: bool,
    /// When the records were last put, and what was said of draining.
    told: Option<(Instant, bool)>,
}

impl Node {
    /// A node that serves.
    pub fn new(config: &Config) -> Node {
        Node {
            id: config.node.id.clone(),
            addresses: addresses(config),
            registrations: config.registrations.clone(),
            drain: Drain::new(config.drain),
            wanted_here: false,
            wanted_by_bus: false,
            exiting: false,
            told: None,
        }
    }

    /// Goes by another configuration; a drain under way goes on. The records are told anew at the next look at the clock.
    pub fn reconfigure(&mut self, config: &Config) {
        self.addresses = addresses(config);
        self.registrations.clone_from(&config.registrations);
        self.drain.reconfigure(config.drain);
        self.told = None;
    }

    /// Asked to drain, or to serve again, by signal or command. The answer says what came of it.
    ///
    /// # Errors
    /// It can't serve again: it is exiting, or the bus wants it drained.
    pub fn want_here(&mut self, drain: bool, now: Instant) -> Result<&'static str, &'static str> {
        self.wanted_here = drain;
        self.follow(now);
        match (drain, self.exiting, self.wanted_by_bus) {
            (true, _, _) => Ok("draining"),
            (false, true, _) => Err("the process is about to exit"),
            (false, false, true) => {
                Err("a drain record on the bus keeps this node drained; take that back")
            }
            (false, false, false) => Ok("serving"),
        }
    }

    /// What the bus says about this node: a drain record, or that there is none.
    pub fn want_by_bus(&mut self, record: Option<&DrainRecord>, now: Instant) {
        self.wanted_by_bus = record.is_some_and(|record| record.drain);
        self.follow(now);
    }

    /// Asked to exit, after a drain.
    pub fn exit(&mut self, now: Instant) {
        self.exiting = true;
        self.follow(now);
        self.drain.hurry(now);
    }

    /// Another process serves in this one's place, under the same name. Returns what was asked of this one since it was seen to serve, for that
    /// one to be asked.
    pub fn hand_over(&mut self, now: Instant) -> Option<Request> {
        let asked = match (self.exiting, self.wanted_here) {
            (true, _) => Some(Request::Terminate),
            (false, true) => Some(Request::Drain),
            (false, false) => None,
        };
        self.exiting = true;
        self.drain.hand_over(now);
        asked
    }

    /// Whether the process is to exit.
    pub fn is_exiting(&self) -> bool {
        self.exiting
    }

    fn follow(&mut self, now: Instant) {
        if self.wanted_here || self.wanted_by_bus || self.exiting {
            self.drain.start(now, self.exiting);
        } else {
            self.drain.cancel();
        }
    }

    /// Where the drain stands.
    pub fn course(&self, now: Instant) -> Course {
        self.drain.course(now)
    }

    /// Looks at the clock. `connections` are those open now, `limit` the most there may be.
    pub fn tick(&mut self, now: Instant, connections: usize, limit: usize) -> Verdict {
        let course = self.course(now);
        let shortest = self
            .registrations
            .iter()
            .map(|registration| registration.ttl)
            .min()
            .unwrap_or(NODE_TTL)
            .min(NODE_TTL);
        let due = self.told.is_none_or(|(at, draining)| {
            draining != course.draining()
                || now.saturating_duration_since(at) >= BEAT.min(shortest / REPEATS)
        });
        // Another process that goes by this node's name speaks for it.
        let records = if due && !course.handed_over {
            self.told = Some((now, course.draining()));
            self.records(course, connections, limit)
        } else {
            Vec::new()
        };
        Verdict {
            course,
            records,
            finished: self.drain.finished(now, connections),
        }
    }

    fn records(&self, course: Course, connections: usize, limit: usize) -> Vec<Record> {
        let draining = course.draining();
        let node = NodeRecord {
            tier: Tier::L7,
            id: self.id.clone(),
            addresses: self.addresses.clone(),
            ready: !draining,
            draining,
            forwarding: course.accepting(),
            load: (connections as f64 / limit.max(1) as f64).min(1.0),
            software: concat!("weir l7-proxy ", env!("CARGO_PKG_VERSION")).to_owned(),
            services: Vec::new(),
            ttl_ms: millis(NODE_TTL),
        };
        let registrations = self.registrations.iter().map(|registration| {
            Record::from(RegistrationRecord {
                service: registration.service.clone(),
                addr: registration.address,
                node: self.id.clone(),
                weight: registration.weight,
                draining,
                ttl_ms: millis(registration.ttl),
            })
        });
        registrations.chain([Record::from(node)]).collect()
    }
}

/// The addresses others know the node by.
fn addresses(config: &Config) -> Vec<IpAddr> {
    let registered = config.registrations.iter();
    let registered = registered.map(|registration| registration.address.ip());
    let listening = config.listeners.iter();
    let listening = listening.map(|listener| listener.address.ip());
    let mut addresses: Vec<IpAddr> = registered
        .chain(listening.filter(|address| !address.is_unspecified()))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Phase;

    const CONFIG: &str = r#"
        [node]
        id = "l7-1"
        [[listeners]]
        name = "web"
        address = "127.0.0.1:8080"
        [upstreams.app]
        backends = [{ address = "127.0.0.1:9000" }]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        [[registrations]]
        service = "web"
        address = "127.0.0.1:8080"
        ttl = "9s"
        [drain]
        grace = "5s"
        deadline = "30s"
    "#;

    fn node() -> Node {
        Node::new(&Config::from_toml("test.toml", CONFIG).expect("configuration"))
    }

    fn draining(records: &[Record]) -> Option<bool> {
        records.iter().find_map(|record| match record {
            Record::Registration(registration) => Some(registration.draining),
            _ => None,
        })
    }

    #[test]
    fn records_are_repeated_every_second_and_at_once_when_draining_changes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut node = node();
        assert_eq!(draining(&node.tick(at(0), 0, 10).records), Some(false));
        let between = start + Duration::from_millis(900);
        assert!(node.tick(between, 0, 10).records.is_empty());
        assert_eq!(draining(&node.tick(at(1), 0, 10).records), Some(false));
        node.want_here(true, at(4)).expect("drains");
        assert_eq!(draining(&node.tick(at(4), 0, 10).records), Some(true));
        node.want_here(false, at(5)).expect("serves");
        assert_eq!(draining(&node.tick(at(5), 0, 10).records), Some(false));
    }

    #[test]
    fn a_reload_tells_its_registrations_at_once_and_a_drain_goes_on() {
        let start = Instant::now();
        let mut node = node();
        node.tick(start, 0, 10);
        node.want_here(true, start).expect("drains");
        node.tick(start, 0, 10);
        let text = CONFIG.replace("service = \"web\"", "service = \"shop\"");
        node.reconfigure(&Config::from_toml("test.toml", &text).expect("configuration"));
        let records = node.tick(start, 0, 10).records;
        assert_eq!(draining(&records), Some(true));
        let registrations = records.iter().filter_map(|record| match record {
            Record::Registration(registration) => Some(registration.service.as_str()),
            _ => None,
        });
        assert_eq!(registrations.collect::<Vec<_>>(), ["shop"]);
    }

    #[test]
    fn either_wish_keeps_the_node_drained() {
        let now = Instant::now();
        let mut node = node();
        let record = DrainRecord {
            tier: Tier::L7,
            id: "l7-1".into(),
            drain: true,
            by: "test".into(),
            since_unix_ms: 0,
        };
        node.want_by_bus(Some(&record), now);
        assert_eq!(node.course(now).phase, Phase::Grace);
        node.want_here(true, now).expect("drains");
        node.want_by_bus(None, now);
        assert_eq!(node.course(now).phase, Phase::Grace);
        node.want_by_bus(Some(&record), now);
        assert!(node.want_here(false, now).is_err());
        assert_eq!(node.course(now).phase, Phase::Grace);
        node.want_by_bus(
            Some(&DrainRecord {
                drain: false,
                ..record
            }),
            now,
        );
        assert_eq!(node.course(now).phase, Phase::Serving);
    }

    #[test]
    fn what_was_asked_while_another_process_took_over_is_handed_on() {
        let now = Instant::now();
        assert_eq!(node().hand_over(now), None);
        let mut drained = node();
        drained.want_here(true, now).expect("drains");
        assert_eq!(drained.hand_over(now), Some(Request::Drain));
        let mut leaving = node();
        leaving.want_here(true, now).expect("drains");
        leaving.exit(now);
        assert_eq!(leaving.hand_over(now), Some(Request::Terminate));
    }

    #[test]
    fn a_node_that_is_to_exit_cannot_serve_again_and_finishes_when_nothing_is_open() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut node = node();
        node.exit(start);
        assert!(node.want_here(false, start).is_err());
        assert!(!node.tick(at(1), 0, 10).finished);
        assert!(!node.tick(at(6), 1, 10).finished);
        assert!(node.tick(at(6), 0, 10).finished);
    }
}
