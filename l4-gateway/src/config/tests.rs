mod addresses;
mod mistakes;

use std::net::IpAddr;
use std::time::Duration;

use dataplane::{
    ClientAddress, FlowLimits, Protocol, Quota, Refusal, Scheduler, SourcePrefix, UnknownSegment,
};
use shared::config::Document;

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
    document
        .parse(Config::parse)
        .map_err(|mistakes| mistakes.to_string())
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
    assert_eq!(parse(&wide).unwrap().warnings(), Vec::<String>::new());
    assert_eq!(
        parse(&format!("{LEAST}{bgp}")).unwrap().warnings(),
        Vec::<String>::new()
    );
    let warnings = parse(&format!("{wide}{bgp}")).unwrap().warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("2001:db8::1"), "{warnings:?}");
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
        let warnings = parse(&with(&[("port = 80", &keys)])).unwrap().warnings();
        assert_eq!(!warnings.is_empty(), warned, "{address} {health}");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.starts_with("service web: "))
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
