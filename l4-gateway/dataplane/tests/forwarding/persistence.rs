//! New flows of a source stay with the target of its last one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Counters, FlowLimits, Mode, Persistence, Policy, Protocol, Quota, Scheduler, ServiceConfig,
    SourcePrefix, Verdict,
};

use super::frame::{self, ACK, FIN, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Opened, Rig, from_client, up};

const TIMEOUT: u64 = 60;

/// TCP 80 in turn over three targets, each /24 or /64 a source.
fn services(net: Net) -> Vec<ServiceConfig> {
    let mut http = ServiceConfig::new(net.vip_ip(), Protocol::Tcp, 80);
    http.targets = vec![
        up(net.target(21, 8080)),
        up(net.target(22, 8080)),
        up(net.target(23, 8080)),
    ];
    http.policy = Policy {
        persistence: Some(Persistence {
            timeout: Duration::from_secs(TIMEOUT),
            prefix: SourcePrefix { v4: 24, v6: 64 },
            group: None,
        }),
        ..Policy::default()
    };
    vec![http]
}

fn rig(net: Net) -> Rig {
    Rig::serving(net, &rig::small(), &services(net)).resolved()
}

/// The target of a new flow.
fn opened(rig: &mut Rig, from: SocketAddr) -> u8 {
    rig.open(from, 100).target
}

#[test]
fn flows_of_a_prefix_go_to_one_target_and_those_of_another_in_turn() {
    for net in BOTH {
        let mut rig = rig(net);
        let first = opened(&mut rig, net.client(10, 4000));
        for n in 1..20 {
            let from = net.client(n, 4000 + u16::from(n));
            assert_eq!(opened(&mut rig, from), first);
        }
        assert_ne!(
            opened(&mut rig, SocketAddr::new(net.in_network(1, 10), 4000)),
            first
        );
        assert_eq!(rig.service_counts(80, Protocol::Tcp).persisted, 19);
    }
}

#[test]
fn a_source_is_forgotten_when_it_has_had_no_flow_for_the_timeout() {
    for net in BOTH {
        let mut rig = rig(net);
        let first = opened(&mut rig, net.client(10, 4000));
        // The SYN's flow lives 15 s; the timeout counts from its end.
        rig.pass(15 + TIMEOUT - 2);
        assert_eq!(opened(&mut rig, net.client(10, 4001)), first);
        assert_eq!(rig.flow_count(), 1);
        rig.pass(15 + 9 + TIMEOUT + 2);
        assert_eq!(rig.flow_count(), 0);
        assert_ne!(
            opened(&mut rig, net.client(10, 4002)),
            first,
            "it is the next one's turn"
        );
        assert_eq!(rig.service_counts(80, Protocol::Tcp).persisted, 1);
    }
}

#[test]
fn a_source_is_remembered_as_long_as_a_flow_lives() {
    for net in BOTH {
        let mut rig = rig(net);
        let connection = rig.establish(net.client(10, 4000), 100);
        rig.pass(4 * TIMEOUT);
        rig.from_client(&connection, ACK, 101, 9001);
        assert_eq!(opened(&mut rig, net.client(10, 4001)), connection.target);
    }
}

/// What is left of a connection when it is closed keeps nobody anywhere.
#[test]
fn a_source_is_forgotten_the_timeout_after_its_connection_was_closed() {
    for net in BOTH {
        let fin = |rig: &mut Rig, opened: &Opened| {
            rig.from_client(opened, FIN | ACK, 101, 9001);
            rig.from_target(opened, FIN | ACK, 9001, 102);
            rig.from_client(opened, ACK, 102, 9002);
        };
        let rst = |rig: &mut Rig, opened: &Opened| {
            rig.from_client(opened, RST, 101, 0);
        };
        let ends: [(&str, &dyn Fn(&mut Rig, &Opened)); 2] = [("FIN", &fin), ("RST", &rst)];
        for (description, end) in ends {
            for (passed, stays) in [(TIMEOUT - 2, true), (TIMEOUT + 2, false)] {
                let mut services = services(net);
                services[0].timeouts.time_wait = Duration::from_secs(3 * TIMEOUT);
                services[0].timeouts.close = Duration::from_secs(3 * TIMEOUT);
                let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
                let connection = rig.establish(net.client(10, 4000), 100);
                rig.pass(2 * TIMEOUT);
                end(&mut rig, &connection);
                rig.pass(passed);
                assert_eq!(rig.flow_count(), 1, "its flow is still there");
                let next = opened(&mut rig, net.client(10, 4001));
                assert_eq!(next == connection.target, stays, "{description}");
            }
        }
    }
}

