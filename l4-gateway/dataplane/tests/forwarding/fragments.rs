//! Fragments follow their first; packets too long for a link are cut.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::{Counters, DropReason, Limits, PortIndex, Protocol, ServiceConfig, Verdict};

use super::dual::{self, BOTH, Ip, Net, icmp, packet, tcp, udp};
use super::frame::{ACK, FIN, SYN, source_port};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Rig, SECOND, small};

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
    dual::node(&small(), &dual::ports(), &dual::services(8080))
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
    let at = 14 + net.header() + if net == Net::V6 { 8 } else { 0 };
    u16::from_be_bytes(frame[at..at + 2].try_into().unwrap())
}

/// Sends fragments in this order; those that were transmitted at once or released, in the order they left.
fn through(rig: &mut Rig, from: PortIndex, fragments: &[&Ip]) -> Vec<(PortIndex, Vec<u8>)> {
    let mut out = Vec::new();
    for fragment in fragments {
        let frame = if from == OUTSIDE {
            fragment.from_outside()
        } else {
            fragment.from_inside()
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
            let there = udp(local, net.target(21, 8080), &DATA).hops(63);
            let there = there.cut(number, &[24, 56]);
            let expected: Vec<_> = expected_order
                .iter()
                .map(|n| (INSIDE, there[*n].to_inside()))
                .collect();
            assert_eq!(sent, expected, "{net:?} {order:?}");

            let answer = udp(net.target(21, 8080), local, &DATA);
            let parts = answer.cut(4, &[24, 56]);
            let sent = through(&mut rig, INSIDE, &order.map(|n| &parts[n]));
            let number = id(net, &sent[0].1);
            let back = udp(vip, client, &DATA).hops(63).cut(number, &[24, 56]);
            let expected: Vec<_> = expected_order
                .iter()
                .map(|n| (OUTSIDE, back[*n].to_outside()))
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
    let is = |config: &ServiceConfig| config.vip == net.vip(0).ip() && config.protocol == protocol;
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
        let (_, syn) = rig.transmitted(OUTSIDE, tcp(client, vip, SYN, 1000, 0, &[]).from_outside());
        let local = net.local(source_port(&syn));
        let at = 14 + net.header() + 4;
        let shift = u32::from_be_bytes(syn[at..at + 4].try_into().unwrap()).wrapping_sub(1000);
        let segment = tcp(client, vip, ACK, 1001, 9001, &DATA);
        let parts = segment.cut(5, &[40]);
        let sent = through(&mut rig, OUTSIDE, &[&parts[1], &parts[0]]);
        let number = id(net, &sent[0].1);
        let target = net.target(21, 8080);
        let there = tcp(local, target, ACK, 1001u32.wrapping_add(shift), 9001, &DATA)
            .hops(63)
            .cut(number, &[40]);
        let expected = there.iter().map(|part| (INSIDE, part.to_inside()));
        assert_eq!(sent, expected.collect::<Vec<_>>(), "{net:?}");
    }
}

#[test]
fn a_fin_in_fragments_leaves_the_next_connection_a_number_above_its_end() {
    // How long the segment is, only its last fragment says; its last sequence number is at most 64 KiB on.
    let net = Net::V4;
    let mut limits = small();
    (limits.first_port, limits.last_port) = (2000, 2000);
    let mut rig = dual::node(&limits, &dual::ports(), &dual::services(8080));
    let (client, vip) = (net.client(7, 5000), net.vip(80));
    let number = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().unwrap());
    let (_, syn) = rig.transmitted(OUTSIDE, tcp(client, vip, SYN, 0, 0, &[]).from_outside());
    let shift = number(&syn);
    let (local, target) = (net.local(source_port(&syn)), net.target(21, 8080));
    let answer = tcp(target, local, SYN | ACK, 0, shift.wrapping_add(1), &[]);
    rig.transmitted(INSIDE, answer.from_inside());
    let long = tcp(client, vip, FIN | ACK, 1, 1, &[0; 20_000]);
    let parts = long.cut(9, &[1400]);
    through(&mut rig, OUTSIDE, &[&parts[0]]);
    let end = tcp(target, local, FIN | ACK, 1, shift.wrapping_add(1), &[]);
    rig.transmitted(INSIDE, end.from_inside());
    let (_, syn) = rig.transmitted(OUTSIDE, tcp(client, vip, SYN, 7, 0, &[]).from_outside());
    let above = number(&syn).wrapping_sub(shift.wrapping_add(20_002)) as i32;
    assert!(above >= 0, "{above}");
}

