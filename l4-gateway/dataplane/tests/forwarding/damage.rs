//! Damaged segments and datagrams: nothing of them is answered and none begins a flow; those of known flows pass with their damage.

use std::net::SocketAddr;

use dataplane::{DropReason, Event, Policy, PortIndex, Protocol, ServiceConfig, Verdict};

use super::frame::{self, ACK, PSH, Packet, Payload, RST, SYN, checksum, octets};
use super::net::{BOTH, Net};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, SECOND, from_client, from_target, to_client, to_target,
};

/// Where the checksum is in a segment or datagram.
fn field(packet: &Packet) -> usize {
    match packet.payload {
        Payload::Tcp(_) => 16,
        _ => 6,
    }
}

/// With a bit of the last byte changed: data, if there is any.
fn damaged(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    *packet.raw_mut().last_mut().unwrap() ^= 1;
    packet
}

/// As a sender leaves it to its NIC: with the sum of the pseudo header for a checksum (Linux: `CHECKSUM_PARTIAL`).
fn unfinished(packet: &Packet) -> Packet {
    let at = field(packet);
    let (protocol, bytes) = packet.transport();
    let mut summed = [octets(packet.source), octets(packet.destination)].concat();
    summed.extend((bytes.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, protocol]);
    let mut packet = packet.clone();
    packet.raw_mut()[at..at + 2].copy_from_slice(&(!checksum(&summed)).to_be_bytes());
    packet
}

/// Packets that are answered if they are whole, each with what they are dropped for if not.
fn answered(net: Net) -> Vec<(&'static str, PortIndex, Packet, DropReason)> {
    let from = net.client(10, 4000);
    let bad = DropReason::BadTransportChecksum;
    let long = vec![7; 1500 - net.ip_header() - 20];
    vec![
        (
            "a SYN nobody serves",
            OUTSIDE,
            frame::tcp(from, net.vip(81), SYN),
            bad,
        ),
        (
            "an ACK of no flow",
            OUTSIDE,
            frame::tcp(from, net.vip(80), ACK).seq(7, 9),
            bad,
        ),
        (
            "data of no flow, an odd number of bytes",
            OUTSIDE,
            frame::tcp(from, net.vip(80), ACK | PSH)
                .seq(7, 9)
                .data(b"hello"),
            bad,
        ),
        (
            "a datagram nobody serves",
            OUTSIDE,
            frame::udp(from, net.vip(54), b"query"),
            bad,
        ),
        (
            "an answer to no port of ours",
            INSIDE,
            frame::tcp(net.target(21, 8080), net.local(4242), SYN | ACK).seq(1, 2),
            bad,
        ),
        (
            "a datagram to no port of ours",
            INSIDE,
            frame::udp(net.target(21, 8080), net.local(4242), b"late"),
            bad,
        ),
        (
            "one whose hops run out",
            OUTSIDE,
            frame::udp(from, net.vip(53), b"traceroute").ttl(1),
            DropReason::TtlExpired,
        ),
        (
            "one too long for the next link",
            OUTSIDE,
            frame::tcp(net.client(11, 4000), net.vip(80), ACK)
                .seq(1001, 9001)
                .data(&long),
            DropReason::TooBig,
        ),
    ]
}

/// A node whose link to the targets takes 1400 bytes, with one connection.
fn node(net: Net) -> Rig {
    let mut ports = net.ports();
    ports[1].mtu = 1400;
    let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
    rig.establish(net.client(11, 4000), 1000);
    rig.out.clear();
    rig
}

fn frame(port: PortIndex, packet: &Packet) -> Vec<u8> {
    match port {
        OUTSIDE => from_client(packet),
        _ => from_target(packet, 21),
    }
}

#[test]
fn nothing_damaged_is_answered() {
    for net in BOTH {
        for (description, port, packet, reason) in answered(net) {
            // That it would be.
            let mut rig = node(net);
            let (verdict, _) = rig.try_send(port, frame(port, &packet));
            let answers =
                usize::from(matches!(verdict, Verdict::Transmit(_))) + rig.emitted().len();
            assert_eq!(answers, 1, "{description}, {net:?}");
            for spoilt in [damaged(&packet), unfinished(&packet)] {
                let mut rig = node(net);
                assert_eq!(
                    rig.dropped(port, frame(port, &spoilt)),
                    reason,
                    "{description}"
                );
                assert!(rig.out.is_empty(), "{description}");
                let counts = rig.worker_counts();
                assert_eq!((counts.resets_sent, counts.icmp_errors_sent), (0, 0));
                assert_eq!(
                    (counts.segments_unserved, counts.icmp_errors_suppressed),
                    (0, 0)
                );
                assert_eq!(rig.flow_count(), 1, "{description}");
            }
        }
    }
}

