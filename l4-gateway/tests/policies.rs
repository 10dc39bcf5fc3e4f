//! What services may be told of their clients and targets, as clients notice it: each key is written into the file of the real binary, and
//! real kernels of both families are at its ends.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lab::dual::Client::{Far, Near, Neighbour};
use lab::dual::Fate::{Refused, Served};
use lab::dual::{Client, Family, Fate, ask, tcp, udp};
use lab::wire::Wire;
use lab::{Echo, Gateway, Lab, WORKERS, pattern};
use serde_json::{Value, json};
use socket2::SockRef;

/// A laboratory whose targets echo, with a gateway that has these services.
fn start(services: &[String]) -> (Lab, Gateway) {
    start_with(WORKERS, services)
}

/// The same with two workers, over which the kernel spreads clients: what they may do, they may do together.
fn start_two(services: &[String]) -> (Lab, Gateway) {
    start_with(
        &WORKERS.replace("[workers]", "[workers]\ncount = 2"),
        services,
    )
}

fn start_with(head: &str, services: &[String]) -> (Lab, Gateway) {
    let lab = Lab::dual();
    lab.target().dual_targets();
    let gateway = Gateway::start(&lab, &lab.dual_config(head, "", &services.concat()));
    (lab, gateway)
}

/// Runs this for each family, in the client's namespace.
fn as_client(lab: &Lab, work: impl Fn(Family) + Clone + Send + 'static) {
    for family in Family::BOTH {
        let work = work.clone();
        lab.client().run(move || work(family));
    }
}

fn count(gateway: &Gateway, family: Family, service: &str, path: &str) -> u64 {
    let service = gateway.service(&family.name(service));
    let value = service.pointer(path);
    value
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path} in {service}"))
}

const SHORT: &str = "timeouts = { time_wait = \"1s\" }\n";

#[test]
fn connections_beyond_a_limit_are_refused_until_others_have_gone() {
    let limited = |name, port, limits: &str| tcp(name, port, &format!("{SHORT}{limits}"));
    let (lab, gateway) = start_two(&[
        limited("service", 80, "limits = { connections = 2 }"),
        limited("target", 81, "limits = { target_connections = 1 }"),
        limited(
            "source",
            82,
            "limits = { source_connections = 1, source_prefix_{family} = {near_bits} }",
        ),
        limited(
            "host",
            83,
            "limits = { source_connections = 1, source_prefix_{family} = {host_bits} }",
        ),
        limited(
            "silent",
            84,
            "limits = { connections = 1 }\non_limit = \"drop\"",
        ),
    ]);
    for family in Family::BOTH {
        let open = lab.client().run(move || {
            let hold = |from, port| family.connect(from, port).unwrap();
            let mut open = vec![hold(Near, 80), hold(Far, 80)];
            assert_eq!(family.knock(Neighbour, 80), Refused);

            let pair = [hold(Near, 81), hold(Near, 81)];
            assert_ne!(pair[0].id, pair[1].id, "one for each target");
            assert_eq!(family.knock(Near, 81), Refused);
            open.extend(pair);

            open.push(hold(Near, 82));
            assert_eq!(family.knock(Neighbour, 82), Refused, "of the same prefix");
            open.push(hold(Far, 82));

            open.push(hold(Near, 83));
            assert_eq!(family.knock(Near, 83), Refused);
            open.push(hold(Neighbour, 83));

            open.push(hold(Near, 84));
            assert!(family.is_ignored(Near, 84));
            for echo in &mut open {
                echo.exchange(&pattern(1000, 1));
            }
            open
        });
        for (service, limit) in [
            ("service", "connections"),
            ("target", "targets"),
            ("source", "source_connections"),
            ("host", "source_connections"),
            ("silent", "connections"),
        ] {
            let path = format!("/limited_by/{limit}");
            assert_eq!(count(&gateway, family, service, &path), 1, "{service}");
        }
        assert!(count(&gateway, family, "target", "/targets/1/at_limit") > 0);
        drop(open);
        for (service, port) in [
            ("service", 80),
            ("target", 81),
            ("source", 82),
            ("silent", 84),
        ] {
            gateway.wait("rid of closed connections", || {
                count(&gateway, family, service, "/flows") == 0
            });
            let served = lab.client().run(move || family.knock(Neighbour, port));
            assert!(matches!(served, Served(_)), "{service}: {served:?}");
        }
    }
}

