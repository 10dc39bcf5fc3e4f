//! Several workers: whatever queue a frame comes in on, it ends with the worker that owns its flow.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use dataplane::{Event, Learned, Limits, MacAddr, Mode, PortIndex, Verdict, Weight};

use super::direct::{self, about_outer, delivered};
use super::frame::{self, ACK, SYN, flags_of, mac, source_of, source_port, target_of};
use super::net::{BOTH, Net, both_ports};
use super::nic::{self, Nic};
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, from_target, target, to_client};
use super::workers::Node;

#[test]
fn both_directions_and_errors_find_the_owner_from_every_queue() {
    for net in BOTH {
        for workers in 1..=5u16 {
            let mut node = Node::new(net, workers, &rig::small());
            let mut flows_of: HashMap<usize, usize> = HashMap::new();
            for n in 0..60u8 {
                let from = net.client(n, 4000 + u16::from(n));
                let syn = from_client(&frame::tcp(from, net.vip(80), SYN).seq(1, 0));
                let (owner, verdict, sent) = node.send(OUTSIDE, syn.clone());
                assert_eq!(verdict, Verdict::Transmit(INSIDE));
                *flows_of.entry(owner).or_default() += 1;
                let port = source_port(&sent);
                assert_eq!(
                    usize::from(port % workers),
                    owner,
                    "the local port names the owner"
                );
                let answer = frame::tcp(
                    net.target(target_of(&sent), 8080),
                    net.local(port),
                    SYN | ACK,
                )
                .seq(9, frame::tcp_word(&sent, 4) + 1);
                let ((kind, code), short) = (net.time_exceeded(), net.ip_header() + 8);
                let (router, own) = (net.address(2, 1), net.local_ip());
                let lost_in = frame::icmp(router, own, kind, code, 0, &sent[14..14 + short]);
                let quote = &frame::tcp(net.vip(80), from, SYN | ACK).ip()[..short];
                let router = net.stranger(1).ip();
                let lost_out = frame::icmp(router, net.vip_ip(), kind, code, 0, quote);
                // From every queue, whatever the NIC thinks.
                for _ in 0..workers {
                    let by_owner = |node: &mut Node, port, frame, to| {
                        let (worker, verdict, _) = node.send(port, frame);
                        assert_eq!((worker, verdict), (owner, Verdict::Transmit(to)));
                    };
                    by_owner(
                        &mut node,
                        INSIDE,
                        from_target(&answer, target_of(&sent)),
                        OUTSIDE,
                    );
                    by_owner(&mut node, OUTSIDE, syn.clone(), INSIDE);
                    by_owner(
                        &mut node,
                        INSIDE,
                        from_target(&lost_in, target_of(&sent)),
                        OUTSIDE,
                    );
                    by_owner(&mut node, OUTSIDE, from_client(&lost_out), INSIDE);
                }
            }
            for worker in 0..workers {
                let flows = flows_of.get(&usize::from(worker)).copied().unwrap_or(0);
                assert!(
                    flows * usize::from(workers) >= 20,
                    "worker {worker} of {workers} has {flows} of 60 flows"
                );
                assert_eq!(node.rigs[usize::from(worker)].flow_count(), flows);
            }
        }
    }
}

