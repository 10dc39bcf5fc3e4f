//! Idle connections that expire: both ends hear of it, by the numbers they expect.

use std::time::Duration;

use dataplane::{Limits, Protocol};

use super::frame::{self, ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Opened, Rig, SECOND};

/// The RSTs that a connection's ends must get: the client by its last acknowledgment, the target by what the client sends next.
fn expected(
    net: Net,
    opened: &Opened,
    acked: u32,
    next: u32,
) -> [(dataplane::PortIndex, Vec<u8>); 2] {
    let bare = |packet: frame::Packet| packet.window(0);
    let to_client = bare(frame::tcp(net.vip(80), opened.client, RST).seq(acked, 0));
    let to_target = bare(
        frame::tcp(
            net.local(opened.local_port),
            net.target(opened.target, 8080),
            RST,
        )
        .seq(next.wrapping_add(opened.shift), 0),
    );
    [
        (OUTSIDE, rig::to_client(&to_client)),
        (INSIDE, rig::to_target(&to_target, opened.target)),
    ]
}

/// ARP, or neighbour discovery.
pub fn is_question(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6] || (frame[14] >> 4 == 6 && frame[20] == 58)
}

/// Runs the timers until everything that will expire has; what was sent meanwhile.
pub fn expire(rig: &mut Rig) -> Vec<(dataplane::PortIndex, Vec<u8>)> {
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
                .filter(|(_, frame)| !is_question(frame)),
        );
    }
    assert_eq!(rig.flow_count(), 0);
    sent
}

#[test]
fn both_ends_of_an_idle_connection_are_reset_by_exact_numbers() {
    for net in BOTH {
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
            let mut rig = Rig::of(net);
            let opened = rig.establish(net.client(10, 40_000), 1000);
            for (by_client, flags, seq, ack, data) in segments.iter().copied() {
                let data = vec![7; data];
                if by_client {
                    let packet = frame::tcp(opened.client, net.vip(80), flags).seq(seq, ack);
                    rig.outside(&packet.data(&data));
                } else {
                    let ack = ack.wrapping_add(opened.shift);
                    let packet = frame::tcp(
                        net.target(opened.target, 8080),
                        net.local(opened.local_port),
                        flags,
                    );
                    rig.inside(&packet.seq(seq, ack).data(&data), opened.target);
                }
            }
            let resets = rig.worker_counts().resets_sent;
            let sent = expire(&mut rig);
            assert_eq!(sent, expected(net, &opened, *acked, *next), "{description}");
            assert_eq!(rig.worker_counts().resets_sent, resets + 2);
            assert_eq!(rig.service_counts(80, Protocol::Tcp).resets_sent, 1);
        }
    }
}

#[test]
fn nobody_is_reset_where_nothing_was_established_or_all_is_over() {
    for net in BOTH {
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
            let mut rig = Rig::of(net);
            let opened = rig.open(net.client(10, 40_000), 1000);
            for (by_client, flags, seq, ack) in segments.iter().copied() {
                if by_client {
                    rig.from_client(&opened, flags, seq, ack);
                } else {
                    rig.from_target(&opened, flags, seq, ack);
                }
            }
            assert_eq!(expire(&mut rig), [], "{description}");
        }
        let mut rig = Rig::of(net);
        rig.outside(&frame::udp(net.client(10, 4000), net.vip(53), b"query"));
        assert_eq!(expire(&mut rig), [], "UDP");
    }
}

#[test]
fn a_service_may_let_connections_expire_silently() {
    for net in BOTH {
        let mut services = net.services();
        services[0].reset_on_expiry = false;
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        rig.establish(net.client(10, 40_000), 1000);
        assert_eq!(expire(&mut rig), []);
        assert_eq!(rig.worker_counts().resets_sent, 0);
    }
}

#[test]
fn a_reset_waits_for_its_next_hop() {
    for net in BOTH {
        let mut services = net.services();
        services[0].timeouts.established = Duration::from_secs(20);
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let opened = rig.establish(net.client(10, 40_000), 1000);
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
                    .filter(|(_, frame)| !is_question(frame)),
            );
        }
        assert_eq!(rig.flow_count(), 0);
        let mut expected = expected(net, &opened, 9001, 1001).to_vec();
        expected.sort();
        sent.sort();
        assert_eq!(sent, expected);
    }
}

#[test]
fn one_tick_resets_a_bounded_number_of_flows() {
    for net in BOTH {
        let limits = Limits {
            flows: 600,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
        for n in 0..600u32 {
            rig.establish(net.client((n / 100) as u8, 40_000 + n as u16), 1000);
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
}
