//! Next hops: asked for, waited for, refreshed, given up.

use std::net::Ipv4Addr;

use dataplane::{DropReason, Event, Limits, MacAddr, PortIndex, Verdict};

use super::frame::{self, mac};
use super::rig::{
    self, GATEWAY, INSIDE, INSIDE_ADDRESS, INSIDE_MAC, MILLISECOND, OUTSIDE, OUTSIDE_ADDRESS,
    OUTSIDE_MAC, Rig, SECOND, client, from_client, local, target, to_target, up, vip,
};

fn requests(rig: &mut Rig) -> Vec<(PortIndex, Vec<u8>)> {
    let sent = rig
        .emitted()
        .into_iter()
        .filter(|(_, frame)| frame[12..14] == [8, 6])
        .collect();
    rig.out.clear();
    sent
}

fn request(n: u8, to: MacAddr) -> (PortIndex, Vec<u8>) {
    (
        INSIDE,
        frame::arp(
            1,
            to,
            (INSIDE_MAC, INSIDE_ADDRESS),
            (MacAddr::default(), *target(n).ip()),
        ),
    )
}

fn tick(rig: &mut Rig, milliseconds: u64) {
    rig.now.0 += milliseconds * MILLISECOND;
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    rig.worker.check_invariants();
}

#[test]
fn gateways_and_targets_are_resolved_before_the_first_packet() {
    let mut rig = Rig::with(&rig::small(), &rig::services());
    tick(&mut rig, 1);
    let gateway = frame::arp(
        1,
        MacAddr::BROADCAST,
        (OUTSIDE_MAC, OUTSIDE_ADDRESS),
        (MacAddr::default(), GATEWAY),
    );
    let announcement = frame::arp(
        1,
        MacAddr::BROADCAST,
        (INSIDE_MAC, rig::LOCAL_IP),
        (MacAddr::default(), rig::LOCAL_IP),
    );
    let expected = [
        (INSIDE, announcement),
        (OUTSIDE, gateway),
        request(21, MacAddr::BROADCAST),
        request(22, MacAddr::BROADCAST),
    ];
    assert_eq!(requests(&mut rig), expected);
    assert_eq!(rig.worker_counts().neighbours, 3);
}

#[test]
fn frames_wait_for_their_next_hop_in_order() {
    let mut rig = Rig::with(&rig::small(), &rig::services());
    let mut expected = Vec::new();
    for n in 0..3u8 {
        let (verdict, mut held) = rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(client(9, 53), vip(53), &[n])),
        );
        assert_eq!(verdict, Verdict::Held);
        held[..6].copy_from_slice(&mac(21).0);
        held[6..12].copy_from_slice(&INSIDE_MAC.0);
        let port = frame::port_word(&held, 0);
        assert_eq!(
            held,
            to_target(&frame::udp(local(port), target(21), &[n]).ttl(63), 21)
        );
        expected.push((INSIDE, held));
    }
    assert_eq!(
        requests(&mut rig),
        [request(21, MacAddr::BROADCAST)],
        "one request, not one a frame"
    );
    rig.resolve(INSIDE, *target(21).ip(), mac(21));
    assert_eq!(rig.emitted(), expected);
    assert_eq!(rig.worker_counts().held, 3);
    let (verdict, _) = rig.try_send(
        OUTSIDE,
        from_client(&frame::udp(client(9, 53), vip(53), b"now")),
    );
    assert_eq!(verdict, Verdict::Transmit(INSIDE));
}

#[test]
fn only_so_many_frames_wait() {
    let mut rig = Rig::with(&rig::small(), &rig::services());
    let mut send = |last: u8, length: usize| {
        rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(client(last, 53), vip(53), &vec![0; length])),
        )
        .0
    };
    // Four for each of two next hops fill the eight buffers.
    let verdicts: Vec<Verdict> = (0..12).map(|n| send(n, 10)).collect();
    assert_eq!(verdicts[..8], [Verdict::Held; 8]);
    assert_eq!(verdicts[8..], [Verdict::Drop(DropReason::Unresolved); 4]);
    for n in [21, 22] {
        rig.resolve(INSIDE, *target(n).ip(), mac(n));
    }
    assert_eq!(
        rig.emitted()
            .iter()
            .filter(|(_, frame)| frame[12..14] == [8, 0])
            .count(),
        8
    );
    rig.worker.check_invariants();
}

