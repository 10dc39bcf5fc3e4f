mod addresses;
mod mistakes;
mod port_ranges;
mod telling;

use std::net::IpAddr;
use std::time::Duration;

use dataplane::{
    ClientAddress, FlowLimits, Protocol, Quota, Refusal, Scheduler, SourcePrefix, UnknownSegment,
};
use shared::config::{Configuration, Document};

use super::Config;
use crate::worker::Poll;

/// A configuration that has only what it must have.
const LEAST: &str = r#"
[node]
id = "l4-1"

[[ports]]
name = "ext"
device = "net_af_packet0,iface=ext0"
address = "10.2.0.11/24"
gateway = "10.2.0.1"

[[ports]]
name = "int"
device = "net_af_packet1,iface=int0"
address = "10.3.0.11/24"
local_ips = ["10.3.0.100"]

[[services]]
name = "web"
vip = "10.0.0.100"
protocol = "tcp"
port = 80
targets = [{ address = "10.3.0.21:8080" }]
"#;

fn parse(text: &str) -> Result<Config, String> {
    let document = Document::from_toml("l4.toml", text).map_err(|mistakes| mistakes.to_string())?;
    let config = document
        .parse(Config::parse)
        .map_err(|mistakes| mistakes.to_string())?;
    config.feasible().map(|_| config)
}

fn warnings(text: &str) -> Vec<String> {
    let document = Document::from_toml("l4.toml", text).unwrap();
    let parsed = document.into_parsed(Config::parse).unwrap();
    parsed.warnings.iter().map(ToString::to_string).collect()
}

/// [`LEAST`] with each first occurrence of a text replaced.
fn with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(LEAST.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the configuration");
        text.replacen(from, to, 1)
    })
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = parse(LEAST).unwrap();
    assert!(config.eal.huge_pages);
    assert_eq!(
        (
            config.workers.count(),
            config.workers.poll,
            config.workers.flows
        ),
        (1, Poll::Busy, 1 << 20)
    );
    assert_eq!(config.workers.stall_limit, Duration::from_millis(100));
    assert_eq!(config.drain.deadline, Duration::from_secs(30));
    let port = &config.ports[0];
    assert_eq!(
        (
            port.queues,
            port.mtu,
            port.descriptors,
            port.answer_for_address
        ),
        (1, 1500, 512, false)
    );
    let service = &config.services[0];
    assert_eq!(
        (service.scheduler, service.on_unknown_segment),
        (Scheduler::WeightedRoundRobin, UnknownSegment::Reset)
    );
    assert_eq!(
        (service.protocol, service.targets[0].weight),
        (Protocol::Tcp, 1)
    );
    assert_eq!(service.client_address, ClientAddress::None);
    assert_eq!(service.least_path_mtu, 1280);
    assert!(config.bgp.is_none() && service.health.is_none());
}

#[test]
fn cores_say_how_many_workers_there_are_and_ports_follow() {
    let config = parse(&with(&[(
        "[[ports]]",
        "[workers]\ncores = [2, 5]\n[[ports]]",
    )]))
    .unwrap();
    assert_eq!(config.workers.cpus, [Some(2), Some(5)]);
    assert_eq!(config.ports[0].queues, 2);
}

#[test]
fn flows_of_targets_that_are_down_are_cut_at_once_over_udp_and_after_a_while_over_tcp() {
    let after =
        |changes: &[(&str, &str)]| parse(&with(changes)).unwrap().services[0].cut_down_after;
    let udp = ("protocol = \"tcp\"", "protocol = \"udp\"");
    let key = |value: &str| format!("port = 80\ncut_down_after = \"{value}\"");
    assert_eq!(after(&[]), Some(Duration::from_secs(300)));
    assert_eq!(after(&[udp]), Some(Duration::ZERO));
    for protocol in [("id", "id"), udp] {
        for (value, expected) in [
            ("never", None),
            ("0s", Some(Duration::ZERO)),
            ("90s", Some(Duration::from_secs(90))),
        ] {
            assert_eq!(after(&[protocol, ("port = 80", &key(value))]), expected);
        }
    }
}

