//! Several workers: whatever queue a frame comes in on, it ends with the worker that owns its flow.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dataplane::{Counters, Event, Limits, MacAddr, PortIndex, Spread, TablesBuilder, Verdict};

use super::frame::{self, ACK, SYN, mac};
use super::net::{Net::V4, Net::V6, both_ports};
use super::nic::{self, Nic};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, client, from_client, from_target, local, target, vip,
};

/// Workers with hand-over between them, and events passed on.
struct Node {
    rigs: Vec<Rig>,
    /// Where frames arrive: any queue must do.
    nic: Nic,
}

impl Node {
    /// A node whose NICs say nothing of what they do: frames arrive on all queues by turns.
    fn new(workers: u16, limits: &Limits) -> Self {
        Self::behind(Nic::Turns(0), None, workers, limits)
    }

    /// A node behind NICs of which `spread` is said.
    fn behind(nic: Nic, spread: Option<Spread>, workers: u16, limits: &Limits) -> Self {
        let mut builder = rig::builder(&rig::ports(), &rig::services());
        for port in [OUTSIDE, INSIDE] {
            builder.spread(port, spread.clone().unwrap_or_default());
        }
        Self::made_of(&builder, nic, workers, limits)
    }

    fn made_of(builder: &TablesBuilder, nic: Nic, workers: u16, limits: &Limits) -> Self {
        let counters = Arc::new(Counters::new(workers, limits));
        let rigs = (0..workers)
            .map(|index| Rig::sharing(limits, builder, index, &counters))
            .collect();
        let mut node = Self { rigs, nic };
        for rig in &mut node.rigs {
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            rig.out.clear();
        }
        // All answers arrive at the first worker; the others hear of them.
        let answers = [
            (OUTSIDE, rig::GATEWAY, rig::ROUTER_MAC),
            (INSIDE, *target(21).ip(), mac(21)),
            (INSIDE, *target(22).ip(), mac(22)),
        ];
        for (port, address, from) in answers {
            node.rigs[0].resolve(port, address, from);
        }
        node.pass_events_on();
        node
    }

    fn reload(&mut self, builder: &TablesBuilder) {
        for rig in &mut self.rigs {
            rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        }
    }

    /// Frames that were handed over so far, of all.
    fn redirected(&self) -> (u64, u64) {
        let counters = &self.rigs[0].counters;
        let of = |index| counters.worker(index as u16);
        (0..self.rigs.len()).fold((0, 0), |(redirected, frames), index| {
            (
                redirected + of(index).redirected,
                frames + of(index).frames_in,
            )
        })
    }

    fn pass_events_on(&mut self) {
        let events: Vec<Event> = self.rigs.iter_mut().flat_map(|rig| rig.events()).collect();
        for rig in &mut self.rigs {
            rig.out.clear();
            for event in &events {
                if let Event::Learned { port, address, mac } = event {
                    rig.worker
                        .learn(rig.now, *port, *address, *mac, &mut rig.out);
                }
            }
        }
    }

    /// A frame in on some queue; who worked on it, where it went and as what.
    fn send(&mut self, port: PortIndex, frame: Vec<u8>) -> (usize, Verdict, Vec<u8>) {
        let queue = self.nic.queue(&frame, self.rigs.len());
        let before = frame.clone();
        let (verdict, frame) = self.rigs[queue].try_send(port, frame);
        let Verdict::Redirect(owner) = verdict else {
            return (queue, verdict, frame);
        };
        assert_eq!(frame, before, "a redirected frame is untouched");
        assert_ne!(usize::from(owner), queue);
        let rig = &mut self.rigs[usize::from(owner)];
        let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
        rig.worker.handed_over(
            &rig.tables,
            rig.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut rig.out,
        );
        rig.worker.check_invariants();
        let [frame] = frames;
        assert!(
            !matches!(verdicts[0], Verdict::Redirect(_)),
            "a frame is redirected once"
        );
        (usize::from(owner), verdicts[0], frame)
    }
}

