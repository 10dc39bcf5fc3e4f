//! Addresses of ours are announced when they are new, and other hosts that have them are told of.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Counters, Event, MacAddr, Port, PortIndex, Retired, ServiceConfig, Verdict};

use super::frame::{self, mac};
use super::ndp::{self, announcement};
use super::net::{BOTH, Net, v4};
use super::rig::{
    self, INSIDE, INSIDE_MAC, MILLISECOND, OUTSIDE, OUTSIDE_MAC, Rig, SECOND, asked_for,
};

/// A VIP on the outer segment.
fn onlink_vip(net: Net) -> IpAddr {
    net.address(1, 100)
}

fn announced(port: PortIndex, address: IpAddr) -> (PortIndex, Vec<u8>) {
    let mac = if port == OUTSIDE {
        OUTSIDE_MAC
    } else {
        INSIDE_MAC
    };
    (port, claim(mac, address))
}

/// Somebody says to everyone that it has an address.
fn claim(by: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => frame::arp(
            1,
            MacAddr::BROADCAST,
            (by, address),
            (MacAddr::default(), address),
        ),
        address @ IpAddr::V6(_) => announcement(by, address),
    }
}

/// With a VIP on the outer segment, for which ARP is answered or not.
fn services(net: Net, arp: bool) -> Vec<ServiceConfig> {
    let mut services = net.services();
    let mut onlink = services[0].clone();
    (onlink.vip, onlink.arp) = (onlink_vip(net), arp);
    services.push(onlink);
    services
}

fn node(net: Net, answers: bool, arp: bool) -> Rig {
    let mut ports = net.ports();
    for port in &mut ports {
        port.answers = answers;
    }
    Rig::from(
        &rig::small(),
        &rig::builder(&ports, &services(net, arp)),
        0,
        1,
    )
}

