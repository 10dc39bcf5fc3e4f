//! Snapshots swapped under running flows, and what can't be a snapshot.

use std::net::{IpAddr, SocketAddr};

use dataplane::{
    DropReason, Ids, MacAddr, NextHops, PortIndex, Protocol, Retired, Route, ServiceConfig, Tables,
    TablesBuilder, TablesError, TargetConfig, Verdict,
};

use super::frame::{self, ACK, RST, SYN, flags_of, mac, source_of, target_of};
use super::ndp;
use super::net::{BOTH, Net, set_gateway, set_prefix, v4};
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, up};

#[test]
fn flows_stay_where_they_are_when_targets_go() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        assert_eq!(opened.target, 21);
        let mut services = net.services();
        type Change = fn(&mut Vec<TargetConfig>);
        let changes: [(&str, Change); 4] = [
            ("down", |targets| targets[0].up = false),
            ("draining", |targets| targets[0].draining = true),
            ("weight 0", |targets| targets[0].weight = 0),
            ("removed", |targets| _ = targets.remove(0)),
        ];
        for (description, change) in changes {
            services[0].targets = net.services()[0].targets.clone();
            change(&mut services[0].targets);
            rig.swap(&services);
            let to = rig.from_client(&opened, ACK, 1001, 9001);
            assert_eq!(target_of(&to), 21, "{description}");
            rig.from_target(&opened, ACK, 9001, 1001);
            for n in 0..4 {
                assert_eq!(
                    rig.open(net.client(n, 5000 + u16::from(target_of(&to))), 1)
                        .target,
                    22,
                    "{description}"
                );
            }
        }
    }
}

#[test]
fn flows_outlive_their_service() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        let services = net.services();
        rig.swap(&services[1..]);
        // The VIP is still there by the other service; the flow goes on, a new one doesn't.
        rig.from_client(&opened, ACK, 1001, 9001);
        rig.from_target(&opened, ACK, 9001, 1001);
        let (port, answer) = rig.outside(&frame::tcp(net.client(11, 4000), net.vip(80), SYN));
        assert_eq!((port, flags_of(&answer)), (OUTSIDE, RST | ACK));
        rig.pass(900 + 18);
        assert_eq!(rig.flow_count(), 0);
    }
}

#[test]
fn flows_outlive_their_addresses_which_new_ones_do_not_get() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        rig.tables = rig::moved(net)
            .build(&mut rig.ids, Some(&rig.tables))
            .unwrap();
        rig.refresh();
        rig.from_client(&opened, ACK, 1001, 9001);
        rig.from_target(&opened, ACK, 9001, 1001);
        // Nobody beyond another port is taken for the target.
        let forged =
            frame::tcp(net.target(21, 8080), net.local(opened.local_port), RST).seq(9001, 0);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&forged)),
            DropReason::WrongPort
        );
        // The target still learns where its answers go.
        let sender = net.target_ip(21);
        let own = net.local_ip();
        rig.out.clear();
        match net {
            Net::V4 => {
                let (asker, own) = ((mac(21), v4(sender)), (rig::INSIDE_MAC, v4(own)));
                let asked = (MacAddr::default(), own.1);
                let request = frame::arp(1, MacAddr::BROADCAST, asker, asked);
                let reply = frame::arp(2, mac(21), own, asker);
                assert_eq!(rig.transmitted(INSIDE, request), (INSIDE, reply));
            }
            Net::V6 => {
                let request = ndp::question((mac(21), sender), own);
                let reply = ndp::answer(rig::INSIDE_MAC, own, (mac(21), sender));
                assert_eq!(rig.try_send(INSIDE, request).0, Verdict::Consumed);
                assert_eq!(rig.emitted(), [(INSIDE, reply)]);
            }
        }
        let (port, answer) = rig.outside(&frame::tcp(net.client(11, 4000), net.vip(80), SYN));
        assert_eq!((port, flags_of(&answer)), (OUTSIDE, RST | ACK));
        let (vip, local_ip) = (net.address(0, 101), net.address(2, 101));
        let moved = SocketAddr::new(vip, 80);
        for n in 0..4 {
            let (_, sent) = rig.outside(&frame::tcp(net.client(n, 5000), moved, SYN));
            assert_eq!(source_of(&sent), local_ip, "the LocalIP of a new flow");
        }
        let in_use = |rig: &Rig, address| rig.ids.flows_of(address, &rig.counters);
        assert_eq!(
            [net.vip_ip(), net.local_ip(), vip, local_ip].map(|address| in_use(&rig, address)),
            [1, 1, 4, 4]
        );
        rig.pass(900 + 18);
        assert_eq!(
            (in_use(&rig, net.vip_ip()), in_use(&rig, net.local_ip())),
            (0, 0)
        );
    }
}

