//! Next hops: asked for, waited for, refreshed, given up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dataplane::{DropReason, Event, Limits, MacAddr, PortIndex, Verdict};

use super::frame::{self, mac};
use super::ndp;
use super::net::{BOTH, Net};
use super::resets::is_question;
use super::rig::{
    self, INSIDE, INSIDE_ADDRESS, INSIDE_MAC, MILLISECOND, OUTSIDE, OUTSIDE_ADDRESS, OUTSIDE_MAC,
    Rig, SECOND, asked_for, client, from_client, from_target, local, target, to_target, up, vip,
};

pub fn requests(rig: &mut Rig) -> Vec<(PortIndex, Vec<u8>)> {
    let sent = rig
        .emitted()
        .into_iter()
        .filter(|(_, frame)| asked_for(frame).is_some())
        .collect();
    rig.out.clear();
    sent
}

/// What the node asks for target `n`: everybody, or the MAC that it knows.
pub fn request(net: Net, n: u8, known: Option<MacAddr>) -> (PortIndex, Vec<u8>) {
    question(INSIDE, net.target_ip(n), known)
}

pub fn question(port: PortIndex, asked: IpAddr, known: Option<MacAddr>) -> (PortIndex, Vec<u8>) {
    let IpAddr::V4(asked) = asked else {
        return ndp::solicitation(port, asked, known);
    };
    let own = match port {
        OUTSIDE => (OUTSIDE_MAC, OUTSIDE_ADDRESS),
        _ => (INSIDE_MAC, INSIDE_ADDRESS),
    };
    let to = known.unwrap_or(MacAddr::BROADCAST);
    (port, frame::arp(1, to, own, (MacAddr::default(), asked)))
}

fn tick(rig: &mut Rig, milliseconds: u64) {
    rig.now.0 += milliseconds * MILLISECOND;
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    rig.worker.check_invariants();
}

#[test]
fn gateways_and_targets_are_resolved_before_the_first_packet() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &net.services());
        tick(&mut rig, 1);
        let expected = [
            question(OUTSIDE, net.gateway(), None),
            request(net, 21, None),
            request(net, 22, None),
        ];
        assert_eq!(requests(&mut rig), expected);
        assert_eq!(rig.worker_counts().neighbours, 3);
    }
}

#[test]
fn frames_wait_for_their_next_hop_in_order() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &net.services());
        let mut expected = Vec::new();
        for n in 0..3u8 {
            let (verdict, mut held) = rig.try_send(
                OUTSIDE,
                from_client(&frame::udp(net.client(9, 53), net.vip(53), &[n])),
            );
            assert_eq!(verdict, Verdict::Held);
            held[..6].copy_from_slice(&mac(21).0);
            held[6..12].copy_from_slice(&INSIDE_MAC.0);
            let port = frame::port_word(&held, 0);
            assert_eq!(
                held,
                to_target(
                    &frame::udp(net.local(port), net.target(21, 8080), &[n]).ttl(63),
                    21
                )
            );
            expected.push((INSIDE, held));
        }
        assert_eq!(
            requests(&mut rig),
            [request(net, 21, None)],
            "one request, not one a frame"
        );
        rig.resolve(INSIDE, net.target_ip(21), mac(21));
        assert_eq!(rig.emitted(), expected);
        assert_eq!(rig.worker_counts().held, 3);
        let (verdict, _) = rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(net.client(9, 53), net.vip(53), b"now")),
        );
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
    }
}

#[test]
fn only_so_many_frames_wait() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &net.services());
        let mut send = |last: u8, length: usize| {
            rig.try_send(
                OUTSIDE,
                from_client(&frame::udp(
                    net.client(last, 53),
                    net.vip(53),
                    &vec![0; length],
                )),
            )
            .0
        };
        // Four for each of two next hops fill the eight buffers.
        let verdicts: Vec<Verdict> = (0..12).map(|n| send(n, 10)).collect();
        assert_eq!(verdicts[..8], [Verdict::Held; 8]);
        assert_eq!(verdicts[8..], [Verdict::Drop(DropReason::Unresolved); 4]);
        for n in [21, 22] {
            rig.resolve(INSIDE, net.target_ip(n), mac(n));
        }
        assert_eq!(
            rig.emitted()
                .iter()
                .filter(|(_, frame)| !is_question(frame))
                .count(),
            8
        );
        rig.worker.check_invariants();
    }
}

#[test]
fn a_frame_longer_than_the_buffers_does_not_wait() {
    for net in BOTH {
        let limits = Limits {
            held_bytes: 100,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services());
        let long = frame::udp(net.client(1, 53), net.vip(53), &[0; 100]);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&long)),
            DropReason::Unresolved
        );
    }
}

