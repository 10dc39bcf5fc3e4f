//! The life of a TCP flow: states, timeouts, reuse.

use std::time::Duration;

use dataplane::{FlowState, Protocol, Verdict};

use super::frame::{self, ACK, FIN, RST, SYN, flags_of};
use super::net::BOTH;
use super::rig::{self, INSIDE, OUTSIDE, Opened, Rig, SECOND, from_client};

fn state(rig: &Rig) -> Option<FlowState> {
    let states: Vec<FlowState> = rig.worker.flows(rig.now).map(|flow| flow.state).collect();
    assert!(states.len() <= 1);
    states.first().copied()
}

#[derive(Clone, Copy)]
enum End {
    Client,
    Target,
}

fn segment(rig: &mut Rig, opened: &Opened, from: End, flags: u8) {
    match from {
        End::Client => rig.from_client(opened, flags, 1001, 9001),
        End::Target if flags & SYN != 0 => rig.from_target(opened, flags, 9000, 1001),
        End::Target => rig.from_target(opened, flags, 9001, 1001),
    };
}

#[test]
fn a_flow_follows_its_connection() {
    for net in BOTH {
        use End::{Client, Target};
        let cases: &[(&str, &[(End, u8)], FlowState)] = &[
            ("the client's SYN alone", &[], FlowState::SynReceived),
            ("a repeated SYN", &[(Client, SYN)], FlowState::SynReceived),
            (
                "an ACK the target didn't ask for",
                &[(Client, ACK)],
                FlowState::SynReceived,
            ),
            (
                "SYN and ACK of the target",
                &[(Target, SYN | ACK)],
                FlowState::SynAnswered,
            ),
            (
                "the handshake",
                &[(Target, SYN | ACK), (Client, ACK)],
                FlowState::Established,
            ),
            (
                "refused by the target",
                &[(Target, RST | ACK)],
                FlowState::Closed,
            ),
            (
                "FIN of the client",
                &[(Target, SYN | ACK), (Client, ACK), (Client, FIN | ACK)],
                FlowState::FinClient,
            ),
            (
                "FIN of the target",
                &[(Target, SYN | ACK), (Client, ACK), (Target, FIN | ACK)],
                FlowState::FinTarget,
            ),
            (
                "FIN of both, client first",
                &[
                    (Target, SYN | ACK),
                    (Client, ACK),
                    (Client, FIN | ACK),
                    (Target, FIN | ACK),
                ],
                FlowState::TimeWait,
            ),
            (
                "FIN of both, target first",
                &[
                    (Target, SYN | ACK),
                    (Client, ACK),
                    (Target, FIN | ACK),
                    (Client, FIN | ACK),
                    (Target, ACK),
                ],
                FlowState::TimeWait,
            ),
            (
                "a repeated FIN isn't the other side's",
                &[
                    (Target, SYN | ACK),
                    (Client, ACK),
                    (Client, FIN | ACK),
                    (Client, FIN | ACK),
                ],
                FlowState::FinClient,
            ),
            (
                "RST of the client",
                &[(Target, SYN | ACK), (Client, ACK), (Client, RST)],
                FlowState::Closed,
            ),
            (
                "RST of the client, which the target gainsays",
                &[
                    (Target, SYN | ACK),
                    (Client, ACK),
                    (Client, RST),
                    (Target, ACK),
                ],
                FlowState::Established,
            ),
            (
                "RST of the target, which the client gainsays",
                &[
                    (Target, SYN | ACK),
                    (Client, ACK),
                    (Target, RST),
                    (Client, ACK),
                ],
                FlowState::Established,
            ),
        ];
        for (description, segments, expected) in cases {
            let mut rig = Rig::of(net);
            let opened = rig.open(net.client(10, 40_000), 1000);
            for (from, flags) in *segments {
                segment(&mut rig, &opened, *from, *flags);
            }
            assert_eq!(state(&rig), Some(*expected), "{description}");
        }
    }
}

