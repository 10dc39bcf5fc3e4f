//! Real kernels speak IPv6 at both ends of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lab::{Echo, Gateway, Lab, WORKERS, pattern};

const SERVICES: &str = r#"
[[services]]
name = "tcp6"
vip = "2001:db8::100"
protocol = "tcp"
port = 80
scheduler = "rr"
targets = [{ address = "[fd00:3::21]:8080" }, { address = "[fd00:3::22]:8080" }]
[services.health]
type = "tcp"
interval = "200ms"
[[services]]
name = "udp6"
vip = "2001:db8::100"
protocol = "udp"
port = 53
targets = [{ address = "[fd00:3::21]:5353" }]
"#;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn clients_reach_targets_over_ipv6_and_targets_are_probed() {
    let lab = Lab::new();
    for (place, interface, addresses) in [
        (lab.client(), "c0", &["fd00:2::1/64"][..]),
        (lab.gateway(), "ext0", &["fd00:2::11/64"]),
        (lab.gateway(), "int0", &["fd00:3::11/64"]),
        (lab.target(), "t0", &["fd00:3::21/64", "fd00:3::22/64"]),
    ] {
        for address in addresses {
            place.ip(&["addr", "add", address, "dev", interface, "nodad"]);
        }
    }
    let way = ["-6", "route", "add", "2001:db8::/64", "via", "fd00:2::11"];
    lab.client().ip(&way);
    lab.target().echo_tcp(&[
        (at("[fd00:3::21]:8080"), b'1'),
        (at("[fd00:3::22]:8080"), b'2'),
    ]);
    lab.target().echo_udp(&[(at("[fd00:3::21]:5353"), b'1')]);
    let config = lab
        .config(WORKERS, "", SERVICES)
        .replace("\"10.2.0.11/24\"", "[\"10.2.0.11/24\", \"fd00:2::11/64\"]")
        .replace("\"10.3.0.11/24\"", "\"fd00:3::11/64\"")
        .replace("gateway = \"10.2.0.1\"", "gateway = \"fd00:2::1\"")
        .replace("[\"10.3.0.100\"]", "[\"fd00:3::100\"]");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait("both targets are up", || {
        gateway.service("tcp6")["healthy"] == 2
    });
    let reached = lab.client().run(|| {
        let mut reached = Vec::new();
        for seed in 0..4 {
            let mut echo = Echo::connect_to(at("[2001:db8::100]:80")).unwrap();
            assert_eq!(echo.seen, "fd00:3::100", "targets see a LocalIP");
            echo.exchange(&pattern(200_000, seed));
            reached.push(echo.id);
        }
        let socket = UdpSocket::bind("[fd00:2::1]:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.send_to(b"query", "[2001:db8::100]:53").unwrap();
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).expect("the echo");
        assert_eq!(from, at("[2001:db8::100]:53"));
        assert!(buffer[..length].ends_with(b"query"));
        reached
    });
    assert_eq!(reached.iter().filter(|id| **id == b'1').count(), 2);
    // Ping, which the node answers itself, and a port nobody serves.
    let mut ping = lab.client().command("ping");
    let answered = ping.args(["-6", "-c", "1", "-W", "3", "2001:db8::100"]);
    assert!(answered.output().unwrap().status.success());
    let refused = lab
        .client()
        .run(|| Echo::connect_to(at("[2001:db8::100]:81")).map(|_| ()))
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let unserved = "weir_l4_worker_segments_unserved_total{worker=\"0\"}";
    assert_eq!(gateway.metric(unserved), 1);
    let flows = gateway.subcommand(&["flows", "--client", "fd00:2::1"]);
    assert!(flows.contains("[2001:db8::100]:80"), "{flows}");
    let metrics = gateway.metrics();
    let series =
        "weir_l4_target_flows_created_total{service=\"tcp6\",target=\"[fd00:3::22]:8080\"} 2";
    assert!(metrics.contains(series), "{series} is not in\n{metrics}");
}
