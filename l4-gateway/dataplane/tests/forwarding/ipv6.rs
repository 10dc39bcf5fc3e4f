//! IPv6 packets through the node, whole frames out; what is refused, and why.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use dataplane::{DropReason, FlowState, NextHops, Protocol, TablesError, Verdict};

use super::frame::{
    self, ACK, FIN, FRAGMENT, HOP_BY_HOP, NOTHING, OPTIONS, PSH, Packet, Payload, ROUTING, SYN, mac,
};
use super::net::{ALL_NODES, Net::V6, both_ports, solicited_node};
use super::rig::{
    self, INSIDE, OUTSIDE, ROUTER_MAC, Rig, from_client, from_target, to_client, to_target, up,
};

#[test]
fn a_connection_is_rewritten_both_ways() {
    let mut rig = Rig::both().speaking(V6);
    let from = V6.client(10, 40_000);
    let opened = rig.establish(from, 1000);
    let n = opened.target;
    let local = V6.local(opened.local_port);
    // Traffic class and flow label belong to the sender and stay.
    let marked =
        |packet: Packet| packet.with(|packet| (packet.tos, packet.flow_label) = (0xb8, 0xabcde));
    let request = marked(
        frame::tcp(from, V6.vip(80), PSH | ACK)
            .seq(1001, 9001)
            .data(b"GET /"),
    );
    let expected = marked(
        frame::tcp(local, V6.target(n, 8080), PSH | ACK)
            .seq(1001u32.wrapping_add(opened.shift), 9001)
            .data(b"GET /"),
    )
    .ttl(63);
    assert_eq!(
        rig.transmitted(OUTSIDE, from_client(&request)),
        (INSIDE, to_target(&expected, n))
    );
    let answer = frame::tcp(V6.target(n, 8080), local, PSH | ACK)
        .seq(9001, 1006u32.wrapping_add(opened.shift))
        .data(b"200 OK");
    let expected = frame::tcp(V6.vip(80), from, PSH | ACK)
        .seq(9001, 1006)
        .data(b"200 OK")
        .ttl(63);
    assert_eq!(
        rig.transmitted(INSIDE, from_target(&answer, n)),
        (OUTSIDE, to_client(&expected))
    );
    let flows: Vec<_> = rig.worker.flows(rig.now).collect();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].client, from);
    assert_eq!(flows[0].vip, V6.vip(80));
    assert_eq!(flows[0].local, Some(local));
    assert_eq!(flows[0].target, V6.target(n, 8080));
    assert_eq!(flows[0].state, FlowState::Established);
    let id = rig
        .tables
        .service_at(V6.vip_ip(), 80, Protocol::Tcp)
        .unwrap()
        .id;
    let counts = rig.counters.service(id);
    assert_eq!((counts.packets_in, counts.packets_out), (3, 2));
    assert_eq!(counts.bytes_in, 3 * 60 + 5);
    for (port, input) in [
        (
            OUTSIDE,
            from_client(&frame::tcp(from, V6.vip(80), FIN | ACK).seq(1006, 9007)),
        ),
        (
            INSIDE,
            from_target(
                &frame::tcp(V6.target(n, 8080), local, FIN | ACK)
                    .seq(9007, 1007u32.wrapping_add(opened.shift)),
                n,
            ),
        ),
    ] {
        rig.transmitted(port, input);
    }
    let state = rig.worker.flows(rig.now).next().map(|flow| flow.state);
    assert_eq!(state, Some(FlowState::TimeWait));
    rig.pass(30);
    assert_eq!(rig.flow_count(), 0);
}

#[test]
fn datagrams_and_their_answers_are_rewritten_and_families_share_a_burst() {
    let mut rig = Rig::both().speaking(V6);
    let mut frames = Vec::new();
    for n in 0..20u8 {
        frames.push(from_client(&frame::udp(
            V6.client(n, 5000),
            V6.vip(53),
            b"six",
        )));
        frames.push(from_client(&frame::udp(
            rig::client(n, 5000),
            rig::vip(53),
            b"four",
        )));
    }
    let mut verdicts = vec![Verdict::Kernel; frames.len()];
    rig.worker.burst(
        &rig.tables,
        rig.now,
        OUTSIDE,
        &mut frames,
        &mut verdicts,
        &mut rig.out,
    );
    rig.worker.check_invariants();
    assert_eq!(verdicts, vec![Verdict::Transmit(INSIDE); 40]);
    for (n, sent) in (0u8..).zip(frames.iter().step_by(2)) {
        let (to, port) = (frame::target_of(sent), frame::source_port(sent));
        let expected = frame::udp(V6.local(port), V6.target(to, 8080), b"six").ttl(63);
        assert_eq!(*sent, to_target(&expected, to));
        let answer = frame::udp(V6.target(to, 8080), V6.local(port), b"answer");
        let expected = frame::udp(V6.vip(53), V6.client(n, 5000), b"answer").ttl(63);
        assert_eq!(
            rig.transmitted(INSIDE, from_target(&answer, to)),
            (OUTSIDE, to_client(&expected))
        );
    }
    assert_eq!(rig.flow_count(), 40);
}

