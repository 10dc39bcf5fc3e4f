//! Neighbour discovery: solicitations answered, next hops found and kept.

use std::net::Ipv6Addr;

use dataplane::{DropReason, Event, MacAddr, PortIndex, Verdict};

use super::frame::{SYN, mac};
use super::frame6::{self, ndp};
use super::rig::{self, INSIDE, INSIDE_MAC, MILLISECOND, OUTSIDE, OUTSIDE_MAC, ROUTER_MAC, Rig};
use super::rig6::{
    self, ALL_NODES, GATEWAY, LOCAL_IP, advertisement, client, dual_stack, from_client,
    solicited_node, target, vip,
};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// The MAC of a multicast address (RFC 2464 7).
fn group_mac(address: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = address.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// A question for an address, as everyone on the segment gets it.
fn question(from: (MacAddr, Ipv6Addr), asked: Ipv6Addr) -> Vec<u8> {
    let group = solicited_node(asked);
    ndp(SOLICITATION, (from.1, group), 0, asked, Some((1, from.0)))
        .macs(from.0, group_mac(group))
        .frame()
}

/// What we answer to `to`.
fn answer(own: MacAddr, asked: Ipv6Addr, to: (MacAddr, Ipv6Addr)) -> Vec<u8> {
    let flags = SOLICITED | OVERRIDE;
    ndp(ADVERTISEMENT, (asked, to.1), flags, asked, Some((2, own)))
        .macs(own, to.0)
        .frame()
}

fn onlink_vip() -> Ipv6Addr {
    "fd00:2::100".parse().unwrap()
}

fn rig(answers: bool, vip_arp: bool) -> Rig {
    let mut services = rig6::services();
    let mut onlink = services[0].clone();
    (onlink.vip, onlink.arp) = (onlink_vip().into(), vip_arp);
    services.push(onlink);
    let mut ports = rig6::ports();
    for port in &mut ports {
        port.answers = answers;
    }
    Rig::from(&rig::small(), &rig6::builder(&ports, &services), 0, 1)
}

#[test]
fn solicitations_are_answered_where_the_address_belongs() {
    let inner = (mac(21), *target(21).ip());
    let link_local = (mac(5), "fe80::5".parse().unwrap());
    let outer = (ROUTER_MAC, GATEWAY);
    type Asker = (MacAddr, Ipv6Addr);
    let cases: [(&str, bool, bool, PortIndex, Asker, Ipv6Addr, bool); 10] = [
        ("a LocalIP", true, true, INSIDE, inner, LOCAL_IP, true),
        (
            "asked by a link-local address",
            true,
            true,
            INSIDE,
            link_local,
            LOCAL_IP,
            true,
        ),
        (
            "a LocalIP on the other port",
            true,
            true,
            OUTSIDE,
            outer,
            LOCAL_IP,
            false,
        ),
        (
            "the port's address",
            true,
            true,
            OUTSIDE,
            outer,
            rig6::OUTSIDE_ADDRESS,
            true,
        ),
        (
            "which the kernel holds",
            false,
            true,
            OUTSIDE,
            outer,
            rig6::OUTSIDE_ADDRESS,
            false,
        ),
        (
            "the other port's address",
            true,
            true,
            OUTSIDE,
            outer,
            rig6::INSIDE_ADDRESS,
            false,
        ),
        (
            "a VIP on the segment",
            true,
            true,
            OUTSIDE,
            outer,
            onlink_vip(),
            true,
        ),
        (
            "which routers are told of",
            true,
            false,
            OUTSIDE,
            outer,
            onlink_vip(),
            false,
        ),
        (
            "a VIP of no segment",
            true,
            true,
            OUTSIDE,
            outer,
            rig6::VIP,
            false,
        ),
        (
            "another host",
            true,
            true,
            INSIDE,
            inner,
            *target(22).ip(),
            false,
        ),
    ];
    for (description, answers, vip_arp, port, from, asked, answered) in cases {
        let own = if port == OUTSIDE {
            OUTSIDE_MAC
        } else {
            INSIDE_MAC
        };
        let mut rig = rig(answers, vip_arp);
        let input = question(from, asked);
        let (verdict, frame) = rig.try_send(port, input.clone());
        assert_eq!(frame, input, "{description}: the frame is left alone");
        if answered {
            assert_eq!(verdict, Verdict::Consumed, "{description}");
            let expected = vec![(port, answer(own, asked, from))];
            assert_eq!(rig.emitted(), expected, "{description}");
            assert_eq!(rig.worker_counts().neighbour_advertisements, 1);
        } else {
            assert_eq!(verdict, Verdict::Kernel, "{description}");
            assert!(rig.emitted().is_empty(), "{description}");
        }
    }
}

#[test]
fn a_probe_and_a_question_without_a_mac_are_answered_to_who_sent_them() {
    let mut rig = dual_stack();
    let from = (mac(21), *target(21).ip());
    for option in [Some((1, mac(21))), None] {
        rig.out.clear();
        let probe = ndp(SOLICITATION, (from.1, LOCAL_IP), 0, LOCAL_IP, option)
            .macs(from.0, INSIDE_MAC)
            .frame();
        assert_eq!(rig.try_send(INSIDE, probe).0, Verdict::Consumed);
        assert_eq!(
            rig.emitted(),
            [(INSIDE, answer(INSIDE_MAC, LOCAL_IP, from))]
        );
    }
}

/// RFC 4862 5.4.3, RFC 4861 7.2.4: everyone is told that the address is taken.
#[test]
fn a_probe_for_duplicates_of_our_addresses_is_answered_to_all() {
    let mut rig = dual_stack();
    let group = solicited_node(LOCAL_IP);
    let probe = ndp(SOLICITATION, (UNSPECIFIED, group), 0, LOCAL_IP, None)
        .macs(mac(9), group_mac(group))
        .frame();
    assert_eq!(rig.try_send(INSIDE, probe).0, Verdict::Consumed);
    let told = ndp(
        ADVERTISEMENT,
        (LOCAL_IP, ALL_NODES),
        OVERRIDE,
        LOCAL_IP,
        Some((2, INSIDE_MAC)),
    )
    .macs(INSIDE_MAC, group_mac(ALL_NODES))
    .frame();
    assert_eq!(rig.emitted(), [(INSIDE, told)]);
}

#[test]
fn what_rfc_4861_says_to_ignore_is_dropped() {
    let from = *target(21).ip();
    let group = solicited_node(LOCAL_IP);
    let asked = |source, to, option| ndp(SOLICITATION, (source, to), 0, LOCAL_IP, option);
    let told =
        |source, to, flags| ndp(ADVERTISEMENT, (source, to), flags, from, Some((2, mac(21))));
    let own = rig6::INSIDE_ADDRESS;
    let mac_option = Some((1, mac(21)));
    let cases = [
        ("hop limit", asked(from, group, mac_option).hop_limit(254)),
        (
            "code",
            asked(from, group, mac_option).with(|packet| {
                if let super::frame::Payload::Icmp(icmp) = &mut packet.payload {
                    icmp.code = 1;
                }
            }),
        ),
        ("a probe with a MAC", asked(UNSPECIFIED, group, mac_option)),
        (
            "a probe sent to the address",
            asked(UNSPECIFIED, LOCAL_IP, None),
        ),
        (
            "a group's MAC",
            asked(from, group, Some((1, MacAddr([0x33; 6])))),
        ),
        (
            "an option of no length",
            asked(from, group, None).with(|packet| {
                if let super::frame::Payload::Icmp(icmp) = &mut packet.payload {
                    icmp.data.extend([1, 0, 0, 0, 0, 0, 0, 0]);
                }
            }),
        ),
        (
            "a group asked for",
            ndp(SOLICITATION, (from, group), 0, ALL_NODES, mac_option),
        ),
        (
            "an advertisement of nobody",
            told(UNSPECIFIED, own, SOLICITED),
        ),
        (
            "an answer to everyone",
            told(from, ALL_NODES, SOLICITED | OVERRIDE),
        ),
        (
            "cut short",
            frame6::icmp(from, own, ADVERTISEMENT, 0, 0, &[0; 8]).hop_limit(255),
        ),
    ];
    for (description, packet) in cases {
        let mut rig = dual_stack();
        let frame = packet.macs(mac(21), INSIDE_MAC).frame();
        assert_eq!(
            rig.dropped(INSIDE, frame),
            DropReason::BadNdp,
            "{description}"
        );
        assert!(rig.emitted().is_empty(), "{description}");
    }
}

#[test]
fn local_ips_are_announced_when_they_are_new() {
    let mut rig = rig(true, false);
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    let announcement = ndp(
        ADVERTISEMENT,
        (LOCAL_IP, ALL_NODES),
        OVERRIDE,
        LOCAL_IP,
        Some((2, INSIDE_MAC)),
    )
    .macs(INSIDE_MAC, group_mac(ALL_NODES))
    .frame();
    let count = |rig: &Rig| {
        let emitted = rig.emitted();
        emitted
            .iter()
            .filter(|sent| **sent == (INSIDE, announcement.clone()))
            .count()
    };
    assert_eq!(count(&rig), 1);
    rig.out.clear();
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    assert_eq!(count(&rig), 0);
}

fn solicitation(port: PortIndex, asked: Ipv6Addr, known: Option<MacAddr>) -> (PortIndex, Vec<u8>) {
    let (own_mac, own) = match port {
        OUTSIDE => (OUTSIDE_MAC, rig6::OUTSIDE_ADDRESS),
        _ => (INSIDE_MAC, rig6::INSIDE_ADDRESS),
    };
    let group = solicited_node(asked);
    let (to, to_mac) = known.map_or((group, group_mac(group)), |mac| (asked, mac));
    let packet = ndp(SOLICITATION, (own, to), 0, asked, Some((1, own_mac)));
    (port, packet.macs(own_mac, to_mac).frame())
}

#[test]
fn next_hops_are_asked_for_and_frames_wait_for_them() {
    let mut rig = rig(true, false);
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    let emitted = rig.emitted();
    for asked in [
        solicitation(OUTSIDE, GATEWAY, None),
        solicitation(INSIDE, *target(21).ip(), None),
        solicitation(INSIDE, *target(22).ip(), None),
    ] {
        assert!(emitted.contains(&asked), "{asked:?}");
    }
    rig.out.clear();
    let query = frame6::udp(client(10, 5000), vip(53), b"query");
    assert_eq!(rig.try_send(OUTSIDE, from_client(&query)).0, Verdict::Held);
    for n in [21, 22] {
        let known = advertisement(INSIDE, *target(n).ip(), mac(n));
        assert_eq!(rig.try_send(INSIDE, known).0, Verdict::Consumed);
    }
    let released = rig.emitted();
    assert_eq!(released.len(), 1);
    let (port, frame) = &released[0];
    assert_eq!(*port, INSIDE);
    let n = frame[53];
    let expected =
        frame6::udp(rig6::local(rig6::source_port(frame)), target(n), b"query").hop_limit(63);
    assert_eq!(*frame, rig6::to_target(&expected, n));
}

/// Lets time pass, the timers running; what was sent.
fn pass(rig: &mut Rig, milliseconds: u64) -> Vec<(PortIndex, Vec<u8>)> {
    let mut sent = Vec::new();
    for _ in 0..milliseconds / 10 {
        rig.now.0 += 10 * MILLISECOND;
        rig.out.clear();
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        sent.extend(rig.emitted());
    }
    rig.worker.check_invariants();
    sent
}

#[test]
fn a_next_hop_in_use_is_confirmed_by_unicast_then_by_all_then_given_up() {
    let mut rig = dual_stack();
    let asked = *target(21).ip();
    let sent = pass(&mut rig, 37_000);
    let directly = solicitation(INSIDE, asked, Some(mac(21)));
    let widely = solicitation(INSIDE, asked, None);
    let count = |wanted| sent.iter().filter(|sent| **sent == wanted).count();
    assert_eq!(count(directly), 3);
    assert!(count(widely) >= 3);
    let unresolved = |rig: &Rig| {
        rig.events()
            .iter()
            .any(|event| matches!(event, Event::Unresolved { address, .. } if *address == asked))
    };
    let mut rig = dual_stack();
    let gave_up = (0..40).any(|_| {
        (0..100).any(|_| {
            pass(&mut rig, 10);
            unresolved(&rig)
        })
    });
    assert!(gave_up);
}

#[test]
fn advertisements_count_by_their_flags() {
    let other = mac(0x99);
    let hop = *target(21).ip();
    let own = rig6::INSIDE_ADDRESS;
    let told = |to, flags, option| ndp(ADVERTISEMENT, (hop, to), flags, hop, option);
    // Whether the next frame to the target goes to the other MAC.
    let cases = [
        (
            "an answer that overrides",
            told(own, SOLICITED | OVERRIDE, Some((2, other))),
            true,
        ),
        (
            "an answer that doesn't",
            told(own, SOLICITED, Some((2, other))),
            false,
        ),
        (
            "an answer without a MAC",
            told(own, SOLICITED | OVERRIDE, None),
            false,
        ),
        (
            "an announcement",
            told(ALL_NODES, OVERRIDE, Some((2, other))),
            true,
        ),
        (
            "a modest announcement",
            told(ALL_NODES, 0, Some((2, other))),
            false,
        ),
        (
            "told us unasked",
            told(own, OVERRIDE, Some((2, other))),
            false,
        ),
        (
            "told to someone else",
            told(*target(22).ip(), SOLICITED | OVERRIDE, Some((2, other))),
            false,
        ),
    ];
    for (description, packet, moved) in cases {
        let mut services = rig6::services();
        services[1].targets.truncate(1);
        let builder = rig6::builder(&rig6::ports(), &services);
        let mut rig = rig6::resolved(Rig::from(&rig::small(), &builder, 0, 1));
        let to = match packet.destination {
            ALL_NODES => group_mac(ALL_NODES),
            _ => INSIDE_MAC,
        };
        rig.try_send(INSIDE, packet.macs(other, to).frame());
        let query = frame6::udp(client(10, 5000), vip(53), b"query");
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&query));
        let expected = if moved { other } else { mac(21) };
        assert_eq!(sent[..6], expected.0, "{description}");
    }
}

