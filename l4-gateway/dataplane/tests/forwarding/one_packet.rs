//! One-packet scheduling: each datagram of a client goes where the scheduler says, and each answer finds back.

use dataplane::{
    DropReason, FlowLimits, FlowState, Policy, Protocol, Quota, ServiceConfig, Verdict,
};

use super::frame::{self, port_word, target_of};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, to_client, to_target, up};

fn services(net: Net) -> Vec<ServiceConfig> {
    let mut log = ServiceConfig::new(net.vip_ip(), Protocol::Udp, 53);
    log.targets = vec![
        up(net.target(21, 8080)),
        up(net.target(22, 8080)),
        up(net.target(23, 8080)),
    ];
    log.policy = Policy {
        one_packet: true,
        ..Policy::default()
    };
    vec![log]
}

fn rig(net: Net) -> Rig {
    Rig::serving(net, &rig::small(), &services(net)).resolved()
}

#[test]
fn datagrams_of_one_client_port_go_to_all_targets_and_answers_come_back_from_the_vip() {
    for net in BOTH {
        let mut rig = rig(net);
        let from = net.client(10, 4000);
        let mut ports = Vec::new();
        for n in 0..9u8 {
            let data = [n; 10];
            let (port, sent) = rig.outside(&frame::udp(from, net.vip(53), &data));
            let chosen = 21 + n % 3;
            let source = net.local(port_word(&sent, 0));
            let expected = frame::udp(source, net.target(chosen, 8080), &data).ttl(63);
            assert_eq!((port, sent), (INSIDE, to_target(&expected, chosen)));
            ports.push(source.port());
        }
        // A client's datagrams to one target share a port.
        assert_eq!(ports[..3], ports[3..6]);
        assert_eq!(rig.flow_count(), 3);
        // Answers, in another order, and more than one each.
        for n in [2usize, 0, 1, 0, 2] {
            let chosen = 21 + n as u8;
            let answer = frame::udp(net.target(chosen, 8080), net.local(ports[n]), b"answer");
            let expected = frame::udp(net.vip(53), from, b"answer").ttl(63);
            assert_eq!(
                rig.inside(&answer, chosen),
                (OUTSIDE, to_client(&expected)),
                "from {chosen}"
            );
        }
        let counts = rig.service_counts(53, Protocol::Udp);
        assert_eq!(
            (counts.packets_in, counts.packets_out, counts.flows_created),
            (9, 5, 3)
        );
    }
}

#[test]
fn clients_do_not_share_flows() {
    for net in BOTH {
        let mut rig = rig(net);
        for n in 0..10u8 {
            for _ in 0..3 {
                rig.outside(&frame::udp(net.client(n, 4000), net.vip(53), b"query"));
            }
        }
        assert_eq!(rig.flow_count(), 30);
        rig.pass(70);
        assert_eq!(rig.flow_count(), 0);
    }
}

#[test]
fn targets_that_come_and_go_are_followed_by_the_next_datagram() {
    for net in BOTH {
        let mut rig = rig(net);
        let from = net.client(10, 4000);
        let sent_to =
            |rig: &mut Rig| target_of(&rig.outside(&frame::udp(from, net.vip(53), b"x")).1);
        for _ in 0..3 {
            sent_to(&mut rig);
        }
        let mut changed = services(net);
        changed[0].targets[1].up = false;
        rig.swap(&changed);
        let next: Vec<u8> = (0..4).map(|_| sent_to(&mut rig)).collect();
        assert!(!next.contains(&22), "{next:?}");
        changed[0].targets.clear();
        rig.swap(&changed);
        let query = frame::udp(from, net.vip(53), b"x");
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&query)),
            DropReason::NoTarget
        );
    }
}

#[test]
fn limits_count_flows_not_datagrams() {
    for net in BOTH {
        let mut services = services(net);
        services[0].policy.limits = FlowLimits {
            source: Quota {
                connections: 3,
                per_second: 3,
            },
            target: Quota {
                connections: 1,
                per_second: 1,
            },
            ..FlowLimits::default()
        };
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        for _ in 0..12 {
            let (verdict, _) = rig.try_send(
                OUTSIDE,
                from_client(&frame::udp(net.client(10, 4000), net.vip(53), b"x")),
            );
            assert_eq!(verdict, Verdict::Transmit(INSIDE));
        }
        let other = frame::udp(net.client(11, 4000), net.vip(53), b"x");
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&other)),
            DropReason::TargetLimits
        );
    }
}

#[test]
fn an_operator_sees_each_flow() {
    for net in BOTH {
        let mut rig = rig(net);
        for _ in 0..3 {
            rig.outside(&frame::udp(net.client(10, 4000), net.vip(53), b"x"));
        }
        let mut flows: Vec<_> = rig.worker.flows(rig.now).collect();
        flows.sort_by_key(|flow| flow.target);
        for (flow, n) in flows.iter().zip(21..) {
            assert_eq!(
                (flow.client, flow.vip, flow.target, flow.state),
                (
                    net.client(10, 4000),
                    net.vip(53),
                    net.target(n, 8080),
                    FlowState::Udp
                )
            );
        }
        assert_eq!(flows.len(), 3);
    }
}

#[test]
fn a_fast_client_takes_one_port_of_each_target() {
    for net in BOTH {
        let mut rig = rig(net);
        for _ in 0..2000 {
            rig.outside(&frame::udp(net.client(10, 4000), net.vip(53), b"x"));
            rig.out.clear();
        }
        assert_eq!(rig.flow_count(), 3);
        let last = rig.service_counts(53, Protocol::Udp);
        assert_eq!((last.packets_in, last.flows_created), (2000, 3));
    }
}
