mod down;
mod gradual;
mod intent;
mod port_ranges;
mod reload;
mod scale;
mod sorry;

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{MacAddr, Tables};
use health::{Check, State, Transition};
use shared::bus::{
    Change, DrainRecord, Heard, Key, NodeRecord, Prefix, Record, RegistrationRecord, TargetRecord,
    Tier,
};
use shared::config::Document;

use super::{Action, Control, Pulse};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::nic::Nic;

const CONFIG: &str = r#"
bus = { transport = "nats", nats = { servers = ["10.9.0.5:4222"] } }
[node]
id = "l4-1"
[[ports]]
name = "int"
device = "net_ring0"
address = "10.3.0.11/24"
local_ips = ["10.3.0.100"]
[[services]]
name = "checked"
vip = "10.0.0.100"
protocol = "tcp"
port = 80
from_registrations = true
targets = [{ address = "10.3.0.21:80", weight = 3 }]
health = { type = "tcp" }
[[services]]
name = "plain"
vip = "10.0.0.100"
protocol = "udp"
port = 53
from_registrations = true
targets = [{ address = "10.3.0.53:53" }]
"#;

fn nics() -> Vec<Nic> {
    vec![Nic {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        ..Nic::default()
    }]
}

struct Node {
    control: Control,
    checks: Vec<Check>,
    puts: Vec<Record>,
    warnings: Vec<String>,
    left: bool,
    taken_back: Vec<Key>,
}

impl Node {
    fn start() -> Node {
        Node::of(CONFIG)
    }

    fn of(config: &str) -> Node {
        let config = Document::from_toml("t", config)
            .unwrap()
            .parse(Config::parse)
            .unwrap();
        let mut control = Control::new(&config, &nics());
        let tables = control.first_tables().unwrap();
        control.published(tables.into());
        let mut node = Node {
            control,
            checks: Vec::new(),
            puts: Vec::new(),
            warnings: Vec::new(),
            left: false,
            taken_back: Vec::new(),
        };
        let actions = node.control.begin();
        node.carry_out(actions);
        node.bus(&Change::Connected(true));
        node.bus(&Change::Heard(Heard::ALWAYS));
        let actions = node.control.pulse_is(Pulse::Beating);
        node.carry_out(actions);
        node
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(tables) => self.control.published(tables.into()),
                Action::Put(record) => {
                    assert_eq!(record.validate(), Ok(()), "{record:?}");
                    self.puts.push(record);
                }
                Action::Check(checks) => self.checks = checks,
                Action::Warn(text) => self.warnings.push(text),
                Action::Leave => self.left = true,
                Action::TakeBack(key) => self.taken_back.push(key),
            }
        }
    }

    fn bus(&mut self, change: &Change) {
        self.bus_at(0, change);
    }

    fn bus_at(&mut self, seconds: u64, change: &Change) {
        let actions = self.control.bus(Duration::from_secs(seconds), change);
        self.carry_out(actions);
        self.settle();
    }

    fn settle(&mut self) {
        let actions = self.control.settle();
        self.carry_out(actions);
        assert!(!self.control.is_unsettled());
    }

    fn tick_at(&mut self, seconds: u64) {
        let actions = self.control.tick(Duration::from_secs(seconds), 0.25);
        self.carry_out(actions);
        self.settle();
    }

    fn health(&mut self, service: &str, target: &str, state: State) {
        let transition = Transition {
            id: format!("{service} {target}").into(),
            address: target.parse::<Endpoint>().unwrap().0,
            state,
            reason: "as the test says".into(),
            first: false,
        };
        let actions = self.control.health(7, &transition);
        self.carry_out(actions);
        self.settle();
    }

    fn tables(&self) -> &Tables {
        self.control.tables.as_deref().unwrap()
    }

    /// Addresses of a service that take new flows, as the workers see it.
    fn eligible(&self, service: usize) -> Vec<String> {
        let id = self.control.services()[service].id.unwrap();
        let tables = self.tables();
        let address =
            |id: &dataplane::TargetId| tables.target(*id).unwrap().config.address.to_string();
        tables
            .service(id)
            .unwrap()
            .eligible
            .iter()
            .map(address)
            .collect()
    }

    fn targets(&self, service: usize) -> Vec<String> {
        self.control.services()[service]
            .targets()
            .map(|(address, _)| address.to_string())
            .collect()
    }

    fn record(&self) -> &NodeRecord {
        let node = |record: &'_ Record| matches!(record, Record::Node(_));
        match self.puts.iter().rev().find(|record| node(record)) {
            Some(Record::Node(record)) => record,
            _ => panic!("no node record was put"),
        }
    }
}

fn offer(service: &str, addr: &str) -> RegistrationRecord {
    RegistrationRecord {
        service: service.into(),
        addr: addr.parse().unwrap(),
        node: "l7-1".into(),
        weight: 5,
        draining: false,
        ttl_ms: 3000,
    }
}

fn put(record: impl Into<Record>) -> Change {
    Change::Put(record.into())
}

fn snapshot(records: Vec<Record>) -> Change {
    Change::Snapshot {
        prefix: Prefix::All,
        records,
    }
}

