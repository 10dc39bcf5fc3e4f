//! Fragments follow their first; packets too long for a link are cut.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::{Counters, DropReason, Limits, PortIndex, Protocol, ServiceConfig, Verdict};

use super::frame::{ACK, FIN, Packet, SYN, icmp, mac, source_port, tcp, udp};
use super::net::{BOTH, Net, both_ports, one_target};
use super::rig::{
    self, INSIDE, MILLISECOND, OUTSIDE, Rig, SECOND, from_client, from_target, small, to_client,
    to_target,
};

const DATA: [u8; 100] = {
    let mut data = [0; 100];
    let mut at = 0;
    while at < 100 {
        data[at] = at as u8;
        at += 1;
    }
    data
};

fn node() -> Rig {
    rig::node(&small(), &both_ports(), &one_target(8080))
}

/// The identification of a fragment that was sent.
fn id(net: Net, frame: &[u8]) -> u32 {
    match net {
        Net::V4 => u16::from_be_bytes(frame[18..20].try_into().unwrap()).into(),
        Net::V6 => u32::from_be_bytes(frame[58..62].try_into().unwrap()),
    }
}

/// Source port in a first fragment.
fn port(net: Net, frame: &[u8]) -> u16 {
    let at = 14 + net.ip_header() + if net == Net::V6 { 8 } else { 0 };
    u16::from_be_bytes(frame[at..at + 2].try_into().unwrap())
}

/// Sends fragments in this order; those that were transmitted at once or released, in the order they left.
fn through(rig: &mut Rig, from: PortIndex, fragments: &[&Packet]) -> Vec<(PortIndex, Vec<u8>)> {
    let mut out = Vec::new();
    for fragment in fragments {
        let frame = if from == OUTSIDE {
            from_client(fragment)
        } else {
            from_target(fragment, 21)
        };
        match rig.try_send(from, frame) {
            (Verdict::Transmit(port), frame) => out.push((port, frame)),
            (Verdict::Held, _) => {}
            (verdict, _) => panic!("{verdict:?} on {fragment:?}"),
        }
        out.extend(rig.emitted());
        rig.out.clear();
    }
    out
}

#[test]
fn fragments_of_a_datagram_follow_the_first_both_ways_in_whatever_order() {
    for net in BOTH {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let mut rig = node();
            let (client, vip) = (net.client(7, 5000), net.vip(53));
            let query = udp(client, vip, &DATA);
            let parts = query.cut(77, &[24, 56]);
            let sent = through(&mut rig, OUTSIDE, &order.map(|n| &parts[n]));
            // The first goes first, then those that waited, in the order they came.
            let mut expected_order = order.to_vec();
            let first = order.iter().position(|n| *n == 0).unwrap();
            expected_order[..=first].rotate_right(1);
            let local = net.local(port(net, &sent[0].1));
            let number = id(net, &sent[0].1);
            assert_ne!(number, 77, "behind the LocalIP another's packet may be 77");
            let there = udp(local, net.target(21, 8080), &DATA).ttl(63);
            let there = there.cut(number, &[24, 56]);
            let expected: Vec<_> = expected_order
                .iter()
                .map(|n| (INSIDE, to_target(&there[*n], 21)))
                .collect();
            assert_eq!(sent, expected, "{net:?} {order:?}");

            let answer = udp(net.target(21, 8080), local, &DATA);
            let parts = answer.cut(4, &[24, 56]);
            let sent = through(&mut rig, INSIDE, &order.map(|n| &parts[n]));
            let number = id(net, &sent[0].1);
            let back = udp(vip, client, &DATA).ttl(63).cut(number, &[24, 56]);
            let expected: Vec<_> = expected_order
                .iter()
                .map(|n| (OUTSIDE, to_client(&back[*n])))
                .collect();
            assert_eq!(sent, expected, "{net:?} {order:?} back");

            let counts = rig.counters.service(service(&rig, net, Protocol::Udp));
            assert_eq!((counts.packets_in, counts.packets_out), (3, 3));
            assert_eq!(rig.flow_count(), 1);
            let held = order[..first].len() as u64 * 2;
            assert_eq!(rig.worker_counts().held, held);
            assert_eq!(rig.worker_counts().early_fragments_dropped, 0);
        }
    }
}

