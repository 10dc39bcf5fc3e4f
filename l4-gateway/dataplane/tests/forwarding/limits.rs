//! Who may open how many flows: limits of services, targets and sources, access lists, and what is left under a flood.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::{
    Access, AccessRule, Counters, DropReason, FlowLimits, Limits, Policy, Protocol, Quota, Refusal,
    ServiceConfig, ServiceCounts, SourcePrefix, Verdict,
};

use super::frame::{self, ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Rig, SECOND, from_client, to_client};

/// What counts as one source: a network, or each address.
const NETWORKS: SourcePrefix = SourcePrefix { v4: 24, v6: 64 };
const ADDRESSES: SourcePrefix = SourcePrefix { v4: 32, v6: 128 };

fn with_policy(net: Net, policy: &Policy) -> Vec<ServiceConfig> {
    let mut services = net.services();
    for service in &mut services {
        service.policy = policy.clone();
    }
    services
}

fn rig(net: Net, policy: &Policy) -> Rig {
    Rig::serving(net, &rig::small(), &with_policy(net, policy)).resolved()
}

fn connections(connections: u32) -> Quota {
    Quota {
        connections,
        per_second: 0,
    }
}

fn per_second(per_second: u32) -> Quota {
    Quota {
        connections: 0,
        per_second,
    }
}

fn limits(limits: FlowLimits) -> Policy {
    Policy {
        limits,
        ..Policy::default()
    }
}

fn syn(from: SocketAddr) -> frame::Packet {
    let net = Net::of(from);
    frame::tcp(from, net.vip(80), SYN).seq(100, 0)
}

/// Whether a SYN is let in.
fn opens(rig: &mut Rig, from: SocketAddr) -> bool {
    let (verdict, _) = rig.try_send(OUTSIDE, from_client(&syn(from)));
    verdict == Verdict::Transmit(INSIDE)
}

/// Every limit lets two flows of one client in, and no third.
fn cases() -> Vec<(FlowLimits, DropReason, fn(&ServiceCounts) -> u64)> {
    let none = FlowLimits::default();
    vec![
        (
            FlowLimits {
                service: connections(2),
                ..none
            },
            DropReason::ServiceConnections,
            |counts| counts.limited_connections,
        ),
        (
            FlowLimits {
                service: per_second(2),
                ..none
            },
            DropReason::ServiceRate,
            |counts| counts.limited_rate,
        ),
        (
            FlowLimits {
                source: connections(2),
                ..none
            },
            DropReason::SourceConnections,
            |counts| counts.limited_source_connections,
        ),
        (
            FlowLimits {
                source: per_second(2),
                ..none
            },
            DropReason::SourceRate,
            |counts| counts.limited_source_rate,
        ),
        (
            FlowLimits {
                target: connections(1),
                ..none
            },
            DropReason::TargetLimits,
            |counts| counts.limited_targets,
        ),
        (
            FlowLimits {
                target: per_second(1),
                ..none
            },
            DropReason::TargetLimits,
            |counts| counts.limited_targets,
        ),
    ]
}

#[test]
fn a_connection_beyond_a_limit_gets_an_rst() {
    for net in BOTH {
        for (of, reason, limited) in cases() {
            let mut rig = rig(net, &limits(of));
            assert!(opens(&mut rig, net.client(10, 4000)) && opens(&mut rig, net.client(10, 4001)));
            let refused = frame::tcp(net.vip(80), net.client(10, 4002), RST | ACK)
                .seq(0, 101)
                .window(0);
            assert_eq!(
                rig.outside(&syn(net.client(10, 4002))),
                (OUTSIDE, to_client(&refused)),
                "{reason:?}"
            );
            let counts = rig.service_counts(80, Protocol::Tcp);
            assert_eq!(
                (limited(&counts), counts.resets_sent, counts.flows_created),
                (1, 1, 2),
                "{reason:?}"
            );
            assert_eq!(rig.flow_count(), 2, "{reason:?}");
        }
    }
}