/// Connects again and again as fast as can be, and tells how many were served and refused, and in how many seconds.
fn burst(family: Family, from: Client, port: u16, times: u64) -> (u64, u64, u64) {
    let began = Instant::now();
    let fates: Vec<Fate> = (0..times).map(|_| family.knock(from, port)).collect();
    let refused = fates.iter().filter(|fate| **fate == Refused).count() as u64;
    (times - refused, refused, began.elapsed().as_secs())
}

#[test]
fn a_rate_lets_a_seconds_worth_through_and_then_one_at_a_time() {
    let (lab, gateway) = start_two(&[
        tcp("service", 80, "limits = { new_per_second = 2 }"),
        tcp("target", 81, "limits = { target_new_per_second = 1 }"),
        tcp("source", 82, "limits = { source_new_per_second = 1 }"),
    ]);
    for family in Family::BOTH {
        for (service, port, per_second, limit) in [
            ("service", 80, 2, "rate"),
            ("target", 81, 2, "targets"),
            ("source", 82, 1, "source_rate"),
        ] {
            let (served, refused, seconds) =
                lab.client().run(move || burst(family, Near, port, 20));
            assert!(
                (per_second..=per_second * (seconds + 2)).contains(&served) && refused > 0,
                "{service} of {family:?}: {served} served, {refused} refused in {seconds} s"
            );
            let path = format!("/limited_by/{limit}");
            assert_eq!(
                count(&gateway, family, service, &path),
                refused,
                "{service}"
            );
        }
        let other = lab.client().run(move || family.knock(Far, 82));
        assert!(matches!(other, Served(_)), "another source: {other:?}");
    }
}

#[test]
fn the_longest_prefix_decides_who_may_use_a_service() {
    let (lab, gateway) = start(&[
        tcp("exception", 80, "deny = [\"{wide}\"]\nallow = [\"{near}\"]"),
        tcp("denied", 81, "deny = [\"{near}\"]\non_denied = \"rst\""),
        tcp("allowed", 82, "allow = [\"{near}\"]\non_denied = \"drop\""),
        udp("datagrams", 53, "deny = [\"{near}\"]\non_denied = \"rst\""),
    ]);
    as_client(&lab, |family| {
        assert!(matches!(family.knock(Neighbour, 80), Served(_)));
        assert!(family.is_ignored(Far, 80), "nothing is the default");
        assert_eq!(family.knock(Neighbour, 81), Refused);
        assert!(matches!(family.knock(Far, 81), Served(_)));
        assert!(matches!(family.knock(Near, 82), Served(_)));
        assert!(family.is_ignored(Far, 82));
        assert_eq!(ask(&family.datagrams(Near, 53), b"may I?"), Refused);
        let served = ask(&family.datagrams(Far, 53), b"may I?");
        assert!(matches!(served, Served(_)), "{served:?}");
    });
    for family in Family::BOTH {
        for service in ["exception", "denied", "allowed", "datagrams"] {
            assert_eq!(count(&gateway, family, service, "/denied"), 1, "{service}");
        }
    }
}

