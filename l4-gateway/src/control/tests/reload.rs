use std::sync::Arc;

use dataplane::{Counters, Emitted, Limits, Now, PortIndex, Secret, Verdict, Worker};

use super::*;
use crate::control::{RetiredAddress, RetiredService};

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

    pub(super) fn reload_at(&mut self, seconds: u64, text: &str) {
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
    node.bus(&snapshot(vec![
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
        let views = node
            .control
            .retired_addresses(Duration::from_secs(at), &counters);
        let name = |view: &RetiredAddress| format!("{} {}", view.role, view.address);
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
    node.reload_at(30, &format!("drain.removed_addresses = \"0s\"\n{CONFIG}"));
    // Kept no longer than it takes to end their flows.
    node.control.retire(Duration::from_secs(32), &counters);
    assert_eq!(retired(&node, 32), [""; 0]);
}

#[test]
fn flows_of_a_removed_service_end_when_their_time_is_over_though_its_vip_stays() {
    let limits = Limits {
        flows: 1024,
        ..Limits::default()
    };
    let counters = Arc::new(Counters::new(1, &limits));
    let mut worker = Worker::new(0, 1, &limits, Secret::new([7; 32]), Arc::clone(&counters));
    let mut out = Emitted::new();
    let mut node = Node::of(&format!("drain.removed_addresses = \"5s\"\n{CONFIG}"));
    let query = &mut [udp([10, 3, 0, 7], [10, 0, 0, 100], 53)];
    let at = |seconds: u64| Now(seconds * 1_000_000_000);
    worker.burst(
        node.tables(),
        at(9),
        PortIndex(0),
        query,
        &mut [Verdict::Kernel],
        &mut out,
    );
    assert_eq!(worker.flows(at(9)).count(), 1);

    let without = CONFIG
        .split("[[services]]\nname = \"plain\"")
        .next()
        .unwrap();
    let without = format!("drain.removed_addresses = \"5s\"\n{without}");
    node.reload_at(10, &without);
    let seconds = Duration::from_secs;
    let retired = |node: &Node, at: u64| {
        let views = node.control.retired_services(seconds(at), &counters);
        let view = |view: &RetiredService| (view.port.0.first(), view.flows, view.seconds_left);
        views.iter().map(view).collect::<Vec<_>>()
    };
    assert_eq!(node.control.retired_addresses(seconds(10), &counters), []);
    for (now, left) in [(10, 5), (13, 2), (14, 1)] {
        node.control.retire(seconds(now), &counters);
        assert!(!node.control.is_unsettled());
        worker.tick(node.tables(), at(now), &mut out);
        assert_eq!(retired(&node, now), [(53, 1, left)]);
    }
    node.control.retire(seconds(15), &counters);
    node.settle();
    worker.tick(node.tables(), at(15), &mut out);
    assert_eq!(worker.flows(at(15)).count(), 0);
    assert_eq!(retired(&node, 15), [(53, 0, 0)]);
    node.control.retire(seconds(16), &counters);
    assert_eq!(retired(&node, 16), []);

    // No longer than those of a target that drains.
    let plain = CONFIG.replace(
        "name = \"plain\"",
        "name = \"plain\"\ncut_drained_after = \"3s\"",
    );
    node.reload_at(20, &plain);
    node.reload_at(30, &without);
    assert_eq!(retired(&node, 30), [(53, 0, 3)]);
}

#[test]
fn what_is_removed_is_kept_for_as_long_as_workers_that_sleep_may_take_to_end_its_flows() {
    let limits = Limits::default();
    let counters = Arc::new(Counters::new(1, &limits));
    let kept = |workers: &str| {
        let first = format!("drain.removed_addresses = \"5s\"\n{workers}{CONFIG}");
        let mut node = Node::of(&first);
        let mut worker = Worker::new(0, 1, &limits, Secret::new([7; 32]), Arc::clone(&counters));
        let query = &mut [udp([10, 3, 0, 7], [10, 0, 0, 100], 53)];
        worker.burst(
            node.tables(),
            Now(9_000_000_000),
            PortIndex(0),
            query,
            &mut [Verdict::Kernel],
            &mut Emitted::new(),
        );
        let (without, _) = first.split_once("[[services]]\nname = \"plain\"").unwrap();
        node.reload_at(10, without);
        let seconds = (15..400).find(|now| {
            let now = Duration::from_secs(*now);
            node.control.retire(now, &counters);
            node.control.retired_services(now, &counters).is_empty()
        });
        seconds.unwrap() - 15
    };
    assert_eq!(kept(""), 60);
    // Twice 9216 ticks that are 11 ms apart at most.
    let workers = "workers.poll = \"adaptive\"\nworkers.longest_sleep = \"10ms\"\n";
    assert_eq!(kept(workers), 203);
}

#[test]
fn a_service_whose_ports_change_keeps_its_flows_where_some_stay() {
    let limits = Limits {
        flows: 1024,
        ..Limits::default()
    };
    let counters = Arc::new(Counters::new(1, &limits));
    let mut worker = Worker::new(0, 1, &limits, Secret::new([7; 32]), Arc::clone(&counters));
    let mut node = Node::start();
    let mut send = |node: &Node, port| {
        worker.burst(
            node.tables(),
            Now(9_000_000_000),
            PortIndex(0),
            &mut [udp([10, 3, 0, 7], [10, 0, 0, 100], port)],
            &mut [Verdict::Kernel],
            &mut Emitted::new(),
        );
        worker.flows(Now(9_000_000_000)).count()
    };
    assert_eq!(send(&node, 53), 1);
    let seconds = Duration::from_secs;
    let id = node.control.services()[1].id.unwrap();
    let with = |ports: &str| CONFIG.replace("port = 53", &format!("port = {ports}"));
    let (several, fewer) = (with("\"50-59\""), with("\"53-55\""));
    for (second, config, port) in [(10, &several, 57), (11, &fewer, 54), (12, &several, 58)] {
        node.reload_at(second, config);
        assert_eq!(node.control.services()[1].id, Some(id));
        assert_eq!(
            node.control.retired_services(seconds(second), &counters),
            []
        );
        assert_eq!(counters.service(id).flows_active, second - 9);
        send(&node, port);
    }
    // What can't be refused by the parser leaves all as it was.
    let mut mistaken = parsed(&fewer);
    mistaken.services[1].targets[0].address = "192.0.2.1:53".parse().unwrap();
    let refused = node.control.reload(seconds(13), &mistaken, nics());
    assert!(refused.is_err());
    node.reload_at(14, &several);
    assert_eq!(node.control.services()[1].id, Some(id));
    // Another port is another service.
    node.reload_at(15, &with("60"));
    assert_ne!(node.control.services()[1].id, Some(id));
    let retired = node.control.retired_services(seconds(15), &counters);
    let ports: Vec<String> = retired.iter().map(|view| view.port.0.to_string()).collect();
    assert_eq!(ports, ["50-59"]);
    assert_eq!(retired[0].flows, 4);
}

/// A datagram as it comes in by the node's port.
fn udp(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
    frame.extend([from, to].as_flattened());
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([5000u16, port, 8, 0].map(u16::to_be_bytes).as_flattened());
    frame.resize(60, 0);
    frame
}
