//! Ordinary programs, curl, dig and iperf3, use each mode over both families: real kernels and real servers at both ends.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::thread;

use serde_json::Value;

use lab::direct::{WAYS, Way};
use lab::programs::{Files, dig, iperf, serve_names, text_record};
use lab::{Gateway, Lab, WORKERS};

/// A gateway with the services that `services` says for each way.
fn start(lab: &Lab, services: impl Fn(&Way) -> String) -> Gateway {
    let services: String = WAYS.iter().map(services).collect();
    Gateway::start(lab, &lab.dual_config(WORKERS, "", &services))
}

fn count(service: &Value, name: &str) -> u64 {
    service[name].as_u64().unwrap()
}

#[test]
fn curl_fetches_and_sends_files() {
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let files = Files::serve(&lab, &lab.target());
    let gateway = start(&lab, |way| way.service("http", "tcp", Files::PLAIN, ""));
    for way in WAYS {
        files.fetch(&lab.client(), way.at(Files::PLAIN), 500_000);
        files.send(&lab.client(), way.at(Files::PLAIN), 400_000);
        let service = gateway.service(&way.name("http"));
        assert_eq!(service["flows_created"], 2, "{service}");
        assert!(count(&service, "bytes_in") > 400_000, "{service}");
        match way.is_direct() {
            true => assert_eq!(service["packets_out"], 0, "{service}"),
            false => assert!(count(&service, "bytes_out") > 500_000, "{service}"),
        }
    }
}

#[test]
fn dig_asks_a_name_server_and_takes_answers_in_fragments() {
    // The kernel hands IPv4 fragments out as one packet, which af_packet cuts beyond 2,048 bytes.
    let (long, long_text) = text_record("long.weir.test", 1_700);
    let (longer, longer_text) = text_record("longer.weir.test", 3_500);
    let host = "--host-record=www.weir.test,192.0.2.80,2001:db8::80";
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let _server = serve_names(&lab, &lab.target(), &[host, &long, &longer]);
    let gateway = start(&lab, |way| way.service("dns", "udp", 53, ""));
    for way in WAYS {
        let ask = |name: &str, kind| dig(&lab.client(), way.vip(), name, kind);
        assert_eq!(ask("www.weir.test", "A"), ["192.0.2.80"], "{way:?}");
        assert_eq!(ask("www.weir.test", "AAAA"), ["2001:db8::80"], "{way:?}");
        assert_eq!(
            ask("long.weir.test", "TXT"),
            [long_text.as_str()],
            "{way:?}"
        );
        if way.is_v6() {
            assert_eq!(
                ask("longer.weir.test", "TXT"),
                [longer_text.as_str()],
                "{way:?}"
            );
        }
        let service = gateway.service(&way.name("dns"));
        let asked = if way.is_v6() { 4 } else { 3 };
        assert!(count(&service, "packets_in") >= asked, "{service}");
        let out = count(&service, "packets_out");
        match (way.is_direct(), way.is_v6()) {
            (true, _) => assert_eq!(out, 0, "{service}"),
            (false, false) => assert!(out >= 3, "{service}"),
            (false, true) => assert!(out >= 1 + 1 + 2 + 3, "{service}"),
        }
    }
    let cut = gateway.metric("weir_l4_worker_packets_cut_total{worker=\"0\"}");
    assert!(cut >= 1, "the long IPv4 answer leaves as fragments");
}

#[test]
fn iperf3_sends_and_receives_streams_and_counts_datagrams() {
    let lab = Lab::direct();
    let _tunnels = lab.give_vips(&lab.target());
    let gateway = start(&lab, |way| {
        way.service("tcp", "tcp", 5201, "") + &way.service("udp", "udp", 5201, "")
    });
    // All ways at once: most of a run's time is waiting.
    thread::scope(|scope| {
        for way in WAYS {
            let (lab, gateway) = (&lab, &gateway);
            scope.spawn(move || measure(lab, gateway, way));
        }
    });
}

fn measure(lab: &Lab, gateway: &Gateway, way: Way) {
    let (server, at) = (way.server(5201), way.at(5201));
    let (tcp, udp) = (way.name("tcp"), way.name("udp"));
    // Little memory, so that little is under way when the client says that it is done.
    let stream = ["-n", "1M", "-b", "16M", "-w", "64K"];
    let told = iperf(lab, server, at, &stream);
    let carried = gateway.service(&tcp);
    arrived(way, &told, count(&carried, "bytes_in"));

    let told = iperf(lab, server, at, &[&stream[..], &["-R"]].concat());
    let carried = gateway.service(&tcp);
    match way.is_direct() {
        true => {
            arrived(way, &told, u64::MAX);
            assert_eq!(carried["packets_out"], 0, "{carried}");
        }
        false => arrived(way, &told, count(&carried, "bytes_out")),
    }

    // A tunnel leaves less room than what iperf3 sends by itself.
    let datagrams = ["-u", "-l", "1200", "-b", "2M", "-n", "240000"];
    let sum = &iperf(lab, server, at, &datagrams)["end"]["sum"];
    let (sent, lost) = (count(sum, "packets"), count(sum, "lost_packets"));
    assert!(sent >= 200 && lost <= 20, "{way:?}: {sum}");
    let carried = gateway.service(&udp);
    assert!(count(&carried, "packets_in") >= 180, "{carried}");
}

/// Asserts that one end sent a megabyte, the other received most of it before it heard that this is all, and the gateway carried
/// that.
fn arrived(way: Way, told: &Value, carried: u64) {
    let end = &told["end"];
    let sent = count(&end["sum_sent"], "bytes");
    let received = count(&end["sum_received"], "bytes");
    assert!(sent >= 1_000_000, "{way:?}: {end}");
    assert!(received >= 700_000 && received <= sent, "{way:?}: {end}");
    assert!(carried > received, "{way:?}: {carried} carried, {end}");
}