#[test]
fn a_source_stays_with_its_target_until_it_is_forgotten() {
    let (lab, gateway) = start(&[
        tcp(
            "prefix",
            80,
            "persistence = { timeout = \"1h\", prefix_{family} = {near_bits} }",
        ),
        tcp("host", 81, "persistence = { timeout = \"1h\" }"),
        tcp(
            "short",
            82,
            &format!("{SHORT}persistence = {{ timeout = \"1s\" }}"),
        ),
    ]);
    as_client(&lab, |family| {
        let id = |from, port| family.connect(from, port).unwrap().id;
        let near = id(Near, 80);
        assert_ne!(id(Far, 80), near, "the scheduler takes turns");
        for from in [Near, Neighbour, Near, Neighbour, Near] {
            assert_eq!(id(from, 80), near);
        }
        let near = id(Near, 81);
        assert_ne!(id(Neighbour, 81), near, "a host is a source of its own");
        assert_eq!(id(Near, 81), near);

        let near = id(Near, 82);
        let deadline = Instant::now() + Duration::from_secs(30);
        while id(Near, 82) == near {
            assert!(Instant::now() < deadline, "it is never forgotten");
            std::thread::sleep(Duration::from_millis(1500));
        }
    });
    for family in Family::BOTH {
        assert_eq!(count(&gateway, family, "prefix", "/persisted"), 5);
        assert_eq!(count(&gateway, family, "host", "/persisted"), 1);
    }
}

#[test]
fn one_packet_scheduling_sends_datagrams_of_one_socket_to_all_targets() {
    let (lab, _gateway) = start(&[
        udp("each", 53, "one_packet = true"),
        udp("sessions", 54, "one_packet = false"),
    ]);
    as_client(&lab, |family| {
        for (port, expected) in [(53, 3), (54, 6)] {
            let socket = family.datagrams(Near, port);
            let fates: Vec<Fate> = (0..6u8).map(|n| ask(&socket, &[n])).collect();
            let first = fates.iter().filter(|fate| **fate == fates[0]).count();
            assert_eq!(first, expected, "{fates:?}");
            assert!(fates.iter().all(|fate| matches!(fate, Served(_))));
        }
    });
}

#[test]
fn schedulers_and_weights_share_out_new_connections() {
    let targets = |first, second| {
        format!(
            "targets = [{{ address = \"{{first}}\", weight = {first} }}, {{ address = \"{{second}}\", weight = {second} }}]"
        )
    };
    let by = |scheduler, first, second| {
        format!("scheduler = \"{scheduler}\"\n{}", targets(first, second))
    };
    let (lab, _gateway) = start(&[
        tcp("weights", 80, &by("wrr", 3, 1)),
        tcp("none", 81, &by("wrr", 0, 1)),
        tcp("hash", 82, &by("sh", 1, 1)),
        tcp("maglev", 83, &by("maglev", 1, 1)),
        tcp("least", 84, &by("lc", 1, 1)),
        tcp("weighted", 85, &by("wlc", 3, 1)),
    ]);
    as_client(&lab, |family| {
        let firsts = |port, times| {
            let mut open: Vec<Echo> = Vec::new();
            for _ in 0..times {
                open.push(family.connect(Near, port).unwrap());
            }
            open.iter().filter(|echo| echo.id == b'1').count()
        };
        assert_eq!(firsts(80, 12), 9);
        assert_eq!(firsts(81, 4), 0);
        assert!([0, 8].contains(&firsts(82, 8)), "a source has one target");
        assert!((1..40).contains(&firsts(83, 40)), "by port, too");
        assert_eq!(firsts(84, 8), 4);
        assert_eq!(firsts(85, 8), 6);
    });
}

/// How many of so many new flows of a UDP service reach the second target.
fn share_of_second(lab: &Lab, family: Family, flows: usize) -> usize {
    lab.client().run(move || {
        let fates = (0..flows).map(|_| ask(&family.datagrams(Near, 53), b"whose turn?"));
        fates.filter(|fate| *fate == Served(b'2')).count()
    })
}

