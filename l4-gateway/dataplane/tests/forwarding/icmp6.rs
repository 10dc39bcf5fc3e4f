//! ICMPv6: echo answered, errors passed on between the ends, errors of the node's own.

use std::net::Ipv6Addr;

use dataplane::{DropReason, Verdict};

use super::frame::{ACK, PSH, mac};
use super::frame6::{self, FRAGMENT, OPTIONS, Packet6};
use super::rig::{INSIDE, INSIDE_MAC, OUTSIDE, Rig};
use super::rig6::{
    self, LOCAL_IP, VIP, client, dual_stack, establish, from_client, from_target, local, target,
    to_client, to_target, vip,
};

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;

#[test]
fn echo_requests_for_our_addresses_are_answered() {
    let from = *client(10, 1).ip();
    for (port, to) in [
        (OUTSIDE, VIP),
        (OUTSIDE, LOCAL_IP),
        (OUTSIDE, rig6::OUTSIDE_ADDRESS),
        (INSIDE, LOCAL_IP),
    ] {
        let mut rig = dual_stack();
        let (arrive, leave): (fn(&Packet6) -> Vec<u8>, fn(&Packet6) -> Vec<u8>) = match port {
            OUTSIDE => (from_client, to_client),
            _ => (
                |packet| from_target(packet, 21),
                |packet| to_target(packet, 21),
            ),
        };
        for source in [from, rig6::GATEWAY] {
            let request = frame6::icmp(source, to, 128, 0, 0x0007_0001, b"ping").hop_limit(9);
            let reply = frame6::icmp(to, source, 129, 0, 0x0007_0001, b"ping");
            assert_eq!(
                rig.transmitted(port, arrive(&request)),
                (port, leave(&reply)),
                "{to} asked by {source}"
            );
        }
        assert_eq!(rig.worker_counts().echo_replies, 2);
    }
    let mut rig = dual_stack();
    let elsewhere = frame6::icmp(from, rig6::INSIDE_ADDRESS, 128, 0, 1, b"ping");
    assert_eq!(
        rig.try_send(OUTSIDE, from_client(&elsewhere)).0,
        Verdict::Kernel,
        "the other port's address"
    );
    let martian = frame6::icmp(VIP, VIP, 128, 0, 1, b"ping");
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&martian)),
        DropReason::MartianSource
    );
    let reply = frame6::icmp(from, VIP, 129, 0, 1, b"pong");
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&reply)),
        DropReason::IcmpIgnored
    );
}

/// Cuts a packet's payload to this many bytes behind its headers, as routers do that quote little.
fn cut(packet: &[u8], transport: usize) -> Vec<u8> {
    packet[..transport].to_vec()
}

