//! Idle connections that expire: both ends hear of it, by the numbers they expect.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use dataplane::{Limits, Port, Protocol, Segment, ServiceConfig, Tables, Verdict};

use super::frame::{self, ACK, FIN, RST, SYN, mac};
use super::rig::{self, INSIDE, OUTSIDE, Opened, Rig, SECOND, client, local, target, vip};

/// The RSTs that a connection's ends must get: the client by its last acknowledgment, the target by what the client sends next.
fn expected(opened: &Opened, acked: u32, next: u32) -> [(dataplane::PortIndex, Vec<u8>); 2] {
    let bare = |packet: frame::Packet| packet.window(0);
    let to_client = bare(frame::tcp(vip(80), opened.client, RST).seq(acked, 0));
    let to_target = bare(
        frame::tcp(local(opened.local_port), target(opened.target), RST)
            .seq(next.wrapping_add(opened.shift), 0),
    );
    [
        (OUTSIDE, rig::to_client(&to_client)),
        (INSIDE, rig::to_target(&to_target, opened.target)),
    ]
}

/// Runs the timers until everything that will expire has; what was sent meanwhile.
fn expire(rig: &mut Rig) -> Vec<(dataplane::PortIndex, Vec<u8>)> {
    let mut sent = Vec::new();
    for _ in 0..10_000 {
        if rig.flow_count() == 0 {
            break;
        }
        rig.now.0 += SECOND / 10;
        rig.out.clear();
        rig.refresh();
        sent.extend(
            rig.emitted()
                .into_iter()
                .filter(|(_, frame)| frame[12..14] != [8, 6]),
        );
    }
    assert_eq!(rig.flow_count(), 0);
    sent
}

#[test]
fn both_ends_of_an_idle_connection_are_reset_by_exact_numbers() {
    let cases: &[(&str, &[(bool, u8, u32, u32, usize)], u32, u32)] = &[
        ("nothing was said", &[], 9001, 1001),
        (
            "the client sent data, which the target took",
            &[(true, ACK, 1001, 9001, 300), (false, ACK, 9001, 1301, 0)],
            9001,
            1301,
        ),
        (
            "the target sent data, which the client took",
            &[(false, ACK, 9001, 1001, 500), (true, ACK, 1001, 9501, 0)],
            9501,
            1001,
        ),
        (
            "a segment was sent again, and overtaken by a later one",
            &[
                (true, ACK, 1101, 9001, 100),
                (true, ACK, 1001, 9001, 100),
                (false, ACK, 9001, 1201, 0),
            ],
            9001,
            1201,
        ),
        (
            "the client closed, the target doesn't",
            &[
                (true, FIN | ACK, 1001, 9001, 10),
                (false, ACK, 9001, 1012, 0),
            ],
            9001,
            1012,
        ),
        (
            "the target closed, the client doesn't",
            &[
                (false, FIN | ACK, 9001, 1001, 0),
                (true, ACK, 1001, 9002, 0),
            ],
            9002,
            1001,
        ),
        (
            "an RST that both gainsaid",
            &[
                (true, RST, 1001, 0, 0),
                (false, ACK, 9001, 1001, 0),
                (true, ACK, 1001, 9001, 0),
            ],
            9001,
            1001,
        ),
    ];
    for (description, segments, acked, next) in cases {
        let mut rig = Rig::new();
        let opened = rig.establish(client(10, 40_000), 1000);
        for (by_client, flags, seq, ack, data) in segments.iter().copied() {
            let data = vec![7; data];
            if by_client {
                let packet = frame::tcp(opened.client, vip(80), flags).seq(seq, ack);
                rig.outside(&packet.data(&data));
            } else {
                let ack = ack.wrapping_add(opened.shift);
                let packet = frame::tcp(target(opened.target), local(opened.local_port), flags);
                rig.inside(&packet.seq(seq, ack).data(&data), opened.target);
            }
        }
        let resets = rig.worker_counts().resets_sent;
        let sent = expire(&mut rig);
        assert_eq!(sent, expected(&opened, *acked, *next), "{description}");
        assert_eq!(rig.worker_counts().resets_sent, resets + 2);
        assert_eq!(rig.service_counts(80, Protocol::Tcp).resets_sent, 1);
    }
}