#[test]
fn a_frame_longer_than_the_buffers_does_not_wait() {
    let limits = Limits {
        held_bytes: 100,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &rig::services());
    let long = frame::udp(client(1, 53), vip(53), &[0; 100]);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&long)),
        DropReason::Unresolved
    );
}

#[test]
fn of_many_next_hops_that_do_not_answer_ten_a_second_are_reported() {
    let mut services = rig::services();
    services[1].targets = (21..51).map(|host| up(target(host))).collect();
    let limits = Limits {
        neighbours: 64,
        targets: 64,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &services);
    for host in 0..30 {
        let datagram = frame::udp(client(host, 53), vip(53), b"1");
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

#[test]
fn a_next_hop_that_does_not_answer_is_given_up_and_asked_again_later() {
    let mut rig = Rig::with(&rig::small(), &rig::services());
    rig.resolve(OUTSIDE, GATEWAY, rig::ROUTER_MAC);
    assert_eq!(
        rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(client(9, 53), vip(53), b"1"))
        )
        .0,
        Verdict::Held
    );
    let mut asked = 0;
    for second in 0..3 {
        tick(&mut rig, if second == 0 { 1 } else { 1000 });
        asked += requests(&mut rig)
            .iter()
            .filter(|sent| **sent == request(21, MacAddr::BROADCAST))
            .count();
    }
    tick(&mut rig, 1000);
    assert!(rig.events().contains(&Event::Unresolved {
        port: INSIDE,
        address: target(21).ip().to_owned().into()
    }));
    assert_eq!(rig.worker_counts().held_dropped, 1);
    assert_eq!(
        rig.dropped(
            OUTSIDE,
            from_client(&frame::udp(client(9, 53), vip(53), b"2"))
        ),
        DropReason::Unresolved
    );
    assert_eq!(asked, 3);
    rig.out.clear();
    // Three seconds later it is asked again, and this time it is there.
    tick(&mut rig, 3000);
    tick(&mut rig, 1);
    assert!(requests(&mut rig).contains(&request(21, MacAddr::BROADCAST)));
    rig.resolve(INSIDE, *target(21).ip(), mac(21));
    assert_eq!(
        rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(client(9, 53), vip(53), b"3"))
        )
        .0,
        Verdict::Transmit(INSIDE)
    );
}

#[test]
fn a_next_hop_in_use_is_confirmed_by_unicast_before_it_is_stale() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(1, 4000), 1);
    tick(&mut rig, 29_000);
    assert_eq!(requests(&mut rig), []);
    tick(&mut rig, 2000);
    assert!(requests(&mut rig).contains(&request(21, mac(21))));
    // While it is being confirmed, the old address is used.
    assert_eq!(
        rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
        mac(21).0
    );
    rig.resolve(INSIDE, *target(21).ip(), mac(21));
    tick(&mut rig, 1000);
    assert!(!requests(&mut rig).iter().any(|(_, sent)| sent[41] == 21));
}

#[test]
fn a_target_that_moves_to_another_mac_is_found_again() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(1, 4000), 1);
    tick(&mut rig, 31_000);
    let mut seen = requests(&mut rig);
    for _ in 0..5 {
        tick(&mut rig, 1000);
        seen.extend(requests(&mut rig));
    }
    let to_target: Vec<_> = seen
        .into_iter()
        .filter(|(_, sent)| sent[41] == 21)
        .collect();
    let (directly, asking) = (request(21, mac(21)), request(21, MacAddr::BROADCAST));
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
    rig.resolve(INSIDE, *target(21).ip(), mac(77));
    assert_eq!(
        rig.from_client(&opened, frame::ACK, 2, 9001)[..6],
        mac(77).0
    );
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
        let (verdict, _) = rig.try_send(INSIDE, rig::from_target(&answer, sent[33]));
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