#[test]
fn a_walk_in_steps_finds_each_flow_once() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        for n in 0..10 {
            rig.open(net.client(n, 4000), 1);
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
}

#[test]
fn a_node_can_change_its_local_ips_for_ever() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        // Four LocalIPs are the limit.
        for n in 0..20u8 {
            let mut builder = Tables::builder();
            for port in net.ports() {
                builder.port(port);
            }
            builder.local_ip(net.address(2, 100 + n));
            if n > 0 {
                let before = net.address(2, 99 + n);
                builder.retired(before, Retired::LocalIp);
            }
            rig.tables = builder
                .build(&mut rig.ids, Some(&rig.tables))
                .unwrap_or_else(|error| panic!("change {n}: {error}"));
            rig.ids.reclaim(&rig.tables, &rig.counters);
        }
    }
}

#[test]
fn a_retired_address_with_a_new_role_has_that_one() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let mut builder = rig::builder(&net.ports(), &net.services());
        builder
            .retired(net.local_ip(), Retired::LocalIp)
            .retired(net.vip_ip(), Retired::Vip { arp: true })
            .retired(net.stranger(1).ip(), Retired::LocalIp);
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        rig.refresh();
        rig.establish(net.client(10, 4000), 1000);
    }
}

#[test]
fn numbers_are_stable_and_return_only_when_no_flow_refers_to_them() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let number = |rig: &Rig, n: u8| {
            let ids = rig
                .tables
                .targets()
                .filter(|entry| entry.config.address == net.target(n, 8080))
                .map(|entry| entry.id);
            ids.collect::<Vec<_>>()
        };
        rig.establish(net.client(10, 4000), 1000);
        let (first, second) = (number(&rig, 21), number(&rig, 22));
        let mut services = net.services();
        services[0].targets.remove(0);
        services[1].targets.remove(0);
        rig.swap(&services);
        assert_eq!(number(&rig, 22), second);
        // Target 21 of TCP has a flow, of UDP none: the one number may be given to 23, the other not.
        rig.ids.reclaim(&rig.tables, &rig.counters);
        services[0].targets.push(up(net.target(23, 8080)));
        services[1].targets.push(up(net.target(23, 8080)));
        rig.swap(&services);
        let third = number(&rig, 23);
        assert!(
            !third.contains(&first[0]) && third.contains(&first[1]),
            "{first:?} {third:?}"
        );
        rig.pass(900 + 18);
        rig.ids.reclaim(&rig.tables, &rig.counters);
        services[0].targets.push(up(net.target(24, 8080)));
        rig.swap(&services);
        assert_eq!(number(&rig, 24), [first[0]]);
    }
}

#[test]
fn a_target_that_comes_back_has_its_number_and_counters_again() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        rig.open(net.client(10, 4000), 1000);
        let all = net.services();
        let mut without = all.clone();
        without[0].targets.remove(0);
        rig.swap(&without);
        rig.swap(&all);
        assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).flows_created, 1);
    }
}

