//! Services whose sources stay with one host, whichever of them they use.

use std::time::Duration;

use dataplane::{
    Persistence, PersistenceGroup, PortRange, Protocol, ServiceConfig, SourcePrefix, TargetConfig,
};

use super::frame::{self, ACK, SYN, target_of};
use super::net::{BOTH, Net};
use super::rig::{self, Rig, up};

const TIMEOUT: u64 = 60;

fn persistence(net: Net, group: Option<&str>) -> Option<Persistence> {
    Some(Persistence {
        timeout: Duration::from_secs(TIMEOUT),
        prefix: SourcePrefix::default(),
        group: group.map(|name| PersistenceGroup::new(net.vip_ip(), name)),
    })
}

/// TCP 80 and 443 and UDP 443 of one group, and TCP 8000 to 8999 of another; the same hosts at different ports.
fn services(net: Net) -> Vec<ServiceConfig> {
    let service = |protocol, ports: PortRange, target_port, group| {
        let mut service = ServiceConfig::new(net.vip_ip(), protocol, ports);
        service.targets = [21, 22, 23].map(|n| up(net.target(n, target_port))).into();
        service.policy.persistence = persistence(net, group);
        service
    };
    let range = PortRange::new(8000, 8999).unwrap();
    vec![
        service(Protocol::Tcp, 80.into(), 8080, Some("web")),
        service(Protocol::Tcp, 443.into(), 8443, Some("web")),
        service(Protocol::Udp, 443.into(), 8443, Some("web")),
        service(Protocol::Tcp, range, 0, Some("other")),
    ]
}

fn rig(net: Net, services: &[ServiceConfig]) -> Rig {
    Rig::serving(net, &rig::small(), services).resolved()
}

/// The target of a new connection.
fn opened(rig: &mut Rig, client: u8, client_port: u16, port: u16) -> u8 {
    let net = rig.net;
    let syn = frame::tcp(net.client(client, client_port), net.vip(port), SYN);
    target_of(&rig.outside(&syn.seq(100, 0)).1)
}

fn asked(rig: &mut Rig, client: u8, client_port: u16) -> u8 {
    let net = rig.net;
    let query = frame::udp(net.client(client, client_port), net.vip(443), b"query");
    target_of(&rig.outside(&query).1)
}

fn target(services: &mut [ServiceConfig], place: usize, host: u8) -> &mut TargetConfig {
    &mut services[place].targets[usize::from(host - 21)]
}

#[test]
fn a_source_is_at_one_host_with_all_services_of_a_group() {
    for net in BOTH {
        let mut rig = rig(net, &services(net));
        for client in 1..=6 {
            let first = opened(&mut rig, client, 4000, 80);
            assert_eq!(opened(&mut rig, client, 4001, 443), first, "{client}");
            assert_eq!(asked(&mut rig, client, 4002), first, "{client}");
            assert_eq!(opened(&mut rig, client, 4003, 80), first, "{client}");
        }
        // Whichever comes first.
        for client in 11..=13 {
            let first = asked(&mut rig, client, 4000);
            assert_eq!(opened(&mut rig, client, 4001, 80), first, "{client}");
        }
        assert_eq!(rig.service_counts(443, Protocol::Tcp).persisted, 6);
        assert_eq!(rig.service_counts(80, Protocol::Tcp).persisted, 9);
    }
}

#[test]
fn groups_and_services_without_one_know_nothing_of_each_other() {
    for net in BOTH {
        let mut alone = services(net);
        alone[1].policy.persistence = persistence(net, None);
        let mut rig = rig(net, &alone);
        for client in 1..=6 {
            opened(&mut rig, client, 4000, 80);
            opened(&mut rig, client, 4001, 443);
            let in_range = opened(&mut rig, client, 4002, 8000);
            assert_eq!(opened(&mut rig, client, 4003, 8999), in_range);
        }
        assert_eq!(rig.service_counts(80, Protocol::Tcp).persisted, 0);
        assert_eq!(rig.service_counts(443, Protocol::Tcp).persisted, 0);
        assert_eq!(rig.service_counts(8000, Protocol::Tcp).persisted, 6);
    }
}

