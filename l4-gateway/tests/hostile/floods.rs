//! Floods from forged sources against a node with little room: what was there goes on, memory stays within what the configuration says, and
//! when a flood is over the node takes new clients again.

//! Floods from forged sources against a node with little room: what was there goes on, memory stays what it was, and when the flood is
//! over the node takes new clients again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::frame::{self, FRAGMENT, Packet, Payload, SYN};
use crate::lab::dual::{Client, Family, Fate, ask, tcp, udp};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, WORKERS, pattern};
use crate::talk::Talk;

const FLOWS: u64 = 1024;
const SOURCES: u64 = 1024;

/// How long a flood lasts.
const LENGTH: Duration = Duration::from_secs(5);

/// Frames sent in a row, a millisecond between rows.
const ROW: usize = 24;

/// Bytes that memory may grow by: what `workers.flows` and `workers.sources` name by the reference, the frames that wait for next hops and
/// first fragments (256 of 2 KiB each, limits.rs), and what the control side needs to say so.
const ROOM: u64 = FLOWS * 150 + SOURCES * 28 + 2 * 256 * 2048 + CONTROL;
const CONTROL: u64 = 1 << 20;

/// A node that can hold little, with services whose forged flows are soon gone.
fn start(lab: &Lab) -> Gateway {
    lab.target().dual_targets();
    let keys = "timeouts = { syn = \"2s\", time_wait = \"2s\", close = \"2s\", udp = \"2s\" }\nlimits = { source_connections = 1000 }";
    let services = tcp("tcp", 80, keys) + &udp("udp", 53, keys);
    let little = format!("flows = {FLOWS}\nsources = {SOURCES}");
    let head = WORKERS.replace("flows = 16384", &little);
    Gateway::start(lab, &lab.dual_config(&head, "", &services))
}

/// What was seen while a flood went on.
#[derive(Debug)]
struct Seen {
    /// Frames of it.
    sent: u64,
    /// Flows at most.
    flows: u64,
    /// Resident memory at most, beyond what it was before; bytes.
    grown: u64,
    /// Exchanges of each connection that was open before.
    exchanges: Vec<u64>,
}

/// Sends what `packet` makes for a while, and looks what becomes of the node.
fn flood(
    lab: &Lab,
    gateway: &Gateway,
    mut packet: impl FnMut(&mut StdRng) -> Packet + Send + 'static,
) -> Seen {
    let talk = Talk::begin(lab, [80, 80]);
    let wire = Wire::open(&lab.client(), Ipv4Addr::new(10, 2, 0, 254));
    let port = gateway.mac("ext");
    // What it takes to answer is not to be taken for growth.
    gateway.metrics();
    gateway.status();
    let before = gateway.resident_bytes();
    let until = Instant::now() + LENGTH;
    let sender = lab.client().spawn(move || {
        let mut random = StdRng::seed_from_u64(11);
        let mut sent = 0;
        while Instant::now() < until {
            for _ in 0..ROW {
                let frame = packet(&mut random).macs(frame::mac(1), port).frame();
                sent += u64::from(wire.send(&frame));
            }
            sleep(Duration::from_millis(1));
        }
        sent
    });
    let (mut flows, mut grown) = (0, 0);
    while !sender.is_finished() {
        sleep(Duration::from_millis(100));
        flows = flows.max(gateway.workers("flows")[0]);
        grown = grown.max(gateway.resident_bytes().saturating_sub(before));
    }
    let seen = Seen {
        sent: sender.join().unwrap(),
        flows,
        grown,
        exchanges: talk.end(),
    };
    println!("{seen:?}\n{}", gateway.status()["drops"]);
    assert!(seen.sent > 2_000 * LENGTH.as_secs(), "{seen:?}");
    assert!(
        seen.grown <= ROOM,
        "memory grew by more than {ROOM}: {seen:?}"
    );
    let least = LENGTH.as_secs();
    assert!(
        seen.exchanges.iter().all(|times| *times > least),
        "{seen:?}"
    );
    seen
}