#[test]
fn extension_headers_are_carried_along() {
    let pad = |length: usize| {
        let mut body = vec![(length / 8 - 1) as u8];
        body.extend([1, (length - 4) as u8]);
        body.resize(length - 1, 0);
        body
    };
    let cases: [(&str, Vec<(u8, Vec<u8>)>); 5] = [
        ("hop-by-hop", vec![(HOP_BY_HOP, pad(8))]),
        ("destination options", vec![(OPTIONS, pad(24))]),
        (
            "both, and a route at its end",
            vec![
                (HOP_BY_HOP, pad(8)),
                (OPTIONS, pad(8)),
                (ROUTING, vec![0, 2, 0, 0, 0, 0, 0]),
            ],
        ),
        // RFC 6946.
        (
            "a packet in one fragment",
            vec![(FRAGMENT, vec![0, 0, 0, 0, 0, 0, 1])],
        ),
        ("as many as are walked", vec![(OPTIONS, pad(8)); 8]),
    ];
    for (description, extensions) in cases {
        let mut rig = Rig::both().speaking(V6);
        let with = |packet: Packet| packet.with(|packet| packet.extensions = extensions.clone());
        let from = V6.client(10, 5000);
        let input = from_client(&with(frame::udp(from, V6.vip(53), b"query")));
        let at = input.len() - 13;
        let (_, sent) = rig.transmitted(OUTSIDE, input);
        let port = u16::from_be_bytes([sent[at], sent[at + 1]]);
        let expected = with(frame::udp(
            V6.local(port),
            V6.target(frame::target_of(&sent), 8080),
            b"query",
        ))
        .ttl(63);
        assert_eq!(
            sent,
            to_target(&expected, frame::target_of(&sent)),
            "{description}"
        );
    }
}