#[test]
fn a_connection_beyond_a_limit_is_dropped_where_the_service_says_so() {
    for net in BOTH {
        for (of, reason, limited) in cases() {
            let policy = Policy {
                on_limit: Refusal::Drop,
                ..limits(of)
            };
            let mut rig = rig(net, &policy);
            assert!(opens(&mut rig, net.client(10, 4000)) && opens(&mut rig, net.client(10, 4001)));
            let dropped = rig.dropped(OUTSIDE, from_client(&syn(net.client(10, 4002))));
            assert_eq!(dropped, reason);
            let counts = rig.service_counts(80, Protocol::Tcp);
            assert_eq!((limited(&counts), counts.resets_sent), (1, 0), "{reason:?}");
            assert_eq!(rig.worker_counts().resets_sent, 0, "{reason:?}");
        }
    }
}

#[test]
fn a_datagram_beyond_a_limit_gets_a_port_unreachable() {
    for net in BOTH {
        for (of, reason, limited) in cases() {
            let mut rig = rig(net, &limits(of));
            let query = |port| frame::udp(net.client(10, port), net.vip(53), b"query");
            rig.outside(&query(4000));
            rig.outside(&query(4001));
            let (refused, (kind, code)) = (query(4002), net.port_unreachable());
            assert_eq!(rig.dropped(OUTSIDE, from_client(&refused)), reason);
            let (own, client) = (net.vip_ip(), net.client(10, 0).ip());
            let unreachable = frame::icmp(own, client, kind, code, 0, &refused.ip());
            assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&unreachable))]);
            assert_eq!(limited(&rig.service_counts(53, Protocol::Udp)), 1);
            // What it has goes on.
            rig.outside(&query(4000));
        }
    }
}

#[test]
fn a_connection_that_ends_makes_room_for_another() {
    for net in BOTH {
        for (of, reason, limited) in cases() {
            let mut rig = rig(net, &limits(of));
            assert!(opens(&mut rig, net.client(10, 4000)) && opens(&mut rig, net.client(10, 4001)));
            assert!(!opens(&mut rig, net.client(10, 4002)));
            // Until the SYNs time out; for rates one second was enough.
            rig.pass(25);
            assert!(opens(&mut rig, net.client(10, 4003)), "{reason:?}");
            assert!(opens(&mut rig, net.client(10, 4004)), "{reason:?}");
            assert!(!opens(&mut rig, net.client(10, 4005)), "{reason:?}");
            let counts = rig.service_counts(80, Protocol::Tcp);
            assert_eq!((limited(&counts), counts.flows_created), (2, 4));
        }
    }
}

#[test]
fn a_client_may_take_the_place_of_its_own_closing_connection() {
    for net in BOTH {
        for quota in [
            FlowLimits {
                source: connections(1),
                ..FlowLimits::default()
            },
            FlowLimits {
                service: connections(1),
                ..FlowLimits::default()
            },
        ] {
            let mut rig = rig(net, &limits(quota));
            let opened = rig.establish(net.client(10, 4000), 100);
            rig.from_client(&opened, FIN | ACK, 101, 9001);
            rig.from_target(&opened, FIN | ACK, 9001, 102);
            rig.from_client(&opened, ACK, 102, 9002);
            assert!(!opens(&mut rig, net.client(10, 4001)));
            assert!(opens(&mut rig, net.client(10, 4000)));
        }
    }
}

#[test]
fn a_target_at_its_limit_leaves_new_flows_to_others() {
    for net in BOTH {
        let mut services = with_policy(
            net,
            &limits(FlowLimits {
                target: connections(3),
                ..FlowLimits::default()
            }),
        );
        services[0].targets[0].weight = 1000;
        services[0].scheduler = dataplane::Scheduler::WeightedRoundRobin;
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        for n in 0..6 {
            assert!(opens(&mut rig, net.client(10, 4000 + n)));
        }
        assert!(!opens(&mut rig, net.client(10, 5000)));
        let of = |n| {
            let counts = rig.target_counts(80, Protocol::Tcp, n);
            (counts.flows_active, counts.at_limit)
        };
        // Three turns of 21 went to 22, and the last found both full.
        assert_eq!((of(21), of(22)), ((3, 4), (3, 1)));
    }
}