#[test]
fn of_many_next_hops_that_do_not_answer_ten_a_second_are_reported() {
    for net in BOTH {
        let mut services = net.services();
        services[1].targets = (21..51).map(|host| up(net.target(host, 8080))).collect();
        let limits = Limits {
            neighbours: 64,
            targets: 64,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &services);
        for host in 0..30 {
            let datagram = frame::udp(net.client(host, 53), net.vip(53), b"1");
            rig.try_send(OUTSIDE, from_client(&datagram));
        }
        for _ in 0..4 {
            tick(&mut rig, 1000);
        }
        let reported = rig
            .events()
            .iter()
            .filter(|event| matches!(event, Event::Unresolved { .. }))
            .count();
        let suppressed = rig.worker_counts().events_suppressed;
        assert!(reported <= 20, "{reported} reported in one or two seconds");
        assert!(
            reported >= 10 && reported as u64 + suppressed >= 30,
            "{reported} reported, {suppressed} not"
        );
    }
}

#[test]
fn a_next_hop_that_does_not_answer_is_given_up_and_asked_again_later() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &net.services());
        rig.resolve(OUTSIDE, net.gateway(), rig::ROUTER_MAC);
        assert_eq!(
            rig.try_send(
                OUTSIDE,
                from_client(&frame::udp(net.client(9, 53), net.vip(53), b"1"))
            )
            .0,
            Verdict::Held
        );
        let mut asked = 0;
        for second in 0..3 {
            tick(&mut rig, if second == 0 { 1 } else { 1000 });
            asked += requests(&mut rig)
                .iter()
                .filter(|sent| **sent == request(net, 21, None))
                .count();
        }
        tick(&mut rig, 1000);
        assert!(rig.events().contains(&Event::Unresolved {
            port: INSIDE,
            address: net.target_ip(21)
        }));
        assert_eq!(rig.worker_counts().held_dropped, 1);
        assert_eq!(
            rig.dropped(
                OUTSIDE,
                from_client(&frame::udp(net.client(9, 53), net.vip(53), b"2"))
            ),
            DropReason::Unresolved
        );
        assert_eq!(asked, 3);
        rig.out.clear();
        // Three seconds later it is asked again, and so on; what is known is not told again.
        for _ in 0..3 {
            for _ in 0..6 {
                tick(&mut rig, 1000);
            }
            tick(&mut rig, 1);
            let told = |event: &Event| matches!(event, Event::Unresolved { address, .. } if *address == net.target_ip(21));
            assert!(!rig.events().iter().any(told));
            assert!(requests(&mut rig).contains(&request(net, 21, None)));
        }
        while rig
            .try_send(
                OUTSIDE,
                from_client(&frame::udp(net.client(9, 53), net.vip(53), b"3")),
            )
            .0
            != Verdict::Held
        {
            tick(&mut rig, 1000);
        }
        rig.out.clear();
        rig.resolve(INSIDE, net.target_ip(21), mac(21));
        let (port, address) = (INSIDE, net.target_ip(21));
        assert_eq!(rig.events(), [Event::Resolved { port, address }]);
        assert_eq!(
            rig.try_send(
                OUTSIDE,
                from_client(&frame::udp(net.client(9, 53), net.vip(53), b"3"))
            )
            .0,
            Verdict::Transmit(INSIDE)
        );
    }
}

#[test]
fn a_next_hop_in_use_is_confirmed_by_unicast_before_it_is_stale() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(1, 4000), 1);
        tick(&mut rig, 29_000);
        let mut asked = requests(&mut rig);
        // Routers are watched.
        asked.retain(|(port, _)| *port == INSIDE);
        assert_eq!(asked, []);
        tick(&mut rig, 2000);
        assert!(requests(&mut rig).contains(&request(net, 21, Some(mac(21)))));
        // While it is being confirmed, the old address is used.
        assert_eq!(
            rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
            mac(21).0
        );
        rig.resolve(INSIDE, net.target_ip(21), mac(21));
        tick(&mut rig, 1000);
        assert!(
            !requests(&mut rig)
                .iter()
                .any(|(_, sent)| asked_for(sent) == Some(net.target_ip(21)))
        );
    }
}

#[test]
fn a_target_that_moves_to_another_mac_is_found_again() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(1, 4000), 1);
        tick(&mut rig, 31_000);
        let mut seen = requests(&mut rig);
        for _ in 0..5 {
            tick(&mut rig, 1000);
            seen.extend(requests(&mut rig));
        }
        let to_target: Vec<_> = seen
            .into_iter()
            .filter(|(_, sent)| asked_for(sent) == Some(net.target_ip(21)))
            .collect();
        let (directly, asking) = (request(net, 21, Some(mac(21))), request(net, 21, None));
        assert_eq!(
            to_target,
            [
                directly.clone(),
                directly.clone(),
                directly,
                asking.clone(),
                asking.clone(),
                asking
            ]
        );
        rig.resolve(INSIDE, net.target_ip(21), mac(77));
        assert_eq!(
            rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
            mac(77).0
        );
    }
}

