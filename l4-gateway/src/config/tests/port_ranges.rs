//! Services of several ports, and groups of services that keep a client at one host.

use dataplane::{PersistenceGroup, PortRange};

use super::{LEAST, parse, warnings, with};

/// The least configuration with this port, and other keys behind it.
fn of(port: &str) -> String {
    with(&[
        ("port = 80", &format!("port = {port}")),
        ("10.3.0.21:8080", "10.3.0.21"),
    ])
}

/// A service on the same VIP.
fn another(name: &str, keys: &str) -> String {
    format!("[[services]]\nname = \"{name}\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\n{keys}\n")
}

const TARGET: &str = "targets = [{ address = \"10.3.0.21\" }]";

#[test]
fn a_service_has_a_port_or_a_range_or_all() {
    for (port, ports, target) in [
        ("\"8000-8999\"", PortRange::new(8000, 8999).unwrap(), 0),
        ("\"*\"", PortRange::ALL, 0),
        ("\"1-65535\"", PortRange::ALL, 0),
    ] {
        let config = parse(&of(port)).unwrap();
        let service = &config.services[0];
        assert_eq!(
            (service.ports, service.targets[0].address.port()),
            (ports, target)
        );
    }
    let fixed = with(&[("port = 80", "port = \"*\"")]);
    let service = &parse(&fixed).unwrap().services[0];
    assert_eq!(service.targets[0].address.port(), 8080);
    // As many as one wants, on one VIP: the narrowest goes first.
    let nested = [
        of("\"*\""),
        another("range", &format!("port = \"8000-8999\"\n{TARGET}")),
        another("next", &format!("port = \"9000-9001\"\n{TARGET}")),
        another(
            "one",
            "port = 8005\ntargets = [{ address = \"10.3.0.21:80\" }]",
        ),
    ];
    assert_eq!(parse(&nested.concat()).unwrap().services.len(), 4);
    for mode in ["dr", "tunnel"] {
        let config = parse(&of(&format!("\"8000-8999\"\nmode = \"{mode}\""))).unwrap();
        assert_eq!(config.services[0].targets[0].address.port(), 0);
    }
}

#[test]
fn mistakes_of_ranges_are_told_where_they_are() {
    let expected =
        "expected a port from 1 to 65535, a range such as \"8000-8999\", or \"*\" for all";
    let port = |port: &str, hint: &str| {
        let got = port.lines().next().unwrap_or_default();
        (
            of(port),
            format!("l4.toml:21: services[0].port: {expected}, got {got}{hint}"),
        )
    };
    let target = |written: &str, bare: &str| {
        (
            of("\"*\"").replace("10.3.0.21", written),
            format!("got \"{written}\" — for packets to keep their ports, write \"{bare}\""),
        )
    };
    let overlapping = |first: &str, second: &str| {
        of(first) + &another("b", &format!("port = {second}\n{TARGET}"))
    };
    let share =
        "make one of them shorter; only a single port, and \"*\", may share ports with a range";
    for (text, complaint) in [
        port("\"8999-8000\"", " — the lower port comes first"),
        port("\"any\"", " — write \"*\" for all ports"),
        port("\"0\"", " — write \"*\" for all ports"),
        port("\"0-5\"", ""),
        port("\"80,443\"", ""),
        port("-1", ""),
        port("true", ""),
        (
            of("[80, 443]"),
            "l4.toml:21: services[0].port: a service has one port, or one range of them — add a [[services]] for each, with the same \
             persistence.group if clients are to stay with one target"
                .to_owned(),
        ),
        (
            overlapping("\"8000-8999\"", "\"8500-9000\""),
            format!(
                "l4.toml:27: services[1].port: 8500-9000 has ports of 8000-8999, which services[0] has at this VIP — {share}"
            ),
        ),
        (
            overlapping("\"8500-9000\"", "\"8000-8999\""),
            format!(
                "l4.toml:27: services[1].port: 8000-8999 has ports of 8500-9000, which services[0] has at this VIP — {share}"
            ),
        ),
        (
            overlapping("\"8000-8999\"", "\"8000-8999\""),
            "services[1]: the service on \"tcp 10.0.0.100:8000-8999\" is already at services[0]".to_owned(),
        ),
        (
            overlapping("\"*\"", "\"1-65535\""),
            "services[1]: the service on \"tcp 10.0.0.100:*\" is already at services[0]".to_owned(),
        ),
        (
            of("\"*\"\nhealth = { type = \"tcp\" }"),
            "l4.toml:22: services[0].health.port: is missing — name the port of the targets that is probed: the service has several".to_owned(),
        ),
        (
            of("\"*\"").replace("10.3.0.21", "10.3.0.21:0"),
            "services[0].targets[0].address: 0 is not a port — leave the port out, and packets keep the port that the client sent them to"
                .to_owned(),
        ),
        target("10.3.0.21:*", "10.3.0.21"),
        target("10.3.0.21:8000-8999", "10.3.0.21"),
        target("[fd00:3::21]:*", "fd00:3::21"),
        target("[fd00:3::21]", "fd00:3::21"),
        (
            of("\"*\"").replace("10.3.0.21", "fd00:3::21"),
            "[fd00:3::21]:* is not of the family of the VIP 10.0.0.100 — a service and its targets are all IPv4 or all IPv6"
                .to_owned(),
        ),
        (
            of("\"8000-8999\"\nmode = \"dr\"").replace("10.3.0.21", "10.3.0.21:8000"),
            "services[0].targets[0].address: packets reach 10.3.0.21 for ports 8000-8999, as clients sent them — leave the port out, and have \
             the target listen on ports 8000-8999"
                .to_owned(),
        ),
        (
            of("\"*\"\nmode = \"dr\"").replace("10.3.0.21", "10.3.0.21:8000"),
            "packets reach 10.3.0.21 for all ports, as clients sent them — leave the port out, and have the target listen on all ports"
                .to_owned(),
        ),
        (
            of("\"*\"\nmode = \"tunnel\"\nfrom_registrations = true")
                .replace("[node]", "bus = { transport = \"nats\", nats = { servers = [\"10.9.0.5:4222\"] } }\n[node]"),
            "services[0].from_registrations: a registration names one port, and packets reach these targets at the ports that clients sent them \
             to — list the targets in [[services.targets]]"
                .to_owned(),
        ),
    ] {
        let complaints = parse(&text).expect_err(&complaint);
        assert!(complaints.ends_with(&complaint), "{complaints}, not {complaint}");
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    }
}