#[test]
fn a_source_whose_host_takes_no_flows_of_one_service_is_at_another_with_all() {
    for net in BOTH {
        type Change = fn(&mut TargetConfig);
        let changes: [Change; 3] = [
            |target| target.up = false,
            |target| target.draining = true,
            |target| target.weight = 0,
        ];
        for change in changes {
            let mut rig = rig(net, &services(net));
            let first = opened(&mut rig, 1, 4000, 80);
            let mut changed = services(net);
            change(target(&mut changed, 1, first));
            rig.swap(&changed);
            assert_eq!(
                opened(&mut rig, 1, 4001, 80),
                first,
                "that one goes on there"
            );
            let second = opened(&mut rig, 1, 4002, 443);
            assert_ne!(second, first);
            assert_eq!(opened(&mut rig, 1, 4003, 80), second, "and follows");
            rig.swap(&services(net));
            assert_eq!(opened(&mut rig, 1, 4004, 443), second);
        }
    }
}

#[test]
fn a_host_that_one_service_does_not_have_is_left_by_it() {
    for net in BOTH {
        let mut rig = rig(net, &services(net));
        let first = opened(&mut rig, 1, 4000, 80);
        let mut changed = services(net);
        let without = net.target_ip(first);
        changed[1]
            .targets
            .retain(|target| target.address.ip() != without);
        rig.swap(&changed);
        let second = opened(&mut rig, 1, 4001, 443);
        assert_ne!(second, first);
        assert_eq!(opened(&mut rig, 1, 4002, 80), second);
    }
}

/// Several targets of a service may be on one host.
#[test]
fn a_target_that_takes_flows_goes_before_one_that_does_not_on_the_same_host() {
    for net in BOTH {
        let mut services = services(net);
        for host in [21, 22, 23] {
            target(&mut services, 1, host).up = false;
            services[1].targets.push(up(net.target(host, 9443)));
        }
        let mut rig = rig(net, &services);
        for client in 1..=4 {
            let first = opened(&mut rig, client, 4000, 80);
            assert_eq!(opened(&mut rig, client, 4001, 443), first);
        }
    }
}

#[test]
fn a_flow_of_one_service_keeps_its_source_for_the_others() {
    for net in BOTH {
        let mut rig = rig(net, &services(net));
        let first = opened(&mut rig, 1, 4000, 80);
        // Another's target is noted, and a connection by a service's own holds it.
        let (client, vip) = (net.client(1, 4001), net.vip(443));
        let (_, syn) = rig.outside(&frame::tcp(client, vip, SYN).seq(100, 0));
        let local = net.local(frame::source_port(&syn));
        let answer = frame::tcp(net.target(first, 8443), local, SYN | ACK);
        let ack = frame::tcp_word(&syn, 4).wrapping_add(1);
        rig.inside(&answer.seq(9000, ack), first);
        rig.outside(&frame::tcp(client, vip, ACK).seq(101, 9001));
        rig.pass(4 * TIMEOUT);
        assert_eq!(rig.flow_count(), 1);
        for _ in 0..3 {
            // Others take their turns.
            opened(&mut rig, 9, 4000, 80);
        }
        assert_eq!(opened(&mut rig, 1, 4002, 80), first);
        assert_eq!(asked(&mut rig, 1, 4003), first);
    }
}

#[test]
fn a_source_is_listed_once_for_its_group() {
    for net in BOTH {
        let mut rig = rig(net, &services(net));
        let first = opened(&mut rig, 1, 4000, 443);
        opened(&mut rig, 1, 4001, 80);
        let listed: Vec<_> = rig.counters.persistence(&rig.tables, rig.now).collect();
        let [source] = listed.as_slice() else {
            panic!("{listed:?}");
        };
        assert_eq!(
            source.group,
            Some(PersistenceGroup::new(net.vip_ip(), "web"))
        );
        assert_eq!(source.service, rig.service(443, Protocol::Tcp).id);
        assert_eq!(source.target, net.target(first, 8443));
    }
}
