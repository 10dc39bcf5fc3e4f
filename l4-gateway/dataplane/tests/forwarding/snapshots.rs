//! Snapshots swapped under running flows, and what can't be a snapshot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use dataplane::{
    DropReason, Ids, MacAddr, PortIndex, Protocol, Retired, Route, ServiceConfig, Tables,
    TablesBuilder, TablesError, TargetConfig, Verdict,
};

use super::frame::{self, ACK, RST, SYN};
use super::rig::{self, INSIDE, OUTSIDE, Rig, client, from_client, local, target, up, vip};

#[test]
fn flows_stay_where_they_are_when_targets_go() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    assert_eq!(opened.target, 21);
    let mut services = rig::services();
    type Change = fn(&mut Vec<TargetConfig>);
    let changes: [(&str, Change); 4] = [
        ("down", |targets| targets[0].up = false),
        ("draining", |targets| targets[0].draining = true),
        ("weight 0", |targets| targets[0].weight = 0),
        ("removed", |targets| _ = targets.remove(0)),
    ];
    for (description, change) in changes {
        services[0].targets = rig::services()[0].targets.clone();
        change(&mut services[0].targets);
        rig.swap(&services);
        let to = rig.from_client(&opened, ACK, 1001, 9001);
        assert_eq!(to[30..34], target(21).ip().octets(), "{description}");
        rig.from_target(&opened, ACK, 9001, 1001);
        for n in 0..4 {
            assert_eq!(
                rig.open(client(n, 5000 + u16::from(to[33])), 1).target,
                22,
                "{description}"
            );
        }
    }
}

#[test]
fn flows_outlive_their_service() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    let services = rig::services();
    rig.swap(&services[1..]);
    // The VIP is still there by the other service; the flow goes on, a new one doesn't.
    rig.from_client(&opened, ACK, 1001, 9001);
    rig.from_target(&opened, ACK, 9001, 1001);
    let (port, answer) = rig.outside(&frame::tcp(client(11, 4000), vip(80), SYN));
    assert_eq!((port, answer[47]), (OUTSIDE, RST | ACK));
    rig.pass(900 + 18);
    assert_eq!(rig.flow_count(), 0);
}

#[test]
fn flows_outlive_their_addresses_which_new_ones_do_not_get() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    rig.tables = rig::moved().build(&mut rig.ids, Some(&rig.tables)).unwrap();
    rig.refresh();
    rig.from_client(&opened, ACK, 1001, 9001);
    rig.from_target(&opened, ACK, 9001, 1001);
    // Nobody beyond another port is taken for the target.
    let forged = frame::tcp(target(21), local(opened.local_port), RST).seq(9001, 0);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&forged)),
        DropReason::WrongPort
    );
    // The target still learns where its answers go.
    let sender = (frame::mac(21), *target(21).ip());
    let asked = (MacAddr::default(), rig::LOCAL_IP);
    let request = frame::arp(1, MacAddr::BROADCAST, sender, asked);
    assert_eq!(
        rig.transmitted(INSIDE, request),
        (
            INSIDE,
            frame::arp(2, sender.0, (rig::INSIDE_MAC, rig::LOCAL_IP), sender)
        )
    );
    let (port, answer) = rig.outside(&frame::tcp(client(11, 4000), vip(80), SYN));
    assert_eq!((port, answer[47]), (OUTSIDE, RST | ACK));
    let moved = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 101), 80);
    for n in 0..4 {
        let (_, sent) = rig.outside(&frame::tcp(client(n, 5000), moved, SYN));
        assert_eq!(sent[26..30], [10, 3, 0, 101], "the LocalIP of a new flow");
    }
    let in_use = |rig: &Rig, address: Ipv4Addr| rig.ids.flows_of(address.into(), &rig.counters);
    assert_eq!(
        [
            rig::VIP,
            rig::LOCAL_IP,
            Ipv4Addr::new(10, 0, 0, 101),
            Ipv4Addr::new(10, 3, 0, 101)
        ]
        .map(|address| in_use(&rig, address)),
        [1, 1, 4, 4]
    );
    rig.pass(900 + 18);
    assert_eq!(
        (in_use(&rig, rig::VIP), in_use(&rig, rig::LOCAL_IP)),
        (0, 0)
    );
}