#[test]
fn flows_follow_a_route_that_changes() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        let mut builder = rig::builder(&net.ports(), &net.services());
        let other = net.address(1, 2);
        builder.route(Route {
            destination: net.address(9, 0),
            prefix: net.segment_bits(),
            port: OUTSIDE,
            via: NextHops::one(other),
        });
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        rig.refresh();
        rig.resolve(OUTSIDE, other, mac(2));
        assert_eq!(rig.from_target(&opened, ACK, 9001, 1001)[..6], mac(2).0);
    }
}

#[test]
fn a_new_mac_of_a_port_is_used_at_once() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        let mut ports = net.ports();
        ports[1].mac = mac(0x77);
        rig.tables = rig::builder(&ports, &net.services())
            .build(&mut rig.ids, Some(&rig.tables))
            .unwrap();
        assert_eq!(
            rig.from_client(&opened, ACK, 1001, 9001)[..12],
            [mac(21).0, mac(0x77).0].concat()
        );
    }
}

#[test]
fn a_port_that_left_the_configuration_is_the_kernels() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let input = from_client(&frame::tcp(net.client(10, 4000), net.vip(80), SYN));
        assert_eq!(
            rig.try_send(PortIndex(9), input.clone()),
            (Verdict::Kernel, input)
        );
    }
}

fn build(
    net: Net,
    change: impl FnOnce(&mut Vec<dataplane::Port>, &mut Vec<ServiceConfig>, &mut TablesBuilder),
) -> Result<Tables, TablesError> {
    let (mut ports, mut services, mut extra) =
        (net.ports().to_vec(), net.services(), Tables::builder());
    change(&mut ports, &mut services, &mut extra);
    let mut builder = extra;
    for port in ports {
        builder.port(port);
    }
    builder.local_ip(net.local_ip());
    for service in services {
        builder.service(service);
    }
    builder.build(&mut Ids::new(&rig::small()), None)
}