/// What the target answers to the client passes none of them; errors about it, and about the tunnel, do.
#[test]
fn one_sided_flows_and_errors_about_them_find_their_owner_from_every_queue() {
    let limits = Limits {
        icmp_errors_per_second: 1000,
        ..rig::small()
    };
    for (net, mode) in direct::each() {
        let builder = rig::builder(&both_ports(), &direct::services(mode));
        for workers in 1..=4u16 {
            let mut node = Node::made_of(net, &builder, Nic::Turns(0), workers, &limits);
            let mut owners = Vec::new();
            for n in 0..40u8 {
                let (client, vip) = (net.client(n, 4000 + u16::from(n)), net.vip(80));
                let syn = frame::tcp(client, vip, SYN).seq(1, 0);
                let (owner, verdict, _) = node.send(OUTSIDE, from_client(&syn));
                assert_eq!(verdict, Verdict::Transmit(INSIDE));
                owners.push(owner);
                let by_owner = (owner, Verdict::Transmit(INSIDE));
                let data = frame::tcp(client, vip, ACK).seq(2, 9).data(&[7; 600]);
                let quote = frame::tcp(vip, client, ACK).seq(9, 2).ip();
                let (router, (kind, code)) = (net.stranger(1).ip(), net.too_big());
                let lost = frame::icmp(router, vip.ip(), kind, code, 1400, &quote);
                for _ in 0..workers {
                    for packet in [&data, &lost] {
                        let (worker, verdict, sent) = node.send(OUTSIDE, from_client(packet));
                        assert_eq!((worker, verdict), by_owner, "{mode:?}");
                        let expected = delivered(net, mode, &packet.clone().ttl(63), &sent);
                        assert_eq!(sent, expected);
                    }
                    if mode == Mode::Direct {
                        continue;
                    }
                    let (_, _, sent) = node.send(OUTSIDE, from_client(&data));
                    let error = about_outer(net, &sent, kind, code, 1400, 528);
                    node.rigs[owner].out.clear();
                    let (worker, verdict, _) = node.send(INSIDE, from_target(&error, 1));
                    assert_eq!((worker, verdict), (owner, Verdict::Consumed));
                    let inner = net.ip_header();
                    let quote = &data.clone().ttl(63).ip()[..528 - inner];
                    let left = 1400 - inner as u32;
                    let told = frame::icmp(vip.ip(), client.ip(), kind, code, left, quote);
                    assert_eq!(node.rigs[owner].emitted(), [(OUTSIDE, to_client(&told))]);
                }
            }
            for (worker, rig) in node.rigs.iter().enumerate() {
                let flows = owners.iter().filter(|owner| **owner == worker).count();
                assert_eq!(rig.flow_count(), flows);
                assert!(flows > 0, "worker {worker} of {workers} has no flow");
            }
        }
    }
}

/// Clients open connections, and ask by datagram; each packet must come out where it should. The workers of the flows.
fn traffic(node: &mut Node, net: Net) -> Vec<usize> {
    let mut owners = Vec::new();
    for n in 0..60u32 {
        let from = SocketAddr::new(net.stranger(n * 77).ip(), (4000 + n * 13) as u16);
        let syn = from_client(&frame::tcp(from, net.vip(80), SYN).seq(1, 0));
        let (owner, verdict, sent) = node.send(OUTSIDE, syn);
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
        let answer = frame::tcp(
            net.target(target_of(&sent), 8080),
            local_of(&sent),
            SYN | ACK,
        )
        .seq(9, frame::tcp_word(&sent, 4).wrapping_add(1));
        let (worker, verdict, sent) = node.send(INSIDE, from_target(&answer, target_of(&sent)));
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
        assert_eq!(frame::tcp_word(&sent, 8), 2, "as the client counts");
        let ack = from_client(&frame::tcp(from, net.vip(80), ACK).seq(2, 10).data(b"hello"));
        let (worker, verdict, _) = node.send(OUTSIDE, ack);
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
        owners.push(owner);

        let (owner, verdict, sent) = node.send(
            OUTSIDE,
            from_client(&frame::udp(from, net.vip(53), b"where?")),
        );
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
        let answer = frame::udp(
            net.target(target_of(&sent), 8080),
            local_of(&sent),
            b"there",
        );
        let (worker, verdict, _) = node.send(INSIDE, from_target(&answer, target_of(&sent)));
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
        owners.push(owner);
    }
    owners
}

/// The LocalIP and port that a frame towards a target comes from.
fn local_of(sent: &[u8]) -> SocketAddr {
    SocketAddr::new(source_of(sent), source_port(sent))
}

fn roomy() -> Limits {
    Limits {
        flows: 128,
        ..rig::small()
    }
}

#[test]
fn nothing_is_handed_over_where_the_nic_does_what_is_said_of_it() {
    for net in BOTH {
        for workers in [1u16, 2, 3, 4, 7, 8] {
            let mut ways = vec![(Nic::Toeplitz(nic::KEY), false)];
            if workers.is_power_of_two() {
                ways.push((Nic::Rules(nic::KEY), true));
            }
            for (nic, by_port) in ways {
                let spread = nic::spread(workers, by_port);
                let mut node = Node::behind(net, nic, Some(spread), workers, &roomy());
                let owners = traffic(&mut node, net);
                assert_eq!(
                    node.redirected().0,
                    0,
                    "{workers} workers, rules: {by_port}"
                );
                for worker in 0..usize::from(workers) {
                    let flows = owners.iter().filter(|owner| **owner == worker).count();
                    assert!(
                        flows * usize::from(workers) > 40,
                        "worker {worker} of {workers} has {flows} of 120 flows"
                    );
                }
            }
        }
    }
}

