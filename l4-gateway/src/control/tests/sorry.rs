//! Targets that serve only while no other does.

use super::*;

const TARGETS: &str = r#"targets = [{ address = "10.3.0.21:80", weight = 3 }]"#;
const WITH_SORRY: &str = r#"targets = [{ address = "10.3.0.21:80", weight = 3 }, { address = "10.3.0.22:80" }, { address = "10.3.0.99:80", sorry = true }]"#;

fn node() -> Node {
    assert!(CONFIG.contains(TARGETS));
    Node::of(&CONFIG.replace(TARGETS, WITH_SORRY))
}

#[test]
fn a_sorry_target_gets_flows_only_while_no_other_does_and_keeps_the_vip() {
    let mut node = node();
    let told = |node: &Node| node.record().services[0].healthy;
    let is_sorry = |node: &Node| node.control.services()[0].is_sorry();
    for target in ["10.3.0.21:80", "10.3.0.22:80", "10.3.0.99:80"] {
        node.health("checked", target, State::Up);
    }
    assert_eq!(node.eligible(0), ["10.3.0.21:80", "10.3.0.22:80"]);
    assert_eq!((told(&node), is_sorry(&node)), (2, false));
    node.health("checked", "10.3.0.21:80", State::Down);
    assert_eq!(node.eligible(0), ["10.3.0.22:80"], "one is enough");
    node.health("checked", "10.3.0.22:80", State::Down);
    assert_eq!(node.eligible(0), ["10.3.0.99:80"]);
    assert_eq!((told(&node), is_sorry(&node)), (1, true));
    node.health("checked", "10.3.0.99:80", State::Down);
    assert!(node.eligible(0).is_empty());
    assert_eq!((told(&node), is_sorry(&node)), (0, false));
    node.health("checked", "10.3.0.99:80", State::Up);
    node.health("checked", "10.3.0.21:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.21:80"]);
    assert_eq!((told(&node), is_sorry(&node)), (1, false));
    let said: Vec<&str> = node.warnings.iter().map(String::as_str).collect();
    assert_eq!(
        said,
        [
            "service checked: only its sorry targets take new flows",
            "service checked: no target takes new flows",
            "service checked: only its sorry targets take new flows",
            "service checked: targets take new flows again",
        ]
    );
}

#[test]
fn a_registration_ends_the_time_of_a_sorry_target() {
    let mut node = node();
    node.health("checked", "10.3.0.99:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.99:80"]);
    node.bus(&put(offer("checked", "10.3.0.30:80")));
    assert_eq!(
        node.eligible(0),
        ["10.3.0.99:80"],
        "it is yet to be checked"
    );
    node.health("checked", "10.3.0.30:80", State::Up);
    assert_eq!(node.eligible(0), ["10.3.0.30:80"]);
    node.bus(&Change::Deleted(key("checked", "10.3.0.30:80")));
    assert_eq!(node.eligible(0), ["10.3.0.99:80"]);
}

#[test]
fn flows_leave_a_sorry_target_when_others_are_back() {
    let mut node = node();
    let is_cut = |node: &Node| {
        let sorry: SocketAddr = "10.3.0.99:80".parse().unwrap();
        let mut targets = node.tables().targets();
        let target = targets.find(|target| target.config.address == sorry);
        target.unwrap().config.cut
    };
    node.tick_at(1);
    node.health("checked", "10.3.0.99:80", State::Up);
    node.tick_at(400);
    assert!(!is_cut(&node), "it serves");
    node.health("checked", "10.3.0.21:80", State::Up);
    node.tick_at(500);
    assert!(!is_cut(&node), "connections have five minutes");
    node.tick_at(801);
    assert!(is_cut(&node));
    node.health("checked", "10.3.0.21:80", State::Down);
    node.tick_at(802);
    assert!(!is_cut(&node), "it serves again");
    assert_eq!(node.eligible(0), ["10.3.0.99:80"]);
}
