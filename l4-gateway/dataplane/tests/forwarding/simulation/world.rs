//! One run: the node between its hosts, over a network that loses, duplicates and reorders; what happens to it, and that everything works
//! again afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::{ClientAddress, DropReason, Limits, Mode, PortIndex, Protocol, Sharing, Verdict};

use super::clients::{Clients, Excuse};
use super::configuration::{Configuration, Fixed, both_ports};
use super::hosts::{Addressee, Hosts, ROUTERS, TARGETS, is_discovery, is_local_ip};
use super::node::Node;
use super::packet::{MPTCP, Made, Packet, UDP, damaged};
use super::random::Random;
use super::rules::{self, Rules};
use super::sequences::Sequences;
use super::targets::Targets;
use crate::nic::{self, Nic};
use crate::rig::{INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC};

pub use crate::rig::{MILLISECOND, SECOND};

/// What a test wants to see; everything else is drawn from the seed.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub workers: &'static [u16],
    pub modes: &'static [Mode],
    /// Whether limits and persistence come and go.
    pub limited: bool,
    /// Whether routers fall silent all the time, over a network that loses nothing.
    pub silent_routers: bool,
}

/// What happens next.
enum Event {
    /// A frame reaches the node's port.
    ToNode(PortIndex, Vec<u8>),
    /// One that was damaged on its way.
    Damaged(PortIndex, Vec<u8>),
    /// One that nobody sent for a purpose.
    Garbage(Vec<u8>),
    /// A frame the node sent reaches the segment behind this port.
    FromNode(PortIndex, Vec<u8>),
    /// A target's packet reaches its client past the node.
    PastNode(Vec<u8>),
    Client(SocketAddr),
    Targets,
    /// A worker's turn.
    Turn(usize),
    /// The control side looks at the time.
    Control,
    Disturb,
}

pub struct World {
    pub random: Random,
    pub node: Node,
    pub clients: Clients,
    pub targets: Targets,
    pub happened: Happened,
    hosts: Hosts,
    sequences: Sequences,
    rules: Rules,
    configuration: Configuration,
    /// By when, then in order.
    agenda: BTreeMap<(u64, u64), Event>,
    order: u64,
    /// The time that the clock leapt over.
    leapt: u64,
    lossy: bool,
    silent_routers: bool,
    /// Nothing is disturbed any more.
    calm: bool,
    /// Identifications of hosts' packets.
    identification: u32,
}

/// What a run has met.
#[derive(Default, Debug, Clone, Copy)]
pub struct Happened {
    pub reloads: u32,
    pub refused_reloads: u32,
    pub leaps: u32,
    pub moved: u32,
    /// Packets that a silent router lost, and times that one fell silent.
    pub lost_by_router: u32,
    pub silent_routers: u32,
    /// Targets that probes found silent.
    pub found_down: u32,
    /// Claims to have a host's addresses by somebody else, and packets sent to him.
    pub forged: u32,
    pub misled: u32,
    pub redirected: u32,
    /// Packets damaged on their way to the node, and those of them that it dropped for that.
    pub damaged: u32,
    pub damage_seen: u32,
    /// SYNs that the node rewrote and left MPTCP in.
    pub with_mptcp: u32,
    /// Of all frames the node sent, in order.
    pub digest: u64,
}