#[test]
fn a_walk_in_steps_finds_each_flow_once() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.open(client(n, 4000), 1);
    }
    let whole: Vec<_> = rig.worker.flows(rig.now).map(|flow| flow.client).collect();
    let places = rig.worker.flow_places() as u32;
    let steps = (0..places).step_by(3);
    let walked: Vec<_> = steps
        .flat_map(|first| rig.worker.flows_in(rig.now, first, 3).collect::<Vec<_>>())
        .map(|flow| flow.client)
        .collect();
    assert_eq!((whole.len(), &walked), (10, &whole));
    assert_eq!(rig.worker.flows_in(rig.now, places, 3).count(), 0);
}

#[test]
fn a_node_can_change_its_local_ips_for_ever() {
    let mut rig = Rig::new();
    // Four LocalIPs are the limit.
    for n in 0..20u8 {
        let mut builder = Tables::builder();
        for port in rig::ports() {
            builder.port(port);
        }
        builder.local_ip(Ipv4Addr::new(10, 3, 0, 100 + n));
        if n > 0 {
            let before = Ipv4Addr::new(10, 3, 0, 99 + n);
            builder.retired(before.into(), Retired::LocalIp);
        }
        rig.tables = builder
            .build(&mut rig.ids, Some(&rig.tables))
            .unwrap_or_else(|error| panic!("change {n}: {error}"));
        rig.ids.reclaim(&rig.tables, &rig.counters);
    }
}

#[test]
fn a_retired_address_with_a_new_role_has_that_one() {
    let mut rig = Rig::new();
    let mut builder = rig::builder(&rig::ports(), &rig::services());
    builder
        .retired(rig::LOCAL_IP.into(), Retired::LocalIp)
        .retired(rig::VIP.into(), Retired::Vip { arp: true })
        .retired(Ipv4Addr::new(192, 0, 2, 1).into(), Retired::LocalIp);
    rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    rig.refresh();
    rig.establish(client(10, 4000), 1000);
}

#[test]
fn numbers_are_stable_and_return_only_when_no_flow_refers_to_them() {
    let mut rig = Rig::new();
    let number = |rig: &Rig, n: u8| {
        let ids = rig
            .tables
            .targets()
            .filter(|entry| entry.config.address == target(n).into())
            .map(|entry| entry.id);
        ids.collect::<Vec<_>>()
    };
    rig.establish(client(10, 4000), 1000);
    let (first, second) = (number(&rig, 21), number(&rig, 22));
    let mut services = rig::services();
    services[0].targets.remove(0);
    services[1].targets.remove(0);
    rig.swap(&services);
    assert_eq!(number(&rig, 22), second);
    // Target 21 of TCP has a flow, of UDP none: the one number may be given to 23, the other not.
    rig.ids.reclaim(&rig.tables, &rig.counters);
    services[0].targets.push(up(target(23)));
    services[1].targets.push(up(target(23)));
    rig.swap(&services);
    let third = number(&rig, 23);
    assert!(
        !third.contains(&first[0]) && third.contains(&first[1]),
        "{first:?} {third:?}"
    );
    rig.pass(900 + 18);
    rig.ids.reclaim(&rig.tables, &rig.counters);
    services[0].targets.push(up(target(24)));
    rig.swap(&services);
    assert_eq!(number(&rig, 24), [first[0]]);
}

#[test]
fn a_target_that_comes_back_has_its_number_and_counters_again() {
    let mut rig = Rig::new();
    rig.open(client(10, 4000), 1000);
    let all = rig::services();
    let mut without = all.clone();
    without[0].targets.remove(0);
    rig.swap(&without);
    rig.swap(&all);
    assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).flows_created, 1);
}

