//! Echo requests longer than a link takes: fragments of one are turned round, and a long answer leaves in pieces.

use std::net::IpAddr;

use dataplane::{DropReason, PortIndex, Verdict};

use super::frame::{OPTIONS, Packet, icmp};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, from_target, to_client, to_target};

fn numbers(net: Net) -> (u8, u8) {
    match net {
        Net::V4 => (8, 0),
        Net::V6 => (128, 129),
    }
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn request(net: Net, to: IpAddr, length: usize) -> Packet {
    let (kind, _) = numbers(net);
    icmp(
        net.client(10, 1).ip(),
        to,
        kind,
        0,
        0x1234_0001,
        &data(length),
    )
}

fn reply(net: Net, from: IpAddr, length: usize) -> Packet {
    let (_, kind) = numbers(net);
    icmp(
        from,
        net.client(10, 1).ip(),
        kind,
        0,
        0x1234_0001,
        &data(length),
    )
}

/// Sends fragments in this order; what left, in order.
fn through(rig: &mut Rig, parts: &[&Packet]) -> Vec<(PortIndex, Vec<u8>)> {
    let mut out = Vec::new();
    for part in parts {
        match rig.try_send(OUTSIDE, from_client(part)) {
            (Verdict::Transmit(port), frame) => out.push((port, frame)),
            (Verdict::Held, _) => {}
            (verdict, _) => panic!("{verdict:?} on {part:?}"),
        }
        out.extend(rig.emitted());
        rig.out.clear();
    }
    out
}

#[test]
fn each_fragment_of_an_echo_request_is_turned_round_once_the_first_has_come() {
    for net in BOTH {
        for (description, address) in [
            ("the VIP", net.vip_ip()),
            ("the LocalIP", net.local_ip()),
            ("the port", net.outside_address()),
        ] {
            for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
                let mut rig = Rig::of(net);
                let parts = request(net, address, 4000).ttl(3).cut(77, &[1400, 2800]);
                let expected = reply(net, address, 4000).cut(77, &[1400, 2800]);
                let sent = through(&mut rig, &order.map(|n| &parts[n]));
                // The first goes first, then those that waited, in the order they came.
                let first = order.iter().position(|n| *n == 0).unwrap();
                let mut left = order.to_vec();
                left[..=first].rotate_right(1);
                let expected: Vec<_> = left
                    .iter()
                    .map(|n| (OUTSIDE, to_client(&expected[*n])))
                    .collect();
                assert_eq!(sent, expected, "{description} {order:?}");
                assert_eq!(rig.worker_counts().echo_replies, 1);
            }
        }
    }
}

/// As long as a packet can be, from the side of the targets too.
#[test]
fn the_longest_ping_is_answered() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let most = 65_535 - 8 - net.ip_header();
        let cuts: Vec<usize> = (1..=most / 1400).map(|n| n * 1400).collect();
        let (from, to) = (net.target_ip(21), net.local_ip());
        let (asks, answers) = numbers(net);
        let asked = icmp(from, to, asks, 0, 7, &data(most)).cut(9, &cuts);
        let answered = icmp(to, from, answers, 0, 7, &data(most)).cut(9, &cuts);
        assert_eq!(asked.len(), 47);
        for (asked, answered) in asked.iter().zip(&answered) {
            let got = rig.transmitted(INSIDE, from_target(asked, 21));
            assert_eq!(got, (INSIDE, to_target(answered, 21)));
        }
    }
}

#[test]
fn options_and_extension_headers_are_carried_along() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let with_more = |packet: Packet| {
            let parts = packet.cut(77, &[1200]);
            parts.into_iter().map(move |part| {
                part.with(|part| match net {
                    Net::V4 => part.options = vec![148, 4, 0, 0],
                    Net::V6 => part
                        .extensions
                        .insert(0, (OPTIONS, vec![0, 1, 4, 0, 0, 0, 0])),
                })
            })
        };
        let parts: Vec<_> = with_more(request(net, net.vip_ip(), 2000)).collect();
        let expected = with_more(reply(net, net.vip_ip(), 2000));
        let expected: Vec<_> = expected.map(|part| (OUTSIDE, to_client(&part))).collect();
        assert_eq!(
            through(&mut rig, &parts.iter().collect::<Vec<_>>()),
            expected
        );
    }
}

