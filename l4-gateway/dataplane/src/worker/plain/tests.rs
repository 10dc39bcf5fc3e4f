//! The short way against the long one: two workers get the same frames, and one of them may not take the short way.

mod bursts;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::counters::{Counters, ServiceCounts, TargetCounts, WorkerCounts};
use crate::family::Family;
use crate::ids::{Ids, ServiceId, TargetId};
use crate::limits::Limits;
use crate::port::{Port, Segment};
use crate::secret::Secret;
use crate::service::{ServiceConfig, TargetConfig};
use crate::tables::Tables;
use crate::{ClientAddress, Emitted, Learned, MacAddr, NextHops, Now, Verdict, Weight};

const OUTSIDE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const INSIDE: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OTHERS: MacAddr = MacAddr([2, 0, 0, 0, 1, 0]);
const CLIENTS: u8 = 6;

/// Options of TCP.
const MSS: &[u8] = &[2, 4, 5, 180];
const SACK: &[u8] = &[1, 1, 5, 10, 0, 0, 19, 136, 0, 0, 19, 146];
const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Each next hop has its own.
fn mac_of([.., network, _, host]: [u8; 4]) -> MacAddr {
    MacAddr([2, 0, 0, 0, network, host])
}

struct Node {
    worker: Worker,
    counters: Arc<Counters>,
    out: Emitted,
}

impl Node {
    fn new(tables: &Tables, limits: &Limits, takes_short_way: bool) -> Self {
        Self::first_of(1, tables, limits, takes_short_way)
    }

    /// The first of some workers.
    fn first_of(workers: u16, tables: &Tables, limits: &Limits, takes_short_way: bool) -> Self {
        let counters = Arc::new(Counters::new(workers, limits));
        let mut worker = Worker::new(0, workers, limits, Secret::new([7; 32]), counters.clone());
        worker.takes_short_way = takes_short_way;
        let mut out = Emitted::new();
        worker.tick(tables, Now(1), &mut out);
        let mut node = Self {
            worker,
            counters,
            out,
        };
        node.learn_next_hops(Now(1));
        node.out.clear();
        node
    }

    /// The router's MAC and those of the targets.
    fn learn_next_hops(&mut self, now: Now) {
        for (port, address) in [(0, [10, 2, 0, 1]), (1, [10, 3, 0, 21]), (1, [10, 3, 0, 22])] {
            let learned = Learned {
                port: PortIndex(port),
                address: Ipv4Addr::from(address).into(),
                mac: mac_of(address),
                weight: Weight::Claim,
            };
            self.worker.learn(now, learned, &mut self.out);
        }
    }

    fn send(&mut self, tables: &Tables, now: Now, port: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frames = [frame.to_vec()];
        let mut verdicts = [Verdict::Kernel];
        let (out, port) = (&mut self.out, PortIndex(port));
        self.worker
            .burst(tables, now, port, &mut frames, &mut verdicts, out);
        let [frame] = frames;
        (verdicts[0], frame)
    }

    fn said(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        let frames = self.out.frames();
        let said = frames.map(|(port, bytes)| (port, bytes.to_vec())).collect();
        self.out.clear();
        said
    }

    /// Of the worker, both services and all targets.
    fn counts(&self) -> (WorkerCounts, [ServiceCounts; 2], [TargetCounts; 4]) {
        let counters = &self.counters;
        let services = [0, 1].map(|id| counters.service(ServiceId(id)));
        let targets = [0, 1, 2, 3].map(|id| counters.target(TargetId(id)));
        (counters.worker(0), services, targets)
    }
}

fn tables_of(limits: &Limits) -> Tables {
    let service = |protocol| ServiceConfig::new(Ipv4Addr::new(10, 0, 0, 100), protocol, 80);
    tables_with(
        limits,
        100,
        [service(Protocol::Tcp), service(Protocol::Udp)].map(|service| (service, 8080)),
    )
}