#[test]
fn both_directions_and_errors_find_the_owner_from_every_queue() {
    for workers in 1..=5u16 {
        let mut node = Node::new(workers, &rig::small());
        let mut flows_of: HashMap<usize, usize> = HashMap::new();
        for n in 0..60u8 {
            let from = client(n, 4000 + u16::from(n));
            let syn = from_client(&frame::tcp(from, vip(80), SYN).seq(1, 0));
            let (owner, verdict, sent) = node.send(OUTSIDE, syn.clone());
            assert_eq!(verdict, Verdict::Transmit(INSIDE));
            *flows_of.entry(owner).or_default() += 1;
            let port = frame::port_word(&sent, 0);
            assert_eq!(
                usize::from(port % workers),
                owner,
                "the local port names the owner"
            );
            let answer = frame::tcp(target(sent[33]), local(port), SYN | ACK)
                .seq(9, frame::tcp_word(&sent, 4) + 1);
            let lost_in = frame::icmp(
                Ipv4Addr::new(10, 3, 0, 1),
                rig::LOCAL_IP,
                3,
                1,
                0,
                &sent[14..42],
            );
            let lost_out = frame::icmp(
                Ipv4Addr::new(172, 16, 0, 9),
                rig::VIP,
                11,
                0,
                0,
                &frame::tcp(vip(80), from, SYN | ACK).ip()[..28],
            );
            // From every queue, whatever the NIC thinks.
            for _ in 0..workers {
                let by_owner = |node: &mut Node, port, frame, to| {
                    let (worker, verdict, _) = node.send(port, frame);
                    assert_eq!((worker, verdict), (owner, Verdict::Transmit(to)));
                };
                by_owner(&mut node, INSIDE, from_target(&answer, sent[33]), OUTSIDE);
                by_owner(&mut node, OUTSIDE, syn.clone(), INSIDE);
                by_owner(&mut node, INSIDE, from_target(&lost_in, sent[33]), OUTSIDE);
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

/// Clients open connections, and ask by datagram; each packet must come out where it should. The workers of the flows.
fn traffic(node: &mut Node) -> Vec<usize> {
    let mut owners = Vec::new();
    for n in 0..60u32 {
        let from = SocketAddrV4::new(
            Ipv4Addr::from_bits(0x0b00_0000 + n * 77),
            (4000 + n * 13) as u16,
        );
        let syn = from_client(&frame::tcp(from, vip(80), SYN).seq(1, 0));
        let (owner, verdict, sent) = node.send(OUTSIDE, syn);
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
        let answer = frame::tcp(target(sent[33]), local_of(&sent), SYN | ACK)
            .seq(9, frame::tcp_word(&sent, 4).wrapping_add(1));
        let (worker, verdict, sent) = node.send(INSIDE, from_target(&answer, sent[33]));
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
        assert_eq!(frame::tcp_word(&sent, 8), 2, "as the client counts");
        let ack = from_client(&frame::tcp(from, vip(80), ACK).seq(2, 10).data(b"hello"));
        let (worker, verdict, _) = node.send(OUTSIDE, ack);
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
        owners.push(owner);

        let (owner, verdict, sent) =
            node.send(OUTSIDE, from_client(&frame::udp(from, vip(53), b"where?")));
        assert_eq!(verdict, Verdict::Transmit(INSIDE));
        let answer = frame::udp(target(sent[33]), local_of(&sent), b"there");
        let (worker, verdict, _) = node.send(INSIDE, from_target(&answer, sent[33]));
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
        owners.push(owner);
    }
    owners
}

/// The LocalIP and port that a frame towards a target comes from.
fn local_of(sent: &[u8]) -> SocketAddrV4 {
    let address = Ipv4Addr::new(sent[26], sent[27], sent[28], sent[29]);
    SocketAddrV4::new(address, frame::port_word(sent, 0))
}

fn roomy() -> Limits {
    Limits {
        flows: 128,
        ..rig::small()
    }
}

#[test]
fn nothing_is_handed_over_where_the_nic_does_what_is_said_of_it() {
    for workers in [1u16, 2, 3, 4, 7, 8] {
        let mut ways = vec![(Nic::Toeplitz(nic::KEY), false)];
        if workers.is_power_of_two() {
            ways.push((Nic::Rules(nic::KEY), true));
        }
        for (nic, by_port) in ways {
            let spread = nic::spread(workers, by_port);
            let mut node = Node::behind(nic, Some(spread), workers, &roomy());
            let owners = traffic(&mut node);
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

#[test]
fn a_local_ip_that_a_reload_adds_without_rules_has_its_answers_come_by_rss() {
    for workers in [2u16, 4] {
        let mut builder = rig::builder(&rig::ports(), &rig::services());
        for port in [OUTSIDE, INSIDE] {
            builder.spread(port, nic::spread(workers, true));
        }
        let mut node = Node::made_of(&builder, Nic::Rules(nic::KEY), workers, &roomy());
        builder.local_ip(Ipv4Addr::new(10, 3, 0, 101));
        node.reload(&builder);
        traffic(&mut node);
        assert_eq!(node.redirected().0, 0, "{workers} workers");
        let flows = node.rigs.iter().flat_map(|rig| rig.worker.flows(rig.now));
        let added = flows
            .filter_map(|flow| flow.local)
            .filter(|local| local.ip() == Ipv4Addr::new(10, 3, 0, 101));
        // In its turns, if the port that is next there is one whose answers come to this worker.
        assert!(added.count() > 5, "the new LocalIP is used");
    }
}

#[test]
fn a_reload_that_gives_the_outer_port_a_local_ip_renames_no_owner() {
    let workers = 4;
    let mut ports = rig::ports();
    ports.reverse();
    let mut builder = rig::builder(&ports, &rig::services());
    builder.spread(INSIDE, nic::reversed(workers));
    builder.spread(OUTSIDE, nic::spread(workers, false));
    let mut node = Node::made_of(&builder, Nic::Toeplitz(nic::KEY), workers, &rig::small());
    let opened: Vec<_> = (0..30u8)
        .map(|n| {
            let syn = from_client(&frame::tcp(client(n, 4000), vip(80), SYN).seq(1, 0));
            let (owner, verdict, _) = node.send(OUTSIDE, syn);
            assert_eq!(verdict, Verdict::Transmit(INSIDE));
            (n, owner)
        })
        .collect();
    builder.local_ip(Ipv4Addr::new(10, 2, 0, 100));
    node.reload(&builder);
    for (n, owner) in opened {
        // The NIC can't tell whose this is: the worker that gets it must.
        let quoted = frame::tcp(vip(80), client(n, 4000), SYN | ACK).ip();
        let error = frame::icmp(
            Ipv4Addr::new(172, 16, 0, 9),
            rig::VIP,
            11,
            0,
            0,
            &quoted[..28],
        );
        let (worker, verdict, _) = node.send(OUTSIDE, from_client(&error));
        assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
    }
}

#[test]
fn a_nic_that_does_otherwise_than_is_said_costs_hand_overs_and_no_packet() {
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
                let mut node = Node::behind(nic(other), Some(spread), workers, &roomy());
                let owners = traffic(&mut node);
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

#[test]
fn flows_of_addresses_that_left_the_configuration_find_their_owner() {
    let mut node = Node::new(3, &rig::small());
    let opened: Vec<_> = (0..30u8)
        .map(|n| {
            let syn = from_client(&frame::tcp(client(n, 4000), vip(80), SYN).seq(1, 0));
            let (owner, verdict, sent) = node.send(OUTSIDE, syn.clone());
            assert_eq!(verdict, Verdict::Transmit(INSIDE));
            (owner, syn, sent)
        })
        .collect();
    node.reload(&rig::moved(V4));
    for (owner, syn, sent) in opened {
        let answer = frame::tcp(
            target(sent[33]),
            local(frame::port_word(&sent, 0)),
            SYN | ACK,
        )
        .seq(9, frame::tcp_word(&sent, 4) + 1);
        for _ in 0..3 {
            let (worker, verdict, _) = node.send(INSIDE, from_target(&answer, sent[33]));
            assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
            let (worker, verdict, _) = node.send(OUTSIDE, syn.clone());
            assert_eq!((worker, verdict), (owner, Verdict::Transmit(INSIDE)));
        }
    }
}

#[test]
fn ipv6_finds_its_owner_likewise() {
    for workers in [2u16, 3, 4, 8] {
        for (nic, is_true) in [(Nic::Toeplitz(nic::KEY), true), (Nic::Random(11), false)] {
            let limits = roomy();
            let counters = Arc::new(Counters::new(workers, &limits));
            let mut builder = rig::builder(&both_ports(), &V6.services());
            for port in [OUTSIDE, INSIDE] {
                builder.spread(port, nic::spread(workers, false));
            }
            let rigs = (0..workers).map(|index| {
                let mut rig = Rig::sharing(&limits, &builder, index, &counters);
                rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
                let hops = [
                    (OUTSIDE, V6.gateway(), rig::ROUTER_MAC),
                    (INSIDE, V6.target_ip(21), mac(21)),
                    (INSIDE, V6.target_ip(22), mac(22)),
                ];
                for (port, address, mac) in hops {
                    rig.worker.learn(rig.now, port, address, mac, &mut rig.out);
                }
                rig
            });
            let rigs = rigs.collect();
            let mut node = Node { rigs, nic };
            for n in 0..60u8 {
                let from = V6.client(n * 4, 4000 + u16::from(n));
                let there = [
                    frame::tcp(from, V6.vip(80), SYN).seq(1, 0),
                    frame::udp(from, V6.vip(53), b"where?"),
                ];
                for (packet, is_tcp) in there.iter().zip([true, false]) {
                    let (owner, verdict, sent) = node.send(OUTSIDE, from_client(packet));
                    assert_eq!(verdict, Verdict::Transmit(INSIDE));
                    let (from, to) = (
                        V6.target(frame::target_of(&sent), 8080),
                        V6.local(frame::source_port(&sent)),
                    );
                    let answer = if is_tcp {
                        frame::tcp(from, to, SYN | ACK)
                    } else {
                        frame::udp(from, to, b"there")
                    };
                    let answer = from_target(&answer, frame::target_of(&sent));
                    let (worker, verdict, _) = node.send(INSIDE, answer);
                    assert_eq!((worker, verdict), (owner, Verdict::Transmit(OUTSIDE)));
                }
            }
            assert_eq!(node.redirected().0 == 0, is_true, "{workers} workers");
        }
    }
}

#[test]
fn workers_share_the_ports_of_a_target_without_overlap() {
    let limits = Limits {
        first_port: 5001,
        last_port: 5010,
        flows: 64,
        ..rig::small()
    };
    let mut node = Node::new(3, &limits);
    let mut ports: Vec<(u8, u16)> = Vec::new();
    for n in 0..400u32 {
        let from = SocketAddrV4::new(Ipv4Addr::from_bits(0x0b00_0000 + n), 4000);
        let (_, verdict, sent) = node.send(
            OUTSIDE,
            from_client(&frame::tcp(from, vip(80), SYN).seq(1, 0)),
        );
        if verdict == Verdict::Transmit(INSIDE) {
            ports.push((sent[33], frame::port_word(&sent, 0)));
        }
    }
    ports.sort_unstable();
    let expected: Vec<(u8, u16)> = [21, 22]
        .into_iter()
        .flat_map(|n| (5001..=5010).map(move |port| (n, port)))
        .collect();
    assert_eq!(ports, expected, "every port towards every target once");
}

#[test]
fn what_is_the_kernels_is_not_redirected() {
    let mut node = Node::new(4, &rig::small());
    for n in 0..40 {
        let own = SocketAddrV4::new(rig::OUTSIDE_ADDRESS, 179);
        let (_, verdict, _) =
            node.send(OUTSIDE, from_client(&frame::tcp(client(n, 4000), own, SYN)));
        assert_eq!(verdict, Verdict::Kernel);
    }
    assert!((0..4).all(|index| node.rigs[0].counters.worker(index).redirected == 0));
}

#[test]
fn segments_of_no_flow_are_answered_whichever_queue_they_come_in_on() {
    let mut node = Node::new(3, &rig::small());
    for n in 0..12 {
        let (_, verdict, sent) = node.send(
            OUTSIDE,
            from_client(&frame::tcp(client(n, 4000), vip(80), ACK).seq(1, 7)),
        );
        assert_eq!(
            (verdict, sent[47]),
            (Verdict::Transmit(OUTSIDE), frame::RST)
        );
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
        Event::Learned { mac, .. } => Some(mac),
        _ => None,
    };
    rig.events().into_iter().filter_map(mac_of).collect()
}

#[test]
fn workers_are_told_what_may_be_news_to_them() {
    let mut node = Node::new(2, &rig::small());
    let rig = &mut node.rigs[0];
    let (known, unknown) = (*target(21).ip(), Ipv4Addr::new(10, 3, 0, 200));
    let (old, new, newer) = (mac(21), mac(0x71), mac(0x72));
    let cases = [
        (
            "an announcement of what is known",
            announcement(known, old),
            None,
        ),
        (
            "an announcement of another MAC",
            announcement(known, new),
            Some(new),
        ),
        ("the same again", announcement(known, new), None),
        ("a question from a known MAC", question(known, new), None),
        (
            "a question from another MAC",
            question(known, newer),
            Some(newer),
        ),
        ("an announcement after it", announcement(known, newer), None),
        (
            "a reply, which another worker may wait for",
            reply(known, newer),
            Some(newer),
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
}

#[test]
fn a_flood_of_announcements_is_told_in_part_and_hides_no_next_hop() {
    let mut node = Node::new(2, &rig::small());
    let rig = &mut node.rigs[0];
    let mut told = 0;
    for n in 0..5000u32 {
        let stranger = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 3, 64, 0)) + n);
        told += learned(rig, INSIDE, announcement(stranger, mac(9))).len();
    }
    assert_eq!(told, 1000);
    let moved = mac(0x71);
    let known = announcement(*target(21).ip(), moved);
    assert_eq!(learned(rig, INSIDE, known), [moved]);
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