#[test]
fn announcements_count_for_known_next_hops_only() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(1, 4000), 1);
    let announce = |operation, address: Ipv4Addr, from| {
        frame::arp(
            operation,
            MacAddr::BROADCAST,
            (from, address),
            (MacAddr::default(), address),
        )
    };
    for operation in [1, 2] {
        let from = mac(80 + operation as u8);
        assert_eq!(
            rig.try_send(INSIDE, announce(operation, *target(21).ip(), from))
                .0,
            Verdict::Kernel
        );
        rig.outlast_contest();
        assert_eq!(
            rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
            from.0,
            "operation {operation}"
        );
    }
    let known = rig.worker_counts().neighbours;
    for n in 100..200 {
        rig.try_send(INSIDE, announce(2, Ipv4Addr::new(10, 3, 0, n), mac(n)));
    }
    tick(&mut rig, 1);
    assert_eq!(
        rig.worker_counts().neighbours,
        known,
        "strangers fill no table"
    );
    // On another port it is another neighbour.
    rig.try_send(OUTSIDE, announce(2, *target(21).ip(), mac(66)));
    rig.outlast_contest();
    assert_eq!(
        rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
        mac(82).0
    );
    // Nobody may take our own addresses.
    rig.try_send(INSIDE, announce(2, rig::LOCAL_IP, mac(66)));
    rig.from_client(&opened, frame::ACK, 2, 9001);
}

#[test]
fn clients_on_our_segment_come_and_go_without_filling_the_table() {
    let mut rig = Rig::new();
    for n in 0..200u8 {
        let from =
            std::net::SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, n.max(20)), 4000 + u16::from(n));
        let (_, sent) = rig.outside(&frame::udp(from, vip(53), b"query"));
        let answer = frame::udp(
            target(sent[33]),
            local(frame::port_word(&sent, 0)),
            b"answer",
        );
        let (verdict, _) = rig.try_send(INSIDE, from_target(&answer, sent[33]));
        if verdict == Verdict::Held {
            rig.resolve(OUTSIDE, *from.ip(), mac(n.max(20)));
        }
        assert_eq!(
            rig.inside(&answer, sent[33]).1[..6],
            mac(n.max(20)).0,
            "client {n}"
        );
        rig.pass(3);
    }
    assert!(rig.worker_counts().neighbours <= 16);
    rig.now.0 += 100 * SECOND;
    rig.pass(70);
    assert_eq!(
        rig.worker_counts().neighbours,
        3,
        "only what the snapshot names stays"
    );
}

/// A client on our segment outside.
fn neighbour(net: Net, last: u8) -> SocketAddr {
    (net.address(1, last), 4000).into()
}

/// Connections of more neighbours than can be known, each heard of after others have taken its place.
#[test]
fn a_connection_finds_its_next_hop_again_however_many_others_there_were() {
    for net in BOTH {
        let mut services = net.services();
        services[1].timeouts.udp = Duration::from_secs(24 * 3600);
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let answers: Vec<_> = (20..70)
            .map(|last| {
                let query = frame::udp(neighbour(net, last), net.vip(53), b"query");
                let (_, sent) = rig.outside(&query);
                let n = frame::target_of(&sent);
                let local = net.local(frame::source_port(&sent));
                from_target(&frame::udp(net.target(n, 8080), local, &[last; 20]), n)
            })
            .collect();
        let mut random = 7u32;
        for turn in 0..500 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (random >> 16) as usize % answers.len();
            let last = 20 + n as u8;
            rig.out.clear();
            let (verdict, mut sent) = rig.try_send(INSIDE, answers[n].clone());
            if verdict == Verdict::Held {
                rig.resolve(OUTSIDE, net.address(1, last), mac(last));
                let released = rig.emitted();
                let ours = |frame: &[u8]| frame.ends_with(&[last; 20]);
                let released = released.into_iter().find(|(_, frame)| ours(frame));
                sent = released.unwrap().1;
            } else {
                assert_eq!(verdict, Verdict::Transmit(OUTSIDE), "{net:?}, turn {turn}");
            }
            assert_eq!(sent[..6], mac(last).0, "{net:?}, turn {turn}");
            rig.now.0 += 5 * SECOND;
            rig.refresh();
            assert!(rig.worker_counts().neighbours <= 16);
        }
    }
}

/// The numbers that tell flows whether what they remember still holds have 16 bits.
#[test]
fn more_snapshots_than_a_worker_can_count_leave_every_flow_its_next_hop() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(1, 4000), 1);
    let builder = rig::builder(&rig::ports(), &rig::services());
    let other = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    let follow = |rig: &mut Rig| {
        for tables in [&other, &rig.tables] {
            rig.worker
                .burst::<Vec<u8>>(tables, rig.now, INSIDE, &mut [], &mut [], &mut rig.out);
        }
    };
    let goes_on = |rig: &mut Rig| {
        let to_target = rig.from_client(&opened, frame::ACK, 2, 9001);
        let to_client = rig.from_target(&opened, frame::ACK, 9001, 2);
        assert_eq!(to_target[..6], mac(opened.target).0);
        assert_eq!(to_client[..6], rig::ROUTER_MAC.0);
    };
    for _ in 0..u16::MAX / 2 - 4 {
        follow(&mut rig);
    }
    for _ in 0..8 {
        goes_on(&mut rig);
        follow(&mut rig);
    }
    goes_on(&mut rig);
    for _ in 0..8 {
        tick(&mut rig, 1);
        goes_on(&mut rig);
        follow(&mut rig);
    }
}
