use dataplane::{Counters, Limits};

use super::*;
use crate::control::RetiredView;

fn parsed(text: &str) -> Config {
    let document = Document::from_toml("t", text).unwrap();
    document
        .parse(Config::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

impl Node {
    fn reload(&mut self, text: &str) {
        self.reload_at(0, text);
    }

    fn reload_at(&mut self, seconds: u64, text: &str) {
        let now = Duration::from_secs(seconds);
        let actions = self.control.reload(now, &parsed(text), nics()).unwrap();
        self.carry_out(actions);
        assert!(!self.control.is_unsettled());
    }
}

fn target(service: &str, addr: &str) -> Key {
    Key::Target {
        service: service.into(),
        addr: addr.parse().unwrap(),
    }
}

fn own_record(service: &str, addr: &str) -> TargetRecord {
    TargetRecord {
        service: service.into(),
        addr: addr.parse().unwrap(),
        up: true,
        reason: String::new(),
        since_unix_ms: 7,
        seen_by: "l4-1".into(),
    }
}

#[test]
fn what_stays_keeps_what_is_known_of_it_and_what_goes_is_told() {
    let mut node = Node::start();
    node.bus(&put(offer("checked", "10.3.0.30:80")));
    node.health("checked", "10.3.0.21:80", State::Up);
    node.health("checked", "10.3.0.30:80", State::Up);
    let text = CONFIG
        .replace("10.3.0.21:80\", weight = 3", "10.3.0.22:80\"")
        .replace("name = \"plain\"", "name = \"dns\"");
    node.reload(&text);
    assert_eq!(
        node.targets(0),
        ["10.3.0.22:80", "10.3.0.30:80"],
        "an offer outlives a reload"
    );
    assert_eq!(
        node.eligible(0),
        ["10.3.0.30:80"],
        "the new one waits for its probe, the other's verdict holds"
    );
    assert_eq!(node.taken_back, [target("checked", "10.3.0.21:80")]);
    let checked: Vec<_> = node.checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(
        checked,
        ["checked 10.3.0.22:80", "checked 10.3.0.30:80"],
        "what is gone is no longer probed"
    );
    let told: Vec<_> = node
        .record()
        .services
        .iter()
        .map(|service| &service.service)
        .collect();
    assert_eq!(told, ["checked", "dns"]);
    // A probe that was under way when its target went.
    let before = node.puts.len();
    node.health("checked", "10.3.0.21:80", State::Down);
    assert_eq!(node.puts.len(), before);
}

#[test]
fn a_target_that_was_up_stays_up_until_its_first_probe() {
    let mut node = Node::start();
    let text = CONFIG.to_owned() + "health = { type = \"tcp\" }\n";
    node.reload(&text);
    assert_eq!(node.eligible(1), ["10.3.0.53:53"]);
    node.health("plain", "10.3.0.53:53", State::Down);
    assert!(node.eligible(1).is_empty());
    node.reload(CONFIG);
    assert_eq!(
        node.eligible(1),
        ["10.3.0.53:53"],
        "without checks a target is up"
    );
    assert_eq!(node.taken_back, [target("plain", "10.3.0.53:53")]);
}

#[test]
fn what_can_not_be_forwarded_by_changes_nothing() {
    let mut node = Node::start();
    node.health("checked", "10.3.0.21:80", State::Up);
    let targets: Vec<String> = (0..9000)
        .map(|n| {
            format!(
                "{{ address = \"10.3.{}.{}:80\" }}",
                1 + n / 250,
                1 + n % 250
            )
        })
        .collect();
    let text = CONFIG.replace("10.3.0.11/24", "10.3.0.11/16").replace(
        "[{ address = \"10.3.0.21:80\", weight = 3 }]",
        &format!("[{}]", targets.join(", ")),
    );
    // More than this node has made room for when it started.
    let error = node
        .control
        .reload(Duration::ZERO, &parsed(&text), nics())
        .unwrap_err();
    assert!(
        error.to_string().contains("limit given at start"),
        "{error}"
    );
    assert_eq!(node.targets(0), ["10.3.0.21:80"]);
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
    node.reload(CONFIG);
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
}

#[test]
fn records_of_targets_that_nobody_here_probes_are_taken_back() {
    let mut node = Node::start();
    // Offer and record come in no order.
    node.bus(&Change::Snapshot(vec![
        own_record("checked", "10.3.0.30:80").into(),
        own_record("checked", "10.3.0.99:80").into(),
        own_record("plain", "10.3.0.53:53").into(),
        own_record("gone", "10.3.0.21:80").into(),
        offer("checked", "10.3.0.30:80").into(),
    ]));
    assert_eq!(
        node.taken_back,
        [
            target("checked", "10.3.0.99:80"),
            target("plain", "10.3.0.53:53"),
            target("gone", "10.3.0.21:80")
        ]
    );
    node.taken_back.clear();
    node.health("checked", "10.3.0.30:80", State::Down);
    node.bus(&Change::Deleted(key("checked", "10.3.0.30:80")));
    assert_eq!(
        node.taken_back,
        [target("checked", "10.3.0.30:80")],
        "with its offer withdrawn, a target is probed no more"
    );
}

#[test]
fn a_record_that_another_node_took_back_is_said_again() {
    let mut node = Node::start();
    node.health("checked", "10.3.0.21:80", State::Up);
    let puts = node.puts.len();
    node.bus(&Change::Deleted(target("checked", "10.3.0.21:80")));
    match &node.puts[puts..] {
        [Record::Target(again)] => assert_eq!(
            (again.up, again.since_unix_ms, again.seen_by.as_str()),
            (true, 7, "l4-1")
        ),
        other => panic!("{other:?}"),
    }
    node.bus(&Change::Deleted(target("plain", "10.3.0.53:53")));
    assert_eq!(node.puts.len(), puts + 1, "not probed here");
}

#[test]
fn removed_addresses_stay_known_until_no_flow_uses_them_or_their_time_is_over() {
    let counters = Counters::new(1, &Limits::default());
    let mut node = Node::start();
    let retired = |node: &Node, at: u64| {
        let views = node.control.retired(Duration::from_secs(at), &counters);
        let name = |view: &RetiredView| format!("{} {}", view.role, view.address);
        views.iter().map(name).collect::<Vec<_>>()
    };
    let moved = CONFIG
        .replace("[\"10.3.0.100\"]", "[\"10.3.0.101\"]")
        .replace("10.0.0.100", "10.0.0.200");
    node.reload_at(10, &moved);
    assert_eq!(
        node.record().addresses.len(),
        2,
        "others hear of the new ones only"
    );
    assert_eq!(
        retired(&node, 10),
        ["vip 10.0.0.100", "local_ip 10.3.0.100"]
    );
    // Within the first seconds a worker may still be making flows by the old snapshot.
    node.control.retire(Duration::from_secs(11), &counters);
    assert!(!node.control.is_unsettled());
    node.control.retire(Duration::from_secs(13), &counters);
    assert!(node.control.is_unsettled(), "no flow uses them");
    node.settle();
    assert_eq!(retired(&node, 13), [""; 0]);

    // Back, and away again: what has a role is not retired.
    node.reload_at(20, CONFIG);
    assert_eq!(
        retired(&node, 20),
        ["vip 10.0.0.200", "local_ip 10.3.0.101"]
    );
    node.reload_at(21, &moved);
    assert_eq!(
        retired(&node, 21),
        ["vip 10.0.0.100", "local_ip 10.3.0.100"]
    );
    node.reload_at(21, &format!("drain.removed_addresses = \"0s\"\n{CONFIG}"));
    assert_eq!(retired(&node, 21), [""; 0]);
}