fn service(rig: &Rig, net: Net, protocol: Protocol) -> dataplane::ServiceId {
    let services = rig.tables.services();
    let is = |config: &ServiceConfig| config.vip == net.vip_ip() && config.protocol == protocol;
    services
        .into_iter()
        .find(|service| is(&service.config))
        .unwrap()
        .id
}

#[test]
fn fragments_of_a_segment_keep_numbers_and_checksum_right() {
    for net in BOTH {
        let mut rig = node();
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        let (_, syn) = rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1000, 0)));
        let local = net.local(source_port(&syn));
        let at = 14 + net.ip_header() + 4;
        let shift = u32::from_be_bytes(syn[at..at + 4].try_into().unwrap()).wrapping_sub(1000);
        let segment = tcp(client, vip, ACK).seq(1001, 9001).data(&DATA);
        let parts = segment.cut(5, &[40]);
        let sent = through(&mut rig, OUTSIDE, &[&parts[1], &parts[0]]);
        let number = id(net, &sent[0].1);
        let target = net.target(21, 8080);
        let there = tcp(local, target, ACK)
            .seq(1001u32.wrapping_add(shift), 9001)
            .data(&DATA)
            .ttl(63)
            .cut(number, &[40]);
        let expected = there.iter().map(|part| (INSIDE, to_target(part, 21)));
        assert_eq!(sent, expected.collect::<Vec<_>>(), "{net:?}");
    }
}

#[test]
fn a_fin_in_fragments_leaves_the_next_connection_a_number_above_its_end() {
    // How long the segment is, only its last fragment says; its last sequence number is at most 64 KiB on.
    let net = Net::V4;
    let mut limits = small();
    (limits.first_port, limits.last_port) = (2000, 2000);
    let mut rig = rig::node(&limits, &both_ports(), &one_target(8080));
    let (client, vip) = (net.client(7, 5000), net.vip(80));
    let number = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().unwrap());
    let (_, syn) = rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(0, 0)));
    let shift = number(&syn);
    let (local, target) = (net.local(source_port(&syn)), net.target(21, 8080));
    let answer = tcp(target, local, SYN | ACK).seq(0, shift.wrapping_add(1));
    rig.transmitted(INSIDE, from_target(&answer, 21));
    let long = tcp(client, vip, FIN | ACK).seq(1, 1).data(&[0; 20_000]);
    let parts = long.cut(9, &[1400]);
    through(&mut rig, OUTSIDE, &[&parts[0]]);
    let end = tcp(target, local, FIN | ACK).seq(1, shift.wrapping_add(1));
    rig.transmitted(INSIDE, from_target(&end, 21));
    let (_, syn) = rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(7, 0)));
    let above = number(&syn).wrapping_sub(shift.wrapping_add(20_002)) as i32;
    assert!(above >= 0, "{above}");
}

#[test]
fn early_fragments_are_dropped_when_their_first_does_not_come_or_is_refused() {
    for net in BOTH {
        let mut rig = node();
        let query = udp(net.client(7, 5000), net.vip(53), &DATA);
        let parts = query.cut(1, &[24, 56]);
        let held = rig.try_send(OUTSIDE, from_client(&parts[1]));
        assert_eq!(held.0, Verdict::Held);
        rig.now.0 += 250 * MILLISECOND;
        for _ in 0..20 {
            rig.now.0 += MILLISECOND;
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        }
        assert_eq!(rig.worker_counts().early_fragments_dropped, 1);
        rig.out.clear();
        // The first alone opens the flow, and those that follow it go on.
        assert_eq!(through(&mut rig, OUTSIDE, &[&parts[0], &parts[2]]).len(), 2);

        // Nobody serves port 54: the first is answered, the others are dropped without a word.
        rig.out.clear();
        let stray = udp(net.client(7, 5000), net.vip(54), &DATA);
        let parts = stray.cut(2, &[24, 56]);
        assert_eq!(
            rig.try_send(OUTSIDE, from_client(&parts[1])).0,
            Verdict::Held
        );
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&parts[0])),
            DropReason::NoService
        );
        assert_eq!(rig.emitted().len(), 1, "one ICMP error");
        assert_eq!(rig.worker_counts().early_fragments_dropped, 2);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&parts[2])),
            DropReason::NoFlow
        );
        assert_eq!(rig.emitted().len(), 1);
    }
}