#[test]
fn errors_about_packets_to_a_target_reach_the_client() {
    let router: Ipv6Addr = "fd00:3::1".parse().unwrap();
    let extended = |packet: Packet6| packet.extension(OPTIONS, &[0, 1, 4, 0, 0, 0, 0]);
    let plain = |packet: Packet6| packet;
    type Extend<'a> = &'a dyn Fn(Packet6) -> Packet6;
    let cases: [(&str, u8, u8, u32, usize, Extend<'_>); 6] = [
        ("the whole packet", UNREACHABLE, 0, 0, usize::MAX, &plain),
        ("8 bytes of the segment", UNREACHABLE, 3, 0, 48, &plain),
        ("up to the checksum", TIME_EXCEEDED, 0, 0, 58, &plain),
        (
            "too big, with its MTU",
            TOO_BIG,
            0,
            1280,
            usize::MAX,
            &plain,
        ),
        ("a pointer", PARAMETER_PROBLEM, 1, 40, usize::MAX, &plain),
        ("behind extension headers", UNREACHABLE, 1, 0, 56, &extended),
    ];
    for (description, kind, code, rest, quoted, extend) in cases {
        let mut rig = dual_stack();
        let from = client(10, 40_000);
        let opened = establish(&mut rig, from, 1000);
        let sent = extend(
            frame6::tcp(local(opened.local_port), target(opened.target), PSH | ACK)
                .seq(1001u32.wrapping_add(opened.shift), 9001)
                .data(b"GET /"),
        )
        .hop_limit(60);
        let original = extend(
            frame6::tcp(from, vip(80), PSH | ACK)
                .seq(1001, 9001)
                .data(b"GET /"),
        )
        .hop_limit(60);
        let length = |packet: &[u8]| packet.len().min(quoted);
        let (sent, original) = (sent.ip(), original.ip());
        let sent = cut(&sent, length(&sent));
        let original = cut(&original, length(&original));
        let error = frame6::icmp(router, LOCAL_IP, kind, code, rest, &sent);
        let expected = frame6::icmp(VIP, *from.ip(), kind, code, rest, &original).hop_limit(63);
        assert_eq!(
            rig.transmitted(INSIDE, from_target(&error, 1)),
            (OUTSIDE, to_client(&expected)),
            "{description}"
        );
        assert_eq!(rig.worker_counts().icmp_forwarded, 1);
    }
}

#[test]
fn errors_about_packets_to_a_client_reach_the_target() {
    let mut rig = dual_stack();
    let from = client(10, 40_000);
    let opened = establish(&mut rig, from, 1000);
    let n = opened.target;
    let router: Ipv6Addr = "2001:db8:7::1".parse().unwrap();
    let sent = frame6::tcp(vip(80), from, PSH | ACK)
        .seq(9001, 1001)
        .data(b"200 OK");
    let original = frame6::tcp(target(n), local(opened.local_port), PSH | ACK)
        .seq(9001, 1001u32.wrapping_add(opened.shift))
        .data(b"200 OK");
    let error = frame6::icmp(router, VIP, TOO_BIG, 0, 1400, &sent.ip());
    let expected =
        frame6::icmp(LOCAL_IP, *target(n).ip(), TOO_BIG, 0, 1400, &original.ip()).hop_limit(63);
    assert_eq!(
        rig.transmitted(OUTSIDE, from_client(&error)),
        (INSIDE, to_target(&expected, n))
    );
}

#[test]
fn a_client_can_not_make_a_target_send_packets_below_the_least_path_mtu() {
    let mut services = rig6::services();
    services[0].least_path_mtu = 1400;
    let builder = rig6::builder(&rig6::ports(), &services);
    let mut rig = rig6::resolved(Rig::from(&super::rig::small(), &builder, 0, 1));
    let from = client(10, 40_000);
    let opened = establish(&mut rig, from, 1000);
    let (_, query) = rig.transmitted(
        OUTSIDE,
        from_client(&frame6::udp(client(10, 5353), vip(53), b"query")),
    );
    let segment = frame6::tcp(target(opened.target), local(opened.local_port), PSH | ACK)
        .seq(9001, 1001u32.wrapping_add(opened.shift))
        .data(b"200 OK");
    let seen = frame6::tcp(vip(80), from, PSH | ACK)
        .seq(9001, 1001)
        .data(b"200 OK");
    let n = query[53];
    let datagram = frame6::udp(target(n), local(rig6::source_port(&query)), b"answer");
    let received = frame6::udp(vip(53), client(10, 5353), b"answer");
    let router: Ipv6Addr = "2001:db8:7::1".parse().unwrap();
    let to_segment = (&seen, &segment, opened.target);
    let to_datagram = (&received, &datagram, n);
    let cases = [
        ("at this service's floor", 1400, to_segment, true),
        ("beyond 16 bits", 0x0001_0000, to_segment, true),
        ("below this service's", 1399, to_segment, false),
        ("at the floor", 1280, to_datagram, true),
        ("below it", 1279, to_datagram, false),
        ("none", 0, to_datagram, false),
    ];
    for (description, mtu, (seen, own, n), passes) in cases {
        let error = from_client(&frame6::icmp(router, VIP, TOO_BIG, 0, mtu, &seen.ip()));
        if passes {
            let expected =
                frame6::icmp(LOCAL_IP, *target(n).ip(), TOO_BIG, 0, mtu, &own.ip()).hop_limit(63);
            assert_eq!(
                rig.transmitted(OUTSIDE, error),
                (INSIDE, to_target(&expected, n)),
                "{description}"
            );
        } else {
            let dropped = rig.dropped(OUTSIDE, error);
            assert_eq!(dropped, DropReason::PathMtu, "{description}");
        }
    }
    assert_eq!(rig.worker_counts().icmp_forwarded, 3);
}

#[test]
fn errors_that_name_no_flow_are_dropped() {
    let mut rig = dual_stack();
    let opened = establish(&mut rig, client(10, 40_000), 1000);
    let sent = frame6::tcp(local(opened.local_port), target(opened.target), ACK);
    let error = |to, quote: &[u8]| {
        let error = frame6::icmp("fd00:3::1".parse().unwrap(), to, UNREACHABLE, 0, 0, quote);
        from_target(&error, 1)
    };
    let other = frame6::tcp(local(1), target(opened.target), ACK);
    let later = sent.clone().extension(FRAGMENT, &[0, 0, 8, 0, 0, 0, 1]);
    for (description, input, reason) in [
        (
            "another flow",
            error(LOCAL_IP, &other.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "not from whom it is sent to",
            error(VIP, &sent.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "a later fragment",
            error(LOCAL_IP, &later.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "too short a quote",
            error(LOCAL_IP, &sent.ip()[..47]),
            DropReason::BadIcmp,
        ),
        (
            "IPv4 quoted",
            error(LOCAL_IP, &[0x45; 60]),
            DropReason::BadIcmp,
        ),
    ] {
        assert_eq!(rig.dropped(INSIDE, input), reason, "{description}");
    }
    let forged = frame6::icmp(
        "fd00:3::1".parse().unwrap(),
        LOCAL_IP,
        UNREACHABLE,
        0,
        0,
        &sent.ip(),
    );
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&forged)),
        DropReason::WrongPort
    );
}

fn only_emitted(rig: &Rig) -> (dataplane::PortIndex, Vec<u8>) {
    let emitted = rig.emitted();
    assert_eq!(emitted.len(), 1);
    emitted[0].clone()
}

#[test]
fn datagrams_nobody_serves_are_refused() {
    let mut rig = dual_stack();
    let from = client(10, 5000);
    let stray = frame6::udp(from, vip(54), &[7; 1400]);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&stray)),
        DropReason::NoService
    );
    // RFC 4443 2.4: as much as fits 1280 bytes.
    let expected = frame6::icmp(VIP, *from.ip(), UNREACHABLE, 4, 0, &stray.ip()[..1232]);
    assert_eq!(only_emitted(&rig), (OUTSIDE, to_client(&expected)));
    assert_eq!(rig.emitted()[0].1.len(), 14 + 1280);
}