#[test]
fn early_fragments_are_dropped_when_their_first_does_not_come_or_is_refused() {
    for net in BOTH {
        let mut rig = node();
        let query = udp(net.client(7, 5000), net.vip(53), &DATA);
        let parts = query.cut(1, &[24, 56]);
        let held = rig.try_send(OUTSIDE, parts[1].from_outside());
        assert_eq!(held.0, Verdict::Held);
        rig.now.0 += 250 * MILLISECOND;
        for _ in 0..20 {
            rig.now.0 += MILLISECOND;
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        }
        assert_eq!(rig.worker_counts().early_fragments_dropped, 1);
        // The first alone opens the flow, and those that follow it go on.
        assert_eq!(through(&mut rig, OUTSIDE, &[&parts[0], &parts[2]]).len(), 2);

        // Nobody serves port 54: the first is answered, the others are dropped without a word.
        rig.out.clear();
        let stray = udp(net.client(7, 5000), net.vip(54), &DATA);
        let parts = stray.cut(2, &[24, 56]);
        assert_eq!(
            rig.try_send(OUTSIDE, parts[1].from_outside()).0,
            Verdict::Held
        );
        assert_eq!(
            rig.dropped(OUTSIDE, parts[0].from_outside()),
            DropReason::NoService
        );
        assert_eq!(rig.emitted().len(), 1, "one ICMP error");
        assert_eq!(rig.worker_counts().early_fragments_dropped, 2);
        assert_eq!(
            rig.dropped(OUTSIDE, parts[2].from_outside()),
            DropReason::NoFlow
        );
        assert_eq!(rig.emitted().len(), 1);
    }
}

