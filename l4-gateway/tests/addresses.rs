//! The node's addresses on its segments, as others find them: for which it answers, and how long it keeps those that a reload takes away.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::dual::Client::Near;
use lab::dual::{Family, tcp};
use lab::{Echo, Gateway, Lab, Place, WORKERS, pattern};

/// VIPs on the clients' own segment.
const ON_LINK: [&str; 2] = ["10.2.0.100:80", "[fd00:2::100]:80"];

fn on_link(services: &str) -> String {
    let services = services.replace("10.0.0.100", "10.2.0.100");
    services.replace("2001:db8::100", "fd00:2::100")
}

#[test]
fn vips_on_a_segment_are_found_there_if_the_node_answers_for_them() {
    let lab = Lab::dual();
    lab.target().dual_targets();
    let config = |port| lab.dual_config(WORKERS, port, &on_link(&tcp("tcp", 80, "")));
    let gateway = Gateway::start(&lab, &config(""));
    let finds = |vip: &str| {
        let vip: SocketAddr = vip.parse().unwrap();
        lab.client().run(move || match Echo::connect_to(vip) {
            Ok(mut echo) => {
                echo.exchange(&pattern(50_000, 1));
                true
            }
            Err(_) => false,
        })
    };
    for vip in ON_LINK {
        assert!(!finds(vip), "{vip} is routed, the default says");
    }
    gateway.reload(&config("answer_arp_for_vips = true"));
    for vip in ON_LINK {
        // The client's kernel may still be about to give up what it asked for before.
        gateway.wait("found", || finds(vip));
    }
}

fn answers(place: &Place, address: &str) -> bool {
    let mut ping = place.command("ping");
    let output = ping.args(["-c", "1", "-W", "2", address]).output().unwrap();
    output.status.success()
}

#[test]
fn a_port_s_own_address_is_answered_for_where_no_kernel_does() {
    let lab = Lab::dual();
    lab.gateway().ip(&["addr", "flush", "dev", "ext0"]);
    let config = |port| lab.dual_config(WORKERS, port, &tcp("tcp", 80, ""));
    let gateway = Gateway::start(&lab, &config(""));
    for address in ["10.2.0.11", "fd00:2::11"] {
        assert!(
            !answers(&lab.client(), address),
            "{address} is a kernel's by default"
        );
    }
    gateway.reload(&config("answer_for_address = true"));
    for address in ["10.2.0.11", "fd00:2::11"] {
        gateway.wait("answering", || answers(&lab.client(), address));
    }
    let replies = gateway.metric("weir_l4_worker_echo_replies_total{worker=\"0\"}");
    assert!(replies >= 2, "{replies}");
}

#[test]
fn flows_of_addresses_that_are_removed_go_on_until_their_time_is_over() {
    let lab = Lab::dual();
    lab.target().dual_targets();
    let head = WORKERS.replace("[drain]", "[drain]\nremoved_addresses = \"3s\"");
    let config = |services: &str| lab.dual_config(&head, "", services);
    let services = tcp("tcp", 80, "");
    let gateway = Gateway::start(&lab, &config(&services));
    let mut open =
        Family::BOTH.map(|family| lab.client().run(move || family.connect(Near, 80).unwrap()));
    let began = Instant::now();
    gateway.reload(&config(&on_link(&services)));
    let retired = || {
        gateway.status()["retired_addresses"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(retired(), 2, "{}", gateway.status()["retired_addresses"]);
    if began.elapsed() < Duration::from_secs(2) {
        for echo in &mut open {
            echo.exchange(&pattern(1000, 1));
        }
    }
    gateway.wait("rid of the old addresses", || retired() == 0);
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    gateway.wait("rid of their flows", || gateway.workers("flows")[0] == 0);
    for mut echo in open {
        let error = echo.stream.read(&mut [0; 8]).expect_err("an RST");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
