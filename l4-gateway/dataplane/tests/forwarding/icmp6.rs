//! ICMPv6: echo answered, errors passed on between the ends, errors of the node's own.

use std::net::Ipv6Addr;

use dataplane::{DropReason, NextHops, Verdict};

use super::frame::{self, ACK, FRAGMENT, OPTIONS, PSH, Packet, mac};
use super::net::{Net::V6, both_ports};
use super::rig::{
    self, INSIDE, INSIDE_MAC, OUTSIDE, Rig, from_client, from_target, to_client, to_target,
};

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;

#[test]
fn echo_requests_for_our_addresses_are_answered() {
    let from = V6.client(10, 1).ip();
    for (port, to) in [
        (OUTSIDE, V6.vip_ip()),
        (OUTSIDE, V6.local_ip()),
        (OUTSIDE, V6.outside_address()),
        (INSIDE, V6.local_ip()),
    ] {
        let mut rig = Rig::both().speaking(V6);
        let (arrive, leave): (fn(&Packet) -> Vec<u8>, fn(&Packet) -> Vec<u8>) = match port {
            OUTSIDE => (from_client, to_client),
            _ => (
                |packet| from_target(packet, 21),
                |packet| to_target(packet, 21),
            ),
        };
        for source in [from, V6.gateway()] {
            let request = frame::icmp(source, to, 128, 0, 0x0007_0001, b"ping").ttl(9);
            let reply = frame::icmp(to, source, 129, 0, 0x0007_0001, b"ping");
            assert_eq!(
                rig.transmitted(port, arrive(&request)),
                (port, leave(&reply)),
                "{to} asked by {source}"
            );
        }
        assert_eq!(rig.worker_counts().echo_replies, 2);
    }
    let mut rig = Rig::both().speaking(V6);
    let elsewhere = frame::icmp(from, V6.inside_address(), 128, 0, 1, b"ping");
    assert_eq!(
        rig.try_send(OUTSIDE, from_client(&elsewhere)).0,
        Verdict::Kernel,
        "the other port's address"
    );
    let martian = frame::icmp(V6.vip_ip(), V6.vip_ip(), 128, 0, 1, b"ping");
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&martian)),
        DropReason::MartianSource
    );
    let reply = frame::icmp(from, V6.vip_ip(), 129, 0, 1, b"pong");
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
    let extended = |packet: Packet| packet.extension(OPTIONS, &[0, 1, 4, 0, 0, 0, 0]);
    let plain = |packet: Packet| packet;
    type Extend<'a> = &'a dyn Fn(Packet) -> Packet;
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
        let mut rig = Rig::both().speaking(V6);
        let from = V6.client(10, 40_000);
        let opened = rig.establish(from, 1000);
        let sent = extend(
            frame::tcp(
                V6.local(opened.local_port),
                V6.target(opened.target, 8080),
                PSH | ACK,
            )
            .seq(1001u32.wrapping_add(opened.shift), 9001)
            .data(b"GET /"),
        )
        .ttl(60);
        let original = extend(
            frame::tcp(from, V6.vip(80), PSH | ACK)
                .seq(1001, 9001)
                .data(b"GET /"),
        )
        .ttl(60);
        let length = |packet: &[u8]| packet.len().min(quoted);
        let (sent, original) = (sent.ip(), original.ip());
        let sent = cut(&sent, length(&sent));
        let original = cut(&original, length(&original));
        let error = frame::icmp(router, V6.local_ip(), kind, code, rest, &sent);
        let expected = frame::icmp(V6.vip_ip(), from.ip(), kind, code, rest, &original).ttl(63);
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
    let mut rig = Rig::both().speaking(V6);
    let from = V6.client(10, 40_000);
    let opened = rig.establish(from, 1000);
    let n = opened.target;
    let router: Ipv6Addr = "2001:db8:7::1".parse().unwrap();
    let sent = frame::tcp(V6.vip(80), from, PSH | ACK)
        .seq(9001, 1001)
        .data(b"200 OK");
    let original = frame::tcp(V6.target(n, 8080), V6.local(opened.local_port), PSH | ACK)
        .seq(9001, 1001u32.wrapping_add(opened.shift))
        .data(b"200 OK");
    let error = frame::icmp(router, V6.vip_ip(), TOO_BIG, 0, 1400, &sent.ip());
    let expected = frame::icmp(
        V6.local_ip(),
        V6.target_ip(n),
        TOO_BIG,
        0,
        1400,
        &original.ip(),
    )
    .ttl(63);
    assert_eq!(
        rig.transmitted(OUTSIDE, from_client(&error)),
        (INSIDE, to_target(&expected, n))
    );
}

