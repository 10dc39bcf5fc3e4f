//! How mistakes are told: all at once, each once, and none that follows from another.

use super::{LEAST, parse, with};

#[test]
fn a_list_of_addresses_in_place_of_targets_is_told_how_to_be_tables() {
    let complaints = parse(&with(&[(
        "{ address = \"10.3.0.21:8080\" }",
        "\"10.3.0.21:8080\", 7",
    )]));
    assert_eq!(
        complaints.unwrap_err(),
        "l4.toml:22: services[0].targets[0]: expected a table, got \"10.3.0.21:8080\" — write { address = \"10.3.0.21:8080\" }\n\
         l4.toml:22: services[0].targets[1]: expected a table, got 7"
    );
}

#[test]
fn one_mistake_does_not_make_other_keys_unknown() {
    for timeout in ["", "timeout = \"soon\", "] {
        let persistence = format!("port = 80\npersistence = {{ {timeout}prefix_v4 = 24 }}");
        let complaints = parse(&with(&[("port = 80", &persistence)])).unwrap_err();
        assert!(complaints.contains("persistence.timeout"), "{complaints}");
        assert!(!complaints.contains("unknown key"), "{complaints}");
    }
}

#[test]
fn a_mistake_is_told_once_with_the_right_bounds() {
    for (port, hint) in [
        ("\"80\"", " — write 80, without quotes"),
        ("65536", ""),
        ("0", " — write \"*\" for all ports"),
    ] {
        let complaints = parse(&with(&[("port = 80", &format!("port = {port}"))])).unwrap_err();
        assert_eq!(
            complaints,
            format!(
                "l4.toml:21: services[0].port: expected a port from 1 to 65535, a range such as \"8000-8999\", or \"*\" for all, got {port}{hint}"
            )
        );
    }
}

#[test]
fn a_key_of_no_effect_for_two_reasons_is_told_once() {
    let others = "is for mode = \"fullnat\" only — leave it out";
    for (protocol, keys, complaint) in [
        (
            "udp",
            "mode = \"tunnel\"\ntimestamps = \"keep\"",
            format!("l4.toml:23: services[0].timestamps: {others}"),
        ),
        (
            "udp",
            "mode = \"dr\"\nclient_address = \"toa\"",
            format!("l4.toml:23: services[0].client_address: {others}"),
        ),
        (
            "tcp",
            "one_packet = true\npersistence.timeout = \"1m\"",
            "l4.toml:22: services[0].one_packet: is for protocol = \"udp\" only — leave it out"
                .to_owned(),
        ),
    ] {
        let complaints = parse(&with(&[
            ("\"tcp\"", &format!("\"{protocol}\"")),
            ("10.3.0.21:8080", "10.3.0.21:80"),
            ("port = 80\n", &format!("port = 80\n{keys}\n")),
        ]));
        assert_eq!(complaints.unwrap_err(), complaint);
    }
}

#[test]
fn two_services_on_one_address_and_port_are_a_mistake_unless_the_protocol_differs() {
    let second = |protocol: &str| {
        format!(
            "{LEAST}\n[[services]]\nname = \"b\"\nvip = \"10.0.0.100\"\nprotocol = \"{protocol}\"\nport = 80\ntargets = [{{ address = \"10.3.0.22:80\" }}]"
        )
    };
    assert!(parse(&second("udp")).is_ok());
    let complaints = parse(&second("tcp")).unwrap_err();
    assert!(
        complaints.contains(
            "services[1]: the service on \"tcp 10.0.0.100:80\" is already at services[0]"
        ),
        "{complaints}"
    );
}

#[test]
fn all_mistakes_come_at_once() {
    let text = with(&[
        ("id = \"l4-1\"", "id = \"a b\""),
        ("10.2.0.11/24", "10.2.0.11/44"),
        ("port = 80", "port = 0"),
        ("\"10.3.0.100\"", "\"x\""),
    ]);
    let complaints = parse(&text).unwrap_err();
    for key in [
        "node.id",
        "ports[0].address",
        "ports[1].local_ips",
        "services[0].port",
    ] {
        assert!(complaints.contains(key), "{key} in {complaints}");
    }
}

#[test]
fn a_vip_announced_differently_must_be_one_of_ours() {
    let bgp = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n[[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";
    assert!(parse(&format!("{LEAST}{bgp}")).unwrap().bgp.is_some());
    let vip = |address: &str| format!("[[bgp.vips]]\naddress = \"{address}\"\n");
    let vips = ["10.0.0.100", "10.0.0.99", "10.0.0.98", "2001:db8::1"].map(vip);
    let complaints = parse(&format!("{LEAST}{bgp}{}", vips.concat())).unwrap_err();
    assert_eq!(
        complaints,
        "l4.toml:32: bgp.vips[1].address: 10.0.0.99 is the VIP of no service here — leave it out, or add the service\n\
         l4.toml:34: bgp.vips[2].address: 10.0.0.98 is the VIP of no service here — leave it out, or add the service\n\
         l4.toml:36: bgp.vips[3].address: expected an IPv4 address such as \"10.0.0.1\", got \"2001:db8::1\""
    );
}

#[test]
fn garbage_is_refused_without_a_panic() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..2000 {
        let mut text = LEAST.as_bytes().to_vec();
        for _ in 0..6 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = (seed >> 8) as usize % text.len();
            text[at] = seed as u8 & 0x7f;
        }
        let text = String::from_utf8(text).unwrap();
        let _ = parse(&text);
    }
}