#[test]
fn a_source_is_forgotten_the_timeout_after_its_client_closed_where_targets_are_not_heard() {
    for net in BOTH {
        for (passed, stays) in [(TIMEOUT - 2, true), (TIMEOUT + 2, false)] {
            let mut services = services(net);
            services[0].mode = Mode::Direct;
            services[0].timeouts.fin_wait = Duration::from_secs(3 * TIMEOUT);
            services[0].targets = [21, 22, 23].map(|n| up(net.target(n, 80))).into();
            let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
            let send = |rig: &mut Rig, port, flags, seq| {
                let packet = frame::tcp(net.client(10, port), net.vip(80), flags).seq(seq, 9001);
                // The MAC of its target.
                rig.outside(&packet).1[5]
            };
            let target = send(&mut rig, 4000, SYN, 100);
            send(&mut rig, 4000, ACK, 101);
            rig.pass(2 * TIMEOUT);
            send(&mut rig, 4000, FIN | ACK, 101);
            rig.pass(passed);
            assert_eq!(rig.flow_count(), 1);
            assert_eq!(send(&mut rig, 4001, SYN, 100) == target, stays);
        }
    }
}

#[test]
fn a_target_that_takes_no_flows_is_left_and_not_returned_to() {
    for net in BOTH {
        type Change = fn(&mut ServiceConfig, usize);
        let changes: [(&str, Change); 4] = [
            ("down", |service, place| service.targets[place].up = false),
            ("draining", |service, place| {
                service.targets[place].draining = true;
            }),
            ("weight 0", |service, place| {
                service.targets[place].weight = 0;
            }),
            ("removed", |service, place| {
                service.targets.remove(place);
            }),
        ];
        for (description, change) in changes {
            let mut rig = rig(net);
            let first = opened(&mut rig, net.client(10, 4000));
            let mut changed = services(net);
            change(&mut changed[0], usize::from(first - 21));
            rig.swap(&changed);
            let second = opened(&mut rig, net.client(10, 4001));
            assert_ne!(second, first, "{description}");
            assert_eq!(
                opened(&mut rig, net.client(10, 4002)),
                second,
                "{description}"
            );
            rig.swap(&services(net));
            assert_eq!(
                opened(&mut rig, net.client(10, 4003)),
                second,
                "{description}"
            );
        }
    }
}

#[test]
fn a_target_at_its_limit_is_left() {
    for net in BOTH {
        let mut services = services(net);
        services[0].policy.limits = FlowLimits {
            target: Quota {
                connections: 2,
                per_second: 0,
            },
            ..FlowLimits::default()
        };
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let targets: Vec<u8> = (0..6)
            .map(|n| opened(&mut rig, net.client(10, 4000 + n)))
            .collect();
        let pairs: Vec<_> = targets.chunks(2).collect();
        assert!(pairs.iter().all(|pair| pair[0] == pair[1]), "{targets:?}");
        assert!(targets[0] != targets[2] && targets[2] != targets[4] && targets[0] != targets[4]);
    }
}

#[test]
fn hashing_schedulers_hash_the_prefix_so_that_nodes_agree() {
    for net in BOTH {
        for scheduler in [Scheduler::SourceHash, Scheduler::Maglev] {
            let mut services = services(net);
            services[0].scheduler = scheduler;
            // Nodes that know nothing of each other.
            for third in 0..8u8 {
                let chosen = (1..5u8).map(|n| {
                    let mut node = Rig::serving(net, &rig::small(), &services).resolved();
                    let from = SocketAddr::new(net.in_network(third, n), 4000 + u16::from(n));
                    opened(&mut node, from)
                });
                let chosen: Vec<u8> = chosen.collect();
                assert_eq!(chosen, [chosen[0]; 4], "{scheduler:?}");
            }
        }
    }
}

#[test]
fn workers_agree_whichever_gets_the_packet() {
    for net in BOTH {
        let counters = Arc::new(Counters::new(4, &rig::small()));
        let builder = rig::builder(&net.ports(), &services(net));
        let mut rigs: Vec<Rig> = (0..4)
            .map(|index| Rig::sharing(&rig::small(), &builder, index, &counters).resolved())
            .collect();
        let mut chosen = Vec::new();
        for n in 0..40u16 {
            let from = net.client(10 + (n % 9) as u8, 4000 + n);
            let packet = frame::tcp(from, net.vip(80), SYN).seq(100, 0);
            let (mut frames, mut verdicts) = ([from_client(&packet)], [Verdict::Kernel]);
            let rig = &mut rigs[usize::from(n) % 4];
            let (tables, out) = (&rig.tables, &mut rig.out);
            rig.worker
                .handed_over(tables, rig.now, OUTSIDE, &mut frames, &mut verdicts, out);
            assert_eq!(verdicts[0], Verdict::Transmit(INSIDE));
            chosen.push(frames[0][33]);
        }
        assert_eq!(chosen, [chosen[0]; 40]);
    }
}