#[test]
fn flows_follow_a_route_that_changes() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    let mut builder = rig::builder(&rig::ports(), &rig::services());
    let other = Ipv4Addr::new(10, 2, 0, 2);
    builder.route(Route {
        destination: Ipv4Addr::new(10, 1, 0, 0).into(),
        prefix: 24,
        port: OUTSIDE,
        gateway: Some(other.into()),
    });
    rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    rig.refresh();
    rig.resolve(OUTSIDE, other, frame::mac(2));
    assert_eq!(
        rig.from_target(&opened, ACK, 9001, 1001)[..6],
        frame::mac(2).0
    );
}

#[test]
fn a_new_mac_of_a_port_is_used_at_once() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    let mut ports = rig::ports();
    ports[1].mac = frame::mac(0x77);
    rig.tables = rig::builder(&ports, &rig::services())
        .build(&mut rig.ids, Some(&rig.tables))
        .unwrap();
    assert_eq!(
        rig.from_client(&opened, ACK, 1001, 9001)[..12],
        [frame::mac(21).0, frame::mac(0x77).0].concat()
    );
}

#[test]
fn a_port_that_left_the_configuration_is_the_kernels() {
    let mut rig = Rig::new();
    let input = from_client(&frame::tcp(client(10, 4000), vip(80), SYN));
    assert_eq!(
        rig.try_send(PortIndex(9), input.clone()),
        (Verdict::Kernel, input)
    );
}

fn build(
    change: impl FnOnce(&mut Vec<dataplane::Port>, &mut Vec<ServiceConfig>, &mut TablesBuilder),
) -> Result<Tables, TablesError> {
    let (mut ports, mut services, mut extra) =
        (rig::ports().to_vec(), rig::services(), Tables::builder());
    change(&mut ports, &mut services, &mut extra);
    let mut builder = extra;
    for port in ports {
        builder.port(port);
    }
    builder.local_ip(rig::LOCAL_IP);
    for service in services {
        builder.service(service);
    }
    builder.build(&mut Ids::new(&rig::small()), None)
}