#[test]
fn nobody_is_reset_where_nothing_was_established_or_all_is_over() {
    let cases: &[(&str, &[(bool, u8, u32, u32)])] = &[
        ("a SYN alone, maybe under a forged address", &[]),
        (
            "an answer that nobody acknowledged",
            &[(false, SYN | ACK, 9000, 1001)],
        ),
        (
            "closed by both",
            &[
                (false, SYN | ACK, 9000, 1001),
                (true, ACK, 1001, 9001),
                (true, FIN | ACK, 1001, 9001),
                (false, FIN | ACK, 9001, 1002),
                (true, ACK, 1002, 9002),
            ],
        ),
        (
            "reset by the target",
            &[
                (false, SYN | ACK, 9000, 1001),
                (true, ACK, 1001, 9001),
                (false, RST, 9001, 0),
            ],
        ),
    ];
    for (description, segments) in cases {
        let mut rig = Rig::new();
        let opened = rig.open(client(10, 40_000), 1000);
        for (by_client, flags, seq, ack) in segments.iter().copied() {
            if by_client {
                rig.from_client(&opened, flags, seq, ack);
            } else {
                rig.from_target(&opened, flags, seq, ack);
            }
        }
        assert_eq!(expire(&mut rig), [], "{description}");
    }
    let mut rig = Rig::new();
    rig.outside(&frame::udp(client(10, 4000), vip(53), b"query"));
    assert_eq!(expire(&mut rig), [], "UDP");
}

#[test]
fn a_service_may_let_connections_expire_silently() {
    let mut services = rig::services();
    services[0].reset_on_expiry = false;
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    rig.establish(client(10, 40_000), 1000);
    assert_eq!(expire(&mut rig), []);
    assert_eq!(rig.worker_counts().resets_sent, 0);
}

#[test]
fn a_reset_waits_for_its_next_hop() {
    let mut services = rig::services();
    services[0].timeouts.established = Duration::from_secs(20);
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    let opened = rig.establish(client(10, 40_000), 1000);
    // The targets and the router fall silent, and are forgotten.
    for _ in 0..2000 {
        rig.now.0 += SECOND / 100;
        rig.out.clear();
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    }
    let mut sent = Vec::new();
    for _ in 0..2000 {
        rig.now.0 += SECOND / 100;
        rig.out.clear();
        rig.refresh();
        sent.extend(
            rig.emitted()
                .into_iter()
                .filter(|(_, frame)| frame[12..14] != [8, 6]),
        );
    }
    assert_eq!(rig.flow_count(), 0);
    let mut expected = expected(&opened, 9001, 1001).to_vec();
    expected.sort();
    sent.sort();
    assert_eq!(sent, expected);
}

#[test]
fn one_tick_resets_a_bounded_number_of_flows() {
    let limits = Limits {
        flows: 600,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &rig::services()).resolved();
    for n in 0..600u32 {
        rig.establish(client((n / 100) as u8, 40_000 + n as u16), 1000);
    }
    rig.now.0 += 3600 * SECOND;
    let mut resets = Vec::new();
    while rig.flow_count() > 0 {
        rig.out.clear();
        let before = rig.worker_counts().resets_sent;
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        // Next hops that nobody used for so long are asked for again; they answer.
        rig.refresh();
        resets.push(rig.worker_counts().resets_sent - before);
    }
    assert!(
        resets.iter().all(|resets| *resets <= 2 * 2 * 128),
        "{resets:?}"
    );
    assert!(resets.len() >= 3, "{resets:?}");
}