#[test]
fn a_reload_that_gives_the_outer_port_a_local_ip_renames_no_owner() {
    for net in BOTH {
        let workers = 4;
        let mut ports = net.ports();
        ports.reverse();
        let mut builder = rig::builder(&ports, &net.services());
        builder.spread(INSIDE, nic::reversed(workers));
        builder.spread(OUTSIDE, nic::spread(workers, false));
        let mut node = Node::made_of(
            net,
            &builder,
            Nic::Toeplitz(nic::KEY),
            workers,
            &rig::small(),
        );
        let opened: Vec<_> = (0..30u8)
            .map(|n| {
                let syn = from_client(&frame::tcp(net.client(n, 4000), net.vip(80), SYN).seq(1, 0));
                let (owner, verdict, _) = node.send(OUTSIDE, syn);
                assert_eq!(verdict, Verdict::Transmit(INSIDE));
                (n, owner)
            })
            .collect();
        builder.local_ip(net.address(1, 100));
        node.reload(&builder);
        for (n, owner) in opened {
            // The NIC can't tell whose this is: the worker that gets it must.
            let quoted = frame::tcp(net.vip(80), net.client(n, 4000), SYN | ACK).ip();
            let quoted = &quoted[..net.ip_header() + 8];
            let (router, (kind, code)) = (net.stranger(1).ip(), net.time_exceeded());
            let error = frame::icmp(router, net.vip_ip(), kind, code, 0, quoted);
            let (worker, verdict, _) = node.send(OUTSIDE, from_client(&error));
            assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
        }
    }
}

#[test]
fn a_nic_that_does_otherwise_than_is_said_costs_hand_overs_and_no_packet() {
    for net in BOTH {
        let other = nic::KEY.map(|byte| byte.rotate_left(3) ^ 0x35);
        let nics: [fn([u8; 40]) -> Nic; 4] = [
            Nic::Toeplitz,
            |_| Nic::Random(7),
            |_| Nic::First,
            |_| Nic::Turns(0),
        ];
        for workers in [2u16, 3, 4, 7, 8] {
            for by_port in [false, true] {
                for nic in nics {
                    let spread = nic::spread(workers, by_port);
                    let mut node = Node::behind(net, nic(other), Some(spread), workers, &roomy());
                    let owners = traffic(&mut node, net);
                    let (redirected, frames) = node.redirected();
                    // All but the share that comes right by chance.
                    let chance = frames / u64::from(workers);
                    let (least, most) = (frames - 2 * chance.min(frames / 2), frames - chance / 2);
                    assert!(
                        (least..=most).contains(&redirected) && redirected > 0,
                        "{redirected} of {frames} with {workers} workers"
                    );
                    assert!(
                        (0..usize::from(workers)).all(|worker| owners.contains(&worker)),
                        "owners are spread all the same"
                    );
                }
            }
        }
    }
}

#[test]
fn flows_of_addresses_that_left_the_configuration_find_their_owner() {
    for net in BOTH {
        let mut node = Node::new(net, 3, &rig::small());
        let opened: Vec<_> = (0..30u8)
            .map(|n| {
                let syn = from_client(&frame::tcp(net.client(n, 4000), net.vip(80), SYN).seq(1, 0));
                let (owner, verdict, sent) = node.send(OUTSIDE, syn.clone());
                assert_eq!(verdict, Verdict::Transmit(INSIDE));
                (owner, syn, sent)
            })
            .collect();
        node.reload(&rig::moved(net));
        for (owner, syn, sent) in opened {
            let answer = frame::tcp(
                net.target(target_of(&sent), 8080),
                net.local(source_port(&sent)),
                SYN | ACK,
            )
            .seq(9, frame::tcp_word(&sent, 4) + 1);
            for _ in 0..3 {
                let (worker, verdict, _) =
                    node.send(INSIDE, from_target(&answer, target_of(&sent)));
                assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
                let (worker, verdict, _) = node.send(OUTSIDE, syn.clone());
                assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
            }
        }
    }
}