/// What is announced within so many milliseconds.
fn sent(rig: &mut Rig, milliseconds: u64) -> Vec<(PortIndex, Vec<u8>)> {
    let mut sent = Vec::new();
    for _ in 0..milliseconds {
        rig.now.0 += MILLISECOND;
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        sent.extend(rig.emitted());
        rig.out.clear();
    }
    sent.retain(|(_, frame)| asked_for(frame).is_none());
    sent.sort();
    sent
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

#[test]
fn what_is_answered_for_is_announced_three_times_where_it_is_answered_for() {
    for net in BOTH {
        let all = sorted(vec![
            announced(INSIDE, net.local_ip()),
            announced(OUTSIDE, onlink_vip(net)),
            announced(OUTSIDE, net.outside_address()),
            announced(INSIDE, net.inside_address()),
        ]);
        let mut rig = node(net, true, true);
        for _ in 0..3 {
            assert_eq!(sent(&mut rig, 1000), all);
            assert_eq!(sent(&mut rig, 1000), []);
        }
        assert_eq!(sent(&mut rig, 10_000), []);

        // The kernel holds the ports' own addresses; the VIP is announced by BGP.
        let mut rig = node(net, false, false);
        assert_eq!(sent(&mut rig, 1), [announced(INSIDE, net.local_ip())]);
    }
}

#[test]
fn what_is_new_or_moves_is_announced_and_what_is_gone_no_more() {
    for net in BOTH {
        let mut rig = node(net, false, false);
        sent(&mut rig, 5000);
        let build = |rig: &mut Rig, ports: &[Port], services: &[ServiceConfig], number| {
            rig.tables = rig::builder(ports, services)
                .announcement(number)
                .build(&mut rig.ids, Some(&rig.tables))
                .unwrap();
        };
        let ports: Vec<Port> = rig.tables.ports().to_vec();
        build(&mut rig, &ports, &services(net, false), 0);
        assert_eq!(sent(&mut rig, 1), [], "nothing has changed");

        build(&mut rig, &ports, &services(net, true), 0);
        let vip = announced(OUTSIDE, onlink_vip(net));
        assert_eq!(sent(&mut rig, 1), std::slice::from_ref(&vip), "a new VIP");
        build(&mut rig, &ports, &services(net, false), 0);
        assert_eq!(sent(&mut rig, 5000), [], "gone before its second round");

        let mut moved = ports.clone();
        moved[1].mac = mac(0x77);
        build(&mut rig, &moved, &services(net, false), 0);
        let local = (INSIDE, claim(mac(0x77), net.local_ip()));
        assert_eq!(sent(&mut rig, 1), [local], "another MAC");

        build(&mut rig, &ports, &services(net, true), 1);
        let all = sorted(vec![announced(INSIDE, net.local_ip()), vip]);
        assert_eq!(sent(&mut rig, 1), all, "all again");
        build(&mut rig, &ports, &services(net, true), 2);
        assert_eq!(sent(&mut rig, 1), all, "and again, from the first round");
        assert_eq!(sent(&mut rig, 9000).len(), 2 * all.len());
    }
}

#[test]
fn nothing_is_announced_before_the_node_serves_and_a_retired_vip_no_more() {
    for net in BOTH {
        let ports: Vec<Port> = net.ports().to_vec();
        let mut silent = rig::builder(&ports, &services(net, true));
        silent.silent();
        let mut rig = Rig::from(&rig::small(), &silent, 0, 1);
        assert_eq!(sent(&mut rig, 10_000), []);
        rig.try_send(OUTSIDE, claim(mac(9), onlink_vip(net)));
        assert_eq!(rig.worker_counts().address_conflicts, 0, "it is another's");

        let mut serving = rig::builder(&ports, &services(net, true));
        serving.announcement(1);
        rig.tables = serving.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        let all = sent(&mut rig, 10_000);
        assert!(all.contains(&announced(OUTSIDE, onlink_vip(net))));

        // Moved to another node, and kept here for its flows.
        let mut moved = rig::builder(&ports, &net.services());
        moved
            .announcement(2)
            .retired(onlink_vip(net), Retired::Vip { arp: true });
        rig.tables = moved.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        let all = sent(&mut rig, 10_000);
        assert!(all.contains(&announced(INSIDE, net.local_ip())));
        assert!(!all.contains(&announced(OUTSIDE, onlink_vip(net))));
        rig.try_send(OUTSIDE, claim(mac(9), onlink_vip(net)));
        assert_eq!(rig.worker_counts().address_conflicts, 0);
    }
}

#[test]
fn addresses_that_an_operator_names_are_announced_again_or_none_of_them() {
    for net in BOTH {
        let mut rig = node(net, false, true);
        assert_eq!(sent(&mut rig, 10_000).len(), 3 * 2);
        let vip = (OUTSIDE, onlink_vip(net), OUTSIDE_MAC);
        let local = (INSIDE, net.local_ip(), INSIDE_MAC);
        let (now, stranger) = (rig.now, net.address(1, 77));
        // A VIP of no segment, and an address that the kernel holds, are announced no more than a stranger's.
        let unknown = [net.vip_ip(), stranger, net.outside_address()];
        let list = [&[vip.1], &unknown[..]].concat();
        let refused = rig.worker.announce_again(now, Some(&list));
        assert_eq!(refused, Err(unknown.to_vec()));
        assert_eq!(sent(&mut rig, 10_000), []);

        assert_eq!(
            rig.worker.announce_again(rig.now, Some(&[vip.1])),
            Ok(vec![vip])
        );
        for _ in 0..3 {
            assert_eq!(sent(&mut rig, 2000), [announced(OUTSIDE, vip.1)]);
        }
        assert_eq!(sent(&mut rig, 10_000), []);

        // Asked again in the middle, it begins again.
        let mut all = rig.worker.announce_again(rig.now, None).unwrap();
        all.sort();
        assert_eq!(all, sorted(vec![vip, local]));
        assert_eq!(sent(&mut rig, 1000).len(), 2);
        rig.worker.announce_again(rig.now, None).unwrap();
        assert_eq!(sent(&mut rig, 20_000).len(), 3 * 2);
    }
}

#[test]
fn a_port_has_its_addresses_announced_as_often_as_it_wants() {
    for net in BOTH {
        let mut ports = net.ports();
        for port in &mut ports {
            port.answers = false;
        }
        ports[0].announce_every = Some(Duration::from_secs(10));
        let mut rig = Rig::from(
            &rig::small(),
            &rig::builder(&ports, &services(net, true)),
            0,
            1,
        );
        // Three times at first, of both ports.
        assert_eq!(sent(&mut rig, 9999).len(), 3 * 2);
        for _ in 0..3 {
            assert_eq!(sent(&mut rig, 2), [announced(OUTSIDE, onlink_vip(net))]);
            assert_eq!(sent(&mut rig, 9998), []);
        }
    }
}

#[test]
fn many_vips_are_announced_a_few_at_a_time() {
    const VIPS: u32 = 1000;
    let mut services = services(Net::V4, true);
    let vip = services.pop().unwrap();
    services.extend((0..VIPS).map(|number| {
        let mut service = vip.clone();
        service.vip = Ipv4Addr::from_bits(0x0a02_0400 + number).into();
        service.targets = Vec::new();
        service
    }));
    let mut ports = Net::V4.ports();
    for port in &mut ports {
        port.answers = false;
    }
    let mut limits = rig::small();
    limits.services = VIPS + 10;
    let mut segment = ports[0].ipv4.unwrap();
    segment.prefix = 16;
    ports[0].ipv4 = Some(segment);
    let mut rig = Rig::from(&limits, &rig::builder(&ports, &services), 0, 1);
    assert_eq!(sent(&mut rig, 1).len(), 16);
    let within_a_second = 16 + sent(&mut rig, 999).len();
    assert!((900..=1000).contains(&within_a_second), "{within_a_second}");
    let in_all = within_a_second + sent(&mut rig, 20_000).len();
    assert_eq!(in_all, 3 * (VIPS as usize + 1));

    // Somebody who asks for all again and again, sooner than they can go, still has each of them announced.
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        rig.worker.announce_again(rig.now, None).unwrap();
        seen.extend(sent(&mut rig, 500));
    }
    assert_eq!(seen.len(), VIPS as usize + 1, "with the LocalIP");
    sent(&mut rig, 20_000);

    // A port that wants more than may go gets what may go, without end and without more waiting, and keeps no other port out.
    for port in &mut ports {
        port.announce_every = Some(Duration::from_secs(1));
    }
    let builder = rig::builder(&ports, &services);
    rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
    sent(&mut rig, 5000);
    let mut of_the_other = 0;
    for _ in 0..10 {
        let all = sent(&mut rig, 1000);
        let in_a_second = all.len();
        assert!((450..=510).contains(&in_a_second), "{in_a_second}");
        of_the_other += all.iter().filter(|(port, _)| *port == INSIDE).count();
    }
    assert!(of_the_other >= 3, "{of_the_other}");
}