#[test]
fn malformed_fragments_are_dropped_for_their_own_reason() {
    for net in BOTH {
        let query = udp(net.client(7, 5000), net.vip(53), &DATA);
        let segment = tcp(net.client(7, 5000), net.vip(80), SYN)
            .seq(1, 0)
            .data(&DATA);
        let parts = query.cut(1, &[24, 56]);
        let first = &parts[0];
        type Case<'a> = (&'a str, Vec<&'a Packet>, Packet, DropReason);
        let cases: Vec<Case<'_>> = vec![
            (
                "not cut at eights",
                vec![],
                query.part(1, 0..28, true),
                DropReason::BadFragment,
            ),
            (
                "empty",
                vec![first],
                query.part(1, 24..24, true),
                DropReason::BadFragment,
            ),
            (
                "beyond the longest packet",
                vec![],
                segment.part(1, 8..16, false).with(|part| match net {
                    Net::V4 => part.fragment = 0x1fff,
                    Net::V6 => part.extensions[0].1[1..3].copy_from_slice(&[0xff, 0xf8]),
                }),
                DropReason::BadFragment,
            ),
            (
                "a tiny first fragment of TCP",
                vec![],
                segment.part(1, 0..16, true),
                DropReason::BadTcp,
            ),
            (
                "UDP of a length below its header",
                vec![],
                query.part(1, 0..24, true).with(|part| {
                    part.raw_mut()[4..6].copy_from_slice(&[0, 7]);
                }),
                DropReason::BadUdp,
            ),
            (
                "over the first's header",
                vec![first],
                query.part(1, 8..32, true),
                DropReason::FragmentOverlap,
            ),
            (
                "a second first",
                vec![first],
                first.clone(),
                DropReason::FragmentOverlap,
            ),
            (
                "one twice",
                vec![first, &parts[1]],
                parts[1].clone(),
                DropReason::FragmentOverlap,
            ),
            (
                "a first over one that waits",
                vec![&parts[1]],
                query.part(1, 0..32, true),
                DropReason::FragmentOverlap,
            ),
            (
                "behind the end",
                vec![first, &parts[2]],
                query.part(1, 56..64, true).with(|part| match net {
                    Net::V4 => part.fragment += 16,
                    Net::V6 => part.extensions[0].1[2] += 128,
                }),
                DropReason::FragmentOverlap,
            ),
            (
                "ICMP that is no echo request",
                vec![],
                icmp(net.client(7, 0).ip(), net.vip_ip(), 13, 0, 0, &DATA).part(1, 0..24, true),
                DropReason::Fragment,
            ),
        ];
        for (what, before, bad, reason) in cases {
            let mut rig = node();
            through(&mut rig, OUTSIDE, &before);
            rig.out.clear();
            assert_eq!(
                rig.dropped(OUTSIDE, from_client(&bad)),
                reason,
                "{net:?}: {what}"
            );
            assert!(rig.emitted().is_empty(), "{net:?}: {what}");
        }
    }
}

#[test]
fn fragments_to_others_are_the_kernels() {
    for net in BOTH {
        let mut rig = node();
        let to = SocketAddr::new(net.outside_address(), 53);
        let parts = udp(net.client(7, 5000), to, &DATA).cut(1, &[24]);
        for part in &parts {
            let frame = from_client(part);
            assert_eq!(
                rig.try_send(OUTSIDE, frame.clone()),
                (Verdict::Kernel, frame)
            );
        }
    }
}

#[test]
fn an_ipv6_packet_in_one_fragment_is_whole() {
    let net = Net::V6;
    let mut rig = node();
    let query = udp(net.client(7, 5000), net.vip(53), &DATA);
    // RFC 6946: at the same time as a packet in several of the same number.
    let parts = query.cut(1, &[24]);
    through(&mut rig, OUTSIDE, &[&parts[0]]);
    let atomic = query.part(1, 0..8 + DATA.len(), false);
    let (port, sent) = rig.transmitted(OUTSIDE, from_client(&atomic));
    let local = net.local(u16::from_be_bytes([sent[62], sent[63]]));
    let there = udp(local, net.target(21, 8080), &DATA).ttl(63);
    let expected = there.part(1, 0..8 + DATA.len(), false);
    assert_eq!((port, sent), (INSIDE, to_target(&expected, 21)));
}

