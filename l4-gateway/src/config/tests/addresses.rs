//! Whose an address is: what users see when one is taken that others have.

use super::{parse, with};

#[test]
fn addresses_that_routers_or_networks_have_are_no_others() {
    let routed = "gateway = \"10.2.0.1\"\nroutes = [{ to = \"10.9.0.0/16\", via = \"10.2.0.2\" }]\nlocal_ips = [\"10.2.0.100\"]";
    let own = "network's own address of 10.2.0.11/24";
    let broadcast = "broadcast address of 10.2.0.11/24";
    for (from, to, complaint) in [
        (
            "vip = \"10.0.0.100\"",
            "vip = \"10.2.0.1\"",
            "services[0].vip: 10.2.0.1 is the address of a router of port ext — take an address of its own".to_owned(),
        ),
        (
            "vip = \"10.0.0.100\"",
            "vip = \"10.2.0.2\"",
            "services[0].vip: 10.2.0.2 is the address of a router of port ext".to_owned(),
        ),
        (
            "vip = \"10.0.0.100\"",
            "vip = \"10.2.0.0\"",
            format!("services[0].vip: 10.2.0.0 is the {own} — take another address of the network"),
        ),
        (
            "vip = \"10.0.0.100\"",
            "vip = \"10.2.0.255\"",
            format!("services[0].vip: 10.2.0.255 is the {broadcast}"),
        ),
        (
            "[\"10.2.0.100\"]",
            "[\"10.2.0.100\", \"10.2.0.1\"]",
            "ports[0].local_ips: 10.2.0.1 is a router's address — take another free address of the network".to_owned(),
        ),
        (
            "[\"10.2.0.100\"]",
            "[\"10.2.0.2\"]",
            "ports[0].local_ips: 10.2.0.2 is a router's address".to_owned(),
        ),
        (
            "[\"10.2.0.100\"]",
            "[\"10.2.0.0\"]",
            format!("ports[0].local_ips: 10.2.0.0 is the {own}"),
        ),
        (
            "[\"10.2.0.100\"]",
            "[\"10.2.0.255\"]",
            format!("ports[0].local_ips: 10.2.0.255 is the {broadcast}"),
        ),
        (
            "10.3.0.21:8080",
            "10.2.0.0:80",
            format!("services[0].targets[0].address: 10.2.0.0 is the {own} — a target is one host"),
        ),
        (
            "10.3.0.21:8080",
            "10.2.0.255:80",
            format!("services[0].targets[0].address: 10.2.0.255 is the {broadcast}"),
        ),
        (
            "10.2.0.11/24",
            "10.2.0.0/24",
            "ports[0].address: 10.2.0.0 is the network's own address of 10.2.0.0/24 — write the port's own".to_owned(),
        ),
        (
            "10.2.0.11/24",
            "10.2.0.255/24",
            "ports[0].address: 10.2.0.255 is the broadcast address of 10.2.0.255/24".to_owned(),
        ),
        (
            "gateway = \"10.2.0.1\"",
            "gateway = \"10.2.0.255\"",
            format!("ports[0].gateway: 10.2.0.255 is the {broadcast} — name the router's"),
        ),
        (
            "via = \"10.2.0.2\"",
            "via = \"10.2.0.0\"",
            format!("ports[0].routes[0].via: 10.2.0.0 is the {own}"),
        ),
    ] {
        let complaints = parse(&with(&[("gateway = \"10.2.0.1\"", routed), (from, to)]));
        let complaints = complaints.expect_err(&complaint);
        assert!(complaints.contains(&complaint), "{complaints}, not {complaint}");
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    }
}

#[test]
fn every_address_of_the_smallest_networks_is_a_hosts() {
    let point_to_point = |address: &str, gateway: &str| {
        with(&[
            ("10.2.0.11/24", address),
            ("gateway = \"10.2.0.1\"", gateway),
        ])
    };
    for text in [
        point_to_point("10.2.0.0/31", "gateway = \"10.2.0.1\""),
        point_to_point("10.2.0.1/31", "gateway = \"10.2.0.0\""),
        point_to_point("10.2.0.0/32", ""),
        point_to_point("10.2.0.255/32", ""),
        point_to_point("10.2.0.1/30", "gateway = \"10.2.0.2\""),
    ] {
        parse(&text).unwrap();
    }
    let complaints = parse(&point_to_point("10.2.0.3/30", "")).unwrap_err();
    assert!(
        complaints.contains("10.2.0.3 is the broadcast"),
        "{complaints}"
    );
}