#[test]
fn a_bit_changed_anywhere_is_found() {
    for net in BOTH {
        for packet in [
            frame::tcp(net.client(100, 4000), net.vip(80), ACK)
                .seq(7, 9)
                .data(b"odd"),
            frame::udp(net.client(100, 4000), net.vip(54), b"even"),
        ] {
            let whole = from_client(&packet);
            let transport = 14 + net.ip_header();
            // The addresses too, where no other checksum has them.
            let begin = if net == Net::V6 { 22 } else { transport };
            for at in begin..whole.len() {
                for bit in 0..8 {
                    let mut spoilt = whole.clone();
                    spoilt[at] ^= 1 << bit;
                    let mut rig = node(net);
                    let (verdict, _) = rig.try_send(OUTSIDE, spoilt);
                    assert!(
                        matches!(verdict, Verdict::Drop(_) | Verdict::Kernel),
                        "byte {at} bit {bit}: {verdict:?}"
                    );
                    assert!(rig.emitted().is_empty(), "byte {at} bit {bit}");
                    assert_eq!(rig.flow_count(), 1, "byte {at} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_is_whole_over_ipv4() {
    let net = Net::V4;
    let mut rig = node(net);
    let unchecked = |port| {
        frame::udp(net.client(10, 4000), net.vip(port), b"query").with(|packet| {
            if let Payload::Udp(udp) = &mut packet.payload {
                udp.unchecked = true;
            }
        })
    };
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&unchecked(54))),
        DropReason::NoService
    );
    assert_eq!(rig.emitted().len(), 1);
    let (port, _) = rig.outside(&unchecked(53));
    assert_eq!((port, rig.flow_count()), (INSIDE, 2));
}

/// IP may carry more than the datagram, and the link more than IP.
#[test]
fn what_is_behind_a_datagram_is_not_summed() {
    for net in BOTH {
        let mut rig = node(net);
        for port in [53, 54] {
            let mut packet = frame::udp(net.client(10, 4000), net.vip(port), b"query");
            let (protocol, mut bytes) = packet.transport();
            bytes.extend([0xaa; 7]);
            packet.payload = Payload::Raw(protocol, bytes);
            let mut input = from_client(&packet);
            input.extend([0xbb; 9]);
            match port {
                53 => assert_eq!(rig.transmitted(OUTSIDE, input).0, INSIDE),
                _ => assert_eq!(rig.dropped(OUTSIDE, input), DropReason::NoService),
            }
        }
        assert_eq!(rig.emitted().len(), 1, "{net:?}");
    }
}

#[test]
fn no_flow_begins_damaged() {
    for net in BOTH {
        for packet in [
            frame::tcp(net.client(10, 4000), net.vip(80), SYN).seq(7, 0),
            frame::udp(net.client(10, 4000), net.vip(53), b"query"),
        ] {
            let mut rig = node(net);
            for spoilt in [damaged(&packet), unfinished(&packet)] {
                let reason = rig.dropped(OUTSIDE, from_client(&spoilt));
                assert_eq!(reason, DropReason::BadTransportChecksum);
            }
            assert!(rig.out.is_empty() && rig.flow_count() == 1);
            assert_eq!(rig.outside(&packet).0, INSIDE);
        }
        // Of one-packet scheduling neither; to a target that has a flow already, damage passes.
        let mut log = ServiceConfig::new(net.vip_ip(), Protocol::Udp, 53);
        log.targets = vec![rig::up(net.target(21, 8080))];
        log.policy = Policy {
            one_packet: true,
            ..Policy::default()
        };
        let mut rig = Rig::serving(net, &rig::small(), &[log]).resolved();
        let query = frame::udp(net.client(10, 4000), net.vip(53), b"query");
        let reason = rig.dropped(OUTSIDE, from_client(&damaged(&query)));
        assert_eq!(
            (reason, rig.flow_count()),
            (DropReason::BadTransportChecksum, 0)
        );
        rig.outside(&query);
        assert_eq!(rig.outside(&damaged(&query)).0, INSIDE);
    }
}

#[test]
fn damage_in_a_known_flow_is_its_ends_to_see() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        let target = net.target(opened.target, 8080);
        let sent = frame::tcp(net.client(10, 4000), net.vip(80), ACK)
            .seq(1001, 9001)
            .data(b"data");
        let seen = frame::tcp(net.local(opened.local_port), target, ACK)
            .seq(1001u32.wrapping_add(opened.shift), 9001)
            .data(b"data")
            .ttl(63);
        let got = rig.outside(&damaged(&sent));
        assert_eq!(got, (INSIDE, to_target(&damaged(&seen), opened.target)));
    }
}

