use super::*;

impl Node {
    /// A node at 10 s with another target in its first service, both found up.
    fn with_two() -> Node {
        let mut node = Node::of(&CONFIG.replace(
            "weight = 3 }",
            "weight = 3 }, { address = \"10.3.0.22:80\" }",
        ));
        node.tick_at(10);
        for target in ["10.3.0.21:80", "10.3.0.22:80"] {
            node.health("checked", target, State::Up);
        }
        node
    }

    /// Addresses of all targets that the workers know of a service, with whether each is up and cut.
    fn cuts(&self, service: usize) -> Vec<(String, bool, bool)> {
        let id = self.control.services()[service].id.unwrap();
        let targets = &self.tables().service(id).unwrap().targets;
        let known = targets.iter().map(|id| {
            let config = self.tables().target(*id).unwrap().config;
            (config.address.to_string(), config.up, config.cut)
        });
        known.collect()
    }
}

fn target(address: &str, up: bool, cut: bool) -> (String, bool, bool) {
    (address.to_owned(), up, cut)
}

const FIRST: &str = "10.3.0.21:80";
const SECOND: &str = "10.3.0.22:80";

#[test]
fn connections_of_a_target_that_stays_down_are_cut_after_five_minutes() {
    let mut node = Node::with_two();
    node.health("checked", SECOND, State::Down);
    let cuts = |cut| [target(FIRST, true, false), target(SECOND, false, cut)];
    assert_eq!(node.cuts(0), cuts(false));
    node.tick_at(309);
    assert_eq!(node.cuts(0), cuts(false));
    node.tick_at(310);
    assert_eq!(node.cuts(0), cuts(true));
    node.health("checked", SECOND, State::Up);
    let both = [target(FIRST, true, false), target(SECOND, true, false)];
    assert_eq!(node.cuts(0), both);
    // It fails again: its time begins anew.
    node.tick_at(400);
    node.health("checked", SECOND, State::Down);
    node.tick_at(699);
    assert_eq!(node.cuts(0), cuts(false));
    node.tick_at(700);
    assert_eq!(node.cuts(0), cuts(true));
}

#[test]
fn nothing_is_cut_until_another_target_is_up() {
    let mut node = Node::with_two();
    node.health("checked", FIRST, State::Down);
    node.health("checked", SECOND, State::Down);
    node.tick_at(1000);
    let both = [target(FIRST, false, false), target(SECOND, false, false)];
    assert_eq!(node.cuts(0), both);
    node.health("checked", FIRST, State::Up);
    let expected = [target(FIRST, true, false), target(SECOND, false, true)];
    assert_eq!(node.cuts(0), expected);
}

/// As another node sees it: the second service has no probes of its own.
fn seen(up: bool) -> Change {
    put(TargetRecord {
        service: "plain".into(),
        addr: "10.3.0.53:53".parse().unwrap(),
        up,
        reason: "timeout".into(),
        since_unix_ms: 1,
        seen_by: "l4-2".into(),
    })
}

#[test]
fn datagrams_leave_a_target_as_soon_as_it_is_down_and_not_when_nobody_knows() {
    let mut node = Node::start();
    node.bus_at(10, &put(offer("plain", "10.3.0.60:53")));
    let cuts = |up, cut| {
        [
            target("10.3.0.53:53", up, cut),
            target("10.3.0.60:53", true, false),
        ]
    };
    assert_eq!(node.cuts(1), cuts(true, false));
    node.bus_at(11, &seen(false));
    assert_eq!(node.cuts(1), cuts(false, true));
    node.bus_at(12, &Change::Deleted(seen_key()));
    assert_eq!(node.cuts(1), cuts(true, false));
    node.bus_at(13, &seen(false));
    node.bus_at(14, &seen(true));
    assert_eq!(node.cuts(1), cuts(true, false));

    let never = CONFIG.replace(
        "name = \"plain\"",
        "name = \"plain\"\ncut_down_after = \"never\"",
    );
    let mut node = Node::of(&never);
    node.bus_at(10, &put(offer("plain", "10.3.0.60:53")));
    node.bus_at(11, &seen(false));
    assert_eq!(node.cuts(1), cuts(false, false));
}

fn seen_key() -> Key {
    Key::Target {
        service: "plain".into(),
        addr: "10.3.0.53:53".parse().unwrap(),
    }
}

/// A node that dies takes its registration with it, mostly before its connections' time is over.
#[test]
fn connections_of_a_target_that_runs_out_while_it_is_down_are_cut_in_their_time() {
    let mut node = Node::with_two();
    let gone = "10.3.0.60:80";
    node.bus_at(20, &put(offer("checked", gone)));
    node.health("checked", gone, State::Up);
    node.bus_at(30, &Change::Deleted(key("checked", gone)));
    assert_eq!(node.cuts(0).len(), 2, "on purpose: it is only removed");

    node.bus_at(40, &put(offer("checked", gone)));
    node.health("checked", gone, State::Up);
    node.health("checked", gone, State::Down);
    node.bus_at(50, &Change::Deleted(key("checked", gone)));
    assert_eq!(node.targets(0), [FIRST, SECOND], "others see it no more");
    assert_eq!(node.cuts(0)[2], target(gone, false, false));
    node.tick_at(339);
    assert_eq!(node.cuts(0)[2], target(gone, false, false));
    node.tick_at(340);
    assert_eq!(node.cuts(0)[2], target(gone, false, true));
    node.tick_at(400);
    assert_eq!(node.cuts(0).len(), 2);
}

#[test]
fn a_reload_keeps_how_long_a_target_has_been_down() {
    let mut node = Node::with_two();
    node.health("checked", SECOND, State::Down);
    node.reload_at(
        200,
        &CONFIG.replace(
            "weight = 3 }",
            "weight = 3 }, { address = \"10.3.0.22:80\", weight = 2 }",
        ),
    );
    node.tick_at(309);
    assert_eq!(node.cuts(0)[1], target(SECOND, false, false));
    node.tick_at(310);
    assert_eq!(node.cuts(0)[1], target(SECOND, false, true));

    // Removed, it goes when its flows were cut.
    let mut node = Node::with_two();
    node.health("checked", SECOND, State::Down);
    node.reload_at(200, CONFIG);
    assert_eq!(node.cuts(0)[1], target(SECOND, false, false));
    node.tick_at(310);
    assert_eq!(node.cuts(0)[1], target(SECOND, false, true));
    node.tick_at(370);
    assert_eq!(node.cuts(0).len(), 1);
}