#[test]
fn packets_whose_hops_run_out_are_answered() {
    let mut rig = dual_stack();
    let from = client(10, 5000);
    let last = frame6::udp(from, vip(53), b"traceroute").hop_limit(1);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&last)),
        DropReason::TtlExpired
    );
    let expected = frame6::icmp(
        rig6::OUTSIDE_ADDRESS,
        *from.ip(),
        TIME_EXCEEDED,
        0,
        0,
        &last.ip(),
    );
    assert_eq!(only_emitted(&rig), (OUTSIDE, to_client(&expected)));
    // Never about an error.
    let opened = establish(&mut rig, client(11, 5000), 1);
    rig.out.clear();
    let quoted = frame6::tcp(local(opened.local_port), target(opened.target), ACK);
    let error = frame6::icmp(*target(21).ip(), LOCAL_IP, UNREACHABLE, 0, 0, &quoted.ip());
    assert_eq!(
        rig.dropped(INSIDE, from_target(&error.hop_limit(1), 21)),
        DropReason::TtlExpired
    );
    assert!(rig.out.is_empty());
}

#[test]
fn packets_larger_than_the_next_link_are_answered_with_its_mtu() {
    let mut ports = rig6::ports();
    ports[1].mtu = 1400;
    let builder = rig6::builder(&ports, &rig6::services());
    let mut rig = rig6::resolved(Rig::from(&super::rig::small(), &builder, 0, 1));
    let from = client(10, 5000);
    let fits = frame6::udp(from, vip(53), &[1; 1352]);
    assert_eq!(rig.transmitted(OUTSIDE, from_client(&fits)).0, INSIDE);
    let large = frame6::udp(from, vip(53), &[1; 1353]);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&large)),
        DropReason::TooBig
    );
    let expected = frame6::icmp(
        rig6::OUTSIDE_ADDRESS,
        *from.ip(),
        TOO_BIG,
        0,
        1400,
        &large.ip()[..1232],
    );
    assert_eq!(only_emitted(&rig), (OUTSIDE, to_client(&expected)));
}

#[test]
fn a_packet_without_a_route_is_answered() {
    let mut rig = dual_stack();
    let opened = establish(&mut rig, client(10, 5000), 1);
    let mut ports = rig6::ports();
    ports[0].ipv6.as_mut().unwrap().gateway = None;
    let builder = rig6::builder(&ports, &rig6::services());
    rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    rig.out.clear();
    let n = opened.target;
    let answer = frame6::tcp(target(n), local(opened.local_port), ACK).seq(9001, 1);
    assert_eq!(
        rig.dropped(INSIDE, from_target(&answer, n)),
        DropReason::NoRoute
    );
    let expected = frame6::icmp(
        rig6::INSIDE_ADDRESS,
        *target(n).ip(),
        UNREACHABLE,
        0,
        0,
        &answer.ip(),
    )
    .macs(INSIDE_MAC, mac(n));
    let sent: Vec<_> = rig
        .emitted()
        .into_iter()
        .filter(|(_, frame)| frame[54] == UNREACHABLE)
        .collect();
    assert_eq!(sent, [(INSIDE, expected.frame())]);
}

#[test]
fn errors_of_our_own_are_rate_limited_those_of_size_by_themselves() {
    let mut rig = dual_stack();
    for n in 0..30u16 {
        let stray = frame6::udp(client(n, 5000), vip(54), b"x");
        rig.dropped(OUTSIDE, from_client(&stray));
    }
    let counts = rig.worker_counts();
    assert_eq!(
        (counts.icmp_errors_sent, counts.icmp_errors_suppressed),
        (10, 20)
    );
    // What path MTU discovery needs has a limit of its own.
    let large = frame6::udp(client(1, 5000), vip(53), &[1; 1500]);
    rig.out.clear();
    for _ in 0..30 {
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&large)),
            DropReason::TooBig
        );
    }
    assert!(rig.emitted().iter().all(|(_, frame)| frame[54] == TOO_BIG));
    let counts = rig.worker_counts();
    assert_eq!(
        (counts.icmp_errors_sent, counts.icmp_errors_suppressed),
        (20, 40)
    );
}
