//! A seeded simulation: clients and targets speak TCP and UDP through the node over a network that loses, duplicates and
//! reorders, while targets come and go, ports run out and the clock leaps. After each step the node's invariants are checked; what
//! arrives must be what was sent, targets must hear of the right client, and one whose flows are cut must be left at once. A failure prints
//! the command that repeats its run (`replay`).

mod endpoint;
mod random;
mod replay;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dataplane::{
    ClientAddress, FlowLimits, Limits, Persistence, Policy, PortIndex, Protocol, Quota, Refusal,
    Scheduler, ServiceConfig, ServiceCounts, SourcePrefix, Timeouts, Verdict,
};

use super::frame::{self, ACK, RST, SYN, checksum, mac};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Rig, SECOND, client, target, up, vip};
use endpoint::{Endpoint, Segment, State, refuse};
use random::Random;

/// What happens next.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// A frame reaches the node's port.
    ToNode(u16, Vec<u8>),
    /// A frame the node sent reaches the host behind this port.
    FromNode(u16, Vec<u8>),
    /// A client looks after its connection.
    Client(SocketAddrV4),
    /// Targets look after theirs.
    Targets,
    /// The node's timers.
    Tick,
    /// Something happens to the node.
    Disturb,
}

#[derive(Default, Debug)]
struct Tally {
    completed: u32,
    reset: u32,
    datagrams: u32,
    rescheduled: u64,
    exhausted: u64,
    /// Segments from which a target learned more of a stream whose client it was told.
    told: u64,
    limited: u64,
    persisted: u64,
    cut: u64,
}

struct World {
    random: Random,
    rig: Rig,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    clients: BTreeMap<SocketAddrV4, Endpoint>,
    servers: BTreeMap<(SocketAddrV4, SocketAddrV4), Server>,
    services: Vec<ServiceConfig>,
    lossy: bool,
    /// Whether limits, persistence and cuts come and go too.
    limited: bool,
    tally: Tally,
}

/// A target's end of a connection.
struct Server {
    endpoint: Endpoint,
    /// When it last heard of the other end.
    seen: u64,
    /// The client, by the option of the segment that completed the handshake.
    option: Option<SocketAddrV4>,
}

impl World {
    fn new(seed: u64, limited: bool) -> Self {
        let mut random = Random::new(seed);
        let mut services = rig::services();
        services[0].client_address = client_address(seed);
        let schedulers = [
            Scheduler::RoundRobin,
            Scheduler::WeightedRoundRobin,
            Scheduler::WeightedLeastConnections,
            Scheduler::Maglev,
        ];
        for service in &mut services {
            service.scheduler = random.pick(&schedulers);
            service.timeouts = Timeouts {
                udp: Duration::from_secs(8),
                ..Timeouts::default()
            };
        }
        // Few ports, so that they are reused soon and run out at times.
        let ports = 5 + random.below(12) as u16;
        let limits = Limits {
            first_port: 5000,
            last_port: 4999 + ports,
            flows: 40,
            fragmented_packets: 16,
            early_fragments: 16,
            ..rig::small()
        };
        let rig = Rig::with(&limits, &services);
        let mut world = Self {
            lossy: !random.one_in(4),
            limited,
            random,
            rig,
            events: BinaryHeap::new(),
            order: 0,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            services,
            tally: Tally::default(),
        };
        for n in 0..24 {
            let address = client(n % 6, 4000 + u16::from(n / 6));
            let delay = world.random.below(SECOND);
            world.after(delay, Event::Client(address));
        }
        for event in [Event::Targets, Event::Tick, Event::Disturb] {
            world.after(MILLISECOND, event);
        }
        world
    }

    fn now(&self) -> u64 {
        self.rig.now.0
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.events
            .push(Reverse((self.now() + delay, self.order, event)));
    }

