//! Routing control against real routers, BIRD and FRR, each test in network namespaces of its own. Needs root, iproute2, bird2, frr.

#![allow(
    clippy::disallowed_methods,
    reason = "the test tells its own child process where it is by a variable"
)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod bird;
mod frr;
mod lab;
mod reload;
#[path = "../running/mod.rs"]
mod running;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bgp_ctl::SetForce;
use bgp_ctl::decision::Force;
use bgp_ctl::session::State;
use shared::admin::Asked;
use shared::bus::{DrainRecord, Key, Tier};

use bird::Bird;
use frr::Frr;
use lab::{ROUTER, in_lab};
use running::{Running, VIP, node, wait_for};

const PREFIX: &str = "10.0.0.100/32";
const SOON: Duration = Duration::from_secs(10);

/// `[bgp]` with one neighbour: the router. Announcements don't wait, so that tests are quick.
fn toml(remote_as: u32, neighbour: &str) -> String {
    format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\nhold_time = \"3s\"\nconnect_retry = \"200ms\"\n\
         connect_retry_max = \"1s\"\nconnect_timeout = \"1s\"\nannounce_after = \"0ms\"\nshutdown_wait = \"400ms\"\n\
         [[bgp.vips]]\naddress = \"{VIP}\"\nmed = 50\ncommunities = [\"65010:100\", \"65010:1:2\"]\n\
         [[bgp.neighbours]]\naddress = \"{ROUTER}\"\nremote_as = {remote_as}\n{neighbour}\n"
    )
}

/// Routing control and BIRD with an established session and the VIP announced.
fn announced(namespace: &str) -> (Running, Bird) {
    let bird = Bird::start(namespace, 65001, 65010, "");
    let running = Running::start(&toml(65001, ""));
    running.bus.put(node(2));
    wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
    (running, bird)
}

#[test]
fn an_external_router_learns_the_vip_with_its_attributes() {
    in_lab(
        "an_external_router_learns_the_vip_with_its_attributes",
        |namespace| {
            let bird = Bird::start(namespace, 65001, 65010, "");
            let running = Running::start(&toml(
                65001,
                "communities = [\"65010:7\", \"no-export\"]\nlocal_address = \"10.2.0.11\"",
            ));
            wait_for("the session", SOON, || running.established());
            assert!(!bird.knows(PREFIX), "nothing is known of the node yet");
            running.bus.put(node(2));
            wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
            let route = bird.ask(&format!("show route all {PREFIX}"));
            for part in [
                "BGP.origin: IGP",
                "BGP.as_path: 65010",
                "BGP.next_hop: 10.2.0.11",
                "BGP.med: 50",
                "(65010,7)",
                "(65010,100)",
                "(65535,65281)",
                "BGP.large_community: (65010, 1, 2)",
            ] {
                assert!(route.contains(part), "{part} is missing:\n{route}");
            }
            let session = bird.ask("show protocols all weir");
            for part in [
                "Hold timer:",
                "/3",
                "Neighbor ID:      10.2.0.11",
                "Enhanced refresh",
                "4-octet AS numbers",
            ] {
                assert!(session.contains(part), "{part} is missing:\n{session}");
            }
        },
    );
}

#[test]
fn an_internal_router_is_told_local_pref_and_no_as() {
    in_lab(
        "an_internal_router_is_told_local_pref_and_no_as",
        |namespace| {
            let bird = Bird::start(namespace, 65010, 65010, "");
            let running =
                Running::start(&toml(65010, "local_pref = 250\nnext_hop = \"10.2.0.99\""));
            running.bus.put(node(2));
            wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
            let route = bird.ask(&format!("show route all {PREFIX}"));
            assert!(
                route.contains("BGP.local_pref: 250") && route.contains("BGP.next_hop: 10.2.0.99"),
                "{route}"
            );
            assert!(route.contains("BGP.as_path: \n"), "{route}");
        },
    );
}

#[test]
fn every_reason_to_withdraw_reaches_the_router_within_50_ms() {
    in_lab(
        "every_reason_to_withdraw_reaches_the_router_within_50_ms",
        |namespace| {
            let (running, bird) = announced(namespace);
            let drain = |drain| DrainRecord {
                tier: Tier::L4,
                id: "l4-1".to_owned(),
                drain,
                by: "test".to_owned(),
                since_unix_ms: 0,
            };
            let reasons: [(&str, &dyn Fn()); 6] = [
                ("does not forward", &|| {
                    running.bus.put(shared::bus::NodeRecord {
                        forwarding: false,
                        ..node(2)
                    })
                }),
                ("0 of 3 targets healthy", &|| running.bus.put(node(0))),
                ("the node drains", &|| {
                    running.bus.put(shared::bus::NodeRecord {
                        draining: true,
                        ..node(2)
                    })
                }),
                ("drain asked for", &|| running.bus.put(drain(true))),
                ("no record of the node", &|| {
                    running.bus.delete(&Key::Node {
                        tier: Tier::L4,
                        id: "l4-1".to_owned(),
                    })
                }),
                ("by the operator", &|| {
                    running.force(SetForce {
                        vip: VIP,
                        force: Some(Force::Withdraw),
                        asked: Asked::now("ann", None),
                    })
                }),
            ];
            let mut times = Vec::new();
            for (why, act) in reasons {
                act();
                times.push(wait_for("BIRD forgets the VIP", SOON, || {
                    !bird.knows(PREFIX)
                }));
                assert!(
                    running.why(VIP).contains(why),
                    "{why}: {}",
                    running.why(VIP)
                );
                assert!(running.established(), "{why}: the session stays");
                running.bus.put(drain(false));
                running.force(SetForce {
                    vip: VIP,
                    force: None,
                    asked: Asked::now("ann", None),
                });
                running.bus.put(node(2));
                wait_for("BIRD learns the VIP again", SOON, || bird.knows(PREFIX));
            }
            times.sort();
            println!("withdrawn from the router's table after {times:?}");
            assert!(
                times[times.len() / 2] <= Duration::from_millis(50),
                "{times:?}"
            );
        },
    );
}