#[test]
fn a_new_target_gets_its_share_little_by_little() {
    const SLOW: Duration = Duration::from_secs(12);
    let keys = |targets| {
        let targets = format!("scheduler = \"wrr\"\nslow_start = \"12s\"\ntargets = [{targets}]");
        udp("slow", 53, &targets)
    };
    let (lab, gateway) = start(&[keys("{ address = \"{first}\" }")]);
    let grown = keys("{ address = \"{first}\" }, { address = \"{second}\" }");
    let began = Instant::now();
    gateway.reload(&lab.dual_config(WORKERS, "", &grown));
    for family in Family::BOTH {
        let early = share_of_second(&lab, family, 40);
        // So much of its weight it may have by now, a step ahead.
        let weight = (began.elapsed().as_secs_f64() / SLOW.as_secs_f64() + 0.05).min(1.0);
        let most = 40.0 * weight / (1.0 + weight) + 1.0;
        assert!(early as f64 <= most, "{early} of 40, not {most:.1} at most");
        let shown = &gateway.service(&family.name("slow"))["targets"][1];
        assert!(
            shown["effective_weight"].as_f64().unwrap() < 1.0 && shown["weight"] == 1,
            "{shown}"
        );
    }
    assert!(began.elapsed() < SLOW, "too slow a machine to tell");
    gateway.wait("grown", || {
        Family::BOTH.iter().all(|family| {
            gateway.service(&family.name("slow"))["targets"][1]["effective_weight"] == 1.0
        })
    });
    assert!(began.elapsed() >= SLOW, "{:?}", began.elapsed());
    for family in Family::BOTH {
        // Where in their turns the targets are when the last step is made is anybody's guess.
        let late = share_of_second(&lab, family, 40);
        assert!((19..=21).contains(&late), "{late} of 40");
    }
}

#[test]
fn flows_of_a_target_with_weight_0_are_cut_after_the_time_for_them() {
    let services = |weight| {
        let targets = format!(
            "targets = [{{ address = \"{{first}}\" }}, {{ address = \"{{second}}\", weight = {weight} }}]"
        );
        let cut = format!("cut_drained_after = \"2s\"\n{targets}");
        tcp("cut", 80, &cut) + &tcp("left", 81, &targets)
    };
    let (lab, gateway) = start(&[services(1)]);
    let mut open: Vec<(Family, u16, Echo)> = Vec::new();
    for family in Family::BOTH {
        for port in [80, 80, 81, 81] {
            let echo = lab
                .client()
                .run(move || family.connect(Near, port).unwrap());
            open.push((family, port, echo));
        }
    }
    let began = Instant::now();
    gateway.reload(&lab.dual_config(WORKERS, "", &services(0)));
    as_client(&lab, |family| {
        for port in [80, 80, 81, 81] {
            assert_eq!(
                family.knock(Near, port),
                Served(b'1'),
                "new ones go elsewhere"
            );
        }
    });
    let doomed = |port, echo: &Echo| port == 80 && echo.id == b'2';
    if began.elapsed() < Duration::from_secs(1) {
        for (_, _, echo) in &mut open {
            echo.exchange(&pattern(1000, 1));
        }
    }
    let mut cut = 0;
    for (family, port, echo) in &mut open {
        if doomed(*port, echo) {
            let error = echo.stream.read(&mut [0; 64]).expect_err("an RST");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{family:?}");
            let after = began.elapsed();
            assert!(after > Duration::from_secs(2), "cut after {after:?}");
            cut += 1;
        }
    }
    assert_eq!(cut, 2, "one of each family");
    for (_, port, echo) in &mut open {
        if !doomed(*port, echo) {
            echo.exchange(&pattern(1000, 2));
        }
    }
    for family in Family::BOTH {
        assert_eq!(count(&gateway, family, "cut", "/flows_cut"), 1);
        assert_eq!(count(&gateway, family, "left", "/flows_cut"), 0);
    }
}

