//! The MACs of next hops: kept against others that claim their addresses, left when they fail over.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dataplane::MacAddr;
use serde_json::Value;

use lab::wire::Wire;
use lab::{Echo, FIRST, Gateway, LOCAL_IP, Lab, SECOND, SERVICES, WORKERS, pattern};

const FORGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x66]);
const REPLACEMENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 11);

/// An ARP reply to the node, or an announcement to all: `address` is at `mac`.
fn says(mac: MacAddr, address: Ipv4Addr, to: Option<MacAddr>) -> Vec<u8> {
    let (operation, destination, asking) = match to {
        Some(node) => (2, node, INSIDE),
        None => (1, MacAddr::BROADCAST, address),
    };
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [
        &destination.0[..],
        &mac.0,
        &head,
        &mac.0,
        &address.octets(),
        &to.unwrap_or_default().0,
        &asking.octets(),
    ]
    .concat()
}

fn count(gateway: &Gateway, name: &str) -> u64 {
    gateway.metric(&format!("weir_l4_worker_{name}_total{{worker=\"0\"}}"))
}

#[test]
fn connections_outlive_forged_answers_and_a_failover_of_their_targets() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let node = gateway.mac("int");
    let wire = Wire::open(&lab.target(), Ipv4Addr::new(10, 3, 0, 254));
    let mut open: Vec<Echo> = (0..4)
        .map(|_| lab.client().run(|| Echo::connect(80).unwrap()))
        .collect();
    let began = Instant::now();
    for round in 0..20 {
        for target in [FIRST, SECOND] {
            for to in [Some(node), None] {
                assert!(wire.send(&says(FORGER, target, to)));
            }
        }
        for echo in &mut open {
            echo.exchange(&pattern(10_000, round));
        }
    }
    gateway.wait("contested", || count(&gateway, "next_hops_contested") > 1);
    assert_eq!(count(&gateway, "next_hops_moved"), 0);
    let told = |what: &str| gateway.log().matches(what).count() as u64;
    let contested = "another host says that it has the address of a next hop";
    gateway.wait("told", || told(contested) > 0);
    let most = began.elapsed().as_secs() + 2;
    assert!(told(contested) <= most, "{}", gateway.log());

    let mac = REPLACEMENT.to_string();
    lab.target().ip(&["link", "set", "t0", "address", &mac]);
    for target in [FIRST, SECOND] {
        assert!(wire.send(&says(REPLACEMENT, target, None)));
    }
    let began = Instant::now();
    for echo in &mut open {
        echo.exchange(&pattern(10_000, 99));
    }
    // 450 ms, and what TCP waits until it sends again.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(count(&gateway, "next_hops_moved"), 2);
    gateway.wait("told", || told("the next hop is at another MAC") > 0);
}

#[test]
fn a_router_that_has_never_answered_is_told_once_and_shown_as_such() {
    let lab = Lab::new();
    lab.target().usual_targets();
    lab.client().address("c0", "10.2.0.2/24");
    let external = "address = \"10.2.0.11/24\"\ngateway = [\"10.2.0.2\", \"10.2.0.3\"]";
    let internal = format!("address = \"10.3.0.11/24\"\nlocal_ips = [\"{LOCAL_IP}\"]");
    let config = lab.node(WORKERS, [external.into(), internal], SERVICES);
    let gateway = Gateway::start(&lab, &config);
    let states = || -> Vec<String> {
        let status = gateway.status();
        let routers = status["ports"][0]["routers"].as_array().unwrap().clone();
        let state = |router: &Value| router["state"].as_str().unwrap().to_owned();
        routers.iter().map(state).collect()
    };
    let told = |what: &str| gateway.log().matches(what).count();
    const UNHEARD: &str = "the router has not answered since it was configured";
    gateway.wait("told", || told(UNHEARD) > 0);
    assert_eq!(states(), ["up", "never answered"]);
    let warnings = gateway.status()["warnings"].to_string();
    assert!(
        warnings.contains("router 10.2.0.3 on port ext has never answered"),
        "{warnings}"
    );
    let answers = told("the router answers");
    let shown = |arguments: &[&str]| {
        let text = gateway.subcommand(&[&["neighbours"], arguments].concat());
        let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().map(line).collect::<Vec<Vec<String>>>()
    };
    let lines = shown(&[]);
    let columns = "PORT ADDRESS ROLE MAC STATE SINCE ANSWERED LOST USED";
    assert_eq!(lines[0].join(" "), columns);
    let first = &lines[1];
    assert_eq!(first[..3], ["ext", "10.2.0.2", "router"]);
    assert_eq!((first[4].as_str(), first[8].as_str()), ("up", "yes"));
    assert_eq!(
        lines[2][..6],
        ["ext", "10.2.0.3", "router", "-", "never", "answered"]
    );
    assert_eq!(lines[2].last().unwrap(), "no");
    assert_eq!(lines[3][..3], ["int", "10.3.0.21", "target"]);
    assert_eq!((lines[3][4].as_str(), lines.len()), ("reachable", 5));
    assert_eq!(shown(&["--routers"]).len(), 3);
    assert_eq!(shown(&["--port", "int"]).len(), 3);
    let json = gateway.subcommand(&["neighbours", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let router = &json["neighbours"][1];
    assert_eq!(router["state"], "never answered");
    assert_eq!(
        (&router["mac"], &router["in_use"]),
        (&Value::Null, &Value::Bool(false))
    );
    let why = gateway
        .try_subcommand(&["neighbours", "--port", "out"])
        .unwrap_err();
    assert!(
        why.contains("port \"out\": expected one of ext, int"),
        "{why}"
    );

    lab.client().address("c0", "10.2.0.3/24");
    gateway.wait("answered", || told("the router answers") > answers);
    assert_eq!(states(), ["up", "up"]);
    assert_eq!(
        (told(UNHEARD), told("the next hop does not answer")),
        (1, 0)
    );
}