#[test]
fn workers_share_the_ports_of_a_target_without_overlap() {
    for net in BOTH {
        let limits = Limits {
            first_port: 5001,
            last_port: 5010,
            flows: 64,
            ..rig::small()
        };
        let mut node = Node::new(net, 3, &limits);
        let mut ports: Vec<(u8, u16)> = Vec::new();
        for n in 0..400u32 {
            let from = net.stranger(n);
            let (_, verdict, sent) = node.send(
                OUTSIDE,
                from_client(&frame::tcp(from, net.vip(80), SYN).seq(1, 0)),
            );
            if verdict == Verdict::Transmit(INSIDE) {
                ports.push((target_of(&sent), source_port(&sent)));
            }
        }
        ports.sort_unstable();
        let expected: Vec<(u8, u16)> = [21, 22]
            .into_iter()
            .flat_map(|n| (5001..=5010).map(move |port| (n, port)))
            .collect();
        assert_eq!(ports, expected, "every port towards every target once");
    }
}

#[test]
fn what_is_the_kernels_is_not_redirected() {
    for net in BOTH {
        let mut node = Node::new(net, 4, &rig::small());
        for n in 0..40 {
            let own = SocketAddr::new(net.outside_address(), 179);
            let (_, verdict, _) = node.send(
                OUTSIDE,
                from_client(&frame::tcp(net.client(n, 4000), own, SYN)),
            );
            assert_eq!(verdict, Verdict::Kernel);
        }
        assert!((0..4).all(|index| node.rigs[0].counters.worker(index).redirected == 0));
    }
}

#[test]
fn segments_of_no_flow_are_answered_whichever_queue_they_come_in_on() {
    for net in BOTH {
        let mut node = Node::new(net, 3, &rig::small());
        for n in 0..12 {
            let (_, verdict, sent) = node.send(
                OUTSIDE,
                from_client(&frame::tcp(net.client(n, 4000), net.vip(80), ACK).seq(1, 7)),
            );
            assert_eq!(
                (verdict, flags_of(&sent)),
                (Verdict::Transmit(OUTSIDE), frame::RST)
            );
        }
    }
}

#[test]
fn a_local_ip_that_a_reload_adds_without_rules_has_its_answers_come_by_rss() {
    for net in BOTH {
        for workers in [2u16, 4] {
            let mut builder = rig::builder(&net.ports(), &net.services());
            for port in [OUTSIDE, INSIDE] {
                builder.spread(port, nic::spread(workers, true));
            }
            let mut node = Node::made_of(net, &builder, Nic::Rules(nic::KEY), workers, &roomy());
            builder.local_ip(net.address(2, 101));
            node.reload(&builder);
            traffic(&mut node, net);
            assert_eq!(node.redirected().0, 0, "{workers} workers");
            let flows = node.rigs.iter().flat_map(|rig| rig.worker.flows(rig.now));
            let added = flows
                .filter_map(|flow| flow.local)
                .filter(|local| local.ip() == net.address(2, 101));
            // In its turns, if the port that is next there is one whose answers come to this worker.
            assert!(added.count() > 5, "the new LocalIP is used");
        }
    }
}

/// A gratuitous ARP, the reply to one of our requests, or a question for our address.
fn announcement(address: Ipv4Addr, from: MacAddr) -> Vec<u8> {
    let nobody = (MacAddr::default(), address);
    frame::arp(1, MacAddr::BROADCAST, (from, address), nobody)
}

fn question(address: Ipv4Addr, from: MacAddr) -> Vec<u8> {
    let ours = (MacAddr::default(), rig::INSIDE_ADDRESS);
    frame::arp(1, MacAddr::BROADCAST, (from, address), ours)
}

fn reply(address: Ipv4Addr, from: MacAddr) -> Vec<u8> {
    let ours = (rig::INSIDE_MAC, rig::INSIDE_ADDRESS);
    frame::arp(2, rig::INSIDE_MAC, (from, address), ours)
}

fn learned(rig: &mut Rig, port: PortIndex, frame: Vec<u8>) -> Vec<MacAddr> {
    rig.out.clear();
    rig.try_send(port, frame);
    let mac_of = |event: Event| match event {
        Event::Learned(learned) => Some(learned.mac),
        _ => None,
    };
    rig.events().into_iter().filter_map(mac_of).collect()
}