impl World {
    pub fn new(seed: u64, scenario: &Scenario) -> Self {
        let mut random = Random::new(seed);
        let workers = random.pick(scenario.workers);
        let (nic, spread) = match random.below(4) {
            0 => (Nic::Turns(0), None),
            1 => (
                Nic::Random(random.next()),
                Some(nic::spread(workers, false)),
            ),
            2 => (Nic::Toeplitz(nic::KEY), None),
            _ => (Nic::Toeplitz(nic::KEY), Some(nic::spread(workers, false))),
        };
        let fixed = Fixed {
            client_address: random.pick(&[
                ClientAddress::ProxyV2,
                ClientAddress::Toa,
                ClientAddress::None,
            ]),
            modes: scenario.modes,
            limited: scenario.limited,
            spread,
            ports: both_ports(
                random.pick(&[1400, 1500, 1500]),
                random.pick(&[Sharing::InOrder, Sharing::ByFlow]),
            ),
        };
        // Few ports and little room, so that both run out at times.
        let ports = workers * random.pick(&[2, 3, 6]);
        let limits = Limits {
            first_port: 5000,
            last_port: 4999 + ports,
            flows: random.pick(&[24, 64]),
            services: 16,
            targets: 48,
            local_ips: 8,
            neighbours: random.pick(&[8, 16]),
            held_frames: 8,
            held_per_neighbour: 4,
            fragmented_packets: 8,
            early_fragments: 8,
            sources: 64,
            icmp_errors_per_second: 10,
            ..Limits::default()
        };
        let configuration = Configuration::new(fixed, &mut random);
        let mut world = Self {
            node: Node::new(workers, &limits, nic, configuration.describe(SECOND)),
            clients: Clients::new(),
            targets: Targets::new(configuration.fixed.client_address),
            happened: Happened::default(),
            hosts: Hosts::new(),
            sequences: Sequences::default(),
            rules: Rules::default(),
            configuration,
            agenda: BTreeMap::new(),
            order: 0,
            leapt: 0,
            lossy: !scenario.silent_routers && !random.one_in(4),
            silent_routers: scenario.silent_routers,
            calm: false,
            identification: 1,
            random,
        };
        for client in Clients::sockets() {
            let delay = world.random.below(SECOND);
            world.after(delay, Event::Client(client));
        }
        for worker in 0..usize::from(workers) {
            world.after(MILLISECOND, Event::Turn(worker));
        }
        for event in [Event::Targets, Event::Control, Event::Disturb] {
            world.after(MILLISECOND, event);
        }
        world
    }

    /// How long the hosts have lived: the time but for the leaps.
    fn lived(&self) -> u64 {
        self.node.now.0 - self.leapt
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.agenda
            .insert((self.node.now.0 + delay, self.order), event);
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

    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        let ((at, _), event) = self.agenda.pop_first().expect("there is always more to do");
        self.node.now.0 = self.node.now.0.max(at);
        let touched;
        let mut is_damaged = false;
        match event {
            Event::ToNode(port, frame) => {
                let verdict;
                let follows = self.random.one_in(2);
                (touched, verdict) = self.node.receive(port, frame.clone(), follows);
                rules::hold_for_verdict(verdict);
                rules::hold_for_sent(&self.node, touched, port, &frame, verdict);
                let damaged = Verdict::Drop(DropReason::BadTransportChecksum);
                assert_ne!(verdict, damaged, "a whole packet");
                self.happened.redirected += u32::from(matches!(verdict, Verdict::Redirect(_)));
            }
            Event::Damaged(port, frame) => {
                let verdict;
                (touched, verdict) = self.node.receive(port, frame, false);
                is_damaged = true;
                let seen = Verdict::Drop(DropReason::BadTransportChecksum);
                self.happened.damaged += 1;
                self.happened.damage_seen += u32::from(verdict == seen);
            }
            Event::Garbage(frame) => (touched, _) = self.node.receive(OUTSIDE, frame, false),
            Event::FromNode(port, frame) => return self.from_node(port, &frame),
            Event::PastNode(packet) => return self.to_client(Packet::read(&packet)),
            Event::Client(client) => return self.client(client),
            Event::Targets => return self.look_after_targets(),
            Event::Turn(worker) => {
                self.turn(worker);
                touched = worker;
            }
            Event::Control => return self.control(),
            Event::Disturb => return self.disturb(),
        }
        let makes_flows = self.rules.hold(&self.node, touched);
        assert!(!(is_damaged && makes_flows), "a flow begins damaged");
        for (port, frame) in std::mem::take(&mut self.node.sent) {
            self.happened.digest = digest(self.happened.digest, &frame);
            if !is_discovery(&frame) {
                self.hold_for_sent(port, &Packet::read(&frame[14..]), is_damaged);
            }
            if port == INSIDE && !is_discovery(&frame) {
                let packet = Packet::read(&frame[14..]);
                if is_local_ip(packet.source) {
                    self.sequences.look(&packet, makes_flows);
                }
            }
            self.network(|| Event::FromNode(port, frame.clone()));
        }
    }