#[test]
fn the_clean_exit_withdraws_before_it_ceases_with_a_reason() {
    in_lab(
        "the_clean_exit_withdraws_before_it_ceases_with_a_reason",
        |namespace| {
            let (running, bird) = announced(namespace);
            let start = Instant::now();
            let waiting = std::thread::scope(|scope| {
                let exit = scope.spawn(|| running.shut_down("maintenance of l4-1"));
                wait_for("BIRD forgets the VIP", SOON, || !bird.knows(PREFIX));
                let withdrawn = start.elapsed();
                assert!(
                    bird.ask("show protocols weir").contains("Established"),
                    "withdrawn while the session is up"
                );
                exit.join().unwrap();
                withdrawn
            });
            assert!(
                waiting <= Duration::from_millis(300),
                "before shutdown_wait is over: {waiting:?}"
            );
            wait_for("BIRD logs the reason", SOON, || {
                bird.log().contains("Administrative shutdown")
            });
            assert!(bird.log().contains("maintenance of l4-1"), "{}", bird.log());
        },
    );
}

#[test]
fn a_killed_speaker_is_forgotten_at_once() {
    in_lab("a_killed_speaker_is_forgotten_at_once", |namespace| {
        const CHILD: &str = "WEIR_BGP_TEST_CHILD";
        if std::env::var(CHILD).is_ok() {
            let running = Running::start(&toml(65001, ""));
            running.bus.put(node(2));
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let bird = Bird::start(namespace, 65001, 65010, "");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "a_killed_speaker_is_forgotten_at_once",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
        child.kill().unwrap();
        let gone = wait_for("BIRD forgets the VIP", SOON, || !bird.knows(PREFIX));
        child.wait().unwrap();
        println!("forgotten {gone:?} after kill -9");
        assert!(
            gone <= Duration::from_millis(250),
            "{gone:?}, the hold time being 3 s"
        );
    });
}

#[test]
fn a_router_that_restarts_is_told_again() {
    in_lab("a_router_that_restarts_is_told_again", |namespace| {
        let (running, bird) = announced(namespace);
        bird.kill();
        wait_for("the session is down", SOON, || !running.established());
        let bird = Bird::start(namespace, 65001, 65010, "");
        wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
    });
}

#[test]
fn a_router_that_asks_again_is_told_again() {
    in_lab("a_router_that_asks_again_is_told_again", |namespace| {
        let (running, bird) = announced(namespace);
        let sent = || {
            running.status.read().neighbours[&Ipv4Addr::new(10, 2, 0, 1)]
                .counts
                .updates_sent
        };
        let before = sent();
        assert!(bird.ask("reload in weir").contains("reloading"));
        wait_for("the routes are sent again", SOON, || sent() > before);
        assert!(running.established() && bird.knows(PREFIX));
    });
}

#[test]
fn the_right_tcp_md5_password_lets_the_session_up() {
    in_lab(
        "the_right_tcp_md5_password_lets_the_session_up",
        |namespace| {
            let bird = Bird::start(namespace, 65001, 65010, "password \"correct horse\";");
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "correct horse\n").unwrap();
            let running = Running::start(&toml(
                65001,
                &format!("password_file = \"{}\"", file.path().display()),
            ));
            running.bus.put(node(2));
            wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
        },
    );
}

#[test]
fn the_wrong_tcp_md5_password_keeps_it_down_and_says_so() {
    in_lab(
        "the_wrong_tcp_md5_password_keeps_it_down_and_says_so",
        |namespace| {
            let bird = Bird::start(namespace, 65001, 65010, "password \"correct horse\";");
            let running = Running::start(&toml(65001, "password = \"battery staple\""));
            running.bus.put(node(2));
            wait_for("the reason", SOON, || {
                running
                    .last_error()
                    .contains("TCP MD5 passwords may differ")
            });
            assert!(!running.established() && !bird.knows(PREFIX));
        },
    );
}