/// New clients of both families and protocols are served, soon.
fn serves_again(lab: &Lab, gateway: &Gateway) {
    let is_served = |family: Family| {
        lab.client().run(move || {
            let Ok(mut echo) = family.connect(Client::Far, 80) else {
                return false;
            };
            echo.exchange(&pattern(50_000, 3));
            let socket = family.datagrams(Client::Far, 53);
            // More than a frame holds.
            matches!(ask(&socket, &pattern(1_900, 4)), Fate::Served(_))
        })
    };
    for family in Family::BOTH {
        gateway.wait("serving new clients", || is_served(family));
    }
}

/// A client that isn't there, far away or on the segment, and the VIP it wants.
fn forged(random: &mut StdRng, family: Family, port: u16) -> (SocketAddr, SocketAddr) {
    let source: IpAddr = match (family, random.random_ratio(1, 4)) {
        (Family::V4, false) => [11, random.random(), random.random(), random.random()].into(),
        (Family::V4, true) => [10, 2, 0, random.random_range(128..254)].into(),
        (Family::V6, false) => [0x2001, 0xdb9, random.random(), 0, 0, 0, 0, random.random()].into(),
        (Family::V6, true) => [0xfd00, 2, 0, 0, random.random(), 0, 0, random.random()].into(),
    };
    (
        (source, random.random_range(1024..=u16::MAX)).into(),
        family.vip(port),
    )
}

#[test]
fn a_syn_flood_leaves_open_connections_and_memory_alone() {
    let lab = Lab::dual();
    let gateway = start(&lab);
    let seen = flood(&lab, &gateway, |random| {
        let family = *Family::BOTH.choose(random).unwrap();
        let (from, to) = forged(random, family, 80);
        frame::tcp(from, to, SYN).seq(random.random(), 0)
    });
    assert_eq!(seen.flows, FLOWS, "the table was full, and no fuller");
    for family in Family::BOTH {
        let service = gateway.service(&family.name("tcp"));
        assert!(
            service["flow_table_full"].as_u64() > Some(1_000),
            "{service}"
        );
        assert!(service["sources_untracked"].as_u64() > Some(0), "{service}");
    }
    serves_again(&lab, &gateway);
}

#[test]
fn a_flood_of_forged_datagrams_leaves_open_connections_and_memory_alone() {
    let lab = Lab::dual();
    let gateway = start(&lab);
    let seen = flood(&lab, &gateway, |random| {
        let family = *Family::BOTH.choose(random).unwrap();
        let (from, to) = forged(random, family, 53);
        frame::udp(from, to, b"forged")
    });
    assert_eq!(seen.flows, FLOWS, "the table was full, and no fuller");
    let drops = gateway.status()["drops"].clone();
    assert!(drops["flow_table_full"].as_u64() > Some(1_000), "{drops}");
    serves_again(&lab, &gateway);
}

#[test]
fn a_flood_of_fragments_leaves_open_connections_and_memory_alone() {
    let lab = Lab::dual();
    let gateway = start(&lab);
    flood(&lab, &gateway, |random| {
        // In the middle of a packet whose first fragment never comes. Of IPv6: af_packet has the kernel keep those of IPv4.
        let (from, to) = forged(random, Family::V6, 53);
        let place: u16 = (random.random_range(1..100) * 8) | 1;
        let id: u32 = random.random();
        let body = [&[0][..], &place.to_be_bytes(), &id.to_be_bytes()].concat();
        let packet = Packet::new(from.ip(), to.ip(), Payload::Raw(17, vec![7; 512]));
        packet.extension(FRAGMENT, &body)
    });
    let drops = gateway.status()["drops"].clone();
    assert!(drops["fragment_no_room"].as_u64() > Some(1_000), "{drops}");
    let waited = gateway.metric("weir_l4_worker_early_fragments_dropped_total{worker=\"0\"}");
    assert!(waited > 0, "fragments waited for their first in vain");
    serves_again(&lab, &gateway);
}
