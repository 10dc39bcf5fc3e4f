//! The example to begin with, at work: clients, the gateway's one interface and the targets on one segment.
//!
//! ```text
//!   client and router br0 10.2.0.1 ─┬─ c0 ── ext0 10.2.0.11 gateway
//!                                   └─ int0 ── t0 10.2.0.21, 10.2.0.22 targets, 10.5.0.21 behind them
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use lab::programs::{Files, dig, serve_names};
use lab::{Gateway, Lab, Place};

const EXAMPLE: &str = include_str!("../../deploy/examples/l4-standalone.toml");

/// The example but for what a laboratory must have: its interface, its name (other tests run beside this one) and its patience.
fn example(lab: &Lab) -> String {
    let place = lab.gateway().name();
    let name = place.strip_suffix("-l").unwrap();
    let mut text = EXAMPLE.to_owned();
    for (written, here) in [
        ("iface=eth1", "iface=ext0"),
        ("id = \"l4-1\"", &format!("id = \"{name}\"")),
        (
            "poll = \"adaptive\"",
            "poll = \"adaptive\"\nstall_limit = \"1s\"",
        ),
    ] {
        assert_eq!(text.matches(written).count(), 1, "{written}");
        text = text.replace(written, here);
    }
    text
}

/// The commands in the head of the example.
fn before_the_start() -> String {
    let commands = EXAMPLE.lines().filter_map(|line| line.strip_prefix("#   "));
    let commands: Vec<&str> = commands.collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    commands.join("\n").replace("eth1", "ext0")
}

fn segment() -> Lab {
    let lab = Lab::new();
    let [outside, place, target] = [lab.client(), lab.gateway(), lab.target()];
    place.ip(&["link", "set", "int0", "netns", &outside.name()]);
    outside.ip(&["link", "add", "br0", "type", "bridge"]);
    outside.ip(&["addr", "flush", "dev", "c0"]);
    for port in ["c0", "int0"] {
        outside.ip(&["link", "set", port, "master", "br0", "up"]);
    }
    outside.interface("br0", &["10.2.0.1/24", "fd00:2::1/64"]);
    outside.sysctl("net.ipv4.ip_forward=1");
    outside.ip(&["route", "add", "10.5.0.0/24", "via", "10.2.0.21"]);

    // The host as it may be found, without what keeps the laboratory's kernels silent; then nothing but what the example says. The VIPs are
    // on the segment, so the kernel has a route to them.
    place.ip(&["-6", "route", "del", "blackhole", "default"]);
    place.address("ext0", "fd00:2::11/64");
    place.ip(&["route", "add", "default", "via", "10.2.0.1"]);
    place.sysctl("net.ipv4.ip_forward=1");
    place.sysctl("net.ipv6.conf.all.forwarding=1");
    place.shell("ethtool -K ext0 gro on tso on gso on rx on tx on");
    place.shell(&before_the_start());

    target.routed_anyhow();
    target.sysctl("net.ipv4.conf.t0.rp_filter=0");
    target.ip(&["addr", "flush", "dev", "t0"]);
    for address in [
        "10.2.0.21/24",
        "10.2.0.22/24",
        "fd00:2::21/64",
        "fd00:2::22/64",
        "10.5.0.21/32",
    ] {
        target.address("t0", address);
    }
    for vip in ["10.2.0.101", "10.2.0.102"] {
        target.take_vip(vip.parse().unwrap());
    }
    lab
}

/// How many packets of each family the kernel there has forwarded by itself.
fn forwarded_by_the_kernel(place: &Place) -> Vec<u64> {
    let mut nstat = place.command("nstat");
    nstat.args(["-asz", "IpForwDatagrams", "Ip6OutForwDatagrams"]);
    let output = nstat.output().unwrap();
    let counters = String::from_utf8(output.stdout).unwrap();
    let values = counters.lines().skip(1);
    let value = |line: &str| line.split_whitespace().nth(1).unwrap().parse().unwrap();
    values.map(value).collect()
}

/// Whether all targets are up, of which there is at least one.
fn is_up(service: &Value) -> bool {
    let targets = service["targets"].as_array().unwrap();
    !targets.is_empty() && targets.iter().all(|target| target["up"] == true)
}

#[test]
fn every_service_of_the_example_to_begin_with_serves() {
    let lab = segment();
    let (client, target) = (lab.client(), lab.target());
    let _tunnel = lab.decapsulate(&target, "4");
    let files = Files::serve_at(&lab, &target, &[80, 8080]);
    let _names = serve_names(&lab, &target, &["--host-record=www.weir.test,192.0.2.80"]);
    let gateway = Gateway::start(&lab, &example(&lab));
    let services = || gateway.status()["services"].as_array().unwrap().clone();
    gateway.wait("all targets up", || services().iter().all(is_up));

    // Who the client is to a target that reads PROXY headers.
    for (name, vip, seen) in [
        ("web", "10.2.0.100:80", "none"),
        ("api", "10.2.0.100:8080", "10.2.0.1"),
        ("direct", "10.2.0.101:80", "none"),
        ("tunnelled", "10.2.0.102:80", "none"),
    ] {
        files.fetch(&client, vip, 200_000);
        assert_eq!(files.send(&client, vip, 100_000), seen, "{name}");
        let service = gateway.service(name);
        assert_eq!(service["flows_created"], 2, "{service}");
        let past = ["direct", "tunnelled"].contains(&name);
        assert_eq!(service["packets_out"] == 0, past, "{service}");
    }
    let answer = dig(&client, "fd00:2::100", "www.weir.test", "A");
    assert_eq!(answer, ["192.0.2.80"]);
    assert_eq!(gateway.service("dns")["flows_created"], 1);
    assert_eq!(services().len(), 5, "a service that nobody tried");

    // Who may not use it is not answered.
    client.address("br0", "198.51.100.1/32");
    let refused = client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let [own, api] = ["198.51.100.1:0", "10.2.0.100:8080"];
        let at = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        socket.bind(&at(own)).unwrap();
        socket.connect_timeout(&at(api), Duration::from_millis(900))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    // More than one where the machine is so busy that the SYN is repeated.
    let service = gateway.service("api");
    assert!(service["denied"].as_u64().unwrap() >= 1, "{service}");
    assert_eq!(forwarded_by_the_kernel(&lab.gateway()), [0, 0]);

    // The kernel's own frames, such as probes, come in by the interface that both use.
    let status = gateway.status();
    assert_eq!(
        status["drops"]["bad_source"].as_u64().unwrap_or(0),
        0,
        "{status}"
    );
    let left = gateway.metric("weir_l4_worker_left_to_kernel_total{worker=\"0\"}");
    assert!(left > 0, "{left} frames left to the kernel");
}