/// A server at `{other}` of each family that greets as the echo does, then holds its connections, whatever comes.
fn hold(lab: &Lab) {
    for family in Family::BOTH {
        let (ready, listening) = mpsc::channel();
        lab.target().spawn(move || {
            let listener = TcpListener::bind(family.other()).expect("listening");
            ready.send(()).unwrap();
            let mut held = Vec::new();
            for mut stream in listener.incoming().flatten() {
                stream.write_all(b"1\n").unwrap();
                held.push(stream);
            }
        });
        listening.recv().unwrap();
    }
}

/// Deadlines are kept in steps of so many seconds.
const TICK: f64 = 0.07;

#[test]
fn each_state_of_a_flow_has_its_own_timeout() {
    let timeouts = "timeouts = { syn = \"21s\", established = \"31s\", fin_wait = \"41s\", time_wait = \"51s\", close = \"61s\", udp = \"71s\" }\n";
    let with = |target| format!("{timeouts}targets = [{{ address = \"{target}\" }}]");
    let (lab, gateway) = start(&[
        tcp("nobody", 80, &with("{nobody}")),
        tcp("open", 81, timeouts),
        tcp("half", 82, &with("{other}")),
        tcp("closed", 83, timeouts),
        tcp("reset", 84, timeouts),
        udp("udp", 53, timeouts),
    ]);
    hold(&lab);
    for family in Family::BOTH {
        let _open = lab.client().run(move || {
            assert!(family.is_ignored(Near, 80));
            let open = |port| family.connect(Near, port).unwrap().stream;
            let half = open(82);
            half.shutdown(Shutdown::Write).unwrap();
            drop(open(83));
            let reset = SockRef::from(&open(84)).set_linger(Some(Duration::ZERO));
            reset.unwrap();
            assert!(matches!(ask(&family.datagrams(Near, 53), b"?"), Served(_)));
            [open(81), half]
        });
        for (service, state, timeout) in [
            ("nobody", "syn_received", 21.0),
            ("open", "established", 31.0),
            ("half", "fin_client", 41.0),
            ("closed", "time_wait", 51.0),
            ("reset", "closed", 61.0),
            ("udp", "udp", 71.0),
        ] {
            let filter = json!({ "service": family.name(service) });
            let mut flows = Vec::new();
            gateway.wait(state, || {
                flows = gateway.flows(&filter);
                flows.len() == 1 && flows[0]["state"] == state
            });
            let left = flows[0]["expires_in_seconds"].as_f64().unwrap();
            assert!(
                left <= timeout + TICK && left > timeout - 9.0,
                "{state} of {family:?}: {left} s left of {timeout}"
            );
        }
    }
    // Those SYNs waited for a target that nobody is.
    let in_vain = "weir_l4_worker_held_dropped_total{worker=\"0\"}";
    gateway.wait("rid of what waits", || gateway.metric(in_vain) == 2);
}

#[test]
fn a_flow_that_idles_out_is_forgotten_with_or_without_a_word() {
    let keys = |unknown| {
        format!(
            "reset_on_expiry = false\non_unknown_segment = \"{unknown}\"\ntimeouts = {{ established = \"1s\" }}"
        )
    };
    let (lab, gateway) = start(&[
        tcp("rst", 80, &keys("rst")),
        tcp("drop", 81, &keys("drop")),
        udp("udp", 53, "timeouts = { udp = \"1s\" }"),
    ]);
    for family in Family::BOTH {
        let (streams, socket) = lab.client().run(move || {
            let streams = [80, 81].map(|port| family.connect(Near, port).unwrap().stream);
            let socket = family.datagrams(Near, 53);
            assert_eq!(ask(&socket, b"one"), Served(b'1'));
            (streams, socket)
        });
        gateway.wait("rid of idle flows", || {
            ["rst", "drop", "udp"]
                .iter()
                .all(|service| count(&gateway, family, service, "/flows") == 0)
        });
        assert_eq!(
            ask(&socket, b"another"),
            Served(b'2'),
            "a new flow, the next target"
        );
        let hear = |mut stream: &TcpStream, milliseconds| {
            let patience = Duration::from_millis(milliseconds);
            stream.set_read_timeout(Some(patience)).unwrap();
            stream.read(&mut [0; 8]).map_err(|error| error.kind())
        };
        for (mut stream, milliseconds, answer) in [
            (&streams[0], 5000, ErrorKind::ConnectionReset),
            (&streams[1], 300, ErrorKind::WouldBlock),
        ] {
            let told = hear(stream, 300);
            assert_eq!(told, Err(ErrorKind::WouldBlock), "nobody was told");
            stream.write_all(b"still there?").unwrap();
            assert_eq!(hear(stream, milliseconds), Err(answer));
        }
        assert_eq!(count(&gateway, family, "rst", "/no_flow"), 1);
        assert!(count(&gateway, family, "drop", "/no_flow") > 0);
        assert_eq!(count(&gateway, family, "drop", "/resets_sent"), 0);
    }
}