/// Each of the services with two targets that listen on the port beside it; the link to them takes packets of `mtu` bytes.
fn tables_with(
    limits: &Limits,
    mtu: u16,
    services: impl IntoIterator<Item = (ServiceConfig, u16)>,
) -> Tables {
    let mut builder = Tables::builder();
    for (index, mac) in [(0, OUTSIDE), (1, INSIDE)] {
        builder.port(Port {
            index: PortIndex(index),
            mac,
            ipv4: Some(Segment {
                address: Ipv4Addr::new(10, 2 + index as u8, 0, 11),
                prefix: 24,
                gateways: match index {
                    0 => NextHops::one(Ipv4Addr::new(10, 2, 0, 1)),
                    _ => NextHops::ON_LINK,
                },
            }),
            ipv6: None,
            mtu: if index == 0 { 1500 } else { mtu },
            answers: true,
            announce_every: None,
            hears_kernel: false,
        });
    }
    builder.local_ip(Ipv4Addr::new(10, 3, 0, 100));
    for (mut service, port) in services {
        for host in [21, 22] {
            service.targets.push(TargetConfig {
                address: SocketAddr::from((Ipv4Addr::new(10, 3, 0, host), port)),
                weight: 1,
                up: true,
                draining: false,
                cut: false,
            });
        }
        builder.service(service);
    }
    builder.build(&mut Ids::new(limits), None).unwrap()
}

/// One end of a flow: where it sends to, and its numbers.
#[derive(Clone)]
struct End {
    port: u16,
    protocol: Protocol,
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    sequence: u32,
    acknowledgment: u32,
}

impl End {
    fn client(host: u8, protocol: Protocol) -> Self {
        Self {
            port: 0,
            protocol,
            addresses: [Ipv4Addr::new(11, 0, 0, host), Ipv4Addr::new(10, 0, 0, 100)],
            ports: [4000, 80],
            sequence: 1000,
            acknowledgment: 0,
        }
    }

    /// Who gets a frame of this end, as the node rewrote it.
    fn other(&self, rewritten: &[u8]) -> Self {
        let address = |at: usize| <[u8; 4]>::try_from(&rewritten[at..at + 4]).unwrap().into();
        let port = |at: usize| u16::from_be_bytes([rewritten[at], rewritten[at + 1]]);
        let sequence = u32::from_be_bytes(rewritten[38..42].try_into().unwrap());
        Self {
            port: 1,
            protocol: self.protocol,
            addresses: [address(30), address(26)],
            ports: [port(36), port(34)],
            sequence: 5000,
            acknowledgment: sequence.wrapping_add(1),
        }
    }

