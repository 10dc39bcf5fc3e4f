//! As many services and targets as a node is to carry. Whatever takes time in proportion to their square would not come to an end here.

use std::fmt::Write as _;

use shared::bus::{MAX_SERVICES, ServiceState};

use super::*;

const SERVICES: usize = 1000;
const TARGETS: usize = 100;

fn config(services: usize, targets: usize) -> String {
    let mut text = r#"
bus = { transport = "nats", nats = { servers = ["10.9.0.5:4222"] } }
[node]
id = "l4-1"
[[ports]]
name = "int"
device = "net_ring0"
address = "10.0.0.1/8"
local_ips = ["10.255.0.1"]
"#
    .to_owned();
    for service in 0..services {
        let (high, low) = (service / 250, service % 250);
        write!(
            text,
            "[[services]]\nname = \"service-{service}\"\nvip = \"198.18.{high}.{low}\"\nprotocol = \"tcp\"\nport = 80\n\
             from_registrations = true\nhealth = {{ type = \"tcp\" }}\ntargets = ["
        )
        .unwrap();
        for target in 1..=targets {
            write!(
                text,
                "{{ address = \"10.{}.{low}.{target}:80\" }}, ",
                high + 1
            )
            .unwrap();
        }
        text.push_str("]\n");
    }
    text
}

#[test]
fn a_thousand_services_of_a_hundred_targets_come_up_and_are_told() {
    let mut node = Node::of(&config(SERVICES, TARGETS));
    assert_eq!(node.checks.len(), SERVICES * TARGETS);

    for check in std::mem::take(&mut node.checks) {
        let transition = Transition {
            id: check.id,
            address: check.address,
            state: State::Up,
            reason: "connected".into(),
            first: true,
        };
        let actions = node.control.health(7, &transition);
        node.carry_out(actions);
    }
    node.settle();
    let told = node.record();
    assert_eq!(told.services.len(), SERVICES);
    let all_up = |service: &ServiceState| (service.healthy, service.total) == (100, 100);
    assert!(told.services.iter().all(all_up));
    assert!(Record::from(told.clone()).encode().is_ok());

    // The bus tells all of it again, with a registration for each target; most of them run out at once.
    let mut records: Vec<Record> = std::mem::take(&mut node.puts);
    assert!(records.len() >= SERVICES * TARGETS);
    let targets: Vec<(String, SocketAddr)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Target(target) => Some((target.service.clone(), target.addr)),
            _ => None,
        })
        .collect();
    for (service, addr) in targets {
        records.push(Record::from(RegistrationRecord {
            service,
            addr,
            node: "l7-1".into(),
            weight: 2,
            draining: false,
            ttl_ms: 3000,
        }));
    }
    node.bus(&snapshot(records));
    let weight = |node: &Node| {
        let targets = node.control.services().iter().flat_map(|s| s.targets());
        targets
            .map(|(_, target)| u32::from(target.weight()))
            .sum::<u32>()
    };
    assert_eq!(weight(&node), 2 * (SERVICES * TARGETS) as u32);
    node.tick_at(10);
    node.bus(&snapshot(Vec::new()));
    assert_eq!(
        node.record().services.iter().filter(|s| all_up(s)).count(),
        SERVICES
    );
    assert!(node.warnings.is_empty(), "{:?}", node.warnings);
}

#[test]
fn more_services_than_a_node_can_tell_of_are_a_mistake() {
    let parse = |services: usize| {
        let text = config(services, 1).replace("from_registrations = true\n", "");
        Document::from_toml("t", &text)
            .unwrap()
            .parse(Config::parse)
    };
    let config = parse(MAX_SERVICES).unwrap();
    assert_eq!(config.services.len(), MAX_SERVICES);
    let mistakes = parse(MAX_SERVICES + 1).unwrap_err().to_string();
    assert!(
        mistakes.contains("1025 services are more than a node can tell others of — 1024 at most"),
        "{mistakes}"
    );
    assert_eq!(
        mistakes.lines().count(),
        1,
        "no key of theirs is unknown: {mistakes}"
    );
}
