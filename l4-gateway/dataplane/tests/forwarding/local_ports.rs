//! Local ports: how they are shared among targets and LocalIPs, and what happens when none is free.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{DropReason, Event, Limits, Protocol};

use super::frame::{self, ACK, RST, SYN, flags_of, source_of, source_port, target_of};
use super::net::BOTH;
use super::refusals::rst;
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, to_client};

#[test]
fn exhausted_ports_are_counted_reported_once_a_second_and_answered() {
    for net in BOTH {
        let mut services = net.services();
        services[0].targets.truncate(1);
        let limits = Limits {
            first_port: 5000,
            last_port: 5009,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let id = rig.service(80, Protocol::Tcp).targets[0];
        let mut ports: Vec<u16> = (0..10)
            .map(|n| rig.open(net.client(n, 4000), 1).local_port)
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, (5000..=5009).collect::<Vec<u16>>());
        for n in 10..30 {
            let (_, answer) =
                rig.outside(&frame::tcp(net.client(n, 4000), net.vip(80), SYN).seq(1, 0));
            assert_eq!(
                answer,
                to_client(&rst(net.vip(80), net.client(n, 4000), RST | ACK, 0, 2))
            );
        }
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(
            (
                counts.port_exhausted,
                counts.resets_sent,
                counts.flows_active
            ),
            (20, 20, 10)
        );
        assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).port_exhausted, 20);
        assert_eq!(rig.worker_counts().events_suppressed, 19);
        let service = rig.service(80, Protocol::Tcp).id;
        assert_eq!(
            rig.events(),
            [Event::PortsExhausted {
                service,
                target: id
            }]
        );
        // Flows in place go on, and a port that comes back is used.
        let flow = rig
            .worker
            .flows(rig.now)
            .find(|flow| flow.local.is_some_and(|local| local.port() == 5003))
            .unwrap();
        let (_, sent) = rig.inside(
            &frame::tcp(net.target(21, 8080), net.local(5003), RST | ACK),
            21,
        );
        assert_eq!(flags_of(&sent), RST | ACK);
        rig.now.0 += 10 * rig::SECOND;
        rig.pass(13);
        assert!(rig.flow_count() < 10);
        let again = rig.open_from(flow.client);
        assert!((5000..=5009).contains(&again));
    }
}

#[test]
fn datagrams_for_which_no_port_is_free_are_dropped_and_answered() {
    for net in BOTH {
        let mut services = net.services();
        services[1].targets.truncate(1);
        services[1].timeouts.udp = Duration::from_secs(5);
        let limits = Limits {
            first_port: 5000,
            last_port: 5003,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let query = |n| frame::udp(net.client(n, 5353), net.vip(53), b"query");
        let mut ports: Vec<u16> = (0..4)
            .map(|n| source_port(&rig.outside(&query(n)).1))
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, [5000, 5001, 5002, 5003]);
        let refused = query(4).ttl(9);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&refused)),
            DropReason::PortExhausted
        );
        let (kind, code) = net.port_unreachable();
        let (own, client) = (net.vip_ip(), net.client(4, 1).ip());
        let error = frame::icmp(own, client, kind, code, 0, &refused.ip());
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
        let counts = rig.service_counts(53, Protocol::Udp);
        assert_eq!(
            (
                counts.port_exhausted,
                counts.icmp_errors_sent,
                counts.flows_active
            ),
            (1, 1, 4)
        );
        let target = rig.service(53, Protocol::Udp).targets[0];
        assert_eq!(rig.counters.target(target).port_exhausted, 1);
        let service = rig.service(53, Protocol::Udp).id;
        assert_eq!(rig.events(), [Event::PortsExhausted { service, target }]);
        // The flows that are there go on, and when one is over its port is another's.
        for _ in 0..15 {
            rig.pass(1);
            for n in 1..4 {
                assert_eq!(rig.outside(&query(n)).0, INSIDE);
            }
        }
        let (port, sent) = rig.outside(&query(4));
        let local = net.local(source_port(&sent));
        let there = frame::udp(local, net.target(21, 8080), b"query").ttl(63);
        assert_eq!((port, sent), (INSIDE, rig::to_target(&there, 21)));
        assert_eq!(rig.flow_count(), 4);
    }
}