#[test]
fn what_contradicts_itself_is_no_snapshot() {
    use TablesError::*;
    assert!(build(|_, _, _| {}).is_ok());
    let elsewhere = SocketAddr::from(([192, 168, 0, 1], 80));
    let zero = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    type Change =
        Box<dyn FnOnce(&mut Vec<dataplane::Port>, &mut Vec<ServiceConfig>, &mut TablesBuilder)>;
    let route = |destination, prefix, port, gateway| Route {
        destination,
        prefix,
        port,
        gateway,
    };
    let cases: Vec<(TablesError, Change)> = vec![
        (
            DuplicatePort(0),
            Box::new(|ports, _, _| ports[1].index = OUTSIDE),
        ),
        (
            PortOutOfRange(256),
            Box::new(|ports, _, _| ports[1].index = PortIndex(256)),
        ),
        (
            BadPrefix {
                address: rig::INSIDE_ADDRESS.into(),
                prefix: 33,
            },
            Box::new(|ports, _, _| rig::ipv4(&mut ports[1]).prefix = 33),
        ),
        (
            GatewayOffLink {
                gateway: elsewhere.ip(),
                port: 0,
            },
            Box::new(move |ports, _, _| {
                rig::ipv4(&mut ports[0]).gateway = Some(Ipv4Addr::new(192, 168, 0, 1))
            }),
        ),
        (
            UnknownPort(7),
            Box::new(move |_, _, builder| _ = builder.route(route(zero, 0, PortIndex(7), None))),
        ),
        (
            BadPrefix {
                address: zero,
                prefix: 40,
            },
            Box::new(move |_, _, builder| _ = builder.route(route(zero, 40, INSIDE, None))),
        ),
        (
            AddressInUse(rig::LOCAL_IP.into()),
            Box::new(|_, services, _| services[0].vip = rig::LOCAL_IP.into()),
        ),
        (
            AddressInUse(rig::LOCAL_IP.into()),
            Box::new(|_, _, builder| _ = builder.local_ip(rig::LOCAL_IP)),
        ),
        (
            AddressInUse(rig::INSIDE_ADDRESS.into()),
            Box::new(|_, services, _| services[0].vip = rig::INSIDE_ADDRESS.into()),
        ),
        (
            NotAHost(Ipv4Addr::BROADCAST.into()),
            Box::new(|_, services, _| services[0].vip = Ipv4Addr::BROADCAST.into()),
        ),
        (
            LocalIpOffLink(elsewhere.ip()),
            Box::new(move |ports, _, builder| {
                rig::ipv4(&mut ports[0]).gateway = None;
                builder.local_ip(elsewhere.ip());
            }),
        ),
        (
            DuplicateService {
                vip: rig::VIP.into(),
                protocol: Protocol::Tcp,
                port: 80,
            },
            Box::new(|_, services, _| services.push(services[0].clone())),
        ),
        (
            DuplicateTarget {
                vip: rig::VIP.into(),
                port: 80,
                target: target(21).into(),
            },
            Box::new(|_, services, _| services[0].targets.push(up(target(21)))),
        ),
        (
            PortZero(vip(0).into()),
            Box::new(|_, services, _| services[0].port = 0),
        ),
        (
            PortZero(SocketAddrV4::new(*target(21).ip(), 0).into()),
            Box::new(|_, services, _| services[0].targets[0].address.set_port(0)),
        ),
        (
            NotAHost(Ipv4Addr::new(224, 0, 0, 5).into()),
            Box::new(|_, services, _| {
                services[0].targets[0]
                    .address
                    .set_ip(Ipv4Addr::new(224, 0, 0, 5).into())
            }),
        ),
        (
            NoRoute(elsewhere),
            Box::new(move |ports, services, _| {
                rig::ipv4(&mut ports[0]).gateway = None;
                services[0].targets[0].address = elsewhere;
            }),
        ),
        (
            NoLocalIp {
                target: elsewhere,
                port: 0,
            },
            Box::new(move |_, services, _| services[0].targets[0].address = elsewhere),
        ),
        (
            LimitReached("targets"),
            Box::new(|_, services, _| {
                services[0].targets = (1..20).map(|n| up(target(n))).collect()
            }),
        ),
    ];
    for (expected, change) in cases {
        assert_eq!(build(change).map(|_| ()), Err(expected));
    }
}

#[test]
fn the_longest_route_wins() {
    let mut builder = rig::builder(&rig::ports(), &rig::services());
    let behind = |last| Ipv4Addr::new(10, 3, 0, last);
    let route = |destination: Ipv4Addr, prefix, last| Route {
        destination: destination.into(),
        prefix,
        port: INSIDE,
        gateway: Some(behind(last).into()),
    };
    builder.route(route(Ipv4Addr::new(10, 20, 0, 0), 16, 50));
    builder.route(route(Ipv4Addr::new(10, 20, 30, 0), 24, 51));
    builder.route(route(Ipv4Addr::new(10, 20, 30, 40), 32, 52));
    let mut rig = Rig::from(&rig::small(), &builder, 0, 1).resolved();
    for (address, last) in [
        (Ipv4Addr::new(10, 20, 1, 1), 50),
        (Ipv4Addr::new(10, 20, 30, 1), 51),
        (Ipv4Addr::new(10, 20, 30, 40), 52),
    ] {
        let from = SocketAddrV4::new(address, 4000);
        let (_, sent) = rig.outside(&frame::udp(from, vip(53), b"query"));
        let answer = frame::udp(
            target(sent[33]),
            local(frame::port_word(&sent, 0)),
            b"answer",
        );
        let (port, answer) = rig.inside(&answer, sent[33]);
        assert_eq!(
            (port, &answer[..6]),
            (INSIDE, &frame::mac(last).0[..]),
            "{address}"
        );
    }
}