/// Two nodes would otherwise send what is addressed from one to the other for ever.
#[test]
fn later_fragments_of_nothing_that_asks_are_not_turned_round() {
    for net in BOTH {
        let (asks, answers) = numbers(net);
        for kind in [answers, if net == Net::V4 { 13 } else { 135 }, asks] {
            let mut rig = Rig::of(net);
            let message = icmp(net.client(10, 1).ip(), net.vip_ip(), kind, 0, 7, &data(100));
            let parts = message.cut(77, &[48]);
            if kind == asks {
                // The first is lost.
                assert_eq!(
                    rig.try_send(OUTSIDE, from_client(&parts[1])).0,
                    Verdict::Held
                );
            } else {
                let reason = rig.dropped(OUTSIDE, from_client(&parts[0]));
                assert_eq!(reason, DropReason::Fragment);
                assert_eq!(
                    rig.try_send(OUTSIDE, from_client(&parts[1])).0,
                    Verdict::Held
                );
            }
            rig.pass(1);
            let frames = rig.emitted();
            let answers = frames
                .iter()
                .filter(|(_, frame)| frame.ends_with(&data(100)[40..]));
            assert_eq!(answers.count(), 0, "{kind}");
            assert_eq!(rig.worker_counts().early_fragments_dropped, 1);
        }
    }
}

#[test]
fn fragments_that_are_wrong_or_from_nobody_are_not_answered() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let long = request(net, net.vip_ip(), 2000);
        let overlapping = [long.part(5, 0..1200, true), long.part(5, 800..2008, false)];
        assert_eq!(through(&mut rig, &[&overlapping[0]]).len(), 1);
        let reason = rig.dropped(OUTSIDE, from_client(&overlapping[1]));
        assert_eq!(reason, DropReason::FragmentOverlap);
        let (kind, _) = numbers(net);
        let ours = icmp(net.local_ip(), net.vip_ip(), kind, 0, 7, &data(2000)).cut(6, &[1200]);
        for part in &ours {
            let reason = rig.dropped(OUTSIDE, from_client(part));
            assert_eq!(reason, DropReason::MartianSource);
        }
        assert!(rig.emitted().is_empty());
    }
}

/// What the kernel holds it answers itself.
#[test]
fn fragments_to_an_address_of_the_kernel_are_the_kernels() {
    for net in BOTH {
        let mut ports = net.ports();
        ports[0].answers = false;
        let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
        for part in request(net, net.outside_address(), 2000).cut(5, &[1200]) {
            let frame = from_client(&part);
            assert_eq!(
                rig.try_send(OUTSIDE, frame.clone()),
                (Verdict::Kernel, frame)
            );
        }
    }
}

/// It has pinged somebody by a long packet, by an address that is answered for here.
#[test]
fn fragments_of_answers_to_the_kernel_are_the_kernels() {
    for net in BOTH {
        let (asks, answers) = numbers(net);
        let answer =
            |to| icmp(net.client(10, 1).ip(), to, answers, 0, 7, &data(4000)).cut(5, &[1400, 2800]);
        let mut rig = Rig::of(net);
        for part in answer(net.outside_address()) {
            let frame = from_client(&part);
            assert_eq!(
                rig.try_send(OUTSIDE, frame.clone()),
                (Verdict::Kernel, frame)
            );
        }
        // What is asked of the same address is answered here, and to a VIP nobody answers but us.
        let asked = icmp(
            net.client(10, 1).ip(),
            net.outside_address(),
            asks,
            0,
            7,
            &data(4000),
        );
        for part in asked.cut(6, &[1400, 2800]) {
            assert_eq!(rig.outside(&part).0, OUTSIDE);
        }
        let first = &answer(net.vip_ip())[0];
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(first)),
            DropReason::Fragment
        );
    }
}