#[test]
fn too_many_services_are_one_mistake_beside_those_of_each() {
    let service = |n: u32| {
        let vip = std::net::Ipv4Addr::from(0x0a00_0200 + n);
        format!(
            "[[services]]\nname = \"s{n}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = 80\ntargets = [{{ address = \"10.3.0.21:80\" }}]\n"
        )
    };
    let services: String = (0..1024).map(service).collect();
    let text = with(&[("port = 80", "port = 0")]) + &services;
    assert_eq!(
        parse(&text).unwrap_err(),
        "l4.toml:17: services: 1025 services are more than a node can tell others of — 1024 at most\n\
         l4.toml:21: services[0].port: expected a port from 1 to 65535, a range such as \"8000-8999\", or \"*\" for all, got 0 — write \"*\" for all ports"
    );
    let port = |n: u32| {
        format!(
            "[[ports]]\nname = \"p{n}\"\ndevice = \"net_af_packet{n},iface=p{n}\"\naddress = \"10.9.{n}.1/24\"\n"
        )
    };
    let ports: String = (2..17).map(port).collect();
    assert_eq!(
        parse(&format!("{LEAST}{ports}")).unwrap_err(),
        "l4.toml:5: ports: 17 ports are too many — 16 at most"
    );
}

#[test]
fn every_bad_item_of_a_list_is_told_at_its_line() {
    let routers = "gateway = [\n \"10.9.0.1\", \"10.2.0.1\",\n \"10.9.0.2\", \"fd00::1\"]";
    assert_eq!(
        parse(&with(&[("gateway = \"10.2.0.1\"", routers)])).unwrap_err(),
        "l4.toml:9: ports[0].gateway: 10.9.0.1 is not in the port's network 10.2.0.11/24 — a next hop is on the port's segment\n\
         l4.toml:9: ports[0].gateway: 10.9.0.2 is not in the port's network 10.2.0.11/24 — a next hop is on the port's segment\n\
         l4.toml:9: ports[0].gateway: the port has no address of the family of fd00::1 — add one to the port's `address`"
    );
    let routers = "gateway = [\n \"x\", \"10.2.0.1\",\n 7]";
    let item = "should be an IP address such as \"10.0.0.1\", it is";
    assert_eq!(
        parse(&with(&[("gateway = \"10.2.0.1\"", routers)])).unwrap_err(),
        format!(
            "l4.toml:10: ports[0].gateway: item 1 {item} \"x\"\nl4.toml:11: ports[0].gateway: item 3 {item} 7"
        )
    );
    let twice = "gateway = [\"10.2.0.1\", \"10.2.0.2\",\n\"10.2.0.2\", \"10.2.0.1\"]";
    assert_eq!(
        parse(&with(&[("gateway = \"10.2.0.1\"", twice)])).unwrap_err(),
        "l4.toml:10: ports[0].gateway: 10.2.0.2 is given twice\n\
         l4.toml:10: ports[0].gateway: 10.2.0.1 is given twice"
    );
    let lists = "port = 80\nallow = [\"10.1.0.0/16\", \"10.2.0.0/16\"]\ndeny = [\"10.2.0.0/16\", \"10.1.0.0/16\"]";
    let complaints = parse(&with(&[("port = 80", lists)])).unwrap_err();
    let both = ["10.1.0.0/16", "10.2.0.0/16"].map(|prefix| {
        complaints
            .matches(&format!("{prefix} is allowed too"))
            .count()
    });
    assert_eq!(both, [1, 1], "{complaints}");
}

#[test]
fn what_is_there_twice_is_told_whatever_else_is_wrong() {
    let second = "[[ports]]\nname = \"int\"\ndevice = \"net_af_packet1,iface=int0\"\naddress = \"x\"\nlocal_ips = [\"10.3.0.100\"]\n\
                  [[services]]\nname = \"web\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 80\nscheduler = \"x\"\ntargets = [{ address = \"10.0.0.100:80\" }]\n";
    let complaints = parse(&format!("{LEAST}{second}")).unwrap_err();
    for told in [
        "ports[2].name: the port name \"int\" is already at ports[1].name",
        "ports[2].device: the device \"net_af_packet1\" is already at ports[1].device",
        "ports[2].device: interface int0 is port int's already",
        "ports[2].address: expected",
        "ports[2].local_ips: the address \"10.3.0.100\" is already at ports[1].local_ips",
        "services[1].name: the service name \"web\" is already at services[0].name",
        "services[1]: the service on \"tcp 10.0.0.100:80\" is already at services[0]",
        "services[1].scheduler: expected",
        "services[1].targets[0].address: 10.0.0.100 is a VIP of this node",
    ] {
        assert!(complaints.contains(told), "{told} in\n{complaints}");
    }
}