    /// Sends over the network: late, twice or never.
    fn network(&mut self, event: impl Fn() -> Event) {
        let copies = match self.random.below(20) {
            0 if self.lossy => 0,
            1 if self.lossy => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let spread = if self.lossy { 40 } else { 2 };
            let delay = MILLISECOND + self.random.below(spread * MILLISECOND);
            self.after(delay, event());
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                return;
            };
            self.rig.now.0 = self.rig.now.0.max(at);
            match event {
                Event::ToNode(port, frame) => self.node(PortIndex(port), frame),
                Event::FromNode(port, frame) => self.host(PortIndex(port), &frame),
                Event::Client(address) => self.client(address),
                Event::Targets => self.targets(),
                Event::Tick => {
                    self.rig
                        .worker
                        .tick(&self.rig.tables, self.rig.now, &mut self.rig.out);
                    self.check_cuts();
                    self.after(5 * MILLISECOND, Event::Tick);
                }
                Event::Disturb => self.disturb(),
            }
            self.send_emitted();
            self.rig.worker.check_invariants();
        }
    }

    /// No flow goes to a target whose drain is over. Tables of up to 1024 flows, no more than 128 of them open, are gone through by one call of the
    /// timers.
    fn check_cuts(&self) {
        for flow in self.rig.worker.flows(self.rig.now) {
            let target = self.rig.tables.target(flow.target_id);
            assert!(
                target.is_none_or(|target| !target.config.cut),
                "a target whose flows were cut has {flow:?}"
            );
        }
    }

    fn node(&mut self, port: PortIndex, frame: Vec<u8>) {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Kernel];
        let Rig {
            worker,
            tables,
            now,
            out,
            ..
        } = &mut self.rig;
        worker.burst(tables, *now, port, &mut frames, &mut verdicts, out);
        if let Verdict::Transmit(PortIndex(port)) = verdicts[0] {
            let [frame] = frames;
            self.network(|| Event::FromNode(port, frame.clone()));
        }
    }

    fn send_emitted(&mut self) {
        let emitted = self.rig.emitted();
        self.rig.out.clear();
        for (PortIndex(port), frame) in emitted {
            self.network(|| Event::FromNode(port, frame.clone()));
        }
    }

    /// A frame arrives at a host: it must be right in every checksum and addressed to it.
    fn host(&mut self, port: PortIndex, frame: &[u8]) {
        if frame[12..14] == [8, 6] {
            self.answer_arp(port, frame);
            return;
        }
        let header = usize::from(frame[14] & 15) * 4;
        let packet = &frame[14..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))];
        assert_eq!(checksum(&packet[..header]), 0, "IP checksum");
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let (source, destination, payload) = (address(12), address(16), &packet[header..]);
        if packet[9] == 1 {
            assert_eq!(checksum(payload), 0, "ICMP checksum");
            return;
        }
        let mut pseudo = [source.octets(), destination.octets()].concat();
        pseudo.extend([0, packet[9]]);
        pseudo.extend((payload.len() as u16).to_be_bytes());
        pseudo.extend(payload);
        assert_eq!(checksum(&pseudo), 0, "transport checksum");
        let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        let from = SocketAddrV4::new(source, word(0));
        let to = SocketAddrV4::new(destination, word(2));
        let (own, mac_of_host) = match port {
            OUTSIDE => (rig::OUTSIDE_MAC, rig::ROUTER_MAC),
            _ => (rig::INSIDE_MAC, mac(destination.octets()[3])),
        };
        assert_eq!(
            (&frame[..6], &frame[6..12]),
            (&mac_of_host.0[..], &own.0[..]),
            "MACs"
        );
        match (port, packet[9]) {
            (OUTSIDE, 17) => {
                assert_eq!(
                    (from, &payload[8..]),
                    (vip(53), &to.port().to_be_bytes()[..]),
                    "a datagram of someone else"
                );
                self.tally.datagrams += 1;
            }
            (_, 17) => self.from_host(INSIDE, &frame::udp(to, from, &payload[8..])),
            (OUTSIDE, _) => self.to_client(to, from, &segment(payload)),
            _ => self.to_server(to, from, &segment(payload), option(payload)),
        }
    }

    fn answer_arp(&mut self, port: PortIndex, frame: &[u8]) {
        let asked = Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41]);
        if frame[21] != 1 || frame[28..32] == frame[38..42] {
            return;
        }
        let (own, sender) = match port {
            OUTSIDE => ((rig::OUTSIDE_MAC, rig::OUTSIDE_ADDRESS), rig::ROUTER_MAC),
            _ => (
                (rig::INSIDE_MAC, rig::INSIDE_ADDRESS),
                mac(asked.octets()[3]),
            ),
        };
        let reply = frame::arp(2, own.0, (sender, asked), own);
        self.network(|| Event::ToNode(port.0, reply.clone()));
    }

    fn from_host(&mut self, port: PortIndex, packet: &frame::Packet) {
        let n = rig::last(packet.source);
        let frame = if port == OUTSIDE {
            rig::from_client(packet)
        } else {
            rig::from_target(packet, n)
        };
        self.network(|| Event::ToNode(port.0, frame.clone()));
    }

    fn send(&mut self, port: PortIndex, from: SocketAddrV4, to: SocketAddrV4, segment: &Segment) {
        let packet = frame::tcp(from, to, segment.flags)
            .seq(segment.seq, segment.ack)
            .data(&segment.data);
        self.from_host(port, &packet);
    }

    /// A client starts, drives or ends its connection; now and then it asks by UDP.
    fn client(&mut self, address: SocketAddrV4) {
        if self.random.one_in(4) {
            let query = frame::udp(address, vip(53), &address.port().to_be_bytes());
            self.from_host(OUTSIDE, &query);
        }
        let ended = match self.clients.get(&address) {
            None => true,
            Some(endpoint) => {
                let (sent, got) = (&endpoint.outgoing, &endpoint.received);
                assert!(sent.starts_with(got), "the echo differs from what was sent");
                match endpoint.state {
                    State::Done => {
                        assert_eq!(
                            sent, got,
                            "the connection closed in order, but bytes are missing"
                        );
                        self.tally.completed += 1;
                        true
                    }
                    State::Reset => {
                        self.tally.reset += 1;
                        true
                    }
                    _ => false,
                }
            }
        };
        if ended {
            // The same port again, at once or a while later, with whatever initial sequence number.
            let length = self.random.below(200) as usize;
            let mut bytes: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
            // Who it is from, for the target to compare with what it is told.
            if let Some(place) = bytes.first_chunk_mut() {
                *place = name(address);
            }
            let iss = self.random.next() as u32;
            self.clients.insert(address, Endpoint::connect(iss, bytes));
            let pause = if self.random.one_in(3) {
                self.random.below(4 * SECOND)
            } else {
                0
            };
            self.after(pause + MILLISECOND, Event::Client(address));
            return;
        }
        let segments = self.clients[&address].poll();
        for segment in segments {
            self.send(OUTSIDE, address, vip(80), &segment);
        }
        self.after(100 * MILLISECOND, Event::Client(address));
    }

    fn to_client(&mut self, address: SocketAddrV4, from: SocketAddrV4, segment: &Segment) {
        assert_eq!(from, vip(80), "clients hear from the VIP only");
        let answer = match self.clients.get_mut(&address) {
            Some(endpoint) if endpoint.state != State::Reset => endpoint.input(segment),
            _ => refuse(segment),
        };
        if let Some(answer) = answer {
            self.send(OUTSIDE, address, vip(80), &answer);
        }
    }

    fn to_server(
        &mut self,
        address: SocketAddrV4,
        from: SocketAddrV4,
        segment: &Segment,
        option: Option<SocketAddrV4>,
    ) {
        let told = self.services[0].client_address;
        assert_eq!(
            *from.ip(),
            rig::LOCAL_IP,
            "targets hear from the LocalIP only"
        );
        let now = self.now();
        let key = (address, from);
        let is_syn = segment.flags & (SYN | ACK | RST) == SYN;
        if let Some(Server { endpoint: old, .. }) = self.servers.get(&key)
            && is_syn
            && old.state == State::Done
        {
            // RFC 9293 3.6.1: a SYN in TIME_WAIT opens a new connection if its number is above what was seen.
            let rises = (segment.seq.wrapping_sub(old.expected) as i32) >= 0;
            assert!(
                rises,
                "a reused port starts below where its last connection ended"
            );
            self.servers.remove(&key);
        }
        let reset = self
            .servers
            .get(&key)
            .is_some_and(|server| server.endpoint.state == State::Reset);
        if reset {
            self.servers.remove(&key);
        }
        let answer = match self.servers.get_mut(&key) {
            Some(server) => {
                server.seen = now;
                let Server { endpoint, .. } = server;
                let before = endpoint.state;
                let answer = endpoint.input(segment);
                if before == State::SynReceived && endpoint.state == State::Established {
                    server.option = option;
                }
                let stream = match told {
                    ClientAddress::ProxyV2 => behind_header(&endpoint.received),
                    ClientAddress::Toa => {
                        // An RST may come before the handshake is complete here, though it is for the node.
                        assert!(
                            endpoint.state == State::Reset
                                || server.option.is_some()
                                    != (endpoint.state == State::SynReceived),
                            "the handshake is complete and the client is unknown"
                        );
                        (server.option, &endpoint.received[..])
                    }
                    ClientAddress::None => (None, &endpoint.received[..]),
                };
                if let ((Some(client), stream), Some(named)) = (stream, stream.1.first_chunk()) {
                    assert_eq!(name(client), *named, "of {stream:?}");
                    self.tally.told += 1;
                }
                // Echo; close when the client has.
                endpoint.outgoing = stream.1.to_vec();
                endpoint.closing = endpoint.peer_closed;
                answer
            }
            None if is_syn => {
                let endpoint = Endpoint::accept(self.random.next() as u32, segment);
                let answer = endpoint.poll().pop();
                let server = Server {
                    endpoint,
                    seen: now,
                    option: None,
                };
                self.servers.insert(key, server);
                answer
            }
            None => refuse(segment),
        };
        if let Some(answer) = answer {
            self.send(INSIDE, address, from, &answer);
        }
    }

    fn targets(&mut self) {
        let now = self.now();
        // What was left half way is given up after a minute, as TIME_WAIT is.
        self.servers
            .retain(|_, server| now.saturating_sub(server.seen) < 60 * SECOND);
        let due: Vec<_> = self
            .servers
            .iter()
            .map(|((address, from), server)| (*address, *from, server.endpoint.poll()))
            .collect();
        for (address, from, segments) in due {
            for segment in segments {
                self.send(INSIDE, address, from, &segment);
            }
        }
        self.after(100 * MILLISECOND, Event::Targets);
    }

    /// Targets change, the clock leaps, garbage arrives.
    fn disturb(&mut self) {
        match self.random.below(8) {
            0..=3 => {
                for service in &mut self.services {
                    service.targets.clear();
                    for n in 21..=24 {
                        if self.random.one_in(3) {
                            continue;
                        }
                        service.targets.push(dataplane::TargetConfig {
                            weight: self.random.below(4) as u16,
                            up: !self.random.one_in(4),
                            draining: self.random.one_in(5),
                            cut: self.limited && self.random.one_in(6),
                            ..up(target(n))
                        });
                    }
                    if self.limited {
                        service.policy = policy(&mut self.random, service.protocol);
                    }
                }
                let services = self.services.clone();
                self.rig.swap(&services);
                self.rig.ids.reclaim(&self.rig.tables, &self.rig.counters);
            }
            4 => {
                // No network holds a frame for so long: what was under way is lost.
                self.events.retain(|Reverse((_, _, event))| {
                    !matches!(event, Event::ToNode(..) | Event::FromNode(..))
                });
                self.rig.now.0 += self.random.below(40 * SECOND);
            }
            _ => {
                let length = self.random.below(120) as usize;
                let mut garbage: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
                if length > 40 && self.random.one_in(2) {
                    garbage[..6].copy_from_slice(&rig::OUTSIDE_MAC.0);
                    garbage[6] = 2;
                    garbage[12..15].copy_from_slice(&[8, 0, 0x45]);
                }
                self.after(0, Event::ToNode(0, garbage));
            }
        }
        let pause = self.random.below(3 * SECOND);
        self.after(pause, Event::Disturb);
    }
}

