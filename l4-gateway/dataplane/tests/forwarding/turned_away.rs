//! A flow that is turned away, for whatever reason, uses up nothing of what others could have.

use std::net::Ipv4Addr;
use std::time::Duration;

use dataplane::{
    DropReason, FlowLimits, Limits, Persistence, Policy, Protocol, Quota, Refusal, ServiceConfig,
    SourcePrefix, TablesBuilder, Verdict,
};

use super::frame::{self, SYN};
use super::rig::{self, INSIDE, OUTSIDE, Rig, client, from_client, target, up, vip};

fn quota(connections: u32, per_second: u32) -> Quota {
    Quota {
        connections,
        per_second,
    }
}

/// TCP 80 and UDP 53, with these targets and limits; what is beyond is dropped.
fn services(targets: &[u8], limits: FlowLimits) -> Vec<ServiceConfig> {
    let mut services = rig::services();
    for service in &mut services {
        service.targets = targets.iter().map(|n| up(target(*n))).collect();
        service.policy = Policy {
            limits,
            on_limit: Refusal::Drop,
            ..Policy::default()
        };
    }
    services
}

/// Two local ports towards each target.
fn two_ports() -> Limits {
    Limits {
        first_port: 2000,
        last_port: 2001,
        ..rig::small()
    }
}

/// With a second LocalIP, and as many ports again.
fn with_more_ports(services: &[ServiceConfig]) -> TablesBuilder {
    let mut builder = rig::builder(&rig::ports(), services);
    builder.local_ip(Ipv4Addr::new(10, 3, 0, 101));
    builder
}

/// What becomes of a SYN.
fn syn(rig: &mut Rig, from: u8, port: u16) -> Verdict {
    let packet = frame::tcp(client(from, port), vip(80), SYN).seq(100, 0);
    rig.try_send(OUTSIDE, from_client(&packet)).0
}

fn datagram(rig: &mut Rig, from: u8, port: u16) -> Verdict {
    let packet = frame::udp(client(from, port), vip(53), b"x");
    rig.try_send(OUTSIDE, from_client(&packet)).0
}

const PASSED: Verdict = Verdict::Transmit(INSIDE);

/// Each rate lets four flows pass; two have ports at first.
#[test]
fn a_flow_without_a_port_takes_nothing_of_any_rate() {
    let none = FlowLimits::default();
    for (limits, reason) in [
        (
            FlowLimits {
                service: quota(0, 4),
                ..none
            },
            DropReason::ServiceRate,
        ),
        (
            FlowLimits {
                source: quota(0, 4),
                ..none
            },
            DropReason::SourceRate,
        ),
        (
            FlowLimits {
                source: quota(10, 4),
                ..none
            },
            DropReason::SourceRate,
        ),
        (
            FlowLimits {
                target: quota(0, 4),
                ..none
            },
            DropReason::TargetLimits,
        ),
    ] {
        let services = services(&[21], limits);
        let mut rig = Rig::with(&two_ports(), &services).resolved();
        for port in 4000..4002 {
            assert_eq!(syn(&mut rig, 10, port), PASSED, "{reason:?}");
        }
        for port in 4002..4030 {
            // An RST.
            assert_eq!(syn(&mut rig, 10, port), Verdict::Transmit(OUTSIDE));
        }
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(counts.port_exhausted, 28, "{reason:?}");
        let more = with_more_ports(&services);
        rig.tables = more.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        for port in 4030..4032 {
            assert_eq!(syn(&mut rig, 10, port), PASSED, "{reason:?}");
        }
        assert_eq!(syn(&mut rig, 10, 4032), Verdict::Drop(reason));
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(counts.flows_created, 4, "{reason:?}");
    }
}

#[test]
fn a_flow_that_finds_all_targets_full_takes_nothing_of_its_source_s_or_the_service_s_rate() {
    let limits = |target| FlowLimits {
        service: quota(0, 5),
        source: quota(0, 4),
        target: quota(target, 0),
        ..FlowLimits::default()
    };
    let mut rig = Rig::with(&rig::small(), &services(&[21, 22], limits(1))).resolved();
    assert_eq!(syn(&mut rig, 10, 4000), PASSED);
    assert_eq!(syn(&mut rig, 10, 4001), PASSED);
    for port in 4002..4020 {
        let full = Verdict::Drop(DropReason::TargetLimits);
        assert_eq!(syn(&mut rig, 10, port), full);
    }
    rig.swap(&services(&[21, 22], limits(10)));
    assert_eq!(syn(&mut rig, 10, 4020), PASSED);
    assert_eq!(syn(&mut rig, 10, 4021), PASSED);
    let of_source = Verdict::Drop(DropReason::SourceRate);
    assert_eq!(syn(&mut rig, 10, 4022), of_source);
    assert_eq!(syn(&mut rig, 11, 4000), PASSED);
    let of_service = Verdict::Drop(DropReason::ServiceRate);
    assert_eq!(syn(&mut rig, 11, 4001), of_service);
}

#[test]
fn datagrams_of_a_source_at_its_limit_take_nothing_of_the_targets_rates() {
    let mut services = services(
        &[21, 22],
        FlowLimits {
            source: quota(1, 0),
            target: quota(0, 2),
            ..FlowLimits::default()
        },
    );
    services[1].policy.one_packet = true;
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    assert_eq!(datagram(&mut rig, 66, 4000), PASSED);
    for port in 4001..4030 {
        let refused = Verdict::Drop(DropReason::SourceConnections);
        assert_eq!(datagram(&mut rig, 66, port), refused);
    }
    // Two for each target, less one.
    for n in 1..4 {
        assert_eq!(datagram(&mut rig, n, 4000), PASSED, "client {n}");
    }
    let full = Verdict::Drop(DropReason::TargetLimits);
    assert_eq!(datagram(&mut rig, 4, 4000), full);
}

#[test]
fn a_source_is_not_kept_at_a_target_to_which_it_never_had_a_flow() {
    let with = |targets: &[u8]| {
        let mut services = services(targets, FlowLimits::default());
        services[0].policy.persistence = Some(Persistence {
            timeout: Duration::from_secs(3600),
            prefix: SourcePrefix::default(),
            group: None,
        });
        services
    };
    let mut rig = Rig::with(&two_ports(), &with(&[21])).resolved();
    for n in 1..3 {
        assert_eq!(syn(&mut rig, n, 4000), PASSED);
    }
    assert_eq!(syn(&mut rig, 10, 4000), Verdict::Transmit(OUTSIDE), "RST");
    rig.swap(&with(&[21, 22]));
    rig.refresh();
    assert_eq!(rig.open(client(10, 4001), 100).target, 22);
    assert_eq!(rig.open(client(10, 4002), 100).target, 22, "it stays there");
    let counts = rig.service_counts(80, Protocol::Tcp);
    assert_eq!((counts.persisted, counts.port_exhausted), (1, 1));
}