#[test]
fn ipv6_connections_are_reset_too() {
    let [own, lip, service, peer, server]: [Ipv6Addr; 5] = [
        "fd00:3::11",
        "fd00:3::100",
        "fd00:100::1",
        "fd00:3::7",
        "fd00:3::21",
    ]
    .map(|text| text.parse().unwrap());
    let mut builder = Tables::builder();
    builder.port(Port {
        index: OUTSIDE,
        mac: rig::OUTSIDE_MAC,
        ipv4: None,
        ipv6: Some(Segment {
            address: own,
            prefix: 64,
            gateway: None,
        }),
        mtu: 1500,
        answers: true,
    });
    builder.local_ip(lip);
    let mut tcp = ServiceConfig::new(service, Protocol::Tcp, 80);
    tcp.targets = vec![rig::up(SocketAddrV6::new(server, 8080, 0, 0))];
    builder.service(tcp);
    let mut rig = Rig::from(&rig::small(), &builder, 0, 1);
    let learn = |rig: &mut Rig, host: Ipv6Addr, last: u8| {
        rig.worker
            .learn(rig.now, OUTSIDE, host.into(), mac(last), &mut rig.out);
    };
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    learn(&mut rig, server, 21);
    let own_mac = rig::OUTSIDE_MAC;
    let segment = |from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags, seq, ack| {
        tcp6(from, to, (flags, seq, ack))
    };
    let framed =
        |to: &[u8], from: &[u8], packet: Vec<u8>| [to, from, &[0x86, 0xdd], &packet].concat();
    let arrive = |rig: &mut Rig, last: u8, packet: Vec<u8>| {
        rig.transmitted(OUTSIDE, framed(&own_mac.0, &mac(last).0, packet))
            .1
    };
    let from = (peer, 40_000);
    let vip6 = (service, 80);
    let syn = arrive(&mut rig, 7, segment(from, vip6, SYN, 1000, 0));
    let port = u16::from_be_bytes([syn[54], syn[55]]);
    let shift = u32::from_be_bytes([syn[58], syn[59], syn[60], syn[61]]).wrapping_sub(1000);
    let answer = segment(
        (server, 8080),
        (lip, port),
        SYN | ACK,
        9000,
        shift.wrapping_add(1001),
    );
    let (verdict, _) = rig.try_send(OUTSIDE, framed(&own_mac.0, &mac(21).0, answer));
    assert_eq!(verdict, Verdict::Held, "the client's MAC isn't known");
    learn(&mut rig, peer, 7);
    arrive(&mut rig, 7, segment(from, vip6, ACK, 1001, 9001));
    let flow = rig.worker.flows(rig.now).next().unwrap();
    assert_eq!(flow.target, SocketAddr::new(server.into(), 8080));

    rig.out.clear();
    rig.now.0 += 901 * SECOND;
    rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    let sent: Vec<Vec<u8>> = rig.emitted().into_iter().map(|(_, frame)| frame).collect();
    let reset = |from, to, seq| without_window(tcp6(from, to, (RST, seq, 0)));
    let to_client = framed(&mac(7).0, &own_mac.0, reset(vip6, from, 9001));
    let to_target = framed(
        &mac(21).0,
        &own_mac.0,
        reset((lip, port), (server, 8080), shift.wrapping_add(1001)),
    );
    assert!(sent.contains(&to_client), "{sent:x?}");
    assert!(sent.contains(&to_target), "{sent:x?}");
    assert_eq!(rig.worker_counts().resets_sent, 2);
}

/// A TCP segment in an IPv6 packet, with a window.
fn tcp6(
    (source, from): (Ipv6Addr, u16),
    (destination, to): (Ipv6Addr, u16),
    (flags, seq, ack): (u8, u32, u32),
) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([5 << 4, flags, 0xfa, 0, 0, 0, 0, 0]);
    seal(source, destination, segment)
}

fn without_window(mut packet: Vec<u8>) -> Vec<u8> {
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    let (source, destination) = (address(8), address(24));
    let mut segment = packet.split_off(40);
    segment[14..18].fill(0);
    seal(source, destination, segment)
}

fn seal(source: Ipv6Addr, destination: Ipv6Addr, mut segment: Vec<u8>) -> Vec<u8> {
    let mut pseudo = [source.octets(), destination.octets()].concat();
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    pseudo.extend(&segment);
    let sum = frame::checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, segment.len() as u8, 6, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(segment);
    packet
}