    /// What must hold of a packet that the node sends; `is_damaged`: because of a damaged one.
    fn hold_for_sent(&mut self, port: PortIndex, packet: &Packet, is_damaged: bool) {
        if is_damaged && !packet.is_part() {
            let inner = packet.inner();
            let packet = inner.as_ref().unwrap_or(packet);
            // A packet is cut before it is wrapped.
            assert!(
                packet.is_part() || packet.is_damaged(),
                "an answer to a damaged packet, or one mended: {packet:?}"
            );
        }
        let inserts = self.configuration.fixed.client_address != ClientAddress::None;
        let is_rewritten = port == OUTSIDE || is_local_ip(packet.source);
        if is_rewritten && packet.is_syn() {
            let has_mptcp = packet.has_option(MPTCP);
            assert!(
                !(inserts && has_mptcp),
                "MPTCP where bytes are inserted: {packet:?}"
            );
            self.happened.with_mptcp += u32::from(has_mptcp);
        }
    }

    /// Damages one packet in some on its way to the node.
    fn damage(&mut self, port: PortIndex, packet: &Made) {
        if self.lossy
            && self.order.is_multiple_of(29)
            && let Some(damaged) = damaged(packet)
        {
            self.after(MILLISECOND, Event::Damaged(port, damaged.frame()));
        }
    }

    fn turn(&mut self, worker: usize) {
        let follows = self.random.one_in(2);
        for (client, vip) in rules::about_to_be_cut(&self.node, worker, follows) {
            self.clients.excuse(client, vip, Excuse::Cut);
        }
        for (port, frame, verdict) in self.node.turn(worker, follows) {
            rules::hold_for_verdict(verdict);
            rules::hold_for_sent(&self.node, worker, port, &frame, verdict);
        }
        rules::hold_for_cuts(&self.node, worker);
        let pause = if self.calm { 50 } else { 10 };
        self.after(pause * MILLISECOND, Event::Turn(worker));
    }

    fn from_node(&mut self, port: PortIndex, frame: &[u8]) {
        let lived = self.lived();
        let addressee = self.hosts.addressee(port, frame, lived);
        if is_discovery(frame) {
            if !matches!(addressee, Addressee::Nobody)
                && let Some(answer) = self.hosts.answer(port, frame, lived)
            {
                self.network(|| Event::ToNode(port, answer.clone()));
            }
            return;
        }
        if port == OUTSIDE && !self.lossy {
            self.hosts.hold_for_way_out(frame, lived);
            self.happened.lost_by_router += u32::from(matches!(addressee, Addressee::Nobody));
        }
        let host = match addressee {
            Addressee::One(host) => host,
            Addressee::Nobody => return,
            Addressee::Forger => {
                self.happened.misled += 1;
                return;
            }
            Addressee::Everyone => panic!("a packet to everyone: {frame:?}"),
        };
        let packet = Packet::read(&frame[14..]);
        if port == OUTSIDE {
            assert!(ROUTERS.contains(&host));
            self.to_client(packet);
        } else if let Some(answer) = self.targets.take(host, packet, &mut self.random, lived) {
            self.from_target(host, answer);
        }
    }

    fn to_client(&mut self, packet: Packet) {
        if let Some(answer) = self.clients.take(packet, self.lived()) {
            self.from_client(answer);
        }
    }

    fn client(&mut self, client: SocketAddr) {
        let lived = self.lived();
        let (packets, pause) = self.clients.turn(client, &mut self.random, lived);
        for packet in packets {
            self.from_client(packet);
        }
        self.after(pause, Event::Client(client));
    }

    fn from_client(&mut self, packet: Made) {
        let size = self.clients.size(packet.source);
        let routers = self.hosts.routers(self.lived());
        let mac = self.hosts.mac(OUTSIDE, self.random.pick(&routers));
        for packet in self.pieces(packet, size) {
            let packet = packet.macs(mac, OUTSIDE_MAC);
            self.damage(OUTSIDE, &packet);
            let frame = packet.frame();
            self.network(|| Event::ToNode(OUTSIDE, frame.clone()));
        }
    }

    /// A target answers a LocalIP by the node, and a client past it.
    fn from_target(&mut self, host: u8, packet: Made) {
        let by_node = is_local_ip(packet.destination);
        let mac = self.hosts.mac(INSIDE, host);
        for packet in self.pieces(packet, 1400) {
            if by_node {
                let packet = packet.macs(mac, INSIDE_MAC);
                self.damage(INSIDE, &packet);
                let frame = packet.frame();
                self.network(|| Event::ToNode(INSIDE, frame.clone()));
            } else {
                let bytes = packet.ip();
                self.network(|| Event::PastNode(bytes.clone()));
            }
        }
    }

