use std::net::SocketAddr;

use super::*;
use shared::admin::Asked;

use crate::control::{Intended, Wish};

const TARGET: &str = "10.3.0.21:80";

impl Node {
    fn wants(&mut self, service: &str, target: &str, wish: Wish) -> Result<Intended, String> {
        self.wants_at(1, service, target, wish)
    }

    fn wants_at(
        &mut self,
        unix_ms: u64,
        service: &str,
        target: &str,
        wish: Wish,
    ) -> Result<Intended, String> {
        let asked = Asked {
            by: "ann".into(),
            reason: Some("disk".into()),
            since_unix_ms: unix_ms,
        };
        let address: SocketAddr = target.parse().unwrap();
        let (intended, actions) = self.control.intend(service, address, wish, asked)?;
        self.carry_out(actions);
        self.settle();
        Ok(intended)
    }

    fn weight(&self, service: usize, target: &str) -> u16 {
        let id = self.control.services()[service].id.unwrap();
        let address = target.parse().unwrap();
        let id = crate::control::target_id(self.tables(), id, address).unwrap();
        self.tables().target(id).unwrap().config.weight
    }

    fn forgotten_by(&mut self, config: &str) -> Vec<String> {
        let document = Document::from_toml("t", config).unwrap();
        let config = document.parse(Config::parse).unwrap();
        let forgotten = self.control.forgets(&config);
        let actions = self.control.reload(Duration::ZERO, &config, nics());
        self.carry_out(actions.unwrap());
        forgotten
    }
}

fn up() -> Node {
    let mut node = Node::start();
    node.health("checked", TARGET, State::Up);
    node
}

#[test]
fn a_target_that_an_operator_drains_gets_no_new_flows_until_it_is_enabled() {
    let mut node = up();
    assert_eq!(node.eligible(0), [TARGET]);
    let drained = node.wants("checked", TARGET, Wish::Drain).unwrap();
    assert_eq!(drained.healthy, 0, "it was the last one");
    assert!(drained.intent.unwrap().drain);
    assert_eq!(node.eligible(0), [""; 0]);
    assert_eq!(node.record().services[0].healthy, 0);
    // Health goes on below it.
    node.health("checked", TARGET, State::Down);
    node.health("checked", TARGET, State::Up);
    assert_eq!(node.eligible(0), [""; 0]);
    let enabled = node.wants("checked", TARGET, Wish::Enable).unwrap();
    assert_eq!((enabled.intent, enabled.healthy), (None, 1));
    assert_eq!(node.eligible(0), [TARGET]);
}

#[test]
fn a_weight_goes_before_those_of_configuration_and_registration() {
    let mut node = up();
    assert_eq!(node.weight(0, TARGET), 3);
    node.wants("checked", TARGET, Wish::Weight(7)).unwrap();
    assert_eq!(node.weight(0, TARGET), 7);
    node.bus(&put(offer("checked", TARGET)));
    assert_eq!(node.weight(0, TARGET), 7);
    node.wants("checked", TARGET, Wish::Weight(0)).unwrap();
    assert_eq!(node.eligible(0), [""; 0]);
    node.wants("checked", TARGET, Wish::Enable).unwrap();
    assert_eq!(node.weight(0, TARGET), 5, "as it registered");
}

#[test]
fn drain_and_weight_add_up_and_since_when_is_the_last_change() {
    let mut node = up();
    let intent = |intended: Result<Intended, String>| {
        let intent = intended.unwrap().intent.unwrap();
        (intent.drain, intent.weight, intent.since_unix_ms)
    };
    let first = node.wants_at(10, "checked", TARGET, Wish::Weight(2));
    assert_eq!(intent(first), (false, Some(2), 10));
    let drained = node.wants_at(20, "checked", TARGET, Wish::Drain);
    assert_eq!(intent(drained), (true, Some(2), 20));
    let again = node.wants_at(30, "checked", TARGET, Wish::Drain);
    assert_eq!(intent(again), (true, Some(2), 20));
}

#[test]
fn what_is_no_target_is_refused() {
    let mut node = up();
    let why = node.wants("checked", "10.3.0.99:80", Wish::Drain);
    assert_eq!(
        why.unwrap_err(),
        "10.3.0.99:80 is not a target of service checked: see `l4-gateway targets --service checked`"
    );
    let why = node.wants("web", TARGET, Wish::Drain).unwrap_err();
    assert_eq!(why, "service \"web\": expected one of checked, plain");
}

#[test]
fn a_registered_target_that_comes_back_is_still_drained() {
    let mut node = Node::start();
    node.bus(&put(offer("plain", "10.3.0.54:53")));
    node.wants("plain", "10.3.0.54:53", Wish::Drain).unwrap();
    node.bus(&Change::Deleted(key("plain", "10.3.0.54:53")));
    assert_eq!(node.targets(1), ["10.3.0.53:53"]);
    let away = |node: &Node| node.control.services()[1].absent_intents().count();
    assert_eq!(away(&node), 1);
    // Also over a reload.
    let changed = CONFIG.replace("weight = 3", "weight = 4");
    assert_eq!(node.forgotten_by(&changed), [""; 0]);
    node.bus(&put(offer("plain", "10.3.0.54:53")));
    assert_eq!(node.eligible(1), ["10.3.0.53:53"]);
    assert_eq!(away(&node), 0);
    // Until somebody says so, even while it is away.
    node.bus(&Change::Deleted(key("plain", "10.3.0.54:53")));
    node.wants("plain", "10.3.0.54:53", Wish::Enable).unwrap();
    node.bus(&put(offer("plain", "10.3.0.54:53")));
    assert_eq!(node.eligible(1), ["10.3.0.53:53", "10.3.0.54:53"]);
}

#[test]
fn a_reload_keeps_what_is_wanted_of_targets_that_stay_and_says_what_it_forgets() {
    let mut node = up();
    node.wants("checked", TARGET, Wish::Drain).unwrap();
    node.wants("checked", TARGET, Wish::Weight(9)).unwrap();
    assert_eq!(
        node.forgotten_by(&CONFIG.replace("weight = 3", "weight = 4")),
        [""; 0]
    );
    assert_eq!(node.weight(0, TARGET), 9);
    assert_eq!(node.eligible(0), [""; 0]);
    let moved = CONFIG.replace(TARGET, "10.3.0.22:80");
    assert_eq!(
        node.forgotten_by(&moved),
        [
            "service checked: what ann wanted of target 10.3.0.21:80 (drain, weight 9) is forgotten: the target is no longer configured"
        ]
    );
    assert_eq!(node.forgotten_by(CONFIG), [""; 0]);
    assert_eq!(node.weight(0, TARGET), 3, "it does not come back");

    node.wants("plain", "10.3.0.53:53", Wish::Drain).unwrap();
    let (one, _) = CONFIG.rsplit_once("[[services]]").unwrap();
    assert_eq!(
        node.forgotten_by(one),
        [
            "service plain: what ann wanted of target 10.3.0.53:53 (drain) is forgotten: the service is no longer configured"
        ]
    );
}