#[test]
fn a_passive_session_takes_the_routers_connection_signed() {
    in_lab(
        "a_passive_session_takes_the_routers_connection_signed",
        |namespace| {
            let bird = Bird::start(namespace, 65001, 65010, "password \"s3cret\";");
            let settings = toml(65001, "passive = true\npassword = \"s3cret\"")
                .replace("[bgp]\n", "[bgp]\nlisten = \"0.0.0.0:179\"\n");
            let running = Running::start(&settings);
            running.bus.put(node(2));
            wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
        },
    );
}

#[test]
fn both_sides_connecting_end_in_one_session() {
    in_lab("both_sides_connecting_end_in_one_session", |namespace| {
        for _ in 0..5 {
            let settings = toml(65001, "").replace("[bgp]\n", "[bgp]\nlisten = \"0.0.0.0:179\"\n");
            let running = Running::start(&settings);
            let bird = Bird::start(namespace, 65001, 65010, "");
            running.bus.put(node(2));
            wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
            running.shut_down("next round");
        }
    });
}

#[test]
fn ttl_security_holds_on_both_sides() {
    in_lab("ttl_security_holds_on_both_sides", |namespace| {
        let bird = Bird::start(namespace, 65001, 65010, "ttl security on;");
        let running = Running::start(&toml(65001, "ttl_security = true"));
        running.bus.put(node(2));
        wait_for("BIRD learns the VIP", SOON, || bird.knows(PREFIX));
    });
}

#[test]
fn a_paused_router_is_given_up_after_the_hold_time() {
    in_lab(
        "a_paused_router_is_given_up_after_the_hold_time",
        |namespace| {
            let (running, _bird) = announced(namespace);
            // The link goes: no FIN, no RST, only silence.
            lab::ip(&["-n", namespace, "link", "set", "up0", "down"]);
            let silent = wait_for("the session is down", SOON, || !running.established());
            assert!(
                silent >= Duration::from_millis(1900) && silent <= Duration::from_secs(6),
                "{silent:?} for 3 s"
            );
            assert!(
                running.last_error().contains("hold timer")
                    || running.last_error().contains("connect")
            );
            lab::ip(&["-n", namespace, "link", "set", "up0", "up"]);
            wait_for("the session is up again", SOON, || running.established());
        },
    );
}

#[test]
fn the_wrong_as_is_refused_by_the_router_and_explained() {
    in_lab(
        "the_wrong_as_is_refused_by_the_router_and_explained",
        |namespace| {
            let _bird = Bird::start(namespace, 65001, 65099, "");
            let running = Running::start(&toml(65001, ""));
            wait_for("the reason", SOON, || {
                running.last_error().contains("Bad Peer AS")
            });
            let status = running.status.read();
            assert_ne!(
                status.neighbours[&Ipv4Addr::new(10, 2, 0, 1)].state,
                State::Established
            );
        },
    );
}

#[test]
fn frr_learns_and_forgets_the_vip_over_a_signed_session() {
    in_lab(
        "frr_learns_and_forgets_the_vip_over_a_signed_session",
        |namespace| {
            let frr = Frr::start(
                namespace,
                65001,
                65010,
                &["password s3cret", "ttl-security hops 1"],
            );
            let running =
                Running::start(&toml(65001, "password = \"s3cret\"\nttl_security = true"));
            running.bus.put(node(2));
            let route = || frr.ask(&format!("show bgp ipv4 unicast {PREFIX} json"));
            wait_for("FRR learns the VIP", SOON, || route().contains(PREFIX));
            let learnt = route();
            for part in [
                "\"string\":\"65010\"",
                "\"metric\":50",
                "65010:100",
                "65010:1:2",
                "\"ip\":\"10.2.0.11\"",
            ] {
                assert!(learnt.contains(part), "{part} is missing:\n{learnt}");
            }
            running.bus.put(node(0));
            wait_for("FRR forgets the VIP", SOON, || !route().contains(PREFIX));
            running.bus.put(node(2));
            wait_for("FRR learns the VIP again", SOON, || {
                route().contains(PREFIX)
            });
            frr.ask(&format!("clear bgp ipv4 unicast {} soft in", lab::SPEAKER));
            running.shut_down("so long");
            wait_for("FRR has heard why", SOON, || {
                frr.ask(&format!("show bgp neighbors {}", lab::SPEAKER))
                    .contains("(Cease/Administrative Shutdown)")
            });
            assert_eq!(
                running.status.read().neighbours[&Ipv4Addr::new(10, 2, 0, 1)]
                    .counts
                    .notifications_sent,
                1
            );
        },
    );
}

#[test]
fn frr_as_internal_router_is_told_local_pref() {
    in_lab("frr_as_internal_router_is_told_local_pref", |namespace| {
        let frr = Frr::start(namespace, 65010, 65010, &[]);
        let running = Running::start(&toml(65010, "local_pref = 250"));
        running.bus.put(node(2));
        let route = || frr.ask(&format!("show bgp ipv4 unicast {PREFIX} json"));
        wait_for("FRR learns the VIP", SOON, || route().contains(PREFIX));
        assert!(route().contains("\"locPrf\":250"), "{}", route());
    });
}
