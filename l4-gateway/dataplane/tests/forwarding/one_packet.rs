//! One-packet scheduling: each datagram of a client goes where the scheduler says, and each answer finds back.

use dataplane::{
    DropReason, FlowLimits, FlowState, Policy, Protocol, Quota, ServiceConfig, Verdict,
};

use super::frame::{self, port_word};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, client, from_client, local, target, to_client, to_target, up, vip,
};

fn services() -> Vec<ServiceConfig> {
    let mut log = ServiceConfig::new(rig::VIP, Protocol::Udp, 53);
    log.targets = vec![up(target(21)), up(target(22)), up(target(23))];
    log.policy = Policy {
        one_packet: true,
        ..Policy::default()
    };
    vec![log]
}

fn rig() -> Rig {
    Rig::with(&rig::small(), &services()).resolved()
}

#[test]
fn datagrams_of_one_client_port_go_to_all_targets_and_answers_come_back_from_the_vip() {
    let mut rig = rig();
    let from = client(10, 4000);
    let mut ports = Vec::new();
    for n in 0..9u8 {
        let data = [n; 10];
        let (port, sent) = rig.outside(&frame::udp(from, vip(53), &data));
        let chosen = 21 + n % 3;
        let source = local(port_word(&sent, 0));
        let expected = frame::udp(source, target(chosen), &data).ttl(63);
        assert_eq!((port, sent), (INSIDE, to_target(&expected, chosen)));
        ports.push(source.port());
    }
    // A client's datagrams to one target share a port.
    assert_eq!(ports[..3], ports[3..6]);
    assert_eq!(rig.flow_count(), 3);
    // Answers, in another order, and more than one each.
    for n in [2usize, 0, 1, 0, 2] {
        let chosen = 21 + n as u8;
        let answer = frame::udp(target(chosen), local(ports[n]), b"answer");
        let expected = frame::udp(vip(53), from, b"answer").ttl(63);
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

#[test]
fn clients_do_not_share_flows() {
    let mut rig = rig();
    for n in 0..10u8 {
        for _ in 0..3 {
            rig.outside(&frame::udp(client(n, 4000), vip(53), b"query"));
        }
    }
    assert_eq!(rig.flow_count(), 30);
    rig.pass(70);
    assert_eq!(rig.flow_count(), 0);
}

#[test]
fn targets_that_come_and_go_are_followed_by_the_next_datagram() {
    let mut rig = rig();
    let from = client(10, 4000);
    let sent_to = |rig: &mut Rig| rig.outside(&frame::udp(from, vip(53), b"x")).1[33];
    for _ in 0..3 {
        sent_to(&mut rig);
    }
    let mut changed = services();
    changed[0].targets[1].up = false;
    rig.swap(&changed);
    let next: Vec<u8> = (0..4).map(|_| sent_to(&mut rig)).collect();
    assert!(!next.contains(&22), "{next:?}");
    changed[0].targets.clear();
    rig.swap(&changed);
    let query = frame::udp(from, vip(53), b"x");
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&query)),
        DropReason::NoTarget
    );
}

#[test]
fn limits_count_flows_not_datagrams() {
    let mut services = services();
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
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    for _ in 0..12 {
        let (verdict, _) = rig.try_send(
            OUTSIDE,
            from_client(&frame::udp(client(10, 4000), vip(53), b"x")),
        );
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
    }
    let other = frame::udp(client(11, 4000), vip(53), b"x");
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&other)),
        DropReason::TargetLimits
    );
}

#[test]
fn an_operator_sees_each_flow() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.outside(&frame::udp(client(10, 4000), vip(53), b"x"));
    }
    let mut flows: Vec<_> = rig.worker.flows(rig.now).collect();
    flows.sort_by_key(|flow| flow.target);
    for (flow, n) in flows.iter().zip(21..) {
        assert_eq!(
            (flow.client, flow.vip, flow.target, flow.state),
            (
                client(10, 4000).into(),
                vip(53).into(),
                target(n).into(),
                FlowState::Udp
            )
        );
    }
    assert_eq!(flows.len(), 3);
}

#[test]
fn a_fast_client_takes_one_port_of_each_target() {
    let mut rig = rig();
    for _ in 0..2000 {
        rig.outside(&frame::udp(client(10, 4000), vip(53), b"x"));
        rig.out.clear();
    }
    assert_eq!(rig.flow_count(), 3);
    let last = rig.service_counts(53, Protocol::Udp);
    assert_eq!((last.packets_in, last.flows_created), (2000, 3));
}