/// A third of the seeds each.
fn client_address(seed: u64) -> ClientAddress {
    match seed % 3 {
        0 => ClientAddress::ProxyV2,
        1 => ClientAddress::None,
        _ => ClientAddress::Toa,
    }
}

/// What a client's stream begins with.
fn name(client: SocketAddrV4) -> [u8; 3] {
    let [high, low] = client.port().to_be_bytes();
    [client.ip().octets()[3], high, low]
}

/// The client that a PROXY header names, as soon as it is there, and the stream behind it.
fn behind_header(received: &[u8]) -> (Option<SocketAddrV4>, &[u8]) {
    let mut start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    start.truncate(received.len());
    assert!(received.starts_with(&start), "no header: {received:?}");
    match received.split_first_chunk::<28>() {
        Some((header, stream)) => {
            assert_eq!(header[20..24], rig::VIP.octets());
            assert_eq!(header[26..], 80u16.to_be_bytes());
            let port = u16::from_be_bytes([header[24], header[25]]);
            let client = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
            (Some(SocketAddrV4::new(client, port)), stream)
        }
        None => (None, &[]),
    }
}

/// The client that the segment's first option names.
fn option(segment: &[u8]) -> Option<SocketAddrV4> {
    match segment[20..usize::from(segment[12] >> 4) * 4] {
        [254, 8, high, low, a, b, c, d, ..] => Some(SocketAddrV4::new(
            Ipv4Addr::new(a, b, c, d),
            u16::from_be_bytes([high, low]),
        )),
        _ => None,
    }
}

