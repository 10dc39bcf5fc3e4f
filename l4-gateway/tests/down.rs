//! A target that is cut off, as its clients notice it: the real binary between real kernels, probes and all.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lab::dual::Client::Near;
use lab::dual::Fate::Served;
use lab::dual::{Family, ask, tcp, udp};
use lab::{Echo, Gateway, Lab, WORKERS, pattern};
use serde_json::Value;

/// A target is known to be down, or up, within half a second.
const HEALTH: &str = "health = { type = \"tcp\", port = 8080, interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 2 }\n";

/// How long the connections of a service are left to a target that is down.
const CUT_AFTER: Duration = Duration::from_secs(3);

fn start() -> (Lab, Gateway) {
    let lab = Lab::dual();
    lab.target().dual_targets();
    let services = [
        tcp(
            "cut",
            80,
            &format!("{HEALTH}cut_down_after = \"{}s\"", CUT_AFTER.as_secs()),
        ),
        tcp("left", 81, &format!("{HEALTH}cut_down_after = \"never\"")),
        udp("udp", 53, HEALTH),
    ];
    let gateway = Gateway::start(&lab, &lab.dual_config(WORKERS, "", &services.concat()));
    wait_for_healthy(&gateway, 2);
    (lab, gateway)
}

fn wait_for_healthy(gateway: &Gateway, targets: u32) {
    gateway.wait("aware of its targets", || {
        services()
            .all(|(family, service)| gateway.service(&family.name(service))["healthy"] == targets)
    });
}

fn services() -> impl Iterator<Item = (Family, &'static str)> {
    let of = |family| ["cut", "left", "udp"].map(|service| (family, service));
    Family::BOTH.into_iter().flat_map(of)
}

fn count(gateway: &Gateway, family: Family, service: &str, path: &str) -> u64 {
    let service = gateway.service(&family.name(service));
    let value = service.pointer(path);
    value
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path} in {service}"))
}

/// Takes the second target's addresses from it: what comes for them from here on gets no answer of any kind.
fn cut_off(lab: &Lab) {
    for address in ["10.3.0.22/24", "fd00:3::22/64"] {
        lab.target().ip(&["addr", "del", address, "dev", "t0"]);
    }
}

fn bring_back(lab: &Lab) {
    for address in ["10.3.0.22/24", "fd00:3::22/64"] {
        lab.target().address("t0", address);
    }
}

/// Two connections to each TCP service, one to each target.
fn connections(lab: &Lab) -> Vec<(Family, u16, Echo)> {
    let mut open = Vec::new();
    for family in Family::BOTH {
        for port in [80, 80, 81, 81] {
            let connect = move || family.connect(Near, port).unwrap();
            open.push((family, port, lab.client().run(connect)));
        }
    }
    open
}

/// What a connection hears within so long.
fn hears(mut stream: &TcpStream, patience: Duration) -> Result<usize, ErrorKind> {
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.read(&mut [0; 8]).map_err(|error| error.kind())
}

#[test]
fn clients_of_a_target_that_is_cut_off_reach_another() {
    let (lab, gateway) = start();
    let open = connections(&lab);
    let sockets = Family::BOTH.map(|family| {
        let at_second = move || {
            let sockets = [0, 1].map(|_| family.datagrams(Near, 53));
            let fates = [0, 1].map(|n: usize| ask(&sockets[n], b"who?"));
            assert!(fates.contains(&Served(b'2')), "{fates:?}");
            let [first, second] = sockets;
            if fates[0] == Served(b'2') {
                first
            } else {
                second
            }
        };
        (family, lab.client().run(at_second))
    });
    cut_off(&lab);
    let began = Instant::now();
    // Some of these SYNs go to it, as nobody knows yet. Clients send the next after a second.
    let attempts: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| [(family, 80), (family, 80), (family, 81), (family, 81)])
        .map(|(family, port)| lab.client().spawn(move || family.knock(Near, port)))
        .collect();
    let just_now = |family| {
        let just_now = |service| {
            count(
                &gateway,
                family,
                service,
                "/targets/1/last_second/syns_unanswered",
            )
        };
        ["cut", "left"].map(just_now).iter().sum::<u64>()
    };
    gateway.wait("aware of SYNs without answer", || {
        Family::BOTH.into_iter().map(just_now).sum::<u64>() > 0
    });
    for attempt in attempts {
        assert_eq!(attempt.join().unwrap(), Served(b'1'));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    wait_for_healthy(&gateway, 1);
    for (family, socket) in &sockets {
        assert_eq!(ask(socket, b"who now?"), Served(b'1'), "{family:?}");
        assert_eq!(count(&gateway, *family, "udp", "/flows_cut"), 1);
    }
    let unanswered = Family::BOTH.map(|family| {
        ["cut", "left"]
            .map(|service| count(&gateway, family, service, "/targets/1/syns_unanswered"))
    });
    assert!(
        unanswered.as_flattened().iter().sum::<u64>() >= 2,
        "{unanswered:?}"
    );

    for (family, port, echo) in &open {
        match (*port, echo.id) {
            (80, b'2') => {
                let heard = hears(&echo.stream, 2 * CUT_AFTER);
                assert_eq!(heard, Err(ErrorKind::ConnectionReset), "{family:?}");
                let after = began.elapsed();
                assert!(after > CUT_AFTER, "cut after {after:?}");
            }
            _ => {
                let heard = hears(&echo.stream, Duration::from_millis(100));
                assert_eq!(heard, Err(ErrorKind::WouldBlock), "{family:?} {port}");
            }
        }
    }
    for family in Family::BOTH {
        assert_eq!(count(&gateway, family, "cut", "/flows_cut"), 1);
        assert_eq!(count(&gateway, family, "left", "/flows_cut"), 0);
    }
    for (_, _, mut echo) in open.into_iter().filter(|(_, _, echo)| echo.id == b'1') {
        echo.exchange(&pattern(1000, 1));
    }
}

#[test]
fn connections_outlive_a_target_that_is_away_for_a_moment() {
    let (lab, gateway) = start();
    let mut open = connections(&lab);
    cut_off(&lab);
    wait_for_healthy(&gateway, 1);
    bring_back(&lab);
    wait_for_healthy(&gateway, 2);
    std::thread::sleep(CUT_AFTER);
    for (_, _, echo) in &mut open {
        echo.exchange(&pattern(1000, 1));
    }
    for (family, service) in services() {
        assert_eq!(count(&gateway, family, service, "/flows_cut"), 0);
    }
}