#[test]
fn a_flood_of_fragments_leaves_memory_bounded_and_whole_packets_alone() {
    for net in BOTH {
        let limits = Limits {
            fragmented_packets: 8,
            early_fragments: 4,
            ..small()
        };
        let mut rig = rig::node(&limits, &both_ports(), &one_target(8080));
        let whole = udp(net.client(7, 5000), net.vip(53), &DATA);
        rig.transmitted(OUTSIDE, from_client(&whole));
        let stray = udp(net.client(8, 5000), net.vip(53), &DATA);
        let (mut held, mut refused) = (0, 0);
        for n in 0..1000 {
            let part = stray.part(n, 24..56, true);
            match rig.try_send(OUTSIDE, from_client(&part)).0 {
                Verdict::Held => held += 1,
                Verdict::Drop(DropReason::FragmentNoRoom) => refused += 1,
                verdict => panic!("{verdict:?}"),
            }
            let dropped = rig.worker_counts().early_fragments_dropped;
            assert!(held - dropped <= u64::from(limits.early_fragments));
            rig.transmitted(OUTSIDE, from_client(&whole));
        }
        // Of each eight packets that are known at once, four have their fragment kept until eight others are known.
        assert_eq!((held, refused), (500, 500));
        assert_eq!(rig.worker_counts().early_fragments_dropped, held - 4);
        let no_room = rig.counters.dropped(0, DropReason::FragmentNoRoom);
        assert_eq!(no_room, refused);
        assert_eq!(rig.flow_count(), 1);
        // A packet whose fragments come one behind the other passes in between.
        let parts = whole.cut(5, &[24, 56]);
        let sent = through(&mut rig, OUTSIDE, &[&parts[0], &parts[1], &parts[2]]);
        assert_eq!(sent.len(), 3);
        // And what still waits is let go of.
        rig.pass(1);
        assert_eq!(rig.worker_counts().early_fragments_dropped, held);
    }
}

#[test]
fn fragments_reach_the_worker_that_owns_the_flow_from_any_queue_in_any_order() {
    let workers = 3;
    for net in BOTH {
        let mut redirected = 0;
        for client in 0..24 {
            let limits = small();
            let counters = Arc::new(Counters::new(workers, &limits));
            let services = one_target(8080);
            let builder = rig::builder(&both_ports(), &services);
            let mut rigs: Vec<Rig> = (0..workers)
                .map(|index| Rig::sharing(&limits, &builder, index, &counters).resolved())
                .collect();
            let query = udp(net.client(client, 5000), net.vip(53), &DATA);
            let parts = query.cut(u32::from(client), &[24, 56]);
            let mut sent = Vec::new();
            let order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][usize::from(client) % 3];
            for (step, n) in order.into_iter().enumerate() {
                let queue = (usize::from(client) + step) % usize::from(workers);
                let hops = deliver(&mut rigs, queue, from_client(&parts[n]), &mut sent);
                redirected += hops;
            }
            assert_eq!(sent.len(), 3, "{net:?} client {client}");
            let (local, number) = (net.local(port(net, &sent[0])), id(net, &sent[0]));
            let there = udp(local, net.target(21, 8080), &DATA).ttl(63);
            let mut expected: Vec<_> = there.cut(number, &[24, 56]);
            assert_eq!(sent.remove(0), to_target(&expected.remove(0), 21));
            for part in expected {
                assert!(sent.contains(&to_target(&part, 21)));
            }
            let owners: Vec<_> = rigs
                .iter_mut()
                .filter(|rig| rig.flow_count() == 1)
                .collect();
            assert_eq!(owners.len(), 1);
        }
        assert!(redirected > 24, "{redirected}");
    }
}

/// Gives a frame to a worker and carries out what it says, as the loop of the gateway does; how often it was handed over.
fn deliver(rigs: &mut [Rig], queue: usize, frame: Vec<u8>, sent: &mut Vec<Vec<u8>>) -> usize {
    let mut hops = 0;
    let mut waiting = std::collections::VecDeque::from([(queue, OUTSIDE, frame, false)]);
    while let Some((worker, port, frame, handed_over)) = waiting.pop_front() {
        let Rig {
            worker: forwarder,
            tables,
            now,
            out,
            ..
        } = &mut rigs[worker];
        let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
        if handed_over {
            forwarder.handed_over(tables, *now, port, &mut frames, &mut verdicts, out);
        } else {
            forwarder.burst(tables, *now, port, &mut frames, &mut verdicts, out);
        }
        forwarder.check_invariants();
        let [frame] = frames;
        match verdicts[0] {
            Verdict::Transmit(to) => {
                assert_eq!(to, INSIDE);
                sent.push(frame);
            }
            Verdict::Redirect(to) => {
                hops += 1;
                waiting.push_back((usize::from(to), port, frame, true));
            }
            Verdict::Held => {}
            verdict => panic!("{verdict:?}"),
        }
        sent.extend(out.frames().map(|(_, frame)| frame.to_vec()));
        for (to, port, frame) in out.handovers() {
            hops += 1;
            waiting.push_back((usize::from(to), port, frame.to_vec(), true));
        }
        out.clear();
        assert!(hops < 16, "fragments go round");
    }
    hops
}

