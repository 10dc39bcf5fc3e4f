//! Services of several ports, and clients that stay with one target over several services, between real kernels.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::{IpAddr, SocketAddr};

use lab::direct::{WAYS, Way};
use lab::dual::Client::{Far, Near, Neighbour};
use lab::dual::Fate::{Refused, Served};
use lab::dual::{Family, ask};
use lab::{Echo, Gateway, Lab, WORKERS, pattern};
use serde_json::{Value, json};

/// A service of each family with targets at both hosts: at this port of them, or at those that clients send to.
fn both(name: &str, protocol: &str, ports: &str, target_port: Option<u16>, keys: &str) -> String {
    let service = |family: Family| {
        let target = |ip: IpAddr| match target_port {
            Some(port) => SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        };
        let [first, second] = [family.first(), family.second()].map(target);
        let (name, vip) = (family.name(name), family.vip(0).ip());
        format!(
            "[[services]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {ports}\nscheduler = \"rr\"\n\
             targets = [{{ address = \"{first}\" }}, {{ address = \"{second}\" }}]\n{keys}\n"
        )
    };
    Family::BOTH.map(service).concat()
}

/// Listens at some ports of both hosts; who answers says which host and port it is, by a letter: `a` is the first port of the first host.
fn listen(lab: &Lab, ports: &[u16]) {
    for family in Family::BOTH {
        let hosts = [family.first(), family.second()].into_iter();
        let sockets = hosts.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)));
        let listening: Vec<(SocketAddr, u8)> = sockets.zip(b'a'..).collect();
        lab.target().echo_tcp(&listening);
        lab.target().echo_udp(&listening);
    }
}

fn config(lab: &Lab, services: &[String]) -> String {
    let head = WORKERS.replace("[workers]", "[workers]\ncount = 2");
    lab.dual_config(&head, "queues = 2", &services.concat())
}

#[test]
fn ports_of_a_range_reach_the_same_ports_of_its_targets() {
    let lab = Lab::dual();
    listen(&lab, &[8001, 8002, 8100, 7000]);
    let health = "health = { type = \"tcp\", port = 8001, interval = \"200ms\", rise = 1 }";
    let services = |range: &str| {
        config(
            &lab,
            &[
                both("range", "tcp", range, None, health),
                both("one", "tcp", "8050", Some(7000), ""),
                both("all", "udp", "\"*\"", None, ""),
            ],
        )
    };
    let gateway = Gateway::start(&lab, &services("\"8000-8099\""));
    gateway.wait("both targets up", || {
        let healthy = |family: Family| gateway.service(&family.name("range"))["healthy"] == 2;
        Family::BOTH.into_iter().all(healthy)
    });
    let mut held = Vec::new();
    for family in Family::BOTH {
        let open = lab.client().run(move || {
            let ids = |port| [(); 2].map(|()| family.connect(Near, port).unwrap().id);
            let sorted = |mut ids: [u8; 2]| {
                ids.sort_unstable();
                ids
            };
            assert_eq!(sorted(ids(8001)), *b"ae");
            assert_eq!(sorted(ids(8002)), *b"bf");
            assert_eq!(sorted(ids(8050)), *b"dh", "one port goes before a range");
            assert_eq!(family.knock(Near, 8003), Refused, "by the target");
            assert_eq!(family.knock(Near, 8100), Refused, "nobody's");
            for (port, first) in [(7000, b'd'), (8100, b'c'), (8001, b'a')] {
                // From one port each: a flow for each port of the VIP.
                let served = ask(&family.datagrams(Near, port), b"who is there?");
                assert!(
                    [first, first + 4].map(Served).contains(&served),
                    "{served:?}"
                );
            }
            let mut open = [8001, 8002].map(|port| family.connect(Near, port).unwrap());
            open.iter_mut()
                .for_each(|echo| echo.exchange(&pattern(50_000, 3)));
            open
        });
        held.extend(open);
    }

    // As people see it.
    let shown = gateway.subcommand(&["services"]);
    for ports in ["8000-8099", "8050", "*"] {
        let has_it = |line: &str| line.split_whitespace().any(|cell| cell == ports);
        assert_eq!(
            shown.lines().filter(|line| has_it(line)).count(),
            2,
            "{shown}"
        );
    }
    let ports = |name: &str| gateway.service(name)["port"].clone();
    let seen = ["range", "one", "all"].map(ports);
    assert_eq!(seen, [json!("8000-8099"), json!(8050), json!("*")]);
    let targets = gateway.subcommand(&["targets", "--service", "range-v6"]);
    assert!(targets.contains("[fd00:3::21]:*"), "{targets}");
    let up = |target: &str| {
        let labels = format!("{{service=\"range\",target=\"{target}\"}}");
        gateway.metric(&format!("weir_l4_target_up{labels}"))
    };
    assert_eq!(["10.3.0.21:*", "10.3.0.22:*"].map(up), [1, 1]);
    let flows = gateway
        .flows(&json!({ "service": "range", "vip": "10.0.0.100:8002", "state": "established" }));
    assert_eq!(flows.len(), 1, "{flows:?}");
    let target = flows[0]["target"].as_str().unwrap();
    assert!(target.ends_with(":8002"), "{target}");

    // Operators name a target without a port.
    let drained = gateway.subcommand(&["target", "drain", "range", "10.3.0.21"]);
    assert!(
        drained.starts_with("range 10.3.0.21:* gets no new flows"),
        "{drained}"
    );
    gateway.wait("left", || {
        let ids = lab
            .client()
            .run(|| [(); 4].map(|()| Family::V4.knock(Far, 8001)));
        ids == [Served(b'e'); 4]
    });
    let unknown = gateway.try_subcommand(&["target", "drain", "range", "10.3.0.21:8001"]);
    let unknown = unknown.unwrap_err();
    assert!(
        unknown.contains("10.3.0.21:8001 is not a target of service range"),
        "{unknown}"
    );
    gateway.subcommand(&["target", "enable", "range", "10.3.0.21:*"]);

    // A range that grows or shrinks is the same service with the same flows.
    for (range, change) in [
        (
            "\"8000-8199\"",
            "services.range.port: \"8000-8099\" -> \"8000-8199\"",
        ),
        (
            "\"8002-8199\"",
            "services.range.port: \"8000-8199\" -> \"8002-8199\"",
        ),
    ] {
        let said = gateway.reload(&services(range));
        assert!(said.lines().any(|line| line == change), "{said}");
        assert_eq!(gateway.status()["retired_services"], json!([]));
        held.iter_mut()
            .for_each(|echo| echo.exchange(&pattern(10_000, 5)));
        let served = lab.client().run(|| Family::V6.knock(Far, 8100));
        assert!(matches!(served, Served(b'c' | b'g')), "{served:?}");
    }
    assert_eq!(lab.client().run(|| Family::V4.knock(Far, 8001)), Refused);
}