fn key(service: &str, addr: &str) -> Key {
    Key::Registration {
        service: service.into(),
        addr: addr.parse().unwrap(),
    }
}

#[test]
fn targets_take_flows_once_their_health_is_known() {
    let mut node = Node::start();
    assert_eq!(node.checks.len(), 1);
    assert!(node.eligible(0).is_empty());
    assert_eq!(
        node.eligible(1),
        ["10.3.0.53:53"],
        "without checks a target is up"
    );
    node.health("checked", "10.3.0.21:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
    assert_eq!(node.record().services[0].healthy, 1);
    node.health("checked", "10.3.0.21:80", State::Down);
    assert!(node.eligible(0).is_empty());
    assert_eq!(
        (
            node.record().services[0].healthy,
            node.record().services[0].total
        ),
        (0, 1)
    );
}

#[test]
fn what_probes_find_is_told_on_the_bus() {
    let mut node = Node::start();
    node.health("checked", "10.3.0.21:80", State::Up);
    let target = node.puts.iter().find_map(|record| match record {
        Record::Target(target) => Some(target.clone()),
        _ => None,
    });
    let target = target.unwrap();
    assert_eq!(
        (
            target.service.as_str(),
            target.up,
            target.seen_by.as_str(),
            target.since_unix_ms
        ),
        ("checked", true, "l4-1", 7)
    );
}

#[test]
fn registered_targets_are_checked_and_go_when_they_are_withdrawn() {
    let mut node = Node::start();
    node.bus(&put(offer("checked", "10.3.0.31:80")));
    assert_eq!(node.checks.len(), 2);
    node.health("checked", "10.3.0.31:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.31:80"]);
    node.bus(&Change::Deleted(key("checked", "10.3.0.31:80")));
    assert_eq!(node.targets(0), ["10.3.0.21:80"]);
    assert_eq!(node.checks.len(), 1);
}

#[test]
fn a_draining_registration_takes_no_new_flows_but_stays() {
    let mut node = Node::start();
    node.bus(&put(offer("plain", "10.3.0.31:53")));
    assert_eq!(node.eligible(1), ["10.3.0.31:53", "10.3.0.53:53"]);
    node.bus(&put(RegistrationRecord {
        draining: true,
        ..offer("plain", "10.3.0.31:53")
    }));
    assert_eq!(node.eligible(1), ["10.3.0.53:53"]);
    assert_eq!(node.targets(1).len(), 2);
    node.bus(&put(RegistrationRecord {
        weight: 0,
        ..offer("plain", "10.3.0.31:53")
    }));
    assert_eq!(node.eligible(1), ["10.3.0.53:53"]);
}

#[test]
fn a_registration_runs_out_only_while_it_would_be_heard() {
    let heard = |since, until| {
        Change::Heard(Heard {
            since: Duration::from_secs(since),
            until: Duration::from_secs(until),
        })
    };
    let mut node = Node::start();
    node.bus_at(0, &put(offer("plain", "10.3.0.31:53")));
    node.bus_at(1, &heard(0, 1));
    node.tick_at(3600);
    assert_eq!(node.targets(1).len(), 2, "nothing proves that we hear");
    node.bus_at(3602, &heard(3600, 3602));
    node.tick_at(3602);
    assert_eq!(node.targets(1).len(), 2);
    node.bus_at(3603, &heard(3600, 3603));
    node.tick_at(3603);
    assert_eq!(node.targets(1), ["10.3.0.53:53"]);
    // The servers still have what its owner left.
    node.bus_at(3604, &snapshot(vec![offer("plain", "10.3.0.31:53").into()]));
    assert_eq!(node.targets(1), ["10.3.0.53:53"]);
}

#[test]
fn own_probes_outlive_a_registration_that_ran_out() {
    let mut node = Node::start();
    node.bus_at(0, &put(offer("checked", "10.3.0.31:80")));
    node.health("checked", "10.3.0.31:80", State::Up);
    node.tick_at(10);
    assert_eq!(node.eligible(0), ["10.3.0.31:80"]);
    node.health("checked", "10.3.0.31:80", State::Down);
    assert_eq!(node.targets(0), ["10.3.0.21:80"]);
}

#[test]
fn a_bus_that_lost_its_memory_takes_no_healthy_target_away() {
    let mut node = Node::start();
    node.bus(&put(offer("checked", "10.3.0.31:80")));
    node.health("checked", "10.3.0.31:80", State::Up);
    node.bus(&snapshot(Vec::new()));
    assert_eq!(node.eligible(0), ["10.3.0.31:80"]);
    node.bus(&snapshot(vec![offer("checked", "10.3.0.31:80").into()]));
    node.health("checked", "10.3.0.31:80", State::Down);
    assert_eq!(node.targets(0).len(), 2, "somebody stands behind it again");
}

#[test]
fn a_configured_target_outlives_its_registration() {
    let mut node = Node::start();
    node.health("checked", "10.3.0.21:80", State::Up);
    node.bus(&put(RegistrationRecord {
        weight: 0,
        ..offer("checked", "10.3.0.21:80")
    }));
    assert!(
        node.eligible(0).is_empty(),
        "what a target says of itself goes first"
    );
    node.bus(&Change::Deleted(key("checked", "10.3.0.21:80")));
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
}

