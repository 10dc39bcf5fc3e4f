//! Two routers towards clients: one that dies is left within a second, and a node that none leads out of says so.
//!
//! ```text
//!                 r1 10.2.0.2 ─┐
//!   host 10.9.0.1              ├─ br0 ── ext0 10.2.0.11 gateway ── targets
//!                 r2 10.2.0.3 ─┘
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::time::{Duration, Instant};

use serde_json::Value;

use lab::{Echo, Gateway, Lab, Place, SERVICES, WORKERS, pattern};

const ROUTERS: [&str; 2] = ["10.2.0.2", "10.2.0.3"];

/// The clients' namespace becomes a switch, with two routers on it and a host behind both; that is returned.
fn two_routers(lab: &mut Lab) -> Place {
    let switch = lab.client();
    switch.ip(&["link", "add", "br0", "type", "bridge"]);
    switch.ip(&["addr", "flush", "dev", "c0"]);
    switch.ip(&["link", "set", "c0", "master", "br0", "up"]);
    switch.ip(&["link", "set", "br0", "up"]);
    let host = lab.add("h");
    host.routed_anyhow();
    host.address("lo", "10.9.0.1/32");
    for (number, address) in (1..).zip(ROUTERS) {
        let router = lab.add(&format!("r{number}"));
        router.routed_anyhow();
        router.sysctl("net.ipv4.ip_forward=1");
        let (plug, link) = (format!("p{number}"), format!("h{number}"));
        lab::direct::join(&router, "lan", &switch, &plug);
        lab::direct::join(&router, "wan", &host, &link);
        switch.ip(&["link", "set", &plug, "master", "br0", "up"]);
        router.interface("lan", &[&format!("{address}/24")]);
        router.interface("wan", &[&format!("10.9.{number}.2/24")]);
        host.interface(&link, &[&format!("10.9.{number}.1/24")]);
        router.ip(&["route", "add", "10.0.0.100", "via", "10.2.0.11"]);
        let back = format!("10.9.{number}.1");
        router.ip(&["route", "add", "10.9.0.1", "via", &back]);
    }
    by_router(&host, 2);
    host
}

/// By which router the host's packets go to the VIP.
fn by_router(host: &Place, number: u8) {
    let via = format!("10.9.{number}.2");
    let route = ["10.0.0.100", "via", &via, "src", "10.9.0.1"];
    host.ip(&[&["route", "replace"], route.as_slice()].concat());
}

fn config(lab: &Lab, next_hops: &str) -> String {
    let external =
        format!("address = \"10.2.0.11/24\"\ngateway = {ROUTERS:?}\nnext_hops = \"{next_hops}\"");
    let internal = "address = \"10.3.0.11/24\"\nlocal_ips = [\"10.3.0.100\"]".to_owned();
    lab.node(WORKERS, [external, internal], SERVICES)
}

/// Which routers answer, as the status has it.
fn answers(gateway: &Gateway) -> Vec<bool> {
    let status = gateway.status();
    let routers = status["ports"][0]["routers"].as_array().unwrap().clone();
    let answers = |router: &Value| router["answers"].as_bool().unwrap();
    routers.iter().map(answers).collect()
}

#[test]
fn connections_outlive_a_router_and_a_node_without_any_is_not_ready() {
    let mut lab = Lab::new();
    let host = two_routers(&mut lab);
    lab.target().usual_targets();
    let switch = lab.client();
    let plug = |number: u8, state: &str| {
        switch.ip(&["link", "set", &format!("p{number}"), state]);
    };
    for next_hops in ["in_order", "by_flow"] {
        let gateway = Gateway::start(&lab, &config(&lab, next_hops));
        gateway.wait("answered by both", || answers(&gateway) == [true, true]);
        by_router(&host, 2);
        let mut open: Vec<Echo> = (0..8)
            .map(|_| host.run(|| Echo::connect(80).unwrap()))
            .collect();

        plug(1, "down");
        let began = Instant::now();
        for echo in &mut open {
            echo.exchange(&pattern(10_000, 1));
        }
        // Up to 0.8 s until it is known, and what TCP waits until it sends again.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{next_hops}: {took:?}");
        gateway.wait("without the first", || answers(&gateway) == [false, true]);
        assert_eq!(gateway.ready(), Ok(()), "the other is there");
        let up = |router: &str| {
            gateway.metric(&format!(
                "weir_l4_router_up{{port=\"ext\",address=\"{router}\"}}"
            ))
        };
        assert_eq!(ROUTERS.map(up), [0, 1]);

        plug(2, "down");
        gateway.wait("cut off", || gateway.ready().is_err());
        let why = gateway.ready().unwrap_err();
        assert!(
            why.contains("no router towards clients answers: 10.2.0.2 on port ext"),
            "{why}"
        );

        plug(1, "up");
        by_router(&host, 1);
        gateway.wait("ready again", || gateway.ready().is_ok());
        for echo in &mut open {
            echo.exchange(&pattern(10_000, 2));
        }
        plug(2, "up");
        let log = gateway.log();
        assert!(log.contains("the router does not answer"), "{log}");
    }
}

#[test]
fn a_dead_link_is_no_reason_while_another_port_leads_to_clients() {
    let lab = Lab::new();
    lab.target().usual_targets();
    lab.client().address("c0", "10.2.0.2/24");
    // The second port leads to targets and by a router on its segment to clients as well.
    let external = "address = \"10.2.0.11/24\"\ngateway = \"10.2.0.2\"".to_owned();
    let internal =
        "address = \"10.3.0.11/24\"\nlocal_ips = [\"10.3.0.100\"]\ngateway = \"10.3.0.22\"";
    let gateway = Gateway::start(
        &lab,
        &lab.node(WORKERS, [external, internal.into()], SERVICES),
    );
    lab.client().ip(&["link", "set", "c0", "down"]);
    let link = || gateway.status()["ports"][0]["link_up"] == false;
    gateway.wait("without the link", link);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(gateway.ready(), Ok(()));
    lab.target().ip(&["link", "set", "t0", "down"]);
    gateway.wait("cut off", || gateway.ready().is_err());
    let why = gateway.ready().unwrap_err();
    assert!(
        why.contains("the link of port ext is down; the link of port int is down"),
        "{why}"
    );
}
