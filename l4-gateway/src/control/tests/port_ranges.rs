//! Targets that have the ports of their service, as records and checks name them.

use dataplane::PortRange;
use health::State;
use shared::bus::{Change, Key, Record, TargetRecord};

use super::{CONFIG, Node, put};

/// Of two services of all ports, one probes its targets at port 21 and one listens to others.
fn config() -> String {
    CONFIG
        .replace("port = 80\n", "port = \"*\"\n")
        .replace("port = 53\n", "port = \"5000-5999\"\n")
        .replace("10.3.0.21:80", "10.3.0.21")
        .replace("10.3.0.53:53", "10.3.0.53")
        .replace("type = \"tcp\"", "type = \"tcp\", port = 21")
}

fn told(node: &Node) -> Vec<(String, bool)> {
    let records = node.puts.iter();
    let told = records.filter_map(|record| match record {
        Record::Target(TargetRecord { addr, up, .. }) => Some((addr.to_string(), *up)),
        _ => None,
    });
    told.collect()
}

fn key(service: &str, addr: &str) -> Key {
    Key::Target {
        service: service.into(),
        addr: addr.parse().unwrap(),
    }
}

#[test]
fn a_target_of_all_ports_is_probed_and_told_of_by_the_port_that_is_probed() {
    let mut node = Node::of(&config());
    let check = &node.checks[0];
    assert_eq!(check.id.as_str(), "checked 10.3.0.21:*");
    assert_eq!(check.address, "10.3.0.21:21".parse().unwrap());
    node.health("checked", "10.3.0.21:*", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.21:0"]);
    let at = |addr: &str, up| (addr.to_owned(), up);
    assert_eq!(told(&node), [at("10.3.0.21:21", true)]);
    // Who takes a record away by mistake hears it again; one of another port is left over.
    node.bus(&Change::Deleted(key("checked", "10.3.0.21:21")));
    assert_eq!(
        told(&node),
        [at("10.3.0.21:21", true), at("10.3.0.21:21", true)]
    );
    let Some(Record::Target(record)) = node.puts.last().cloned() else {
        panic!("{:?}", node.puts);
    };
    node.bus(&put(record.clone()));
    assert_eq!(node.taken_back, []);
    node.bus(&put(TargetRecord {
        addr: "10.3.0.21:22".parse().unwrap(),
        ..record
    }));
    assert_eq!(node.taken_back, [key("checked", "10.3.0.21:22")]);
    // It is another record when another port is probed, and none when the target has gone.
    node.reload_at(0, &config().replace("port = 21", "port = 22"));
    assert_eq!(node.taken_back[1..], [key("checked", "10.3.0.21:21")]);
    node.reload_at(0, &config().replace("10.3.0.21", "10.3.0.29"));
    assert_eq!(node.taken_back[2..], [key("checked", "10.3.0.21:22")]);
}

#[test]
fn what_others_see_at_any_port_of_its_host_is_said_of_a_target_of_all_ports() {
    let mut node = Node::of(&config());
    assert_eq!(node.eligible(1), ["10.3.0.53:0"]);
    let seen = |up, addr: &str| TargetRecord {
        service: "plain".into(),
        addr: addr.parse().unwrap(),
        up,
        reason: "probed".into(),
        since_unix_ms: 1,
        seen_by: "observer".into(),
    };
    node.bus(&put(seen(false, "10.3.0.99:5000")));
    assert_eq!(node.eligible(1), ["10.3.0.53:0"]);
    node.bus(&put(seen(false, "10.3.0.53:5000")));
    assert!(node.eligible(1).is_empty());
    node.bus(&Change::Deleted(key("plain", "10.3.0.53:5000")));
    assert_eq!(node.eligible(1), ["10.3.0.53:0"]);
    let service = &node.control.services()[1];
    assert_eq!(service.settings.ports, PortRange::new(5000, 5999).unwrap());
}