#[test]
fn who_claims_an_address_of_ours_is_not_believed() {
    let mut rig = dual_stack();
    let claim = ndp(
        ADVERTISEMENT,
        (LOCAL_IP, ALL_NODES),
        OVERRIDE,
        LOCAL_IP,
        Some((2, mac(9))),
    )
    .macs(mac(9), group_mac(ALL_NODES))
    .frame();
    assert_eq!(rig.try_send(INSIDE, claim).0, Verdict::Kernel);
    let question = question((mac(9), LOCAL_IP), rig6::INSIDE_ADDRESS);
    assert_eq!(rig.try_send(INSIDE, question).0, Verdict::Kernel);
    assert!(rig.out.is_empty());
}

#[test]
fn a_client_on_the_segment_is_a_next_hop_itself() {
    let mut rig = dual_stack();
    let from = rig6::at("fd00:2::77".parse().unwrap(), 5000);
    let query = frame6::tcp(from, vip(80), SYN).macs(mac(0x77), OUTSIDE_MAC);
    let (_, sent) = rig.transmitted(OUTSIDE, query.frame());
    let answer = frame6::tcp(
        target(sent[53]),
        rig6::local(rig6::source_port(&sent)),
        SYN | 0x10,
    );
    rig.out.clear();
    let input = rig6::from_target(&answer, sent[53]);
    assert_eq!(rig.try_send(INSIDE, input).0, Verdict::Held);
    assert_eq!(rig.emitted(), [solicitation(OUTSIDE, *from.ip(), None)]);
    let known = advertisement(OUTSIDE, *from.ip(), mac(0x77));
    rig.out.clear();
    assert_eq!(rig.try_send(OUTSIDE, known).0, Verdict::Consumed);
    assert_eq!(rig.emitted()[0].1[..6], mac(0x77).0);
}