/// Some of all that can be asked for.
fn policy(random: &mut Random, protocol: Protocol) -> Policy {
    let mut quota = |most: u64| Quota {
        connections: if random.one_in(2) {
            0
        } else {
            1 + random.below(most) as u32
        },
        per_second: if random.one_in(2) {
            0
        } else {
            1 + random.below(most) as u32
        },
    };
    let limits = FlowLimits {
        service: quota(30),
        target: quota(10),
        source: quota(8),
        source_prefix: SourcePrefix {
            v4: random.pick(&[24, 32]),
            v6: 64,
        },
    };
    Policy {
        limits,
        on_limit: random.pick(&[Refusal::Reset, Refusal::Drop]),
        persistence: random.one_in(2).then(|| Persistence {
            timeout: Duration::from_secs(1 + random.below(20)),
            prefix: SourcePrefix::default(),
        }),
        one_packet: protocol == Protocol::Udp && random.one_in(2),
        ..Policy::default()
    }
}

fn segment(bytes: &[u8]) -> Segment {
    let double =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let data = usize::from(bytes[12] >> 4) * 4;
    Segment {
        flags: bytes[13],
        seq: double(4),
        ack: double(8),
        data: bytes[data..].to_vec(),
    }
}

fn simulate(seed: u64, limited: bool) -> Tally {
    let mut world = World::new(seed, limited);
    world.run(12_000);
    // Nothing new from here on: everything must end, and leave no trace.
    let World {
        mut rig, mut tally, ..
    } = world;
    tally.rescheduled = rig.worker_counts().flows_rescheduled;
    tally.exhausted = rig.sum(|counts| counts.port_exhausted);
    tally.limited = rig.sum(|counts| {
        counts.limited_connections
            + counts.limited_rate
            + counts.limited_source_connections
            + counts.limited_source_rate
            + counts.limited_targets
    });
    tally.persisted = rig.sum(|counts| counts.persisted);
    tally.cut = rig.sum(|counts| counts.flows_cut);
    rig.now.0 += 3600 * SECOND;
    rig.pass(40);
    assert_eq!(rig.flow_count(), 0);
    let id = rig
        .tables
        .targets()
        .map(|target| target.id)
        .collect::<Vec<_>>();
    for id in id {
        assert_eq!(rig.counters.target(id).flows_active, 0);
    }
    tally
}