    /// A host's packet as it sends it: in fragments if it is longer than `size`, or just so. What fits may be sent so that the next link
    /// may cut it (IPv4).
    fn pieces(&mut self, mut packet: Made, size: usize) -> Vec<Made> {
        let header = if packet.source.is_ipv4() { 20 } else { 48 };
        let whole = packet.ip().len();
        let (protocol, payload) = packet.transport();
        let is_udp = protocol == UDP;
        let most = match is_udp && self.random.one_in(8) {
            true => header + 64,
            false => size,
        };
        self.identification += 1;
        if whole <= most {
            if is_udp && packet.source.is_ipv4() && self.random.one_in(2) {
                (packet.id, packet.fragment) = (self.identification as u16, 0);
            }
            return vec![packet];
        }
        let step = (most - header) / 8 * 8;
        let cuts: Vec<usize> = (step..payload.len()).step_by(step).collect();
        packet.cut(self.identification, &cuts)
    }

    fn look_after_targets(&mut self) {
        for (own, peer) in self.targets.give_up(self.lived()) {
            let flows: Vec<_> = self.node.flows().collect();
            for (_, flow) in flows {
                let known = flow.local.map_or(flow.client, |local| local);
                if known == peer && [flow.target, flow.vip].contains(&own) {
                    self.clients.excuse(flow.client, flow.vip, Excuse::GivenUp);
                }
            }
        }
        for (host, packet) in self.targets.poll() {
            self.from_target(host, packet);
        }
        self.after(100 * MILLISECOND, Event::Targets);
    }

    fn control(&mut self) {
        let (now, lived, node) = (self.node.now.0, self.lived(), &self.node);
        let mut changes = false;
        for host in TARGETS {
            let answers = !self.hosts.is_silent(INSIDE, host, lived);
            let is_news = self.configuration.probed(host, answers, now);
            self.happened.found_down += u32::from(is_news && !answers);
            changes |= is_news;
        }
        changes |= self.configuration.advance(now, &node.ids, &node.counters);
        if changes {
            self.reload();
            self.go_on_asking();
        }
        self.after(500 * MILLISECOND, Event::Control);
    }

    /// Clients ask targets that have just been left.
    fn go_on_asking(&mut self) {
        let node = &self.node;
        let left = node
            .flows()
            .map(|(_, flow)| flow)
            .filter(|flow| flow.protocol == Protocol::Udp && node.newest.is_cut(flow));
        let left: Vec<_> = left.map(|flow| (flow.client, flow.vip)).collect();
        for (client, vip) in left {
            let datagram = Clients::ask(client, vip, &mut self.random);
            self.from_client(datagram);
        }
    }

    fn reload(&mut self) {
        let described = self.configuration.describe(self.node.now.0);
        if self.node.reload(described) {
            self.happened.reloads += 1;
        } else {
            self.happened.refused_reloads += 1;
        }
    }