#[test]
fn each_state_has_its_timeout_and_a_packet_renews_it() {
    for net in BOTH {
        use End::{Client, Target};
        let established: &[(End, u8)] = &[(Target, SYN | ACK), (Client, ACK)];
        let with = |more: &[(End, u8)]| [established, more].concat();
        // One turn of the expiry wheel, and a tick.
        const LATE: u64 = 9;
        let cases = [
            ("half open", vec![], Target, 15),
            ("established", with(&[]), Target, 900),
            ("half closed", with(&[(Target, FIN | ACK)]), Target, 60),
            (
                "closed by both",
                with(&[(Client, FIN | ACK), (Target, FIN | ACK)]),
                Target,
                10,
            ),
            ("reset", with(&[(Client, RST)]), Client, 30),
            ("refused", vec![(Target, RST | ACK)], Target, 10),
            (
                "reset when half closed",
                with(&[(Target, FIN | ACK), (Client, RST)]),
                Client,
                10,
            ),
        ];
        for (description, segments, renewed_by, timeout) in cases {
            let mut rig = Rig::of(net);
            let opened = rig.open(net.client(10, 40_000), 1000);
            for (from, flags) in segments {
                segment(&mut rig, &opened, from, flags);
            }
            rig.pass(timeout - 1);
            assert_eq!(rig.flow_count(), 1, "{description}: kept");
            let flow = rig.worker.flows(rig.now).next().unwrap();
            assert!(
                flow.expires_in <= Duration::from_millis(1100),
                "{description}: {:?} left",
                flow.expires_in
            );
            segment(&mut rig, &opened, renewed_by, ACK);
            rig.pass(timeout - 1);
            assert_eq!(rig.flow_count(), 1, "{description}: renewed");
            rig.pass(1 + LATE);
            assert_eq!(rig.flow_count(), 0, "{description}: gone");
            assert_eq!(rig.service_counts(80, Protocol::Tcp).flows_active, 0);
            assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).flows_active, 0);
            assert_eq!(rig.worker_counts().flows_expired, 1);
        }
    }
}

#[test]
fn timeouts_are_the_services_own() {
    for net in BOTH {
        let mut services = net.services();
        services[0].timeouts.established = Duration::from_secs(4);
        services[1].timeouts.udp = Duration::from_secs(2);
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        rig.establish(net.client(10, 40_000), 1000);
        rig.outside(&frame::udp(net.client(10, 5353), net.vip(53), b"query"));
        rig.pass(1);
        assert_eq!(rig.flow_count(), 2);
        rig.pass(2);
        assert_eq!(rig.flow_count(), 1, "the UDP flow has expired");
        // The TCP flow began half open, with 15 s: it is looked at again when those have passed.
        rig.pass(14);
        assert_eq!(rig.flow_count(), 0);
    }
}

#[test]
fn a_syn_on_a_closing_flow_reschedules_at_once() {
    for net in BOTH {
        use End::{Client, Target};
        let closings: &[(&str, &[(End, u8)])] = &[
            ("RST of the client", &[(Client, RST)]),
            ("FIN of both", &[(Target, FIN | ACK), (Client, FIN | ACK)]),
            ("RST of the target", &[(Target, RST)]),
        ];
        for (description, closing) in closings {
            let mut rig = Rig::of(net);
            let first = rig.establish(net.client(10, 40_000), 1000);
            for (from, flags) in *closing {
                segment(&mut rig, &first, *from, *flags);
            }
            let second = rig.open(net.client(10, 40_000), 500_000);
            assert_eq!(
                (first.target, second.target),
                (21, 22),
                "{description}: the scheduler is asked again"
            );
            assert_eq!(state(&rig), Some(FlowState::SynReceived), "{description}");
            assert_eq!(rig.worker_counts().flows_rescheduled, 1);
            let counts = rig.service_counts(80, Protocol::Tcp);
            assert_eq!(
                (counts.flows_created, counts.flows_active),
                (2, 1),
                "{description}"
            );
            // What the old target still sends belongs to nobody.
            let late = frame::tcp(net.target(21, 8080), net.local(first.local_port), ACK);
            let (port, answer) = rig.inside(&late, 21);
            assert_eq!((port, flags_of(&answer)), (INSIDE, RST), "{description}");
        }
    }
}

#[test]
fn a_syn_on_an_established_flow_is_the_targets_to_judge() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let again = rig.open(net.client(10, 40_000), 7_000_000);
        assert_eq!(
            (again.local_port, again.shift, again.target),
            (opened.local_port, opened.shift, 21)
        );
        assert_eq!(state(&rig), Some(FlowState::Established));
    }
}

/// The trap: the target keeps (LocalIP, port) in TIME_WAIT. It takes a new SYN there if its sequence number is above where the
/// old connection ended, and (without timestamps) for no other reason.
#[test]
fn a_reused_port_starts_above_where_the_last_connection_ended() {
    for net in BOTH {
        let mut limits = rig::small();
        (limits.first_port, limits.last_port) = (5000, 5000);
        let mut services = net.services();
        services[0].targets.truncate(1);
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let mut end = None::<u32>;
        // Clients whose own numbers fall, rise and wrap.
        for (n, seq) in [0x8000_0000, 1000, u32::MAX - 10, 5, 0x7fff_ffff]
            .into_iter()
            .enumerate()
        {
            let opened = rig.establish(net.client(10 + n as u8, 40_000), seq);
            assert_eq!(opened.local_port, 5000);
            let initial = seq.wrapping_add(opened.shift);
            if let Some(end) = end {
                assert!(
                    (initial.wrapping_sub(end) as i32) > 0,
                    "connection {n} starts at {initial}, the last ended at {end}"
                );
            }
            // The target closes first, and a gigabyte was uploaded.
            for sent in (0..1_000_000_000).step_by(4_000_000) {
                rig.from_client(&opened, ACK, seq.wrapping_add(1 + sent), 9001);
            }
            rig.from_target(&opened, FIN | ACK, 9001, seq.wrapping_add(1_000_000_000));
            let fin = rig.from_client(&opened, FIN | ACK, seq.wrapping_add(1_000_000_000), 9002);
            end = Some(frame::tcp_word(&fin, 4).wrapping_add(1));
            rig.pass(10 + 18);
            assert_eq!(rig.flow_count(), 0);
        }
    }
}