/// A node with a link of this MTU to its targets.
fn small_link(mtu: u16) -> Rig {
    let mut ports = both_ports();
    ports[1].mtu = mtu;
    rig::node(&small(), &ports, &one_target(8080))
}

#[test]
fn a_long_packet_is_cut_if_it_may_be_and_its_sender_told_if_not() {
    for net in BOTH {
        let mut rig = small_link(1300);
        let data = [7; 1300];
        let long = udp(net.client(7, 5000), net.vip(53), &data);
        assert_eq!(rig.dropped(OUTSIDE, from_client(&long)), DropReason::TooBig);
        let (kind, code) = net.too_big();
        let quote = &long.ip()[..net.quoted()];
        let (own, client) = (net.outside_address(), net.client(7, 0).ip());
        let error = icmp(own, client, kind, code, 1300, quote);
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))], "{net:?}");
    }
    let net = Net::V4;
    let mut rig = small_link(1300);
    let data = [7; 2000];
    let long = udp(net.client(7, 5000), net.vip(53), &data).with(|packet| {
        (packet.fragment, packet.id) = (0, 99);
    });
    assert_eq!(
        rig.try_send(OUTSIDE, from_client(&long)).0,
        Verdict::Consumed
    );
    let sent = rig.emitted();
    let (local, number) = (net.local(port(net, &sent[0].1)), id(net, &sent[0].1));
    assert_ne!(number, 99);
    let there = udp(local, net.target(21, 8080), &data).ttl(63);
    let expected: Vec<_> = there
        .cut(number, &[1280])
        .iter()
        .map(|part| (INSIDE, to_target(part, 21)))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(rig.worker_counts().packets_cut, 1);
    assert_eq!(sent[0].1.len(), 14 + 1300);

    // A fragment too long is cut further, and keeps one number with the others.
    rig.out.clear();
    let parts = long.cut(5, &[1400]);
    let sent = through(&mut rig, OUTSIDE, &[&parts[1]]);
    assert!(sent.is_empty());
    assert_eq!(
        rig.try_send(OUTSIDE, from_client(&parts[0])).0,
        Verdict::Consumed
    );
    let sent = rig.emitted();
    let number = id(net, &sent[0].1);
    let expected: Vec<_> = there
        .cut(number, &[1280, 1400])
        .iter()
        .map(|part| (INSIDE, to_target(part, 21)))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn pieces_wait_for_a_next_hop_as_whole_packets_do() {
    let net = Net::V4;
    let mut ports = both_ports();
    ports[1].mtu = 600;
    let mut rig = Rig::from(&small(), &rig::builder(&ports, &one_target(8080)), 0, 1);
    let data = [7; 1000];
    let long = udp(net.client(7, 5000), net.vip(53), &data).with(|packet| packet.fragment = 0);
    assert_eq!(
        rig.try_send(OUTSIDE, from_client(&long)).0,
        Verdict::Consumed
    );
    rig.out.clear();
    rig.resolve(INSIDE, net.target_ip(21), mac(21));
    let sent = rig.emitted();
    let (local, number) = (net.local(port(net, &sent[0].1)), id(net, &sent[0].1));
    let there = udp(local, net.target(21, 8080), &data).ttl(63);
    let expected: Vec<_> = there
        .cut(number, &[576])
        .iter()
        .map(|part| (INSIDE, to_target(part, 21)))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn a_packet_is_forgotten_and_its_late_fragments_wait_in_vain() {
    for net in BOTH {
        let mut rig = node();
        let parts = udp(net.client(7, 5000), net.vip(53), &DATA).cut(1, &[24, 56]);
        assert_eq!(through(&mut rig, OUTSIDE, &[&parts[0]]).len(), 1);
        rig.now.0 += 3 * SECOND;
        assert!(through(&mut rig, OUTSIDE, &[&parts[1]]).is_empty());
    }
}