    /// The configuration changes, the clock leaps, hosts get another MAC or fall silent, garbage arrives.
    fn disturb(&mut self) {
        if self.calm {
            return;
        }
        let lived = self.lived();
        if self.silent_routers && self.hosts.are_routers_settled(lived) {
            let router = self.random.pick(&[*ROUTERS.start(), *ROUTERS.end()]);
            let until = lived + self.random.below(8 * SECOND);
            self.hosts.silence(OUTSIDE, router, lived, until);
            self.happened.silent_routers += 1;
        }
        let target = 21 + self.random.below(4) as u8;
        let (port, host) = match self.random.below(6) {
            0 | 1 => (
                OUTSIDE,
                self.random.pick(&[*ROUTERS.start(), *ROUTERS.end()]),
            ),
            _ => (INSIDE, target),
        };
        match self.random.below(14) {
            0..=5 => {
                for _ in 0..=self.random.below(3) {
                    self.configuration.change(&mut self.random, self.node.now.0);
                }
                self.reload();
            }
            6 => {
                let length = self.random.below(40 * SECOND);
                self.leap(length);
            }
            7 => {
                self.hosts.change_mac(port, host, lived);
                self.happened.moved += 1;
                if self.random.one_in(2) {
                    for frame in self.hosts.announcements(port, host) {
                        self.network(|| Event::ToNode(port, frame.clone()));
                    }
                }
            }
            8 => {
                let until = lived + self.random.below(20 * SECOND);
                self.hosts.silence(port, host, lived, until);
            }
            9..=10 => {
                // Clients wait longer than this for a connection to go on.
                let until = lived + self.random.below(20 * SECOND);
                if !self.hosts.is_silent(INSIDE, target, lived) {
                    self.hosts.silence(INSIDE, target, lived, until);
                }
            }
            _ => {
                let garbage = self.garbage();
                self.after(0, Event::Garbage(garbage));
            }
        }
        if self.order.is_multiple_of(3) && self.hosts.is_settled(port, host, lived) {
            self.forge(port, host);
        }
        let pause = self.random.below(SECOND / 2);
        self.after(pause, Event::Disturb);
    }

    /// Somebody says, now and again, that he has a host's addresses.
    fn forge(&mut self, port: PortIndex, host: u8) {
        let answers = self.order.is_multiple_of(2);
        for times in 0..self.order % 8 {
            let lived = self.lived() + times * 40 * MILLISECOND;
            for frame in self.hosts.forge(port, host, lived, answers) {
                self.after(times * 40 * MILLISECOND, Event::ToNode(port, frame));
                self.happened.forged += 1;
            }
        }
    }

    /// No network holds a frame for so long: what was under way is lost, and flows expire.
    fn leap(&mut self, length: u64) {
        self.agenda.retain(|_, event| {
            !matches!(
                event,
                Event::ToNode(..) | Event::Damaged(..) | Event::FromNode(..) | Event::PastNode(_)
            )
        });
        let flows: Vec<_> = self.node.flows().map(|(_, flow)| flow).collect();
        for flow in flows {
            if flow.expires_in.as_nanos() as u64 <= length + SECOND {
                self.clients.excuse(flow.client, flow.vip, Excuse::Expired);
            }
        }
        self.node.now.0 += length;
        self.leapt += length;
        self.happened.leaps += 1;
    }

    fn garbage(&mut self) -> Vec<u8> {
        let length = self.random.below(120) as usize;
        let mut garbage: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
        if length > 40 && self.random.one_in(2) {
            garbage[..6].copy_from_slice(&OUTSIDE_MAC.0);
            garbage[6] = 2;
            let kinds = [[8, 0, 0x45], [0x86, 0xdd, 0x60]];
            garbage[12..15].copy_from_slice(&self.random.pick(&kinds));
        }
        garbage
    }

    /// From here on nothing is disturbed: once what was there has expired, every client must complete a connection, and when all is
    /// silent nothing may be left.
    pub fn calm_down(&mut self) {
        (self.calm, self.lossy) = (true, false);
        let lived = self.lived();
        for host in TARGETS {
            self.hosts.silence(INSIDE, host, lived, 0);
        }
        for router in ROUTERS {
            self.hosts.silence(OUTSIDE, router, lived, 0);
        }
        let now = self.node.now.0;
        self.configuration.restore(&mut self.random, now);
        self.reload();
        self.leap(3600 * SECOND);
        self.live(10 * SECOND, |_| false);
        self.clients.last_ones = true;
        self.live(240 * SECOND, Clients::are_done);
        assert_eq!(
            self.clients.unfinished(),
            [""; 0],
            "clients that complete nothing though nothing disturbs them"
        );
        self.agenda
            .retain(|_, event| matches!(event, Event::Turn(_) | Event::Control));
        // What is in the rings comes out first.
        self.live(SECOND, |_| false);
        self.leap(3600 * SECOND);
        self.live(10 * SECOND, |_| false);
        rules::hold_for_the_end(&self.node);
    }

    /// Goes on for so long at most.
    fn live(&mut self, time: u64, is_enough: impl Fn(&Clients) -> bool) {
        let end = self.lived() + time;
        while self.lived() < end && !is_enough(&self.clients) {
            self.step();
        }
    }
}

/// FNV-1a.
fn digest(before: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(before ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