    fn frame(&self, flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
        let mac = if self.port == 0 { OUTSIDE } else { INSIDE };
        let mut frame = ethernet::header(mac, OTHERS, ethernet::IPV4).to_vec();
        let mut transport: Vec<u8> = self
            .ports
            .iter()
            .flat_map(|port| port.to_be_bytes())
            .collect();
        match self.protocol {
            Protocol::Tcp => {
                transport.extend(self.sequence.to_be_bytes());
                transport.extend(self.acknowledgment.to_be_bytes());
                transport.extend([(20 + options.len() as u8) << 2, flags, 4, 0, 0, 0, 0, 0]);
                transport.extend(options);
            }
            Protocol::Udp => {
                transport.extend((8 + payload as u16).to_be_bytes());
                transport.extend([0, 0]);
            }
        }
        transport.extend((0..payload).map(|byte| byte as u8));
        let [source, destination] = self.addresses;
        let number = self.protocol as u8;
        let sum = V4::pseudo_header(source, destination, number, transport.len() as u16);
        let sum = !checksum::add(sum, checksum::sum(&transport));
        let at = match self.protocol {
            Protocol::Tcp => tcp::CHECKSUM,
            Protocol::Udp => udp::CHECKSUM,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ipv4::header(
            source,
            destination,
            number,
            transport.len(),
            64,
        ));
        frame.extend(transport);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// Something else than what a well-behaved host sends, mostly.
fn spoil(frame: &mut Vec<u8>, random: &mut Random) {
    match random.below(8) {
        0..=3 => {}
        4 => frame[22] = random.below(3) as u8,
        5 => {
            let at = random.below(70.min(frame.len()));
            frame[at] ^= 1 << random.below(8);
        }
        6 => frame.truncate(random.below(frame.len() + 1)),
        _ => frame.resize(frame.len() + random.below(80), 0xaa),
    }
    if frame.len() >= 34 && random.below(3) > 0 {
        mend_checksum(frame, 34);
    }
}

/// Computes the checksum of the IP header, which ends at `end`, anew.
fn mend_checksum(frame: &mut [u8], end: usize) {
    frame[24..26].fill(0);
    let sum = checksum::checksum(&frame[ETHERNET_HEADER..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn the_short_way_does_what_the_long_one_does() {
    let limits = Limits {
        flows: 64,
        ..Limits::default()
    };
    let mut tables = tables_of(&limits);
    let mut nodes = [true, false].map(|short| Node::new(&tables, &limits, short));
    let mut now = Now(2);
    let mut ends = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for host in 1..=CLIENTS {
            let mut client = End::client(host, protocol);
            let [(_, sent), _] = nodes
                .each_mut()
                .map(|node| node.send(&tables, now, 0, &client.frame(tcp::SYN, &[], 0)));
            let mut target = client.other(&sent);
            client.sequence += 1;
            client.acknowledgment = target.sequence + 1;
            for (end, flags) in [(&target, tcp::SYN | tcp::ACK), (&client, tcp::ACK)] {
                for node in &mut nodes {
                    node.send(&tables, now, end.port, &end.frame(flags, &[], 0));
                }
            }
            target.sequence += 1;
            ends.extend([client, target]);
        }
    }
    let mut random = Random(1);
    for turn in 0..30_000 {
        if turn % 1000 == 999 {
            // The same in another snapshot: all next hops are looked up anew.
            tables = tables_of(&limits);
        }
        let mut end = ends[random.below(ends.len())].clone();
        match random.below(10) {
            0 => end.sequence = random.below(1 << 31) as u32,
            1 => end.acknowledgment = random.below(1 << 31) as u32,
            n => end.sequence = end.sequence.wrapping_add(n as u32),
        }
        let options = [&[], &[], TIMESTAMPS, SACK][random.below(4)];
        let flags = match random.below(2000) {
            0 => tcp::RST,
            1 => tcp::ACK | tcp::FIN,
            2 => tcp::SYN,
            n => tcp::ACK | if n % 2 == 0 { 8 } else { 0 },
        };
        if random.below(20) == 0 {
            end.port = 1 - end.port;
        }
        let mut frame = end.frame(flags, options, random.below(90));
        spoil(&mut frame, &mut random);
        now.0 += random.below(1_000_000) as u64;
        let [short, long] = nodes
            .each_mut()
            .map(|node| (node.send(&tables, now, end.port, &frame), node.said()));
        assert_eq!(short, long, "turn {turn}: {frame:02x?}");
    }
    let [short, long] = nodes.each_ref().map(|node| {
        let flows: Vec<_> = node.worker.flows(now).collect();
        (node.counts(), flows)
    });
    assert_eq!(short.0, long.0);
    assert!(short.1 == long.1, "flows differ");
    let [took, never] = nodes.each_ref().map(|node| node.worker.went_short_way);
    assert_eq!(never, 0);
    let transmitted = short.0.0.transmitted;
    assert!(
        took * 3 > transmitted,
        "{took} of {transmitted} went the short way"
    );
}

/// The life of connections: begun, answered, ended, reset and begun again over the same ports, in and out of order.
#[test]
fn connections_live_and_die_alike_both_ways() {
    let limits = Limits {
        flows: 64,
        ..Limits::default()
    };
    let tables = tables_of(&limits);
    let mut nodes = [true, false].map(|short| Node::new(&tables, &limits, short));
    let mut now = Now(2);
    let mut random = Random(3);
    let mut pairs: Vec<(End, Option<End>)> = (1..=CLIENTS)
        .map(|host| (End::client(host, Protocol::Tcp), None))
        .collect();
    let mut turns_taken = [0; 8];
    let mut states = std::collections::HashSet::new();
    for turn in 0..40_000 {
        let (client, target) = &mut pairs[random.below(usize::from(CLIENTS))];
        let (from_client, flags, options, payload): (bool, u8, &[u8], usize) =
            match random.below(16) {
                0 => (true, tcp::SYN, MSS, 0),
                1 | 2 => (false, tcp::SYN | tcp::ACK, MSS, 0),
                3 => (false, tcp::SYN | tcp::ACK, &[], 0),
                4..=6 => (true, tcp::ACK, &[], random.below(20)),
                7 | 8 => (false, tcp::ACK, &[], random.below(20)),
                9 => (false, tcp::ACK, SACK, 0),
                10 => (true, tcp::ACK, SACK, 0),
                11 | 12 => (true, tcp::FIN | tcp::ACK, &[], random.below(3)),
                13 | 14 => (false, tcp::FIN | tcp::ACK, &[], random.below(3)),
                _ => (random.below(2) == 0, tcp::RST | tcp::ACK, &[], 0),
            };
        let is_syn = flags & tcp::SYN != 0;
        if from_client && is_syn && random.below(4) > 0 {
            client.sequence = random.below(1 << 31) as u32;
        }
        let end = match (from_client, &mut *target) {
            (true, _) => &mut *client,
            (false, Some(target)) => target,
            (false, None) => continue,
        };
        let mut frame = end.frame(flags, options, payload);
        let sequence = end.sequence;
        let is_whole = random.below(16) > 0;
        if !is_whole {
            spoil(&mut frame, &mut random);
        }
        now.0 += match random.below(400) {
            0 => 3_000_000_000 * random.below(40) as u64,
            _ => random.below(1_000_000) as u64,
        };
        let port = end.port;
        let [short, long] = nodes.each_mut().map(|node| {
            let sent = node.send(&tables, now, port, &frame);
            if turn % 8 == 0 {
                node.worker.tick(&tables, now, &mut node.out);
            }
            (sent, node.said())
        });
        assert_eq!(short, long, "turn {turn}: {frame:02x?}");
        let took = nodes[0].worker.went_short_way - turns_taken.iter().sum::<u64>();
        turns_taken[usize::from(flags & 7)] += took;
        states.extend(nodes[0].worker.flows(now).map(|flow| flow.state));
        // What both ends make of it, where it arrived.
        if !is_whole || !matches!(short.0.0, Verdict::Transmit(_)) {
            continue;
        }
        let behind = sequence
            .wrapping_add(payload as u32)
            .wrapping_add(u32::from(flags & (tcp::SYN | tcp::FIN) != 0));
        if random.below(3) > 0 {
            match (from_client, &mut *target) {
                (true, _) if is_syn => *target = Some(client.other(&short.0.1)),
                (true, Some(target)) => {
                    let sent = &short.0.1[38..42];
                    let sent = u32::from_be_bytes(sent.try_into().unwrap());
                    target.acknowledgment = sent.wrapping_add(behind.wrapping_sub(sequence));
                }
                _ => client.acknowledgment = behind,
            }
            match (from_client, target) {
                (true, _) => client.sequence = behind,
                (false, Some(target)) => target.sequence = behind,
                (false, None) => {}
            }
        }
    }
    let [short, long] = nodes.each_ref().map(|node| {
        let flows: Vec<_> = node.worker.flows(now).collect();
        (node.counts(), flows)
    });
    assert_eq!(short.0, long.0);
    assert!(short.1 == long.1, "flows differ");
    assert_eq!(nodes[1].worker.went_short_way, 0);
    assert_eq!(states.len(), 7, "{states:?}");
    let of = |flags: u8| turns_taken[usize::from(flags & 7)];
    for flags in [0, tcp::SYN, tcp::FIN, tcp::RST] {
        assert!(of(flags) > 200, "{flags:#x}: {turns_taken:?}");
    }
}

#[test]
fn frames_go_to_their_next_hops_while_epochs_begin_anew() {
    let limits = Limits {
        flows: 64,
        ..Limits::default()
    };
    let mut node = Node::new(&tables_of(&limits), &limits, true);
    node.worker.neighbours.use_epochs_up();
    let mut passed_between = 0;
    for _ in 0..8 {
        let tables = tables_of(&limits);
        for _ in 0..2 {
            for host in 1..=CLIENTS {
                let frame = End::client(host, Protocol::Udp).frame(0, &[], 20);
                let (verdict, sent) = node.send(&tables, Now(2), 0, &frame);
                assert_eq!(verdict, Verdict::Transmit(PortIndex(1)));
                let target = sent[30..34].try_into().unwrap();
                assert_eq!(sent[..6], mac_of(target).0, "to {target:?}");
            }
            passed_between += u32::from(node.worker.neighbours.is_between_epochs());
        }
        node.worker.tick(&tables, Now(2), &mut node.out);
        node.out.clear();
    }
    assert_eq!(passed_between, 2);
    assert!(!node.worker.neighbours.is_between_epochs());
    assert!(node.worker.went_short_way > u64::from(CLIENTS));
}

#[test]
fn what_lies_beside_a_proxy_header_goes_the_short_way_before_the_target_has_it() {
    let limits = Limits {
        flows: 64,
        ..Limits::default()
    };
    let mut service = ServiceConfig::new(Ipv4Addr::new(10, 0, 0, 100), Protocol::Tcp, 80);
    service.client_address = ClientAddress::ProxyV2;
    let tables = tables_with(&limits, 1500, [(service, 8080)]);
    let mut nodes = [true, false].map(|short| Node::new(&tables, &limits, short));
    let mut both = |end: &End, flags: u8, payload: usize| {
        let frame = end.frame(flags, &[], payload);
        let before = nodes.each_ref().map(|node| node.worker.went_short_way);
        let [short, long] = nodes
            .each_mut()
            .map(|node| node.send(&tables, Now(2), end.port, &frame));
        assert_eq!(short, long);
        assert!(matches!(short.0, Verdict::Transmit(_)));
        let after = nodes.each_ref().map(|node| node.worker.went_short_way);
        assert_eq!(after[1], before[1]);
        (short.1, after[0] > before[0])
    };
    let number = |frame: &[u8]| u32::from_be_bytes(frame[38..42].try_into().unwrap());
    let mut client = End::client(1, Protocol::Tcp);
    let (syn, _) = both(&client, tcp::SYN, 0);
    let target = client.other(&syn);
    both(&target, tcp::SYN | tcp::ACK, 0);
    client.sequence += 1;
    client.acknowledgment = target.sequence + 1;
    both(&client, tcp::ACK, 0);
    // An acknowledgment in front of the stream, its first segment twice, then what follows, and again an old one.
    let start = number(&syn) + 1;
    let length = crate::client_address::proxy::OVER_IPV4;
    for (at, payload, moved, is_short) in [
        (0, 0, 0, true),
        (0, 10, 0, false),
        (0, 10, 0, false),
        (10, 10, length as u32, true),
        (20, 0, length as u32, true),
        (0, 0, 0, true),
        (20, 30, length as u32, true),
    ] {
        let end = End {
            sequence: client.sequence + at,
            ..client.clone()
        };
        let (frame, went_short) = both(&end, tcp::ACK | 8, payload);
        assert_eq!(number(&frame), start + at + moved, "{at}, {payload} bytes");
        assert_eq!(went_short, is_short, "{at}, {payload} bytes");
    }
}