#[test]
fn the_port_that_rested_longest_is_used_next() {
    for net in BOTH {
        let mut limits = rig::small();
        (limits.first_port, limits.last_port) = (5000, 5009);
        let mut services = net.services();
        services[0].targets.truncate(1);
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let mut used = Vec::new();
        for n in 0..25 {
            let opened = rig.open(net.client(10 + n, 40_000), 1);
            rig.from_target(&opened, RST | ACK, 0, 2);
            rig.pass(25);
            used.push(opened.local_port);
        }
        for pair in used.windows(11) {
            assert_eq!(pair[0], pair[10], "ten ports in turn: {used:?}");
        }
    }
}

#[test]
fn a_flow_under_forged_resets_lives_on_while_it_has_traffic() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        segment(&mut rig, &opened, End::Client, RST);
        for _ in 0..20 {
            rig.pass(4);
            segment(&mut rig, &opened, End::Target, ACK);
            segment(&mut rig, &opened, End::Client, ACK);
        }
        assert_eq!(rig.flow_count(), 1);
    }
}

/// A download is given up: segments cross the client's RST, and its firewall lets no other RST out to answer them.
#[test]
fn segments_that_cross_a_reset_do_not_keep_the_port_for_long() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        segment(&mut rig, &opened, End::Client, RST);
        for _ in 0..3 {
            segment(&mut rig, &opened, End::Target, ACK);
        }
        rig.pass(30 + 9);
        assert_eq!(rig.flow_count(), 0);
    }
}

/// One forged RST, then nothing but a keep-alive and its answer: the idle connection is there as if nothing had been.
#[test]
fn a_forged_reset_ends_no_idle_connection_with_keep_alives() {
    for net in BOTH {
        for (forged_by, answered_by) in [(End::Client, End::Target), (End::Target, End::Client)] {
            let mut rig = Rig::of(net);
            let opened = rig.establish(net.client(10, 40_000), 1000);
            segment(&mut rig, &opened, forged_by, RST);
            assert_eq!(state(&rig), Some(FlowState::Closed));
            rig.pass(28);
            segment(&mut rig, &opened, answered_by, ACK);
            assert_eq!(state(&rig), Some(FlowState::Established));
            segment(&mut rig, &opened, forged_by, ACK);
            rig.pass(600);
            assert_eq!(state(&rig), Some(FlowState::Established));
            // A SYN of the same client port is again the target's to judge.
            let again = rig.open(net.client(10, 40_000), 7_000_000);
            assert_eq!(again.local_port, opened.local_port);
        }
    }
}

#[test]
fn a_leap_of_the_clock_expires_what_is_due_and_no_more() {
    for net in BOTH {
        let mut services = net.services();
        services[1].timeouts.udp = Duration::from_secs(100_000);
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        for n in 0..20 {
            rig.open(net.client(n, 40_000), 1);
            rig.outside(&frame::udp(net.client(n, 5353), net.vip(53), b"query"));
        }
        rig.now.0 += 50_000 * SECOND;
        rig.refresh();
        assert_eq!(rig.flow_count(), 20);
        assert!(
            rig.worker
                .flows(rig.now)
                .all(|flow| flow.protocol == Protocol::Udp)
        );
        rig.worker.check_invariants();
        rig.now.0 += 50_100 * SECOND;
        rig.refresh();
        assert_eq!(rig.flow_count(), 0);
        rig.worker.check_invariants();
    }
}

#[test]
fn one_tick_expires_a_bounded_number_of_flows() {
    for net in BOTH {
        let limits = dataplane::Limits {
            flows: 5000,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
        for n in 0..5000u32 {
            let from = net.stranger(n);
            let mut frames = [from_client(&frame::udp(from, net.vip(53), b"query"))];
            let mut verdicts = [Verdict::Kernel];
            rig.worker.burst(
                &rig.tables,
                rig.now,
                OUTSIDE,
                &mut frames,
                &mut verdicts,
                &mut rig.out,
            );
            assert_eq!(verdicts, [Verdict::Transmit(INSIDE)]);
        }
        rig.now.0 += 3600 * SECOND;
        let mut left = Vec::new();
        while rig.flow_count() > 0 {
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            left.push(rig.flow_count());
        }
        assert_eq!(
            left,
            [5000 - 1024, 5000 - 2048, 5000 - 3072, 5000 - 4096, 0]
        );
    }
}
