use super::*;

const SLOW: &str = r#"
name = "plain"
slow_start = "100s"
cut_drained_after = "30s""#;

impl Node {
    fn gradual() -> Node {
        let mut node = Node::of(&CONFIG.replace("name = \"plain\"", SLOW));
        node.tick_at(10);
        node
    }

    /// Address, weight and whether it is cut, of all targets that the workers know of the second service.
    fn known(&self) -> Vec<(String, u16, bool)> {
        let service = self.control.services()[1].id.unwrap();
        let targets = &self.tables().service(service).unwrap().targets;
        let known = targets.iter().map(|id| {
            let config = self.tables().target(*id).unwrap().config;
            (config.address.to_string(), config.weight, config.cut)
        });
        known.collect()
    }

    fn weights(&self) -> Vec<u16> {
        self.known().iter().map(|(_, weight, _)| *weight).collect()
    }
}

#[test]
fn a_target_that_registers_starts_slowly() {
    let mut node = Node::gradual();
    assert_eq!(node.weights(), [1]);
    node.bus_at(20, &put(offer("plain", "10.3.0.60:53")));
    let offered = node.control.services()[1]
        .targets()
        .find(|(address, _)| address.port() == 53 && address.ip().to_string() == "10.3.0.60")
        .map(|(_, target)| target.weight())
        .unwrap();
    assert_eq!(node.weights(), [60, 3 * offered]);
    let service = &node.control.services()[1];
    let (address, target) = service.targets().last().unwrap();
    let effective = service.effective_weight(*address, target);
    assert!(
        (effective - f64::from(offered) / 20.0).abs() < 1e-9,
        "{effective}"
    );
    node.bus_at(71, &put(offer("plain", "10.3.0.60:53")));
    node.tick_at(71);
    assert_eq!(node.weights(), [60, 30 * offered]);
    node.bus_at(120, &put(offer("plain", "10.3.0.60:53")));
    node.tick_at(120);
    assert_eq!(node.weights(), [1, offered], "it has its full share");
}

#[test]
fn flows_of_a_target_that_is_gone_are_cut_and_then_it_is_forgotten() {
    let mut node = Node::gradual();
    node.bus_at(20, &put(offer("plain", "10.3.0.60:53")));
    assert_eq!(node.known().len(), 2);
    node.bus_at(
        300,
        &Change::Deleted(Key::Registration {
            service: "plain".into(),
            addr: "10.3.0.60:53".parse().unwrap(),
        }),
    );
    let gone = |cut| ("10.3.0.60:53".to_owned(), 0, cut);
    assert_eq!(node.known()[1], gone(false));
    assert_eq!(node.targets(1), ["10.3.0.53:53"], "others see it no more");
    node.tick_at(329);
    assert_eq!(node.known()[1], gone(false));
    node.tick_at(330);
    assert_eq!(node.known()[1], gone(true));
    node.tick_at(390);
    assert_eq!(node.known().len(), 1);
}

#[test]
fn flows_of_a_target_that_is_gone_are_cut_though_new_ones_to_it_would_not_fit_on_its_link() {
    let wide = CONFIG
        .replace("name = \"plain\"", SLOW)
        .replace(
            "\"10.3.0.11/24\"",
            "[\"10.3.0.11/24\", \"fd00:3::11/64\"]\nmtu = 1280",
        )
        .replace("[\"10.3.0.100\"]", "[\"10.3.0.100\", \"fd00:3::100\"]")
        .replace(
            "\"10.0.0.100\"\nprotocol = \"udp\"",
            "\"2001:db8::1\"\nprotocol = \"tcp\"",
        )
        .replace("targets = [{ address = \"10.3.0.53:53\" }]", "");
    let after = |line: &str| {
        let mut node = Node::of(&wide);
        node.tick_at(10);
        node.bus_at(20, &put(offer("plain", "[fd00:3::60]:53")));
        node.bus_at(300, &Change::Deleted(key("plain", "[fd00:3::60]:53")));
        node.reload_at(310, &wide.replace(SLOW, &format!("{SLOW}\n{line}")));
        node
    };
    let gone = |cut| ("[fd00:3::60]:53".to_owned(), 0, cut);
    let mut node = after("client_address = \"toa\"");
    assert_eq!(node.known(), [gone(false)]);
    node.tick_at(330);
    assert_eq!(node.known(), [gone(true)]);
    node.bus_at(331, &put(offer("plain", "[fd00:3::60]:53")));
    assert_eq!(node.targets(1), [""; 0], "a new flow doesn't fit");

    // Not even the data plane takes it here, so it must not be told of it.
    assert_eq!(after("mode = \"tunnel\"").known(), []);
}