/// Frames of IPv6 that are dropped before any flow.
fn malformed() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    use DropReason::*;
    let syn = || frame::tcp(V6.client(10, 5000), V6.vip(80), SYN);
    let query = || frame::udp(V6.client(10, 5000), V6.vip(53), b"query");
    let raw = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = from_client(&syn());
        change(&mut frame);
        frame
    };
    let routed = |kind, left| from_client(&syn().extension(ROUTING, &[0, kind, left, 0, 0, 0, 0]));
    let from = |source: &str| {
        let source: IpAddr = source.parse().unwrap();
        from_client(&syn().with(|packet| packet.source = source))
    };
    vec![
        (
            "half a header",
            raw(&|frame| frame.truncate(14 + 39)),
            Truncated,
        ),
        (
            "another version",
            raw(&|frame| frame[14] = 0x50),
            BadIpHeader,
        ),
        (
            "longer than the frame",
            raw(&|frame| frame[19] += 1),
            BadIpHeader,
        ),
        (
            "longer than a packet can be",
            raw(&|frame| frame[18..20].fill(0xff)),
            BadIpHeader,
        ),
        ("a source route of old", routed(0, 1), BadExtensionHeader),
        ("even at its end", routed(0, 0), BadExtensionHeader),
        ("a segment route", routed(4, 2), BadExtensionHeader),
        (
            "hop-by-hop not in front",
            from_client(
                &syn()
                    .extension(OPTIONS, &[0, 1, 4, 0, 0, 0, 0])
                    .extension(HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0]),
            ),
            BadExtensionHeader,
        ),
        (
            "a fragment of a fragment, of which one says first and one later",
            from_client(
                &syn()
                    .extension(FRAGMENT, &[0, 0, 0, 0, 0, 0, 9])
                    .extension(FRAGMENT, &[0, 0, 8, 0, 0, 0, 9]),
            ),
            BadExtensionHeader,
        ),
        (
            "a fragment that claims to be whole as well",
            from_client(
                &syn()
                    .extension(FRAGMENT, &[0, 0, 1, 0, 0, 0, 9])
                    .extension(FRAGMENT, &[0, 0, 0, 0, 0, 0, 9]),
            ),
            BadExtensionHeader,
        ),
        (
            "too many extension headers",
            from_client(&syn().with(|packet| {
                packet.extensions = vec![(OPTIONS, vec![0, 1, 4, 0, 0, 0, 0]); 9];
            })),
            BadExtensionHeader,
        ),
        (
            "an extension header beyond the packet",
            from_client(&syn().extension(OPTIONS, &[9, 1, 4, 0, 0, 0, 0])),
            BadExtensionHeader,
        ),
        (
            "an extension header cut off",
            from_client(&Packet::new(
                V6.client(10, 1).ip(),
                V6.vip_ip(),
                Payload::Raw(OPTIONS, vec![6, 0, 1, 2]),
            )),
            BadExtensionHeader,
        ),
        (
            "a first fragment not cut at eights",
            from_client(&query().extension(FRAGMENT, &[0, 0, 1, 0, 0, 0, 7])),
            BadFragment,
        ),
        (
            "a first fragment without a transport header",
            from_client(
                &Packet::new(
                    V6.client(10, 1).ip(),
                    V6.vip_ip(),
                    Payload::Raw(NOTHING, vec![0; 8]),
                )
                .extension(FRAGMENT, &[0, 0, 1, 0, 0, 0, 7]),
            ),
            Fragment,
        ),
        (
            "no next header",
            from_client(&Packet::new(
                V6.client(10, 1).ip(),
                V6.vip_ip(),
                Payload::Raw(NOTHING, vec![0; 8]),
            )),
            NoService,
        ),
        (
            "UDP without a checksum",
            from_client(&query().with(|packet| {
                if let Payload::Udp(udp) = &mut packet.payload {
                    udp.unchecked = true;
                }
            })),
            UdpUnchecked,
        ),
        ("from a group", from("ff02::1"), MartianSource),
        ("from nobody", from("::"), MartianSource),
        ("from the loopback", from("::1"), MartianSource),
        (
            "from an IPv4 address",
            from("::ffff:10.1.0.1"),
            MartianSource,
        ),
        ("from one link only", from("fe80::5"), MartianSource),
        ("from us", from("fd00::64"), MartianSource),
        ("from our LocalIP", from("fd00:3::64"), MartianSource),
        (
            "ICMP with a wrong checksum",
            raw_icmp(|frame| frame[56] ^= 1),
            BadIcmp,
        ),
        (
            "an advertisement from elsewhere",
            from_client(&frame::ndp(
                136,
                (V6.gateway(), V6.outside_address()),
                0x60,
                V6.gateway(),
                None,
            ))
            .iter()
            .enumerate()
            .map(|(at, byte)| if at == 21 { 254 } else { *byte })
            .collect(),
            BadNdp,
        ),
    ]
}

fn raw_icmp(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = from_client(&frame::icmp(
        V6.client(10, 1).ip(),
        V6.vip_ip(),
        128,
        0,
        1,
        b"ping",
    ));
    change(&mut frame);
    frame
}

#[test]
fn each_malformed_frame_is_dropped_for_its_own_reason() {
    for (description, input, expected) in malformed() {
        let mut rig = Rig::both().speaking(V6);
        assert_eq!(rig.dropped(OUTSIDE, input), expected, "{description}");
        assert!(rig.out.is_empty(), "{description}: nothing is sent");
        assert_eq!(rig.flow_count(), 0, "{description}");
    }
}

#[test]
fn a_frame_cut_anywhere_or_with_any_byte_changed_never_panics() {
    let mut rig = Rig::both().speaking(V6);
    let opened = rig.establish(V6.client(10, 40_000), 1000);
    let quoted = frame::tcp(
        V6.local(opened.local_port),
        V6.target(opened.target, 8080),
        ACK,
    )
    .extension(OPTIONS, &[0, 1, 4, 0, 0, 0, 0]);
    let error = frame::icmp(
        V6.target_ip(opened.target),
        V6.local_ip(),
        1,
        4,
        0,
        &quoted.ip(),
    );
    let asked = frame::ndp(
        135,
        (V6.target_ip(21), solicited_node(V6.local_ip())),
        0,
        V6.local_ip(),
        Some((1, mac(21))),
    );
    let options = frame::udp(V6.client(10, 5000), V6.vip(53), b"query")
        .extension(HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])
        .extension(FRAGMENT, &[0, 0, 0, 0, 0, 0, 1]);
    let samples = [
        (
            OUTSIDE,
            from_client(&frame::tcp(V6.client(11, 5), V6.vip(80), SYN)),
        ),
        (OUTSIDE, from_client(&options)),
        (INSIDE, from_target(&error, opened.target)),
        (INSIDE, from_target(&asked, 21)),
    ];
    for (port, sample) in samples {
        for at in 0..sample.len() {
            rig.try_send(port, sample[..at].to_vec());
            for value in [
                0,
                1,
                0x7f,
                0x80,
                0xff,
                sample[at] ^ 1,
                sample[at].wrapping_add(1),
            ] {
                let mut changed = sample.clone();
                changed[at] = value;
                rig.try_send(port, changed);
            }
        }
    }
    assert!(rig.flow_count() > 0, "the established flow is alive");
}