#[test]
fn another_host_with_an_address_of_ours_is_told_of_and_a_local_ip_is_defended() {
    for net in BOTH {
        let mut rig = node(net, true, true);
        sent(&mut rig, 10_000);
        let conflict = |port, address| Event::AddressConflict {
            port,
            address,
            mac: mac(9),
        };
        // The address, where it is heard, whether that is a conflict and whether it is defended.
        let cases = [
            (net.local_ip(), INSIDE, true, true),
            (net.local_ip(), OUTSIDE, false, false),
            (onlink_vip(net), OUTSIDE, true, false),
            (onlink_vip(net), INSIDE, false, false),
            (net.outside_address(), OUTSIDE, true, false),
            (net.vip_ip(), OUTSIDE, false, false),
        ];
        let mut count = 0;
        for (address, port, conflicts, defended) in cases {
            rig.now.0 += SECOND;
            rig.out.clear();
            assert_eq!(
                rig.try_send(port, claim(mac(9), address)).0,
                Verdict::Kernel
            );
            let told: Vec<Event> = conflicts
                .then(|| conflict(port, address))
                .into_iter()
                .collect();
            assert_eq!(rig.events(), told, "{address} on {port:?}");
            let answer: Vec<_> = defended
                .then(|| announced(port, address))
                .into_iter()
                .collect();
            assert_eq!(rig.emitted(), answer, "{address} on {port:?}");
            count += u64::from(conflicts);
            assert_eq!(rig.worker_counts().address_conflicts, count);
        }

        // Once in ten seconds, or two nodes with one LocalIP would drive each other.
        let mut defences = 0;
        for _ in 0..100 {
            rig.now.0 += SECOND / 10;
            rig.out.clear();
            rig.try_send(INSIDE, claim(mac(9), net.local_ip()));
            defences += rig.emitted().len();
        }
        assert_eq!(defences, 1);

        // What comes back from a port of our own is no one else's.
        rig.now.0 += SECOND;
        rig.out.clear();
        for own in [INSIDE_MAC, OUTSIDE_MAC] {
            rig.try_send(INSIDE, claim(own, net.local_ip()));
        }
        assert!(rig.out.is_empty());
        assert_eq!(rig.worker_counts().address_conflicts, count + 100);
    }
}