#[test]
fn a_range_within_another_and_one_that_reaches_over_several_are_found() {
    let service = |name: &str, port: &str| another(name, &format!("port = \"{port}\"\n{TARGET}"));
    let text = [
        of("\"100-900\""),
        service("b", "200-210"),
        service("c", "300-310"),
        service("d", "901-902"),
    ];
    let complaints = parse(&text.concat()).unwrap_err();
    assert_eq!(
        complaints.matches("has ports of 100-900").count(),
        2,
        "{complaints}"
    );
    // Another protocol or VIP has ports of its own.
    let tcp = service("b", "100-900");
    for (from, to) in [("\"tcp\"", "\"udp\""), ("10.0.0.100", "10.0.0.101")] {
        assert!(parse(&(of("\"100-900\"") + &tcp.replace(from, to))).is_ok());
    }
}

#[test]
fn probes_of_a_range_need_no_port_where_targets_have_one() {
    let health = "port = \"8000-8999\"\nhealth = { type = \"tcp\" }";
    assert!(parse(&with(&[("port = 80", health)])).is_ok());
    assert!(parse(&of("\"*\"\nhealth = { type = \"tcp\", port = 21 }")).is_ok());
}

/// The least configuration in a group, and another service of it with these keys.
fn grouped(keys: &str) -> String {
    with(&[(
        "port = 80",
        "port = 80\npersistence = { timeout = \"5m\", group = \"web\" }",
    )]) + &another("b", keys)
}

#[test]
fn services_of_a_group_share_a_group() {
    let keys = "port = 443\npersistence = { timeout = \"5m\", group = \"web\" }\ntargets = [{ address = \"10.3.0.21:8443\" }]";
    let config = parse(&grouped(keys)).unwrap();
    let groups = config.services.iter().map(|service| {
        let persistence = service.policy.persistence.unwrap();
        (persistence.group, service.persistence_group.as_deref())
    });
    let group = PersistenceGroup::new([10, 0, 0, 100].into(), "web");
    assert_eq!(groups.collect::<Vec<_>>(), [(Some(group), Some("web")); 2]);
    assert_eq!(warnings(&grouped(keys)), [""; 0]);
    let alone = with(&[(
        "port = 80",
        "port = 80\npersistence = { timeout = \"5m\", group = \"web\" }",
    )]);
    assert_eq!(
        warnings(&alone),
        [
            "l4.toml:22: services[0].persistence.group: web is the group of this service alone — name it in the persistence of the others, or \
             leave it out"
        ]
    );
    assert!(
        parse(LEAST).unwrap().services[0]
            .persistence_group
            .is_none()
    );
}

#[test]
fn services_of_a_group_have_the_same_persistence_and_hosts_at_one_vip() {
    let persistence = "persistence = { timeout = \"5m\", group = \"web\" }";
    let targets = "targets = [{ address = \"10.3.0.21:8443\" }]";
    let hint =
        "the services of a persistence group have targets on the same hosts, whatever their ports";
    for (keys, complaint) in [
        (
            format!("port = 443\n{persistence}\n{targets}").replace("5m", "6m"),
            "services[1].persistence.group: timeout or prefix differ from those of services[0] — the services of a group have the same"
                .to_owned(),
        ),
        (
            format!("port = 443\n{persistence}\n{targets}").replace("group", "prefix_v4 = 24, group"),
            "services[1].persistence.group: timeout or prefix differ from those of services[0] — the services of a group have the same"
                .to_owned(),
        ),
        (
            format!("port = 443\n{persistence}\n{targets}").replace("10.3.0.21", "10.3.0.22"),
            format!("services[1].targets: 10.3.0.21 is a target of services[0], and not of this service — {hint}"),
        ),
        (
            format!("port = 443\n{persistence}\n{targets}")
                .replace("}]", "}, { address = \"10.3.0.9:80\" }]"),
            format!("services[1].targets: 10.3.0.9 is no target of services[0] — {hint}"),
        ),
        (
            format!("port = 443\n{persistence}\n{targets}").replace("\"web\"", "\"we b\""),
            "services[1].persistence.group: \"we b\" can't be a persistence group's name — 1 to 64 letters, digits, dots, dashes or underscores"
                .to_owned(),
        ),
    ] {
        let complaints = parse(&grouped(&keys)).expect_err(&complaint);
        let (_, told) = complaints.split_once(": ").unwrap();
        assert_eq!(told, complaint);
    }
    let other_vip = grouped(&format!("port = 443\n{persistence}\n{targets}"));
    let (first, second) = other_vip.rsplit_once("10.0.0.100").unwrap();
    let complaints = parse(&format!("{first}10.0.0.101{second}")).unwrap_err();
    assert!(
        complaints.contains(
            "services[1].persistence.group: web is a group of 10.0.0.100, by services[0] — a group is of one VIP"
        ),
        "{complaints}"
    );
}