#[test]
fn a_source_is_a_prefix_and_another_source_is_not_concerned() {
    for net in BOTH {
        let policy = limits(FlowLimits {
            source: connections(2),
            source_prefix: NETWORKS,
            ..FlowLimits::default()
        });
        let mut rig = rig(net, &policy);
        assert!(opens(&mut rig, net.client(10, 4000)) && opens(&mut rig, net.client(11, 4000)));
        assert!(!opens(&mut rig, net.client(12, 4000)));
        assert!(opens(
            &mut rig,
            SocketAddr::new(net.in_network(1, 12), 4000)
        ));
        // Unless each address is one.
        rig.swap(&with_policy(
            net,
            &limits(FlowLimits {
                source: connections(2),
                source_prefix: ADDRESSES,
                ..FlowLimits::default()
            }),
        ));
        assert!(opens(&mut rig, net.client(12, 4000)) && opens(&mut rig, net.client(12, 4001)));
        assert!(!opens(&mut rig, net.client(12, 4002)));
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(
            (counts.limited_source_connections, counts.sources_untracked),
            (2, 0)
        );
    }
}

#[test]
fn a_source_that_is_turned_away_uses_nothing_up() {
    for net in BOTH {
        let policy = limits(FlowLimits {
            service: per_second(5),
            source: per_second(1),
            ..FlowLimits::default()
        });
        let mut rig = rig(net, &policy);
        for port in 4000..4020 {
            opens(&mut rig, net.client(66, port));
        }
        for n in 1..5 {
            assert!(opens(&mut rig, net.client(n, 4000)), "client {n}");
        }
        assert!(!opens(&mut rig, net.client(5, 4000)));
    }
}

#[test]
fn limits_that_change_hold_for_new_flows_and_lose_no_count() {
    for net in BOTH {
        let with = |most, source_prefix| {
            with_policy(
                net,
                &limits(FlowLimits {
                    source: connections(most),
                    source_prefix,
                    ..FlowLimits::default()
                }),
            )
        };
        let mut rig = Rig::serving(net, &rig::small(), &with(5, ADDRESSES)).resolved();
        for port in 4000..4005 {
            assert!(opens(&mut rig, net.client(10, port)));
        }
        rig.swap(&with(2, NETWORKS));
        assert!(opens(&mut rig, net.client(10, 4010)) && opens(&mut rig, net.client(11, 4010)));
        assert!(!opens(&mut rig, net.client(12, 4010)));
        rig.swap(&net.services());
        assert!(opens(&mut rig, net.client(12, 4010)));
        // Each gives its seat back where it took it; the invariants compare the sums.
        rig.pass(25);
        assert_eq!(rig.flow_count(), 0);
        rig.swap(&with(5, ADDRESSES));
        for port in 4000..4005 {
            assert!(opens(&mut rig, net.client(10, port)));
        }
    }
}

#[test]
fn workers_keep_limits_together() {
    for net in BOTH {
        for (of, reason, _) in cases() {
            let counters = Arc::new(Counters::new(3, &rig::small()));
            let services = with_policy(net, &limits(of));
            let builder = rig::builder(&net.ports(), &services);
            let mut rigs: Vec<Rig> = (0..3)
                .map(|index| Rig::sharing(&rig::small(), &builder, index, &counters).resolved())
                .collect();
            let mut let_in = 0;
            for n in 0..12u16 {
                let (mut frames, mut verdicts) = (
                    [from_client(&syn(net.client(10, 4000 + n)))],
                    [Verdict::Kernel],
                );
                let rig = &mut rigs[usize::from(n) % 3];
                let (tables, out) = (&rig.tables, &mut rig.out);
                // As their owner, whatever their hash says.
                rig.worker
                    .handed_over(tables, rig.now, OUTSIDE, &mut frames, &mut verdicts, out);
                let_in += u32::from(verdicts[0] == Verdict::Transmit(INSIDE));
            }
            assert_eq!(let_in, 2, "{reason:?}");
        }
    }
}

fn access(rules: &[(IpAddr, u8, bool)], others: bool) -> Policy {
    let rules: Vec<AccessRule> = rules
        .iter()
        .map(|(address, prefix, allow)| AccessRule {
            address: *address,
            prefix: *prefix,
            allow: *allow,
        })
        .collect();
    Policy {
        access: Some(Arc::new(Access::new(&rules, others).unwrap())),
        ..Policy::default()
    }
}