#[test]
fn a_question_from_an_address_of_ours_is_a_conflict_and_not_answered() {
    for net in BOTH {
        let mut rig = node(net, true, true);
        sent(&mut rig, 10_000);
        let question = match net {
            Net::V4 => frame::arp(
                1,
                MacAddr::BROADCAST,
                (mac(9), v4(net.local_ip())),
                (MacAddr::default(), v4(net.inside_address())),
            ),
            Net::V6 => ndp::question((mac(9), net.local_ip()), net.inside_address()),
        };
        assert_eq!(rig.try_send(INSIDE, question).0, Verdict::Kernel);
        assert_eq!(rig.worker_counts().address_conflicts, 1);
        assert_eq!(rig.emitted(), [announced(INSIDE, net.local_ip())]);
    }
}

#[test]
fn a_probe_for_an_address_of_ours_is_answered_and_no_conflict() {
    let mut rig = node(Net::V4, true, true);
    sent(&mut rig, 10_000);
    // RFC 5227 2.1.1: the prober has no address yet. (Neighbour discovery: in `ndp`.)
    let probe = frame::arp(
        1,
        MacAddr::BROADCAST,
        (mac(9), Ipv4Addr::UNSPECIFIED),
        (MacAddr::default(), v4(Net::V4.local_ip())),
    );
    assert_eq!(rig.try_send(INSIDE, probe).0, Verdict::Transmit(INSIDE));
    assert_eq!(rig.worker_counts().address_conflicts, 0);
}

/// Each worker hears of a conflict by frames of its own queue.
#[test]
fn all_workers_together_defend_a_local_ip_once_in_ten_seconds() {
    for net in BOTH {
        let mut ports = net.ports();
        for port in &mut ports {
            port.answers = true;
        }
        let (limits, builder) = (rig::small(), rig::builder(&ports, &services(net, true)));
        let counters = Arc::new(Counters::new(3, &limits));
        let mut workers = [0, 1, 2].map(|n| Rig::sharing(&limits, &builder, n, &counters));
        let mut defences = |second: u64| -> usize {
            let of_one = workers.iter_mut().map(|rig| {
                rig.now.0 = second * SECOND;
                rig.out.clear();
                rig.try_send(INSIDE, claim(mac(9), net.local_ip()));
                rig.emitted().len()
            });
            of_one.sum()
        };
        let in_all: Vec<_> = [100, 101, 109, 110, 111].map(&mut defences).into();
        assert_eq!(in_all, [1, 0, 0, 1, 0]);
    }
}