#[test]
fn malformed_fragments_are_dropped_for_their_own_reason() {
    for net in BOTH {
        let query = udp(net.client(7, 5000), net.vip(53), &DATA);
        let segment = tcp(net.client(7, 5000), net.vip(80), SYN, 1, 0, &DATA);
        let parts = query.cut(1, &[24, 56]);
        let first = &parts[0];
        type Case<'a> = (&'a str, Vec<&'a Ip>, Ip, DropReason);
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
                    Net::V4 => part.word = 0x1fff,
                    Net::V6 => part.payload[2..4].copy_from_slice(&[0xff, 0xf8]),
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
                    let at = part.payload.len() - 24 + 4;
                    part.payload[at..at + 2].copy_from_slice(&[0, 7]);
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
                    Net::V4 => part.word += 16,
                    Net::V6 => part.payload[3] += 128,
                }),
                DropReason::FragmentOverlap,
            ),
            (
                "ICMP",
                vec![],
                icmp(net.client(7, 0).ip(), net.vip(0).ip(), 8, 0, 0, &DATA).part(1, 0..24, true),
                DropReason::Fragment,
            ),
        ];
        for (what, before, bad, reason) in cases {
            let mut rig = node();
            through(&mut rig, OUTSIDE, &before);
            rig.out.clear();
            assert_eq!(
                rig.dropped(OUTSIDE, bad.from_outside()),
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
        let to = SocketAddr::new(net.address(1, 11), 53);
        let parts = udp(net.client(7, 5000), to, &DATA).cut(1, &[24]);
        for part in &parts {
            let frame = part.from_outside();
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
    let atomic = query.part(1, 0..query.payload.len(), false);
    let (port, sent) = rig.transmitted(OUTSIDE, atomic.from_outside());
    let local = net.local(u16::from_be_bytes([sent[62], sent[63]]));
    let there = udp(local, net.target(21, 8080), &DATA).hops(63);
    let expected = there.part(1, 0..there.payload.len(), false);
    assert_eq!((port, sent), (INSIDE, expected.to_inside()));
}

#[test]
fn a_flood_of_fragments_leaves_memory_bounded_and_whole_packets_alone() {
    for net in BOTH {
        let limits = Limits {
            fragmented_packets: 8,
            early_fragments: 4,
            ..small()
        };
        let mut rig = dual::node(&limits, &dual::ports(), &dual::services(8080));
        let whole = udp(net.client(7, 5000), net.vip(53), &DATA);
        rig.transmitted(OUTSIDE, whole.from_outside());
        let stray = udp(net.client(8, 5000), net.vip(53), &DATA);
        for n in 0..1000 {
            let part = stray.part(n, 24..56, true);
            let (verdict, _) = rig.try_send(OUTSIDE, part.from_outside());
            let no_room = Verdict::Drop(DropReason::FragmentNoRoom);
            assert!(
                verdict == Verdict::Held || verdict == no_room,
                "{verdict:?}"
            );
            rig.transmitted(OUTSIDE, whole.from_outside());
        }
        assert_eq!(rig.flow_count(), 1);
        // A packet whose fragments come one behind the other passes in between.
        let parts = whole.cut(5, &[24, 56]);
        let sent = through(&mut rig, OUTSIDE, &[&parts[0], &parts[1], &parts[2]]);
        assert_eq!(sent.len(), 3);
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
            let services = dual::services(8080);
            let builder = rig::builder(&dual::ports(), &services);
            let mut rigs: Vec<Rig> = (0..workers)
                .map(|index| Rig::sharing(&limits, &builder, index, &counters).resolved())
                .collect();
            let query = udp(net.client(client, 5000), net.vip(53), &DATA);
            let parts = query.cut(u32::from(client), &[24, 56]);
            let mut sent = Vec::new();
            let order = [[0, 1, 2], [2, 0, 1], [1, 2, 0]][usize::from(client) % 3];
            for (step, n) in order.into_iter().enumerate() {
                let queue = (usize::from(client) + step) % usize::from(workers);
                let hops = deliver(&mut rigs, queue, parts[n].from_outside(), &mut sent);
                redirected += hops;
            }
            assert_eq!(sent.len(), 3, "{net:?} client {client}");
            let (local, number) = (net.local(port(net, &sent[0])), id(net, &sent[0]));
            let there = udp(local, net.target(21, 8080), &DATA).hops(63);
            let mut expected: Vec<_> = there.cut(number, &[24, 56]);
            assert_eq!(sent.remove(0), expected.remove(0).to_inside());
            for part in expected {
                assert!(sent.contains(&part.to_inside()));
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
    let mut ports = dual::ports();
    ports[1].mtu = mtu;
    dual::node(&small(), &ports, &dual::services(8080))
}

#[test]
fn a_long_packet_is_cut_if_it_may_be_and_its_sender_told_if_not() {
    for net in BOTH {
        let mut rig = small_link(1300);
        let data = [7; 1300];
        let long = udp(net.client(7, 5000), net.vip(53), &data);
        assert_eq!(
            rig.dropped(OUTSIDE, long.from_outside()),
            DropReason::TooBig
        );
        let (kind, code, length) = match net {
            Net::V4 => (3, 4, 548),
            Net::V6 => (2, 0, 1232),
        };
        let quote = &long.bytes()[..length];
        let (own, client) = (net.address(1, 11), net.client(7, 0).ip());
        let error = icmp(own, client, kind, code, 1300, quote);
        assert_eq!(rig.emitted(), [(OUTSIDE, error.to_outside())], "{net:?}");
    }
    let net = Net::V4;
    let mut rig = small_link(1300);
    let data = [7; 2000];
    let long = udp(net.client(7, 5000), net.vip(53), &data).with(|packet| {
        (packet.word, packet.id) = (0, 99);
    });
    assert_eq!(
        rig.try_send(OUTSIDE, long.from_outside()).0,
        Verdict::Consumed
    );
    let sent = rig.emitted();
    let (local, number) = (net.local(port(net, &sent[0].1)), id(net, &sent[0].1));
    assert_ne!(number, 99);
    let there = udp(local, net.target(21, 8080), &data).hops(63);
    let expected: Vec<_> = there
        .cut(number, &[1280])
        .iter()
        .map(|part| (INSIDE, part.to_inside()))
        .collect();
    assert_eq!(sent, expected);
    assert_eq!(rig.worker_counts().packets_cut, 1);
    assert_eq!(packet(&sent[0].1).len(), 1300);

    // A fragment too long is cut further, and keeps one number with the others.
    rig.out.clear();
    let parts = long.cut(5, &[1400]);
    let sent = through(&mut rig, OUTSIDE, &[&parts[1]]);
    assert!(sent.is_empty());
    assert_eq!(
        rig.try_send(OUTSIDE, parts[0].from_outside()).0,
        Verdict::Consumed
    );
    let sent = rig.emitted();
    let number = id(net, &sent[0].1);
    let expected: Vec<_> = there
        .cut(number, &[1280, 1400])
        .iter()
        .map(|part| (INSIDE, part.to_inside()))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn pieces_wait_for_a_next_hop_as_whole_packets_do() {
    let net = Net::V4;
    let mut ports = dual::ports();
    ports[1].mtu = 600;
    let mut rig = Rig::from(&small(), &rig::builder(&ports, &dual::services(8080)), 0, 1);
    let data = [7; 1000];
    let long = udp(net.client(7, 5000), net.vip(53), &data).with(|packet| packet.word = 0);
    assert_eq!(
        rig.try_send(OUTSIDE, long.from_outside()).0,
        Verdict::Consumed
    );
    rig.out.clear();
    let std::net::IpAddr::V4(target) = net.target(21, 0).ip() else {
        unreachable!("an IPv4 network");
    };
    rig.resolve(INSIDE, target, super::frame::mac(21));
    let sent = rig.emitted();
    let (local, number) = (net.local(port(net, &sent[0].1)), id(net, &sent[0].1));
    let there = udp(local, net.target(21, 8080), &data).hops(63);
    let expected: Vec<_> = there
        .cut(number, &[576])
        .iter()
        .map(|part| (INSIDE, part.to_inside()))
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
