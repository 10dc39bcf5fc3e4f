//! The node's addresses on its segments, as others find them: for which it answers, and how long it keeps those that a reload takes away.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::dual::Client::Near;
use lab::dual::{Family, tcp};
use lab::wire::Wire;
use lab::{Echo, Gateway, Lab, Place, SERVICES, WORKERS, pattern};

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

/// The MAC by which the clients' kernel knows an address.
fn known(lab: &Lab, address: &str) -> String {
    let mut ip = lab.client().command("ip");
    let output = ip.args(["neigh", "show", address, "dev", "c0"]).output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut words = output.split_whitespace();
    words.find(|word| *word == "lladdr");
    words.next().unwrap_or_default().to_owned()
}

#[test]
fn clients_that_knew_a_vip_elsewhere_are_told_when_a_node_begins_to_answer_for_it() {
    const ELSEWHERE: &str = "02:00:00:00:00:99";
    let lab = Lab::dual();
    lab.target().dual_targets();
    let vips = ON_LINK.map(|vip| vip.parse::<SocketAddr>().unwrap().ip().to_string());
    let forget = || {
        for vip in &vips {
            let entry = format!("neigh replace {vip} lladdr {ELSEWHERE} dev c0 nud reachable");
            lab.client().ip(&entry.split(' ').collect::<Vec<_>>());
        }
    };
    forget();
    let services = on_link(&tcp("tcp", 80, ""));
    let config = lab.dual_config(WORKERS, "answer_arp_for_vips = true", &services);
    let gateway = Gateway::start(&lab, &config);
    let mac = gateway.mac("ext").to_string();
    let all_told = || vips.iter().all(|vip| known(&lab, vip) == mac);
    gateway.wait("announced", all_told);
    gateway.subcommand(&["drain"]);
    forget();
    gateway.subcommand(&["undrain"]);
    gateway.wait("announced as it serves again", all_told);
}

#[test]
fn an_operator_has_addresses_announced_now_or_again_and_again() {
    let lab = Lab::new();
    lab.target().usual_targets();
    // Of the frames on the clients' segment, the announcements of the VIP.
    let wire = Wire::open(&lab.client(), Ipv4Addr::new(10, 2, 0, 254));
    let vip = Ipv4Addr::new(10, 2, 0, 100).octets();
    let announcements = |count| {
        for _ in 0..count {
            wire.wait_for(|frame| {
                frame.len() >= 42
                    && frame[12..14] == [8, 6]
                    && frame[28..32] == vip
                    && frame[38..42] == vip
            });
        }
    };
    let config = |keys: &str| {
        let keys = format!("answer_arp_for_vips = true\n{keys}");
        lab.config(
            WORKERS,
            &keys,
            &SERVICES.replace("10.0.0.100", "10.2.0.100"),
        )
    };
    let gateway = Gateway::start(&lab, &config(""));
    announcements(3);

    let mac = gateway.mac("ext").to_string();
    let answer = gateway.subcommand(&["announce", "10.2.0.100"]);
    let line = format!("ext   10.2.0.100  {mac}");
    assert!(answer.contains(&line), "{answer}");
    announcements(3);
    let all = gateway.subcommand(&["announce"]);
    assert!(
        all.contains(&line) && all.contains("int   10.3.0.100"),
        "{all}"
    );
    announcements(3);
    let why = gateway.try_subcommand(&["announce", "10.2.0.100", "10.2.0.7"]);
    let why = why.unwrap_err();
    assert!(
        why.contains("does not announce 10.2.0.7 on a segment"),
        "{why}"
    );

    gateway.reload(&config("announce_every = \"1s\""));
    announcements(5);
}

#[test]
fn a_host_that_takes_a_local_ip_is_told_of_and_answered() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let conflicts = "weir_l4_worker_address_conflicts_total{worker=\"0\"}";
    assert_eq!(gateway.metric(conflicts), 0);
    lab.target().address("t0", "10.3.0.100/24");
    lab.target()
        .shell("ping -c 1 -W 1 -I 10.3.0.100 10.3.0.11 || true");
    gateway.wait("told of it", || gateway.metric(conflicts) > 0);
    gateway.wait("saying so", || {
        let log = gateway.log();
        log.contains("another host says that it has an address of this node")
            && log.contains("10.3.0.100")
    });
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
