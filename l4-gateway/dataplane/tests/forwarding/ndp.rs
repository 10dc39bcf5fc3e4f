//! Neighbour discovery: solicitations answered, next hops found and kept.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use dataplane::{DropReason, Event, MacAddr, PortIndex, Verdict};

use super::frame::{self, SYN, mac, ndp};
use super::net::{self, ALL_NODES, Net::V6, both_ports, solicited_node};
use super::rig::{
    self, INSIDE, INSIDE_MAC, MILLISECOND, OUTSIDE, OUTSIDE_MAC, ROUTER_MAC, Rig, from_client,
};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const UNSPECIFIED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The MAC of a multicast address (RFC 2464 7).
fn group_mac(address: IpAddr) -> MacAddr {
    let [.., a, b, c, d] = net::v6(address).octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// A question for an address, as everyone on the segment gets it.
pub fn question(from: (MacAddr, IpAddr), asked: IpAddr) -> Vec<u8> {
    let group = solicited_node(asked);
    ndp(SOLICITATION, (from.1, group), 0, asked, Some((1, from.0)))
        .macs(from.0, group_mac(group))
        .frame()
}

/// What we answer to `to`.
pub fn answer(own: MacAddr, asked: IpAddr, to: (MacAddr, IpAddr)) -> Vec<u8> {
    let flags = SOLICITED | OVERRIDE;
    ndp(ADVERTISEMENT, (asked, to.1), flags, asked, Some((2, own)))
        .macs(own, to.0)
        .frame()
}

/// How everyone is told of an address.
pub fn announcement(own: MacAddr, address: IpAddr) -> Vec<u8> {
    let option = Some((2, own));
    ndp(
        ADVERTISEMENT,
        (address, ALL_NODES),
        OVERRIDE,
        address,
        option,
    )
    .macs(own, group_mac(ALL_NODES))
    .frame()
}

fn onlink_vip() -> IpAddr {
    "fd00:2::100".parse().unwrap()
}

fn rig(answers: bool, vip_arp: bool) -> Rig {
    let mut services = V6.services();
    let mut onlink = services[0].clone();
    (onlink.vip, onlink.arp) = (onlink_vip(), vip_arp);
    services.push(onlink);
    let mut ports = both_ports();
    for port in &mut ports {
        port.answers = answers;
    }
    Rig::from(&rig::small(), &rig::builder(&ports, &services), 0, 1)
}

#[test]
fn solicitations_are_answered_where_the_address_belongs() {
    let inner = (mac(21), V6.target_ip(21));
    let link_local = (mac(5), "fe80::5".parse().unwrap());
    let outer = (ROUTER_MAC, V6.gateway());
    type Asker = (MacAddr, IpAddr);
    let cases: [(&str, bool, bool, PortIndex, Asker, IpAddr, bool); 10] = [
        ("a LocalIP", true, true, INSIDE, inner, V6.local_ip(), true),
        (
            "asked by a link-local address",
            true,
            true,
            INSIDE,
            link_local,
            V6.local_ip(),
            true,
        ),
        (
            "a LocalIP on the other port",
            true,
            true,
            OUTSIDE,
            outer,
            V6.local_ip(),
            false,
        ),
        (
            "the port's address",
            true,
            true,
            OUTSIDE,
            outer,
            V6.outside_address(),
            true,
        ),
        (
            "which the kernel holds",
            false,
            true,
            OUTSIDE,
            outer,
            V6.outside_address(),
            false,
        ),
        (
            "the other port's address",
            true,
            true,
            OUTSIDE,
            outer,
            V6.inside_address(),
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
            V6.vip_ip(),
            false,
        ),
        (
            "another host",
            true,
            true,
            INSIDE,
            inner,
            V6.target_ip(22),
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
    let mut rig = Rig::both().speaking(V6);
    let from = (mac(21), V6.target_ip(21));
    for option in [Some((1, mac(21))), None] {
        rig.out.clear();
        let probe = ndp(
            SOLICITATION,
            (from.1, V6.local_ip()),
            0,
            V6.local_ip(),
            option,
        )
        .macs(from.0, INSIDE_MAC)
        .frame();
        assert_eq!(rig.try_send(INSIDE, probe).0, Verdict::Consumed);
        assert_eq!(
            rig.emitted(),
            [(INSIDE, answer(INSIDE_MAC, V6.local_ip(), from))]
        );
    }
}

/// RFC 4862 5.4.3, RFC 4861 7.2.4: everyone is told that the address is taken.
#[test]
fn a_probe_for_duplicates_of_our_addresses_is_answered_to_all() {
    let mut rig = Rig::both().speaking(V6);
    let group = solicited_node(V6.local_ip());
    let probe = ndp(SOLICITATION, (UNSPECIFIED, group), 0, V6.local_ip(), None)
        .macs(mac(9), group_mac(group))
        .frame();
    assert_eq!(rig.try_send(INSIDE, probe).0, Verdict::Consumed);
    let told = announcement(INSIDE_MAC, V6.local_ip());
    assert_eq!(rig.emitted(), [(INSIDE, told)]);
}

#[test]
fn what_rfc_4861_says_to_ignore_is_dropped() {
    let from = V6.target_ip(21);
    let group = solicited_node(V6.local_ip());
    let asked = |source, to, option| ndp(SOLICITATION, (source, to), 0, V6.local_ip(), option);
    let told =
        |source, to, flags| ndp(ADVERTISEMENT, (source, to), flags, from, Some((2, mac(21))));
    let own = V6.inside_address();
    let mac_option = Some((1, mac(21)));
    let cases = [
        ("hop limit", asked(from, group, mac_option).ttl(254)),
        (
            "code",
            asked(from, group, mac_option).with(|packet| {
                if let frame::Payload::Icmp(icmp) = &mut packet.payload {
                    icmp.code = 1;
                }
            }),
        ),
        ("a probe with a MAC", asked(UNSPECIFIED, group, mac_option)),
        (
            "a probe sent to the address",
            asked(UNSPECIFIED, V6.local_ip(), None),
        ),
        (
            "a group's MAC",
            asked(from, group, Some((1, MacAddr([0x33; 6])))),
        ),
        (
            "an option of no length",
            asked(from, group, None).with(|packet| {
                if let frame::Payload::Icmp(icmp) = &mut packet.payload {
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
            frame::icmp(from, own, ADVERTISEMENT, 0, 0, &[0; 8]).ttl(255),
        ),
    ];
    for (description, packet) in cases {
        let mut rig = Rig::both().speaking(V6);
        let frame = packet.macs(mac(21), INSIDE_MAC).frame();
        assert_eq!(
            rig.dropped(INSIDE, frame),
            DropReason::BadNdp,
            "{description}"
        );
        assert!(rig.emitted().is_empty(), "{description}");
    }
}

pub fn solicitation(
    port: PortIndex,
    asked: IpAddr,
    known: Option<MacAddr>,
) -> (PortIndex, Vec<u8>) {
    let (own_mac, own) = match port {
        OUTSIDE => (OUTSIDE_MAC, V6.outside_address()),
        _ => (INSIDE_MAC, V6.inside_address()),
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
        solicitation(OUTSIDE, V6.gateway(), None),
        solicitation(INSIDE, V6.target_ip(21), None),
        solicitation(INSIDE, V6.target_ip(22), None),
    ] {
        assert!(emitted.contains(&asked), "{asked:?}");
    }
    rig.out.clear();
    let query = frame::udp(V6.client(10, 5000), V6.vip(53), b"query");
    assert_eq!(rig.try_send(OUTSIDE, from_client(&query)).0, Verdict::Held);
    for n in [21, 22] {
        let known = rig::answer(INSIDE, V6.target_ip(n), mac(n));
        assert_eq!(rig.try_send(INSIDE, known).0, Verdict::Consumed);
    }
    let released = rig.emitted();
    assert_eq!(released.len(), 1);
    let (port, frame) = &released[0];
    assert_eq!(*port, INSIDE);
    let n = frame::target_of(frame);
    let expected = frame::udp(
        V6.local(frame::source_port(frame)),
        V6.target(n, 8080),
        b"query",
    )
    .ttl(63);
    assert_eq!(*frame, rig::to_target(&expected, n));
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
    let mut rig = Rig::both().speaking(V6);
    let asked = V6.target_ip(21);
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
    let mut rig = Rig::both().speaking(V6);
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
    let hop = V6.target_ip(21);
    let own = V6.inside_address();
    let told = |to, flags, option| ndp(ADVERTISEMENT, (hop, to), flags, hop, option);
    // Whether frames to the target go to the other MAC, once the one in use has not answered.
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
            told(V6.target_ip(22), SOLICITED | OVERRIDE, Some((2, other))),
            false,
        ),
    ];
    for (description, packet, moved) in cases {
        let mut services = V6.services();
        services[1].targets.truncate(1);
        let builder = rig::builder(&both_ports(), &services);
        let mut rig = Rig::from(&rig::small(), &builder, 0, 1)
            .resolved()
            .speaking(V6);
        let to = match packet.destination {
            ALL_NODES => group_mac(ALL_NODES),
            _ => INSIDE_MAC,
        };
        rig.try_send(INSIDE, packet.macs(other, to).frame());
        rig.outlast_contest();
        let query = frame::udp(V6.client(10, 5000), V6.vip(53), b"query");
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&query));
        let expected = if moved { other } else { mac(21) };
        assert_eq!(sent[..6], expected.0, "{description}");
    }
}

#[test]
fn a_client_on_the_segment_is_a_next_hop_itself() {
    let mut rig = Rig::both().speaking(V6);
    let from = SocketAddr::new("fd00:2::77".parse().unwrap(), 5000);
    let query = frame::tcp(from, V6.vip(80), SYN).macs(mac(0x77), OUTSIDE_MAC);
    let (_, sent) = rig.transmitted(OUTSIDE, query.frame());
    let answer = frame::tcp(
        V6.target(frame::target_of(&sent), 8080),
        V6.local(frame::source_port(&sent)),
        SYN | 0x10,
    );
    rig.out.clear();
    let input = rig::from_target(&answer, frame::target_of(&sent));
    assert_eq!(rig.try_send(INSIDE, input).0, Verdict::Held);
    assert_eq!(rig.emitted(), [solicitation(OUTSIDE, from.ip(), None)]);
    let known = rig::answer(OUTSIDE, from.ip(), mac(0x77));
    rig.out.clear();
    assert_eq!(rig.try_send(OUTSIDE, known).0, Verdict::Consumed);
    assert_eq!(rig.emitted()[0].1[..6], mac(0x77).0);
}