#[test]
fn registrations_that_cannot_be_forwarded_to_are_left_out_with_a_warning() {
    let mut node = Node::start();
    for addr in [
        "[2001:db8::1]:80",
        "10.77.0.1:80",
        "10.3.0.11:80",
        "10.3.0.100:80",
        "10.0.0.100:80",
    ] {
        node.bus(&put(offer("checked", addr)));
    }
    assert_eq!(node.warnings.len(), 5, "{:?}", node.warnings);
    node.bus(&put(offer("unheard-of", "10.3.0.31:80")));
    assert_eq!(node.targets(0).len(), 1);
}

#[test]
fn a_member_gone_mad_does_not_fill_the_tables() {
    let mut node = Node::start();
    for port in 1..=2000 {
        let offer = put(RegistrationRecord {
            weight: u32::MAX,
            ..offer("plain", &format!("10.3.0.31:{port}"))
        });
        let actions = node.control.bus(Duration::ZERO, &offer);
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Publish(_))),
            "one snapshot for each would take forever"
        );
        node.carry_out(actions);
    }
    node.settle();
    assert_eq!(node.targets(1).len(), shared::bus::MAX_REGISTERED + 1);
    node.health("checked", "10.3.0.21:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
}

#[test]
fn observers_decide_for_targets_that_nobody_here_probes() {
    let mut node = Node::start();
    let seen = |service: &str, addr: &str, up: bool, by: &str| {
        let addr: SocketAddr = addr.parse().unwrap();
        put(TargetRecord {
            service: service.into(),
            addr,
            up,
            reason: "no reply".into(),
            since_unix_ms: 1,
            seen_by: by.into(),
        })
    };
    node.bus(&seen("plain", "10.3.0.53:53", false, "observer"));
    assert!(node.eligible(1).is_empty());
    node.bus(&Change::Deleted(Key::Target {
        service: "plain".into(),
        addr: "10.3.0.53:53".parse().unwrap(),
    }));
    assert_eq!(node.eligible(1), ["10.3.0.53:53"]);
    node.health("checked", "10.3.0.21:80", State::Up);
    node.bus(&seen("checked", "10.3.0.21:80", false, "observer"));
    assert_eq!(node.eligible(0), ["10.3.0.21:80"], "own probes go first");
}

#[test]
fn the_node_says_at_once_when_it_stops_forwarding() {
    let mut node = Node::start();
    assert!(node.record().forwarding && node.record().ready);
    let actions = node
        .control
        .pulse_is(Pulse::Stalled("worker 0 does not turn its loop".into()));
    node.carry_out(actions);
    assert!(!node.record().forwarding && !node.record().ready);
    assert_eq!(
        node.control.ready(),
        Err("worker 0 does not turn its loop".into())
    );
}

#[test]
fn an_operator_drains_this_node_and_no_other() {
    let mut node = Node::start();
    let drain = |id: &str, drain| {
        put(DrainRecord {
            tier: Tier::L4,
            id: id.into(),
            drain,
            by: "op".into(),
            since_unix_ms: 1,
        })
    };
    node.bus(&drain("l4-2", true));
    assert!(!node.record().draining);
    node.bus(&drain("l4-1", true));
    assert!(node.record().draining && node.record().forwarding && !node.record().ready);
    node.bus(&drain("l4-1", false));
    assert!(!node.record().draining && node.record().ready);
    let actions = node.control.stop();
    node.carry_out(actions);
    assert!(node.record().draining);
}

#[test]
fn others_hear_from_the_node_at_every_tick() {
    let mut node = Node::start();
    let before = node.puts.len();
    node.tick_at(1);
    assert_eq!(node.puts.len(), before + 1);
    assert!((node.record().load - 0.25).abs() < 1e-9);
    assert!(node.record().ttl_ms > 2000);
}

#[test]
fn a_target_that_is_withdrawn_and_offered_again_keeps_its_health() {
    let mut node = Node::start();
    node.bus(&put(offer("checked", "10.3.0.31:80")));
    node.health("checked", "10.3.0.31:80", State::Up);
    // Both before the next snapshot: the checker sees no difference and has nothing to say.
    for change in [
        Change::Deleted(key("checked", "10.3.0.31:80")),
        put(offer("checked", "10.3.0.31:80")),
    ] {
        let actions = node.control.bus(Duration::ZERO, &change);
        node.carry_out(actions);
    }
    node.settle();
    assert_eq!(node.eligible(0), ["10.3.0.31:80"]);
}

#[test]
fn a_node_that_left_is_not_heard_of_again() {
    let mut node = Node::start();
    let actions = node.control.leave();
    node.carry_out(actions);
    assert!(node.left, "its record is taken back");
    let before = node.puts.len();
    node.tick_at(1);
    let actions = node.control.pulse_is(Pulse::Stalled("stopped".into()));
    node.carry_out(actions);
    assert_eq!(node.puts.len(), before);
}