#[test]
fn a_service_may_be_limited_in_all_ways() {
    let config = parse(&with(&[(
        "port = 80",
        r#"port = 80
scheduler = "sh"
slow_start = "30s"
cut_drained_after = "0s"
on_limit = "drop"
on_denied = "rst"
deny = ["10.1.2.0/24", "2001:db8::/32"]
persistence = { timeout = "5m", prefix_v4 = 24 }
limits = { connections = 1, new_per_second = 2, target_connections = 3, target_new_per_second = 4, source_connections = 5, source_new_per_second = 6, source_prefix_v4 = 28 }"#,
    )]))
    .unwrap();
    let service = &config.services[0];
    let quota = |connections, per_second| Quota {
        connections,
        per_second,
    };
    assert_eq!(
        (
            service.scheduler,
            service.slow_start,
            service.cut_drained_after
        ),
        (
            Scheduler::SourceHash,
            Duration::from_secs(30),
            Some(Duration::ZERO)
        )
    );
    let policy = &service.policy;
    assert_eq!(
        policy.limits,
        FlowLimits {
            service: quota(1, 2),
            target: quota(3, 4),
            source: quota(5, 6),
            source_prefix: SourcePrefix { v4: 28, v6: 64 },
        }
    );
    assert_eq!(
        (policy.on_limit, policy.on_denied, policy.one_packet),
        (Refusal::Drop, Refusal::Reset, false)
    );
    let persistence = policy.persistence.unwrap();
    assert_eq!(
        (persistence.timeout, persistence.prefix),
        (Duration::from_secs(300), SourcePrefix { v4: 24, v6: 128 })
    );
    let access = policy.access.as_ref().unwrap();
    for (source, allowed) in [
        ("10.1.2.3", false),
        ("10.1.3.3", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(access.allows(source.parse().unwrap()), allowed, "{source}");
    }
}

#[test]
fn a_source_in_no_list_is_denied_where_some_are_allowed() {
    let lists = "port = 80\nallow = [\"10.1.0.0/16\"]\ndeny = [\"10.1.2.0/24\"]";
    let config = parse(&with(&[("port = 80", lists)])).unwrap();
    let access = config.services[0].policy.access.as_ref().unwrap();
    for (source, allowed) in [("10.1.1.1", true), ("10.1.2.1", false), ("10.2.0.1", false)] {
        assert_eq!(access.allows(source.parse().unwrap()), allowed, "{source}");
    }
}

#[test]
fn gateways_and_routes_may_have_several_routers() {
    let config = parse(&with(&[(
        "gateway = \"10.2.0.1\"",
        "gateway = [\"10.2.0.1\", \"10.2.0.2\"]\nnext_hops = \"by_flow\"\n\
         routes = [{ to = \"10.9.0.0/16\", via = [\"10.2.0.3\", \"10.2.0.4\"] }]",
    )]))
    .unwrap();
    let port = &config.ports[0];
    let address = |last: u8| IpAddr::from([10, 2, 0, last]);
    assert_eq!(port.gateways, [address(1), address(2)]);
    assert_eq!(port.sharing, dataplane::Sharing::ByFlow);
    let via = port.routes[0].via;
    assert!(via.iter().eq([address(3), address(4)]));
    assert_eq!(via.sharing(), dataplane::Sharing::InOrder);
}

#[test]
fn a_port_may_have_both_families_and_a_service_one() {
    let config = parse(&with(&[
        ("\"10.2.0.11/24\"", "[\"10.2.0.11/24\", \"fd00:2::11/64\"]"),
        ("\"10.3.0.11/24\"", "\"fd00:3::11/64\""),
        ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
        ("\"10.2.0.1\"", "[\"10.2.0.1\", \"fe80::1\"]"),
        ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
        ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
    ]))
    .unwrap();
    let [ext, int] = &config.ports[..] else {
        panic!("two ports");
    };
    assert_eq!((ext.addresses.len(), int.addresses.len()), (2, 1));
    let gateways: [IpAddr; 2] = ["10.2.0.1".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(ext.gateways, gateways);
    assert!(int.contains("fd00:3::21".parse().unwrap()));
    assert!(!int.contains("10.3.0.21".parse().unwrap()));
    assert_eq!(
        config.services[0].targets[0].address,
        "[fd00:3::21]:8080".parse().unwrap()
    );
}

#[test]
fn an_ipv6_vip_beside_bgp_is_warned_of() {
    let bgp = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n[[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";
    let wide = with(&[
        ("\"10.3.0.11/24\"", "\"fd00:3::11/64\""),
        ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
        ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
        ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
    ]);
    assert_eq!(warnings(&wide), Vec::<String>::new());
    assert_eq!(warnings(&format!("{LEAST}{bgp}")), Vec::<String>::new());
    let line = wide.lines().count() + 1;
    assert_eq!(
        warnings(&format!("{wide}{bgp}")),
        [format!(
            "l4.toml:{line}: bgp: only IPv4 VIPs are announced so far — tell routers of 2001:db8::1 in another way"
        )]
    );
}

#[test]
fn probes_without_the_header_that_targets_expect_are_warned_of() {
    for (address, health, warned) in [
        ("proxy_v2", "type = \"http\"", true),
        ("proxy_v2", "type = \"http\", proxy_protocol = true", false),
        ("proxy_v2", "type = \"http\", port = 9402", false),
        ("proxy_v2", "type = \"http\", port = 8080", true),
        (
            "proxy_v2",
            "type = \"http\", port = 8080, proxy_protocol = true",
            false,
        ),
        ("proxy_v2", "type = \"tcp\"", false),
        ("toa", "type = \"http\"", false),
    ] {
        let keys = format!("port = 80\nclient_address = \"{address}\"\nhealth = {{ {health} }}");
        let warnings = warnings(&with(&[("port = 80", &keys)]));
        assert_eq!(!warnings.is_empty(), warned, "{address} {health}");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.contains(": services[0].health: the targets expect a PROXY"))
        );
    }
}

#[test]
fn ipv6_grows_on_links_that_are_just_large_enough() {
    for (keys, target, mtu) in [
        ("client_address = \"toa\"", "[fd00:3::21]:8080", 1300),
        ("mode = \"tunnel\"", "fd00:3::21", 1320),
        ("client_address = \"proxy_v2\"", "[fd00:3::21]:8080", 1280),
        ("mode = \"dr\"", "fd00:3::21", 1280),
    ] {
        let int = format!("\"fd00:3::11/64\"\nmtu = {mtu}");
        parse(&with(&[
            ("port = 80", &format!("port = 80\n{keys}\n")),
            ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
            ("10.3.0.21:8080", target),
            ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
            ("\"10.3.0.11/24\"", &int),
        ]))
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    }
}

#[test]
fn what_could_be_meant_and_has_no_effect_is_warned_of() {
    let weights = |scheduler: &str, [first, second]: [u16; 2]| {
        with(&[
            (
                "port = 80",
                &format!("port = 80\nscheduler = \"{scheduler}\""),
            ),
            (
                "{ address = \"10.3.0.21:8080\" }",
                &format!(
                    "{{ address = \"10.3.0.21:8080\", weight = {first} }}, {{ address = \"10.3.0.22:8080\", weight = {second} }}"
                ),
            ),
        ])
    };
    assert_eq!(
        warnings(&weights("rr", [1, 2])),
        [
            "l4.toml:22: services[0].scheduler: rr treats all targets alike, whatever their weights are — write \"wrr\", or leave the weights out"
        ]
    );
    assert_eq!(
        warnings(&weights("lc", [3, 2])),
        [
            "l4.toml:22: services[0].scheduler: lc treats all targets alike, whatever their weights are — write \"wlc\", or leave the weights out"
        ]
    );
    // Of no target that takes part does it say anything else than of another.
    for (scheduler, of) in [("rr", [5, 5]), ("rr", [0, 5]), ("wrr", [1, 2])] {
        assert!(warnings(&weights(scheduler, of)).is_empty(), "{of:?}");
    }

    let bgp = |allowed: &str| {
        format!(
            "{LEAST}[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n{allowed}\n[[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n"
        )
    };
    assert_eq!(
        warnings(&bgp("allowed = [\"10.0.1.0/24\"]")),
        [
            "l4.toml:26: bgp.allowed: leaves out VIPs of this node, which are announced to nobody: 10.0.0.100 — add their networks, or tell routers of them in another way"
        ]
    );
    assert!(warnings(&bgp("allowed = [\"10.0.0.0/24\"]")).is_empty());
    assert!(warnings(&bgp("")).is_empty());

    let memory = |size: &str| {
        with(&[(
            "[[ports]]",
            &format!("[eal]\nhuge_pages = false\nframes = 65535\nmemory = \"{size}\"\n[[ports]]"),
        )])
    };
    assert_eq!(
        warnings(&memory("256MiB")),
        [
            "l4.toml:8: eal.memory: 65535 frame buffers take 255MiB, and 303MiB with rings and drivers — leave it out, as it is worked out from the ports, or lower `frames`"
        ]
    );
    assert!(warnings(&memory("303MiB")).is_empty());
}

#[test]
fn two_ports_may_lead_to_one_network() {
    let text = with(&[
        (
            "gateway =",
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.2.0.2\" }]\ngateway =",
        ),
        (
            "local_ips =",
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.3.0.2\" }]\nlocal_ips =",
        ),
    ]);
    assert_eq!(parse(&text).map(|_| ()), Ok(()));
}

#[test]
fn what_the_driver_takes_is_taken() {
    for device in [
        "net_af_packet0,iface=ext0,qpairs=4,qdisc_bypass=0,framecnt=1024",
        "net_af_packet0,iface=ext0,framesz=16384,blocksz=16384",
        "net_af_packet0,iface=ext0,framesz=4096,blocksz=65536",
        "0000:3b:1f.7",
    ] {
        let text = with(&[("net_af_packet0,iface=ext0", device)]);
        assert_eq!(parse(&text).map(|_| ()), Ok(()), "{device}");
    }
}