#[test]
fn a_client_can_not_make_a_target_send_packets_below_the_least_path_mtu() {
    let mut services = V6.services();
    services[0].least_path_mtu = 1400;
    let builder = rig::builder(&both_ports(), &services);
    let mut rig = Rig::from(&rig::small(), &builder, 0, 1)
        .resolved()
        .speaking(V6);
    let from = V6.client(10, 40_000);
    let opened = rig.establish(from, 1000);
    let (_, query) = rig.transmitted(
        OUTSIDE,
        from_client(&frame::udp(V6.client(10, 5353), V6.vip(53), b"query")),
    );
    let segment = frame::tcp(
        V6.target(opened.target, 8080),
        V6.local(opened.local_port),
        PSH | ACK,
    )
    .seq(9001, 1001u32.wrapping_add(opened.shift))
    .data(b"200 OK");
    let seen = frame::tcp(V6.vip(80), from, PSH | ACK)
        .seq(9001, 1001)
        .data(b"200 OK");
    let n = frame::target_of(&query);
    let datagram = frame::udp(
        V6.target(n, 8080),
        V6.local(frame::source_port(&query)),
        b"answer",
    );
    let received = frame::udp(V6.vip(53), V6.client(10, 5353), b"answer");
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
    // Receivers ignore the code (RFC 4443 3.2).
    let coded = cases.into_iter().flat_map(|case| [(case, 0), (case, 1)]);
    for ((description, mtu, (seen, own, n), passes), code) in coded {
        let error = from_client(&frame::icmp(
            router,
            V6.vip_ip(),
            TOO_BIG,
            code,
            mtu,
            &seen.ip(),
        ));
        if passes {
            let expected = frame::icmp(
                V6.local_ip(),
                V6.target_ip(n),
                TOO_BIG,
                code,
                mtu,
                &own.ip(),
            )
            .ttl(63);
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
    assert_eq!(rig.worker_counts().icmp_forwarded, 6);
    let guessed = seen.seq(9001 + (1 << 30), 1001);
    let error = frame::icmp(router, V6.vip_ip(), TOO_BIG, 0, 1500, &guessed.ip());
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&error)),
        DropReason::IcmpNoFlow,
        "by somebody who has not seen the connection"
    );
}

#[test]
fn errors_that_name_no_flow_are_dropped() {
    let mut rig = Rig::both().speaking(V6);
    let opened = rig.establish(V6.client(10, 40_000), 1000);
    let sent = frame::tcp(
        V6.local(opened.local_port),
        V6.target(opened.target, 8080),
        ACK,
    );
    let error = |to, quote: &[u8]| {
        let error = frame::icmp(V6.address(2, 1), to, UNREACHABLE, 0, 0, quote);
        from_target(&error, 1)
    };
    let other = frame::tcp(V6.local(1), V6.target(opened.target, 8080), ACK);
    let later = sent.clone().extension(FRAGMENT, &[0, 0, 8, 0, 0, 0, 1]);
    for (description, input, reason) in [
        (
            "another flow",
            error(V6.local_ip(), &other.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "not from whom it is sent to",
            error(V6.vip_ip(), &sent.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "a later fragment",
            error(V6.local_ip(), &later.ip()),
            DropReason::IcmpNoFlow,
        ),
        (
            "too short a quote",
            error(V6.local_ip(), &sent.ip()[..47]),
            DropReason::BadIcmp,
        ),
        (
            "IPv4 quoted",
            error(V6.local_ip(), &[0x45; 60]),
            DropReason::BadIcmp,
        ),
    ] {
        assert_eq!(rig.dropped(INSIDE, input), reason, "{description}");
    }
    let forged = frame::icmp(
        V6.address(2, 1),
        V6.local_ip(),
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
fn packets_whose_hops_run_out_are_answered() {
    let mut rig = Rig::both().speaking(V6);
    let from = V6.client(10, 5000);
    let last = frame::udp(from, V6.vip(53), b"traceroute").ttl(1);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&last)),
        DropReason::TtlExpired
    );
    let expected = frame::icmp(
        V6.outside_address(),
        from.ip(),
        TIME_EXCEEDED,
        0,
        0,
        &last.ip(),
    );
    assert_eq!(only_emitted(&rig), (OUTSIDE, to_client(&expected)));
    // Never about an error.
    let opened = rig.establish(V6.client(11, 5000), 1);
    rig.out.clear();
    let quoted = frame::tcp(
        V6.local(opened.local_port),
        V6.target(opened.target, 8080),
        ACK,
    );
    let error = frame::icmp(
        V6.target_ip(21),
        V6.local_ip(),
        UNREACHABLE,
        0,
        0,
        &quoted.ip(),
    );
    assert_eq!(
        rig.dropped(INSIDE, from_target(&error.ttl(1), 21)),
        DropReason::TtlExpired
    );
    assert!(rig.out.is_empty());
}

#[test]
fn a_packet_without_a_route_is_answered() {
    let mut rig = Rig::both().speaking(V6);
    let opened = rig.establish(V6.client(10, 5000), 1);
    let mut ports = both_ports();
    ports[0].ipv6.as_mut().unwrap().gateways = NextHops::ON_LINK;
    let builder = rig::builder(&ports, &V6.services());
    rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    rig.out.clear();
    let n = opened.target;
    let answer = frame::tcp(V6.target(n, 8080), V6.local(opened.local_port), ACK).seq(9001, 1);
    assert_eq!(
        rig.dropped(INSIDE, from_target(&answer, n)),
        DropReason::NoRoute
    );
    let expected = frame::icmp(
        V6.inside_address(),
        V6.target_ip(n),
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
    let mut rig = Rig::both().speaking(V6);
    for n in 0..30u8 {
        let stray = frame::udp(V6.client(n, 5000), V6.vip(54), b"x");
        rig.dropped(OUTSIDE, from_client(&stray));
    }
    let counts = rig.worker_counts();
    assert_eq!(
        (counts.icmp_errors_sent, counts.icmp_errors_suppressed),
        (10, 20)
    );
    // What path MTU discovery needs has a limit of its own.
    let large = frame::udp(V6.client(1, 5000), V6.vip(53), &[1; 1500]);
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