impl Rig {
    /// Opens from any address; the local port.
    fn open_from(&mut self, from: SocketAddr) -> u16 {
        let vip = self.net.vip(80);
        source_port(&self.outside(&frame::tcp(from, vip, SYN)).1)
    }
}

#[test]
fn one_local_port_serves_several_targets_at_once() {
    for net in BOTH {
        let limits = Limits {
            first_port: 5000,
            last_port: 5000,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
        let (first, second) = (
            rig.open(net.client(1, 4000), 1),
            rig.open(net.client(2, 4000), 1),
        );
        assert_eq!((first.target, second.target), (21, 22));
        assert_eq!((first.local_port, second.local_port), (5000, 5000));
        // And TCP and UDP, towards the same target.
        let (_, sent) = rig.outside(&frame::udp(net.client(1, 4000), net.vip(53), b"query"));
        assert_eq!(source_port(&sent), 5000);
    }
}

#[test]
fn two_services_with_one_target_never_share_a_local_port_towards_it() {
    for net in BOTH {
        let mut services = net.services();
        services[0].targets.truncate(1);
        let mut other = services[0].clone();
        other.ports = 443.into();
        services.push(other);
        let limits = Limits {
            first_port: 5000,
            last_port: 5007,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let mut ports = Vec::new();
        for n in 0..4 {
            ports.push(rig.open_from(net.client(n, 4000)));
            let (_, sent) = rig.outside(&frame::tcp(net.client(n, 4000), net.vip(443), SYN));
            ports.push(source_port(&sent));
        }
        ports.sort_unstable();
        assert_eq!(ports, (5000..=5007).collect::<Vec<u16>>());
        let (_, answer) = rig.outside(&frame::tcp(net.client(9, 4000), net.vip(443), SYN));
        assert_eq!(flags_of(&answer), RST | ACK);
        assert_eq!(rig.service_counts(443, Protocol::Tcp).port_exhausted, 1);
    }
}

#[test]
fn local_ips_take_turns_out_of_step_with_the_scheduler() {
    for net in BOTH {
        let mut builder = rig::builder(&net.ports(), &net.services());
        builder.local_ip(net.address(2, 101));
        let mut rig = Rig::from(&rig::small(), &builder, 0, 1)
            .resolved()
            .speaking(net);
        // Two targets and two LocalIPs in turn: all four pairs must be used, not two of them.
        let mut pairs = std::collections::BTreeMap::new();
        for n in 0..16 {
            let (_, sent) = rig.outside(&frame::tcp(net.client(n, 4000), net.vip(80), SYN));
            *pairs
                .entry((rig::last(source_of(&sent)), target_of(&sent)))
                .or_insert(0) += 1;
        }
        assert_eq!(
            pairs.into_iter().collect::<Vec<_>>(),
            [
                ((100, 21), 4),
                ((100, 22), 4),
                ((101, 21), 4),
                ((101, 22), 4)
            ]
        );
    }
}

#[test]
fn when_one_local_ip_is_out_of_ports_the_other_serves() {
    for net in BOTH {
        let mut services = net.services();
        services[0].targets.truncate(1);
        let mut builder = rig::builder(&net.ports(), &services);
        builder.local_ip(net.address(2, 101));
        let limits = Limits {
            first_port: 5000,
            last_port: 5002,
            ..rig::small()
        };
        let mut rig = Rig::from(&limits, &builder, 0, 1).resolved().speaking(net);
        let mut used: Vec<(u8, u16)> = (0..6)
            .map(|n| {
                let (_, sent) = rig.outside(&frame::tcp(net.client(n, 4000), net.vip(80), SYN));
                (rig::last(source_of(&sent)), source_port(&sent))
            })
            .collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 6);
        assert_eq!(
            flags_of(
                &rig.outside(&frame::tcp(net.client(9, 4000), net.vip(80), SYN))
                    .1
            ),
            RST | ACK
        );
    }
}