#[test]
fn what_contradicts_itself_is_no_snapshot() {
    for net in BOTH {
        use TablesError::*;
        assert!(build(net, |_, _, _| {}).is_ok());
        let elsewhere = net.stranger(1);
        let [zero, group, no_host]: [IpAddr; 3] = match net {
            Net::V4 => ["0.0.0.0", "224.0.0.5", "255.255.255.255"],
            Net::V6 => ["::", "ff02::5", "::1"],
        }
        .map(|address| address.parse().unwrap());
        type Change =
            Box<dyn FnOnce(&mut Vec<dataplane::Port>, &mut Vec<ServiceConfig>, &mut TablesBuilder)>;
        let route = |destination, prefix, port, gateway: Option<IpAddr>| Route {
            destination,
            prefix,
            port,
            via: gateway.map_or(NextHops::ON_LINK, NextHops::one),
        };
        let cases: Vec<(TablesError, Change)> = vec![
            (
                DuplicatePort(0),
                Box::new(move |ports, _, _| ports[1].index = OUTSIDE),
            ),
            (
                PortOutOfRange(256),
                Box::new(move |ports, _, _| ports[1].index = PortIndex(256)),
            ),
            (
                BadPrefix {
                    address: net.inside_address(),
                    prefix: net.address_bits() + 1,
                },
                Box::new(move |ports, _, _| set_prefix(&mut ports[1], net, net.address_bits() + 1)),
            ),
            (
                GatewayOffLink {
                    gateway: elsewhere.ip(),
                    port: 0,
                },
                Box::new(move |ports, _, _| {
                    set_gateway(&mut ports[0], net, Some(elsewhere.ip()));
                }),
            ),
            (
                UnknownPort(7),
                Box::new(move |_, _, builder| {
                    _ = builder.route(route(zero, 0, PortIndex(7), None))
                }),
            ),
            (
                BadPrefix {
                    address: zero,
                    prefix: 140,
                },
                Box::new(move |_, _, builder| _ = builder.route(route(zero, 140, INSIDE, None))),
            ),
            (
                AddressInUse(net.local_ip()),
                Box::new(move |_, services, _| services[0].vip = net.local_ip()),
            ),
            (
                AddressInUse(net.local_ip()),
                Box::new(move |_, _, builder| _ = builder.local_ip(net.local_ip())),
            ),
            (
                AddressInUse(net.inside_address()),
                Box::new(move |_, services, _| services[0].vip = net.inside_address()),
            ),
            (
                NotAHost(no_host),
                Box::new(move |_, services, _| services[0].vip = no_host),
            ),
            (
                LocalIpOffLink(elsewhere.ip()),
                Box::new(move |ports, _, builder| {
                    set_gateway(&mut ports[0], net, None);
                    builder.local_ip(elsewhere.ip());
                }),
            ),
            (
                DuplicateService {
                    vip: net.vip_ip(),
                    protocol: Protocol::Tcp,
                    ports: 80.into(),
                    other: 80.into(),
                },
                Box::new(move |_, services, _| services.push(services[0].clone())),
            ),
            (
                DuplicateTarget {
                    vip: net.vip_ip(),
                    ports: 80.into(),
                    target: net.target(21, 8080),
                },
                Box::new(move |_, services, _| services[0].targets.push(up(net.target(21, 8080)))),
            ),
            (
                PortZero(net.vip(0)),
                Box::new(move |_, services, _| services[0].ports = 0.into()),
            ),
            (
                PortZero(net.target(21, 0)),
                Box::new(move |_, services, _| services[0].targets[0].address.set_port(0)),
            ),
            (
                NotAHost(group),
                Box::new(move |_, services, _| services[0].targets[0].address.set_ip(group)),
            ),
            (
                NoRoute(elsewhere),
                Box::new(move |ports, services, _| {
                    set_gateway(&mut ports[0], net, None);
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
                Box::new(move |_, services, _| {
                    services[0].targets = (1..20).map(|n| up(net.target(n, 8080))).collect()
                }),
            ),
        ];
        for (expected, change) in cases {
            assert_eq!(build(net, change).map(|_| ()), Err(expected));
        }
    }
}

#[test]
fn the_longest_route_wins() {
    for net in BOTH {
        let mut builder = rig::builder(&net.ports(), &net.services());
        let behind = |last| net.address(2, last);
        // Three prefixes, one within the other, and an address that each is the longest for.
        let (prefixes, hosts) = match net {
            Net::V4 => (
                [("10.20.0.0", 16), ("10.20.30.0", 24), ("10.20.30.40", 32)],
                ["10.20.1.1", "10.20.30.1", "10.20.30.40"],
            ),
            Net::V6 => (
                [
                    ("fd20::", 48),
                    ("fd20:0:0:30::", 64),
                    ("fd20:0:0:30::40", 128),
                ],
                ["fd20:0:0:1::1", "fd20:0:0:30::1", "fd20:0:0:30::40"],
            ),
        };
        for ((destination, prefix), last) in prefixes.into_iter().zip(50..) {
            builder.route(Route {
                destination: destination.parse().unwrap(),
                prefix,
                port: INSIDE,
                via: NextHops::one(behind(last)),
            });
        }
        let mut rig = Rig::from(&rig::small(), &builder, 0, 1)
            .resolved()
            .speaking(net);
        for (address, last) in hosts.into_iter().zip(50..) {
            let from = SocketAddr::new(address.parse().unwrap(), 4000);
            let (_, sent) = rig.outside(&frame::udp(from, net.vip(53), b"query"));
            let answer = frame::udp(
                net.target(target_of(&sent), 8080),
                net.local(frame::port_word(&sent, 0)),
                b"answer",
            );
            let (port, answer) = rig.inside(&answer, target_of(&sent));
            assert_eq!(
                (port, &answer[..6]),
                (INSIDE, &mac(last).0[..]),
                "{address}"
            );
        }
    }
}