/// A device may have put fragments together (af_packet), or take more than its port is told to.
#[test]
fn a_request_longer_than_the_port_takes_is_answered_in_pieces() {
    let net = Net::V4;
    let mut ports = net.ports();
    ports[0].mtu = 1000;
    for df in [0, 0x4000] {
        for length in [972, 973, 1940, 1990] {
            let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
            let asked = request(net, net.vip_ip(), length).with(|asked| asked.fragment = df);
            let answer = reply(net, net.vip_ip(), length);
            if length == 972 {
                let expected = answer.with(|answer| answer.fragment = df);
                assert_eq!(rig.outside(&asked), (OUTSIDE, to_client(&expected)));
                continue;
            }
            let (verdict, _) = rig.try_send(OUTSIDE, from_client(&asked));
            assert_eq!(verdict, Verdict::Consumed);
            let emitted = rig.emitted();
            let id = u16::from_be_bytes([emitted[0].1[18], emitted[0].1[19]]);
            let cuts: Vec<usize> = [976, 1952]
                .into_iter()
                .filter(|at| *at < length + 8)
                .collect();
            let expected: Vec<_> = answer
                .cut(id.into(), &cuts)
                .iter()
                .map(|part| (OUTSIDE, to_client(part)))
                .collect();
            assert_eq!(emitted, expected, "{length}");
            let counts = rig.worker_counts();
            assert_eq!((counts.echo_replies, counts.packets_cut), (1, 1));
        }
    }
    // A fragment keeps what its packet is called.
    let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
    for part in request(net, net.vip_ip(), 2000).cut(77, &[1200]) {
        rig.try_send(OUTSIDE, from_client(&part));
    }
    let expected: Vec<_> = reply(net, net.vip_ip(), 2000)
        .cut(77, &[976, 1200])
        .iter()
        .map(to_client)
        .collect();
    let emitted: Vec<_> = rig.emitted().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(emitted, expected[..2]);
    // Nobody sends an IPv6 packet that its link doesn't take.
    let net = Net::V6;
    let mut ports = net.ports();
    ports[0].mtu = 1300;
    let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
    let reason = rig.dropped(OUTSIDE, from_client(&request(net, net.vip_ip(), 1400)));
    assert_eq!(reason, DropReason::TooBig);
}

/// Damage in any fragment is in the answer's checksum as it was in the question's.
#[test]
fn damage_comes_back_to_its_sender() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let spoil = |mut packet: Packet| {
            packet.raw_mut()[1500] ^= 1;
            packet.cut(77, &[1200])
        };
        let parts = spoil(request(net, net.vip_ip(), 2000));
        let expected = spoil(reply(net, net.vip_ip(), 2000));
        let sent = through(&mut rig, &parts.iter().collect::<Vec<_>>());
        let expected: Vec<_> = expected
            .iter()
            .map(|part| (OUTSIDE, to_client(part)))
            .collect();
        assert_eq!(sent, expected);
        // One that came whole is looked at.
        let mut whole = request(net, net.vip_ip(), 100);
        whole.raw_mut()[50] ^= 1;
        let reason = rig.dropped(
            OUTSIDE,
            whole.macs(rig::ROUTER_MAC, rig::OUTSIDE_MAC).frame(),
        );
        assert_eq!(reason, DropReason::BadIcmp);
    }
}

#[test]
fn a_ping_without_a_single_bit_is_answered_with_a_checksum_that_receivers_take() {
    // Identifier, sequence number and data are zero, and so is the type of the answer: the sum under the checksum has two zeros (RFC 1624 3).
    for net in BOTH {
        let mut rig = Rig::of(net);
        let (ask, answer) = numbers(net);
        let (client, vip) = (net.client(10, 1).ip(), net.vip_ip());
        let request = icmp(client, vip, ask, 0, 0, &[0; 8]);
        let expected = icmp(vip, client, answer, 0, 0, &[0; 8]);
        assert_eq!(
            through(&mut rig, &[&request]),
            [(OUTSIDE, to_client(&expected))]
        );
    }
}