#[test]
fn workers_are_told_what_may_be_news_to_them() {
    let mut node = Node::new(Net::V4, 2, &rig::small());
    let rig = &mut node.rigs[0];
    let (known, unknown) = (*target(21).ip(), Ipv4Addr::new(10, 3, 0, 200));
    let (old, new) = (mac(21), mac(0x71));
    let cases = [
        (
            "an announcement of what is known",
            announcement(known, old),
            None,
        ),
        (
            "an announcement of another MAC, before the one in use is asked",
            announcement(known, new),
            None,
        ),
        ("a question from a known MAC", question(known, old), None),
        ("a question from another MAC", question(known, new), None),
        ("a reply by another MAC", reply(known, new), None),
        (
            "a reply, which another worker may wait for",
            reply(known, old),
            Some(old),
        ),
        ("a reply of a stranger", reply(unknown, old), Some(old)),
        (
            "an announcement of a stranger, whom another worker may know",
            announcement(unknown, old),
            Some(old),
        ),
        ("a question of a stranger", question(unknown, old), None),
    ];
    for (description, frame, expected) in cases {
        let told = learned(rig, INSIDE, frame);
        assert_eq!(told, Vec::from_iter(expected), "{description}");
    }
    rig.try_send(INSIDE, announcement(known, new));
    rig.out.clear();
    rig.outlast_contest();
    let settled = Learned {
        port: INSIDE,
        address: known.into(),
        mac: new,
        weight: Weight::Settled,
    };
    assert!(rig.events().contains(&Event::Learned(settled)));
}

#[test]
fn a_flood_of_announcements_is_told_in_part_and_hides_no_next_hop() {
    let mut node = Node::new(Net::V4, 2, &rig::small());
    let rig = &mut node.rigs[0];
    let mut told = 0;
    for n in 0..5000u32 {
        let stranger = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 3, 64, 0)) + n);
        told += learned(rig, INSIDE, announcement(stranger, mac(9))).len();
    }
    assert_eq!(told, 1000);
    let known = reply(*target(21).ip(), mac(21));
    assert_eq!(learned(rig, INSIDE, known), [mac(21)]);
    // A tenth of a second later a tenth as many pass.
    rig.now.0 += 100 * rig::MILLISECOND;
    let again = (0..5000).map(|_| learned(rig, INSIDE, reply(Ipv4Addr::new(10, 3, 9, 9), mac(9))));
    assert_eq!(again.flatten().count(), 100);
}

#[test]
fn one_worker_tells_nobody() {
    let mut rig = Rig::new();
    let moved = announcement(*target(21).ip(), mac(0x71));
    assert_eq!(learned(&mut rig, INSIDE, moved), []);
}

/// Whichever of them is asked: each believes what overrides, and no more (RFC 4861 7.2.5).
#[test]
fn workers_believe_the_same_of_an_answer_that_one_of_them_got() {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let (hop, own) = (Net::V6.target_ip(21), Net::V6.inside_address());
    for (flags, expected) in [(SOLICITED, mac(21)), (SOLICITED | OVERRIDE, mac(0x71))] {
        let mut node = Node::new(Net::V6, 2, &rig::small());
        let other = mac(0x71);
        let answer = frame::ndp(136, (hop, own), flags, hop, Some((2, other)))
            .macs(other, rig::INSIDE_MAC)
            .frame();
        node.rigs[0].try_send(INSIDE, answer);
        node.rigs[0].outlast_contest();
        node.pass_events_on();
        for (worker, rig) in node.rigs.iter_mut().enumerate() {
            // In turn: one of two goes to that target.
            let sent: Vec<MacAddr> = (0..2)
                .map(|n| {
                    let query = frame::udp(Net::V6.client(9, 4000 + n), Net::V6.vip(53), b"x");
                    let mut frames = [from_client(&query)];
                    let mut verdicts = [Verdict::Kernel];
                    let (tables, out) = (&rig.tables, &mut rig.out);
                    rig.worker.handed_over(
                        tables,
                        rig.now,
                        OUTSIDE,
                        &mut frames,
                        &mut verdicts,
                        out,
                    );
                    assert_eq!(verdicts, [Verdict::Transmit(INSIDE)]);
                    MacAddr(frames[0][..6].try_into().unwrap())
                })
                .collect();
            assert!(
                sent.contains(&expected) && sent.contains(&mac(22)),
                "worker {worker}, flags {flags:#x}: {sent:?}"
            );
        }
    }
}