#[test]
fn a_client_is_at_one_target_with_all_services_of_a_group() {
    let lab = Lab::dual();
    listen(&lab, &[8080, 8443, 30_001, 30_002]);
    let persistence =
        |group: &str| format!("persistence = {{ timeout = \"5m\", group = \"{group}\" }}");
    let grouped = persistence("shop");
    let services = [
        both("http", "tcp", "80", Some(8080), &grouped),
        both("https", "tcp", "443", Some(8443), &grouped),
        both("passive", "tcp", "\"30000-30009\"", None, &grouped),
    ];
    // A group is of one VIP.
    let services = services.map(|text| {
        let (v4, v6) = text.rsplit_once("[[services]]").unwrap();
        format!("{v4}[[services]]{}", v6.replace("\"shop\"", "\"shop-v6\""))
    });
    let gateway = Gateway::start(&lab, &config(&lab, &services));
    for family in Family::BOTH {
        let hosts = lab.client().run(move || {
            [Near, Far, Neighbour].map(|client| {
                let host = |port| match family.knock(client, port) {
                    Served(id @ b'a'..=b'd') => (id - b'a', 1),
                    Served(id @ b'e'..=b'h') => (id - b'e', 2),
                    other => panic!("{client:?} {port}: {other:?}"),
                };
                let all = [80, 443, 30_001, 30_002, 80].map(host);
                assert_eq!(all.map(|(place, _)| place), [0, 1, 2, 3, 0]);
                assert_eq!(all.map(|(_, host)| host), [all[0].1; 5], "{client:?}");
                all[0].1
            })
        });
        assert!(
            hosts.contains(&1) && hosts.contains(&2),
            "in turn: {hosts:?}"
        );
    }
    let (code, answer) = gateway.command("persistence", &json!({ "service": "https" }));
    assert_eq!(code, 200, "{answer}");
    let sources = answer["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 3, "one for each client: {answer}");
    for source in sources {
        assert_eq!(source["group"], "shop");
        let target: Value = source["target"].clone();
        assert!(
            [json!("10.3.0.21"), json!("10.3.0.22")].contains(&target),
            "{target}"
        );
    }
    let listed = gateway.subcommand(&["persistence", "--service", "passive-v6"]);
    assert_eq!(listed.matches("shop-v6").count(), 3, "{listed}");
    let shown = gateway.subcommand(&["services", "--service", "http"]);
    assert!(shown.contains("5m shop"), "{shown}");
}

#[test]
fn targets_with_the_vip_get_all_its_ports() {
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let ways: Vec<Way> = WAYS.into_iter().filter(Way::is_direct).collect();
    let service = |way: &Way| {
        let text = way.service("all", "tcp", 80, "");
        text.replace("port = 80\n", "port = \"*\"\n")
    };
    let services: String = ways.iter().map(service).collect();
    let gateway = Gateway::start(&lab, &lab.dual_node(WORKERS, [""; 2], &services));
    for way in ways {
        let source = if way.is_v6() { "fd00:2::1" } else { "10.2.0.1" };
        for (port, id) in [(80, b'1'), (40_000, b'2')] {
            let vip = way.at(port);
            lab.target().echo_tcp(&[(vip, id)]);
            lab.client().run(move || {
                let mut echo =
                    Echo::connect_to(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
                assert_eq!((echo.id, &*echo.seen), (id, source));
                echo.exchange(&pattern(50_000, 5));
            });
        }
        assert_eq!(gateway.service(&way.name("all"))["flows_created"], 2);
    }
}
