//! DR and tunnel between real kernels: targets have the VIP and answer clients past the gateway. And fragments, which kernels make.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;

use lab::direct::{WAYS, Way};
use lab::{Echo, Gateway, Lab, WORKERS, pattern};
use rustix::process::Signal;

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

/// That of the client is the only end of a connection that is seen.
#[test]
fn sigterm_waits_for_dr_flows_until_their_clients_have_closed_them() {
    let lab = Lab::direct();
    let dr = WAYS.into_iter().find(|way| way.mode == "dr").unwrap();
    lab.target().take_vip(dr.vip());
    let service = dr.service("echo", "tcp", 80, "");
    let mut gateway = Gateway::start(&lab, &lab.dual_node(WORKERS, [""; 2], &service));
    let vip = dr.at(80);
    lab.target().echo_tcp(&[(vip, b'1')]);
    let mut echo = lab.client().run(move || Echo::connect_to(vip).unwrap());
    gateway.signal(Signal::TERM);
    gateway.wait("draining", || gateway.status()["draining"] == true);
    std::thread::sleep(Duration::from_secs(1));
    assert!(gateway.is_running(), "a flow is open");
    echo.exchange(&pattern(10_000, 3));
    drop(echo);
    assert_eq!(gateway.end(Duration::from_secs(4)).code(), Some(0));
    let log = gateway.log();
    assert!(log.contains("no flow is left"), "{log}");
}

#[test]
fn a_tunnel_carries_what_clients_send_and_says_what_does_not_fit() {
    let dropped = exchange("tunnel")["drops"]["too_big"].as_u64().unwrap_or(0);
    assert!(dropped >= 2, "segments of 1460 bytes don't fit: {dropped}");
}

/// Of IPv4 the kernel puts together what it hands to af_packet, which cuts it off beyond 2,048 bytes: the gateway takes long packets
/// there, and cuts them itself.
#[test]
fn datagrams_in_fragments_go_there_and_back() {
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let services: String = WAYS
        .iter()
        .map(|way| way.service("echo", "udp", 53, ""))
        .collect();
    let gateway = Gateway::start(&lab, &lab.dual_config(WORKERS, "", &services));
    for way in WAYS {
        let cut = gateway.metric("weir_l4_worker_packets_cut_total{worker=\"0\"}");
        lab.target().echo_udp(&[(way.server(53), b'1')]);
        let (own, lengths): (_, &[usize]) = match way.is_v6() {
            false => ("10.2.0.1", &[1000, 1472, 1473, 1800]),
            true => ("fd00:2::1", &[1000, 1452, 1473, 4000, 20_000]),
        };
        let asked = lab.client().spawn(move || {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            socket.connect(way.at(53)).unwrap();
            lengths.iter().for_each(|length| ask(&socket, *length));
        });
        assert!(asked.join().is_ok(), "{way:?}: {}", gateway.status());
        let service = gateway.service(&way.name("echo"));
        assert_eq!(service["flows_created"], 1, "{service}");
        // 1, 1, 2, 3 and 14 fragments; of IPv4 whole ones came.
        let fragments = if way.is_v6() { 21 } else { 4 };
        let [taken, given] =
            ["packets_in", "packets_out"].map(|name| service[name].as_u64().unwrap());
        assert!(taken >= fragments, "{service}");
        match way.is_direct() {
            true => assert_eq!(given, 0, "{service}"),
            false => assert!(given >= fragments, "{service}"),
        }
        let cut = gateway.metric("weir_l4_worker_packets_cut_total{worker=\"0\"}") - cut;
        assert_eq!(cut >= 2, !way.is_v6(), "{way:?}: {cut} packets cut");
    }
}

/// Sends a datagram until it comes back, or five times: where it didn't fit, the kernel hears so and cuts the next one.
fn ask(socket: &UdpSocket, length: usize) {
    let sent = pattern(length, length as u64);
    let mut buffer = vec![0; 65_535];
    for _ in 0..5 {
        let until = Instant::now() + Duration::from_secs(1);
        let mut result = socket.send(&sent);
        while result.is_ok() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            result = socket.recv(&mut buffer);
            if let Ok(received) = result
                && buffer[..received].ends_with(&sent)
            {
                return;
            }
        }
    }
    panic!("{length} bytes did not come back");
}