#[test]
fn a_denied_source_hears_nothing_unless_the_service_says_so() {
    for net in BOTH {
        let policy = access(
            &[
                (net.address(9, 0), net.segment_bits(), true),
                (net.address(9, 66), net.address_bits(), false),
            ],
            false,
        );
        let mut silent = rig(net, &policy);
        assert!(opens(&mut silent, net.client(65, 4000)));
        let refused = from_client(&syn(net.client(66, 4000)));
        assert_eq!(silent.dropped(OUTSIDE, refused.clone()), DropReason::Denied);
        let query = frame::udp(net.client(66, 4000), net.vip(53), b"query");
        assert_eq!(
            silent.dropped(OUTSIDE, from_client(&query)),
            DropReason::Denied
        );
        assert!(silent.emitted().is_empty());
        assert_eq!(silent.service_counts(80, Protocol::Tcp).denied, 1);
        assert_eq!(silent.service_counts(53, Protocol::Udp).denied, 1);

        let mut talking = rig(
            net,
            &Policy {
                on_denied: Refusal::Reset,
                ..policy
            },
        );
        let rst = frame::tcp(net.vip(80), net.client(66, 4000), RST | ACK)
            .seq(0, 101)
            .window(0);
        assert_eq!(
            talking.try_send(OUTSIDE, refused),
            (Verdict::Transmit(OUTSIDE), to_client(&rst))
        );
    }
}

#[test]
fn a_connection_outlives_a_list_that_would_not_let_it_in() {
    for net in BOTH {
        let mut rig = rig(net, &Policy::default());
        let opened = rig.establish(net.client(66, 4000), 100);
        let denied = (net.address(9, 66), net.address_bits(), false);
        rig.swap(&with_policy(net, &access(&[denied], true)));
        rig.from_client(&opened, ACK, 101, 9001);
        assert!(!opens(&mut rig, net.client(66, 4001)));
        assert!(opens(&mut rig, net.client(65, 4001)));
    }
}

/// SYNs from forged sources, many times as many as there is room for.
#[test]
fn a_flood_of_forged_sources_takes_neither_established_flows_nor_known_sources() {
    for net in BOTH {
        let limits = Limits {
            flows: 1024,
            sources: 256,
            ..rig::small()
        };
        let policy = self::limits(FlowLimits {
            service: Quota {
                connections: 800,
                per_second: 2000,
            },
            source: connections(4),
            ..FlowLimits::default()
        });
        let mut rig = Rig::serving(net, &limits, &with_policy(net, &policy)).resolved();
        let known: Vec<rig::Opened> = (0..4)
            .map(|n| rig.establish(net.client(10, 4000 + n), 100))
            .collect();
        let mut rejected = 0;
        for round in 0..20u32 {
            for n in 0..1000u32 {
                let packet = syn(net.stranger(round * 1000 + n));
                let (mut frames, mut verdicts) = ([from_client(&packet)], [Verdict::Kernel]);
                let (tables, out) = (&rig.tables, &mut rig.out);
                rig.worker
                    .burst(tables, rig.now, OUTSIDE, &mut frames, &mut verdicts, out);
                rejected += u32::from(verdicts[0] == Verdict::Transmit(OUTSIDE));
            }
            assert!(rig.flow_count() <= 800);
            rig.now.0 += SECOND;
            rig.out.clear();
            rig.refresh();
            for opened in &known {
                rig.from_client(opened, ACK, 101, 9001);
                rig.from_target(opened, ACK, 9001, 101);
            }
            assert!(
                !opens(&mut rig, net.client(10, 5000)),
                "its source is still known"
            );
        }
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert!(counts.sources_untracked > 0, "{counts:?}");
        assert!(counts.limited_connections > 10_000, "{counts:?}");
        assert_eq!(rejected as u64, counts.resets_sent - 20);
        // The flood is over, and forgotten.
        rig.pass(30);
        assert_eq!(rig.flow_count(), 4);
        assert!(opens(&mut rig, net.client(11, 5000)));
        let active = |n| rig.target_counts(80, Protocol::Tcp, n).flows_active;
        assert_eq!(active(21) + active(22), 5);
    }
}