/// The connection that is over stays until a whole SYN comes for its port.
#[test]
fn a_damaged_syn_takes_no_flow_s_place() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        rig.from_client(&opened, RST, 1001, 9001);
        let before = rig.worker_counts();
        let syn = frame::tcp(net.client(10, 4000), net.vip(80), SYN).seq(5000, 0);
        let reason = rig.dropped(OUTSIDE, from_client(&damaged(&syn)));
        assert_eq!(reason, DropReason::BadTransportChecksum);
        let after = rig.worker_counts();
        assert_eq!(after.flows_rescheduled, before.flows_rescheduled);
        assert_eq!(after.flows_active, 1);
        rig.outside(&syn);
        assert_eq!(
            rig.worker_counts().flows_rescheduled,
            before.flows_rescheduled + 1
        );
    }
}

/// The checksum is of the whole packet, which nobody puts together here.
#[test]
fn a_damaged_datagram_leaves_no_target_that_is_cut() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let whole = frame::udp(net.client(10, 5000), net.vip(53), b"query");
        rig.outside(&whole);
        let mut services = net.services();
        for service in &mut services {
            service.targets[0].cut = true;
        }
        rig.swap(&services);
        let (verdict, _) = rig.try_send(OUTSIDE, from_client(&damaged(&whole)));
        assert_eq!(verdict, Verdict::Drop(DropReason::BadTransportChecksum));
        let created = |rig: &Rig| rig.service_counts(53, Protocol::Udp).flows_created;
        assert_eq!((created(&rig), rig.flow_count()), (1, 1));
        assert_eq!(frame::target_of(&rig.outside(&whole).1), 22);
        assert_eq!(created(&rig), 2);
    }
}

#[test]
fn a_first_fragment_is_refused_by_what_is_in_it() {
    for net in BOTH {
        let mut rig = node(net);
        let long = frame::udp(net.client(10, 4000), net.vip(54), &[7; 80]);
        let parts = long.cut(5, &[40]);
        let reason = rig.dropped(OUTSIDE, from_client(&parts[0]));
        assert_eq!(reason, DropReason::NoService);
        let (kind, code) = net.port_unreachable();
        let client: SocketAddr = net.client(10, 4000);
        let error = frame::icmp(net.vip_ip(), client.ip(), kind, code, 0, &parts[0].ip());
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
    }
}

#[test]
fn checksums_that_nobody_finished_are_reported_and_so_is_a_storm_of_wrong_ones() {
    for net in BOTH {
        let wrong = Event::WrongChecksums { port: OUTSIDE };
        let syn = frame::tcp(net.client(10, 4000), net.vip(80), SYN);
        let mut rig = node(net);
        for expected in [&[][..], &[], &[wrong]] {
            rig.dropped(OUTSIDE, from_client(&unfinished(&syn)));
            assert_eq!(rig.events(), expected);
            rig.now.0 += 2 * SECOND;
        }
        // Damage is bad luck as long as it is rare.
        let mut rig = node(net);
        for second in 0..3 {
            for _ in 0..99 {
                rig.dropped(OUTSIDE, from_client(&damaged(&syn)));
            }
            assert!(rig.events().is_empty(), "second {second}");
            rig.now.0 += SECOND;
        }
        for _ in 0..300 {
            rig.dropped(OUTSIDE, from_client(&damaged(&syn)));
        }
        assert_eq!(rig.events(), [wrong], "once a second at most");
    }
}

/// Each costs no more than it would get: what is beyond the limit is neither answered nor summed.
#[test]
fn a_flood_of_what_would_be_answered_is_summed_at_the_rate_of_answers() {
    for net in BOTH {
        let from = net.client(10, 4000);
        let most = u64::from(rig::small().icmp_errors_per_second);
        for packet in [
            frame::udp(from, net.vip(54), b"query"),
            frame::udp(from, net.vip(53), b"traceroute").ttl(1),
        ] {
            let mut rig = node(net);
            for _ in 0..most {
                rig.try_send(OUTSIDE, from_client(&packet));
            }
            assert_eq!(rig.emitted().len() as u64, most);
            // The third unfinished sum that is seen is told of.
            for _ in 0..3 {
                rig.try_send(OUTSIDE, from_client(&unfinished(&packet)));
                rig.now.0 += rig::MILLISECOND;
            }
            assert!(rig.events().is_empty(), "{packet:?}");
            assert_eq!(rig.worker_counts().icmp_errors_suppressed, 3);
            rig.now.0 += SECOND;
            for _ in 0..3 {
                rig.try_send(OUTSIDE, from_client(&unfinished(&packet)));
            }
            assert_eq!(rig.events().len(), 1, "they are told of, being seen");
        }
    }
}