impl Rig {
    fn sum(&self, of: impl Fn(ServiceCounts) -> u64) -> u64 {
        let services = self.tables.services();
        services
            .map(|service| of(self.counters.service(service.id)))
            .sum()
    }
}

#[test]
fn limits_persistence_and_cuts_that_come_and_go_leave_no_trace() {
    let mut total = Tally::default();
    let test = "simulation::limits_persistence_and_cuts_that_come_and_go_leave_no_trace";
    let were_usual = replay::each_seed(test, 101..=108, |seed| {
        let tally = simulate(seed, true);
        total.completed += tally.completed;
        total.datagrams += tally.datagrams;
        total.limited += tally.limited;
        total.persisted += tally.persisted;
        total.cut += tally.cut;
    });
    println!("{total:?}");
    if were_usual {
        assert!(total.completed > 50, "{total:?}");
        assert!(total.datagrams > 100, "{total:?}");
        assert!(total.limited > 300, "{total:?}");
        assert!(total.persisted > 50, "{total:?}");
        assert!(total.cut > 20, "{total:?}");
    }
}

#[test]
fn streams_arrive_unchanged_and_nothing_leaks_whatever_happens() {
    let mut total = Tally::default();
    let test = "simulation::streams_arrive_unchanged_and_nothing_leaks_whatever_happens";
    let were_usual = replay::each_seed(test, 1..=15, |seed| {
        let tally = simulate(seed, false);
        total.completed += tally.completed;
        total.reset += tally.reset;
        total.datagrams += tally.datagrams;
        total.rescheduled += tally.rescheduled;
        total.exhausted += tally.exhausted;
        total.told += tally.told;
    });
    println!("{total:?}");
    if were_usual {
        // The simulation must have met what it is there for.
        assert!(total.completed > 300, "{total:?}");
        assert!(total.datagrams > 300, "{total:?}");
        assert!(total.rescheduled > 50, "{total:?}");
        assert!(total.exhausted > 20, "{total:?}");
        assert!(total.reset > 20, "{total:?}");
        assert!(total.told > 300, "{total:?}");
    }
}
