//! What users see when a configuration is wrong.

use super::{LEAST, parse, with};

#[test]
fn mistakes_name_the_key_and_what_to_do() {
    let target = "{ address = \"10.3.0.21:8080\" }";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("id = \"l4-1\"", "")], "node.id: is missing"),
        (
            &[("name = \"int\"", "name = \"\\u001b[31mint\"")],
            "ports[1].name: \"\\u{1b}[31mint\" can't be a port's name — 1 to 64 letters",
        ),
        (
            &[("port = 80", "port = 80\nclient_address = \"proxy\"")],
            "client_address: expected one of \"none\", \"proxy_v2\", \"toa\", got \"proxy\"",
        ),
        (
            &[
                ("port = 80", "port = 80\nclient_address = \"toa\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].client_address: is for protocol = \"tcp\" only — leave it out",
        ),
        (
            &[
                ("port = 80", "port = 80\non_unknown_segment = \"drop\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].on_unknown_segment: is for protocol = \"tcp\" only",
        ),
        (
            &[
                ("port = 80", "port = 80\nreset_on_expiry = true"),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].reset_on_expiry: is for protocol = \"tcp\" only",
        ),
        (
            &[
                ("port = 80", "port = 80\ntimestamps = \"strip\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].timestamps: is for protocol = \"tcp\" only",
        ),
        (
            &[(
                "port = 80",
                "port = 80\npersistence = { timeout = \"1m\", prefix_v6 = 64 }",
            )],
            "services[0].persistence.prefix_v6: is for services with an IPv6 VIP only — leave it out",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nlimits = { source_connections = 1, source_prefix_v4 = 24 }",
                ),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
            ],
            "services[0].limits.source_prefix_v4: is for services with an IPv4 VIP only — leave it out",
        ),
        (
            &[
                ("port = 80", "port = 80\nclient_address = \"toa\""),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("10.3.0.21:8080", "[fd00:3::21]:8080"),
                ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
                ("\"10.3.0.11/24\"", "\"fd00:3::11/64\"\nmtu = 1299"),
            ],
            "services[0].targets[0].address: fd00:3::21 is behind port int, whose mtu of 1299 is too small for client_address = \"toa\" — with IPv6 it takes 1300 at least",
        ),
        (
            &[
                ("port = 80", "port = 80\nmode = \"tunnel\""),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("10.3.0.21:8080", "fd00:3::21"),
                ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
                ("\"10.3.0.11/24\"", "\"fd00:3::11/64\"\nmtu = 1319"),
            ],
            "services[0].targets[0].address: fd00:3::21 is behind port int, whose mtu of 1319 is too small for mode = \"tunnel\" — with IPv6 it takes 1320 at least",
        ),
        (
            &[("port = 80", "port = 80\nleast_path_mtu = 575")],
            "services[0].least_path_mtu: expected an integer from 576 to 1500, got 575",
        ),
        (
            &[
                ("port = 80", "port = 80\nleast_path_mtu = 1279"),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
            ],
            "services[0].least_path_mtu: expected an integer from 1280 to 1500, got 1279",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"dr\"\nleast_path_mtu = 1280",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].least_path_mtu: is for mode = \"fullnat\" only",
        ),
        (&[("port = 80", "")], "services[0].port: is missing"),
        (
            &[("protocol = \"tcp\"", "")],
            "services[0].protocol: is missing",
        ),
        (
            &[("protocol = \"tcp\"", "protocol = \"sctp\"")],
            "expected one of \"tcp\", \"udp\"",
        ),
        (
            &[("port = 80", "port = 80\nscheduler = \"wllc\"")],
            "scheduler: expected one of \"rr\", \"wrr\", \"lc\", \"wlc\", \"sh\", \"maglev\", got \"wllc\" — did you mean \"wlc\"?",
        ),
        (
            &[("port = 80", "port = 80\nschedular = \"rr\"")],
            "services[0].schedular: unknown key — did you mean `scheduler`?",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"10.2.0.11\"")],
            "vip: 10.2.0.11 is the address of port ext",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"10.3.0.100\"")],
            "vip: 10.3.0.100 is a LocalIP of port int",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"224.0.0.1\"")],
            "vip: 224.0.0.1 is not an address that clients can connect to",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\"")],
            "10.3.0.21:8080 is not of the family of the VIP 2001:db8::1",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"fe80::1\"")],
            "vip: fe80::1 is not an address that clients can connect to",
        ),
        (
            &[("\"10.3.0.11/24\"", "[\"10.3.0.11/24\", \"10.9.0.11/24\"]")],
            "l4.toml:14: ports[1].address: give one of each family at most",
        ),
        (
            &[("\"10.3.0.11/24\"", "[]")],
            "l4.toml:14: ports[1].address: the list is empty: write an address with a prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\"",
        ),
        (
            &[("\"10.2.0.1\"", "[]")],
            "l4.toml:9: ports[0].gateway: the list is empty: write an IP address such as \"10.0.0.1\"",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"fd00:3::100\"]")],
            "local_ips: the port has no address of the family of fd00:3::100",
        ),
        (
            &[
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
            ],
            "no port leads to fd00:3::21",
        ),
        (
            &[
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
                ("\"10.3.0.11/24\"", "[\"10.3.0.11/24\", \"fd00:3::11/64\"]"),
            ],
            "fd00:3::21 is behind port int, which has no LocalIP of its family",
        ),
        (
            &[(
                "\"10.3.0.11/24\"",
                "[\"10.3.0.11/24\", \"fd00:3::11/64\"]\nmtu = 1279",
            )],
            "ports[1].mtu: 1279 is less than a link of IPv6 has",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.9.0.100\"]")],
            "ports[1].local_ips: 10.9.0.100 is not in the port's network 10.3.0.11/24",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.3.0.11\"]")],
            "10.3.0.11 is the port's own address",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.3.0.100\", \"10.3.0.100\"]")],
            "the address \"10.3.0.100\" is already at",
        ),
        (
            &[("[\"10.3.0.100\"]", "[]")],
            "10.3.0.21 is behind port int, which has no LocalIP of its family — give port int local_ips",
        ),
        (
            &[("gateway = \"10.2.0.1\"", "gateway = \"10.9.0.1\"")],
            "ports[0].gateway: 10.9.0.1 is not in the port's network",
        ),
        (
            &[
                ("gateway = \"10.2.0.1\"", ""),
                ("10.3.0.21:8080", "10.77.0.1:80"),
            ],
            "no port leads to 10.77.0.1",
        ),
        (
            &[("10.3.0.21:8080", "10.3.0.11:80")],
            "10.3.0.11 is this node's own",
        ),
        (
            &[
                ("10.3.0.21:8080", "10.0.0.100:8080"),
                (
                    "gateway = \"10.2.0.1\"",
                    "gateway = \"10.2.0.1\"\nlocal_ips = [\"10.2.0.100\"]",
                ),
            ],
            "services[0].targets[0].address: 10.0.0.100 is a VIP of this node",
        ),
        (&[("10.3.0.21:8080", "10.3.0.21:0")], "0 is not a port"),
        (
            &[("port = 80", "port = 80\nmode = \"nat\"")],
            "services[0].mode: expected one of \"fullnat\", \"dr\", \"tunnel\"",
        ),
        (
            &[("port = 80", "port = 80\nmode = \"dr\"")],
            "services[0].targets[0].address: packets reach 10.3.0.21 for port 80, as clients sent them",
        ),
        (
            &[
                ("port = 80", "port = 80\nmode = \"dr\""),
                ("10.3.0.21:8080", "10.9.0.21"),
            ],
            "10.9.0.21 is behind a router of port ext, and DR reaches its own network only — take mode = \"tunnel\" for it",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"tunnel\"\ntimestamps = \"keep\"",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].timestamps: is for mode = \"fullnat\" only",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"dr\"\nclient_address = \"toa\"",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].client_address: is for mode = \"fullnat\" only",
        ),
        (
            &[("10.3.0.21:8080", "10.3.0.21")],
            "services[0].targets[0].address: expected an address with a port",
        ),
        (
            &[("10.3.0.21:8080", "web1.example.com:80")],
            "got \"web1.example.com:80\" — names are not looked up; write an address",
        ),
        (
            &[("10.3.0.21:8080", "224.0.0.1:80")],
            "224.0.0.1 is not an address of one host",
        ),
        (
            &[("port = 80", "port = 0")],
            "services[0].port: expected an integer from 1 to 65535, got 0",
        ),
        (
            &[
                ("10.2.0.11/24", "0.0.0.11/8"),
                ("gateway = \"10.2.0.1\"", ""),
            ],
            "can't be forwarded by: 0.0.0.11 can't be a host's address",
        ),
        (
            &[(
                target,
                "{ address = \"10.3.0.21:8080\" }, { address = \"10.3.0.21:8080\" }",
            )],
            "10.3.0.21:8080 is a target of this service already",
        ),
        (
            &[(target, "{ address = \"10.3.0.21:8080\", weight = 2000 }")],
            "weight: expected an integer from 0 to 1000",
        ),
        (
            &[("targets = [{ address = \"10.3.0.21:8080\" }]", "")],
            "services[0].targets: the service has none",
        ),
        (
            &[("port = 80", "port = 80\nfrom_registrations = true")],
            "l4.toml:22: services[0].from_registrations: registrations come by the bus, and the bus stays within this process",
        ),
        (
            &[("name = \"int\"", "name = \"ext\"")],
            "the port name \"ext\" is already at",
        ),
        (
            &[("net_af_packet1", "net_af_packet0")],
            "the device \"net_af_packet0\" is already at",
        ),
        (
            &[("net_af_packet0,iface=ext0", "eth0")],
            "ports[0].device: expected a DPDK device such as \"0000:3b:00.0\" or \"net_af_packet0,iface=eth0\", got \"eth0\" \
             — a PCI address, or a virtual device with its arguments",
        ),
        (
            &[("10.2.0.11/24", "10.2.0.11")],
            "ports[0].address: expected an address with a prefix length",
        ),
        (
            &[("gateway", "queues = 2\ngateway")],
            "ports[0].queues: 2 are more than there are workers (1) — leave it out, or give [workers] more",
        ),
        (
            &[("gateway", "queues = 0\ngateway")],
            "ports[0].queues: expected an integer from 1 to 64, got 0",
        ),
        (
            &[("gateway", "mtu = 100\ngateway")],
            "ports[0].mtu: expected an integer from 576 to 9600",
        ),
        (
            &[("[[ports]]", "[eal]\nargs = [\"--lcores=1\"]\n[[ports]]")],
            "eal.args: --lcores is set by the gateway itself — use workers.count and workers.cores",
        ),
        (
            &[("[[ports]]", "[eal]\nmemory = \"64MiB\"\n[[ports]]")],
            "eal.memory: hugepages are taken as they are needed",
        ),
        (
            &[("[[ports]]", "[workers]\npoll = \"buzy\"\n[[ports]]")],
            "did you mean \"busy\"?",
        ),
        (
            &[("[[ports]]", "[workers]\ncores = [1, 1]\n[[ports]]")],
            "CPU \"1\" is already at",
        ),
        (
            &[("[[ports]]", "[workers]\ncount = 3\ncores = [1]\n[[ports]]")],
            "1 CPUs, but count = 3",
        ),
        (
            &[("port = 80", "port = 80\none_packet = false")],
            "services[0].one_packet: is for protocol = \"udp\" only — leave it out",
        ),
        (
            &[
                ("\"tcp\"", "\"udp\""),
                (
                    "port = 80",
                    "port = 80\none_packet = true\npersistence = { timeout = \"1m\" }",
                ),
            ],
            "services[0].one_packet: persistence keeps a client's datagrams together",
        ),
        (
            &[
                ("\"tcp\"", "\"udp\""),
                (
                    "port = 80",
                    "port = 80\none_packet = true\nscheduler = \"wlc\"",
                ),
            ],
            "services[0].one_packet: this scheduler goes by connections, and single datagrams are none — take rr for lc, wrr for wlc",
        ),
        (
            &[("port = 80", "port = 80\npersistence = { prefix_v4 = 24 }")],
            "services[0].persistence.timeout: is missing",
        ),
        (
            &[(
                "port = 80",
                "port = 80\npersistence = { timeout = \"25h\" }",
            )],
            "services[0].persistence.timeout: expected a duration from 1s to 1d, got \"25h\"",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nlimits = { connections = \"many\" }",
            )],
            "services[0].limits.connections: expected an integer from 1 to 1000000000, got \"many\"",
        ),
        (
            &[("port = 80", "port = 80\nlimits = { connections = 0 }")],
            "services[0].limits.connections: expected an integer from 1 to 1000000000, got 0",
        ),
        (
            &[("port = 80", "port = 80\nlimits = { source_prefix_v4 = 33 }")],
            "services[0].limits.source_prefix_v4: expected an integer from 0 to 32, got 33",
        ),
        (
            &[("port = 80", "port = 80\ndeny = [\"10.1.2.3/8\"]")],
            "services[0].deny: 10.1.2.3/8 has bits set beyond its length — write 10.0.0.0/8",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
            )],
            "services[0].deny: 10.0.0.0/8 is allowed too — leave it in one of both lists",
        ),
        (
            &[("port = 80", "port = 80\non_limit = \"reset\"")],
            "services[0].on_limit: expected one of \"rst\", \"drop\", got \"reset\"",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nscheduler = \"lc\"\nslow_start = \"10s\"",
            )],
            "services[0].slow_start: the weight grows, and this scheduler doesn't ask for it — take wrr for rr, wlc for lc",
        ),
        (
            &[("[[ports]]", "[workers]\nlongest_sleep = \"1ms\"\n[[ports]]")],
            "busy workers never sleep",
        ),
    ];
    for (changes, complaint) in cases {
        let complaints = parse(&with(changes)).expect_err(complaint);
        assert!(
            complaints.contains(complaint),
            "{changes:?} gave {complaints:?}, not {complaint:?}"
        );
    }
}

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
    for (port, hint) in [("\"80\"", " — write 80, without quotes"), ("65536", "")] {
        let complaints = parse(&with(&[("port = 80", &format!("port = {port}"))])).unwrap_err();
        assert_eq!(
            complaints,
            format!(
                "l4.toml:21: services[0].port: expected an integer from 1 to 65535, got {port}{hint}"
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
