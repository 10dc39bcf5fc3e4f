//! DR and tunnel between real kernels: targets have the VIP and answer clients past the gateway. And fragments, which kernels make.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use lab::direct::{WAYS, Way};
use lab::{Echo, Gateway, Lab, WORKERS, pattern};

/// Uploads and downloads over both families; the gateway's status then.
fn exchange(mode: &str) -> Value {
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let ways: Vec<Way> = WAYS.into_iter().filter(|way| way.mode == mode).collect();
    let services: String = ways
        .iter()
        .map(|way| way.service("echo", "tcp", 80, ""))
        .collect();
    // Without a LocalIP.
    let gateway = Gateway::start(&lab, &lab.dual_node(WORKERS, [""; 2], &services));
    for way in ways {
        let vip = way.at(80);
        let source = if way.is_v6() { "fd00:2::1" } else { "10.2.0.1" };
        lab.target().echo_tcp(&[(vip, b'1')]);
        lab.client().run(move || {
            let mut echo = Echo::connect_to(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
            assert_eq!(echo.seen, source, "the target sees the client");
            echo.exchange(&pattern(300_000, 5));
        });
        let service = gateway.service(&way.name("echo"));
        assert_eq!(service["flows_created"], 1, "{service}");
        assert!(service["bytes_in"].as_u64().unwrap() > 300_000, "{service}");
        assert_eq!(service["packets_out"], 0, "answers go past: {service}");
    }
    if mode == "dr" {
        let by_target = ["capture", "--seconds", "1", "--target", "10.3.0.21"];
        let refused = gateway.try_subcommand(&by_target).unwrap_err();
        assert!(refused.contains("ask by client or vip"), "{refused}");
    }
    gateway.status()
}

#[test]
fn dr_reaches_the_vip_of_a_target_that_answers_directly() {
    exchange("dr");
}

#[test]
fn a_tunnel_carries_what_clients_send_and_says_what_does_not_fit() {
    let dropped = exchange("tunnel")["drops"]["too_big"].as_u64().unwrap_or(0);
    assert!(dropped >= 2, "segments of 1460 bytes don't fit: {dropped}");
}

/// Over IPv6: what af_packet hands out of IPv4 was put together by the kernel.
#[test]
fn datagrams_in_fragments_go_there_and_back() {
    let lab = Lab::direct();
    let way = WAYS.into_iter().find(|way| way.is_v6()).unwrap();
    let services = way.service("echo", "udp", 53, "");
    let gateway = Gateway::start(&lab, &lab.dual_config(WORKERS, "", &services));
    lab.target().echo_udp(&[(way.server(53), b'1')]);
    let result = lab
        .client()
        .spawn(move || {
            let socket = UdpSocket::bind(("fd00:2::1", 0)).unwrap();
            socket.connect(way.at(53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(3)))
                .unwrap();
            let mut buffer = vec![0; 65_535];
            for length in [1000, 1473, 4000, 20_000] {
                let sent = pattern(length, 3);
                socket.send(&sent).unwrap();
                let received = socket
                    .recv(&mut buffer)
                    .unwrap_or_else(|error| panic!("{length}: {error}"));
                assert!(buffer[..received].ends_with(&sent), "{length} bytes");
            }
        })
        .join();
    assert!(result.is_ok(), "{}", gateway.status());
    let service = gateway.service(&way.name("echo"));
    assert_eq!(service["flows_created"], 1);
    // 1, 2, 3 and 14 fragments each way; the answer is a little longer.
    assert!(service["packets_in"].as_u64().unwrap() >= 20, "{service}");
    assert!(service["packets_out"].as_u64().unwrap() >= 20, "{service}");
}