#[test]
fn what_is_not_ours_is_left_to_the_kernel_untouched() {
    let mut rig = Rig::both().speaking(V6);
    let own = |port| SocketAddr::new(V6.outside_address(), port);
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let multicast = |packet: Packet, last| {
        packet
            .macs(ROUTER_MAC, dataplane::MacAddr([0x33, 0x33, 0, 0, 0, last]))
            .frame()
    };
    let cases = [
        (
            "BGP to the port's own address",
            from_client(&frame::tcp(V6.client(10, 5000), own(179), SYN)),
        ),
        (
            "another host's packet",
            from_client(&frame::tcp(
                V6.client(10, 5000),
                SocketAddr::new(V6.client(9, 1).ip(), 80),
                SYN,
            )),
        ),
        (
            "a router advertisement",
            multicast(
                frame::icmp(V6.gateway(), ALL_NODES, 134, 0, 0, &[0; 8]).ttl(255),
                1,
            ),
        ),
        (
            "a router solicitation",
            multicast(
                frame::icmp(V6.gateway(), all_routers, 133, 0, 0, &[]).ttl(255),
                2,
            ),
        ),
        (
            "multicast that looks like a service's",
            multicast(frame::udp(V6.client(10, 5), V6.vip(53), b"query"), 9),
        ),
        (
            "a fragment for the kernel",
            from_client(
                &frame::udp(V6.client(10, 5), own(53), b"x")
                    .extension(FRAGMENT, &[0, 0, 1, 0, 0, 0, 7]),
            ),
        ),
    ];
    for (description, input) in cases {
        assert_eq!(
            rig.try_send(OUTSIDE, input.clone()),
            (Verdict::Kernel, input),
            "{description}"
        );
    }
    assert!(rig.out.is_empty());
}

#[test]
fn snapshots_hold_families_apart() {
    let build = |change: &dyn Fn(&mut Vec<dataplane::Port>, &mut Vec<dataplane::ServiceConfig>)| {
        let (mut ports, mut services) = (both_ports().to_vec(), V6.services());
        change(&mut ports, &mut services);
        let builder = rig::builder(&ports, &services);
        let mut ids = dataplane::Ids::new(&rig::small());
        builder.build(&mut ids, None).map(|_| ())
    };
    assert_eq!(build(&|_, _| {}), Ok(()));
    let mixed = TablesError::MixedFamilies {
        vip: V6.vip_ip(),
        ports: 80.into(),
        target: rig::target(21).into(),
    };
    assert_eq!(
        build(&|_, services| services[0].targets[0] = up(rig::target(21))),
        Err(mixed)
    );
    assert_eq!(
        build(&|ports, _| (ports[0].ipv4, ports[0].ipv6) = (None, None)),
        Err(TablesError::NoSegment(0))
    );
    assert_eq!(
        build(&|ports, _| ports[1].ipv6.as_mut().unwrap().prefix = 129),
        Err(TablesError::BadPrefix {
            address: V6.inside_address(),
            prefix: 129,
        })
    );
    let elsewhere: Ipv6Addr = "2001:db8:9::1".parse().unwrap();
    assert_eq!(
        build(&|ports, _| ports[0].ipv6.as_mut().unwrap().gateways = NextHops::one(elsewhere)),
        Err(TablesError::GatewayOffLink {
            gateway: elsewhere.into(),
            port: 0,
        })
    );
    for vip in ["::", "::1", "ff0e::1", "fe80::9", "::ffff:10.0.0.1"] {
        let vip: Ipv6Addr = vip.parse().unwrap();
        assert_eq!(
            build(&|_, services| services[0].vip = vip.into()),
            Err(TablesError::NotAHost(vip.into()))
        );
    }
}