#[test]
fn timestamps_of_clients_are_stripped_or_kept() {
    let (lab, _gateway) = start(&[
        tcp("strip", 80, "timestamps = \"strip\""),
        tcp("keep", 81, "timestamps = \"keep\""),
    ]);
    for family in Family::BOTH {
        for (port, kept) in [(80, false), (81, true)] {
            let echo = lab
                .client()
                .run(move || family.connect(Near, port).unwrap());
            let own = echo.stream.local_addr().unwrap().port().to_string();
            // By what the client's kernel agreed on.
            let mut ss = lab.client().command("ss");
            let output = ss.args(["-tino", "sport", "=", &own]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("sack"), "{text}");
            assert_eq!(text.contains(" ts "), kept, "{family:?}: {text}");
        }
    }
}

#[test]
fn targets_learn_the_clients_address_as_the_service_says() {
    let with =
        |how| format!("client_address = \"{how}\"\ntargets = [{{ address = \"{{other}}\" }}]");
    let (lab, gateway) = start(&[
        tcp("proxy", 80, &with("proxy_v2")),
        tcp("toa", 81, &with("toa")),
        tcp("none", 82, &with("none")),
    ]);
    for family in Family::BOTH {
        let (ready, listening) = mpsc::channel();
        let served = lab.target().spawn(move || {
            let listener = TcpListener::bind(family.other()).expect("listening");
            ready.send(()).unwrap();
            [0; 3].map(|_: u8| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                received
            })
        });
        listening.recv().unwrap();
        let wire = Wire::open(&lab.target(), Ipv4Addr::new(10, 3, 0, 254));
        let [proxy, toa, _] = [80, 81, 82].map(|port| {
            lab.client().run(move || {
                let mut stream = family.stream(Near, port).unwrap();
                stream.write_all(b"hello").unwrap();
                stream.local_addr().unwrap()
            })
        });
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (client, vip) = (octets(proxy.ip()), octets(family.vip(80).ip()));
        // The header of the PROXY protocol's specification, version 2, section 2.2.
        let header = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21"[..],
            &[if family == Family::V4 { 0x11 } else { 0x21 }],
            &(2 * client.len() as u16 + 4).to_be_bytes(),
            &client,
            &vip,
            &proxy.port().to_be_bytes(),
            &80u16.to_be_bytes(),
            b"hello",
        ];
        let [with_header, with_option, plain] = served.join().unwrap();
        assert_eq!(with_header, header.concat());
        assert_eq!(with_option, b"hello");
        assert_eq!(plain, b"hello");
        // Kind, length, port, address: in the SYN already.
        let option = [
            &[254, 4 + client.len() as u8][..],
            &toa.port().to_be_bytes(),
            &client,
        ];
        let option = option.concat();
        wire.wait_for(|frame| frame.windows(option.len()).any(|window| window == option));
        assert!(count(&gateway, family, "proxy", "/client_address_inserted") > 0);
        assert_eq!(
            count(&gateway, family, "none", "/client_address_inserted"),
            0
        );
    }
}
