//! A dual-arm node in a test: port 0 outside (10.2.0.11/24, gateway .1), port 1 inside (10.3.0.11/24, LocalIP .100).
//! That is IPv4, as the addresses named here are; [`Net`] has them for either family.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use dataplane::{
    Counters, DropReason, Emitted, Event, Frame, Ids, Limits, MacAddr, Now, Port, PortIndex,
    Protocol, Retired, Secret, Service, ServiceConfig, ServiceCounts, Tables, TablesBuilder,
    TargetConfig, TargetCounts, Verdict, Worker, WorkerCounts,
};

use super::frame::{self, Packet, mac, ndp};
use super::net::{self, BOTH, Net, v4};

pub const OUTSIDE: PortIndex = PortIndex(0);
pub const INSIDE: PortIndex = PortIndex(1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
pub const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
pub const INSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 11);
pub const OUTSIDE_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0a]);
pub const INSIDE_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0b]);
pub const ROUTER_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MILLISECOND;

pub fn client(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, last), port)
}

pub fn vip(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(VIP, port)
}

pub fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(LOCAL_IP, port)
}

/// Target `n` listens on 10.3.0.n:8080 and has MAC 02::n.
pub fn target(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, n), 8080)
}

pub fn up(address: impl Into<SocketAddr>) -> TargetConfig {
    TargetConfig {
        address: address.into(),
        weight: 1,
        up: true,
        draining: false,
        cut: false,
    }
}

pub fn ports() -> [Port; 2] {
    Net::V4.ports()
}

/// TCP 80 and UDP 53 on the VIP, each with targets 21 and 22 in turn.
pub fn services() -> Vec<ServiceConfig> {
    Net::V4.services()
}

/// With a LocalIP of each family that the ports speak.
pub fn builder(ports: &[Port], services: &[ServiceConfig]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in ports {
        builder.port(port.clone());
    }
    for net in BOTH {
        let spoken = |port: &Port| match net {
            Net::V4 => port.ipv4.is_some(),
            Net::V6 => port.ipv6.is_some(),
        };
        if ports.iter().any(spoken) {
            builder.local_ip(net.local_ip());
        }
    }
    for service in services {
        builder.service(service.clone());
    }
    builder
}

/// The same services on another VIP with another LocalIP, both ending in 101; VIP and LocalIP of before are kept for their flows.
pub fn moved(net: Net) -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in net.ports() {
        builder.port(port);
    }
    builder.local_ip(net.address(2, 101));
    for mut service in net.services() {
        service.vip = net.address(0, 101);
        builder.service(service);
    }
    builder
        .retired(net.vip_ip(), Retired::Vip { arp: false })
        .retired(net.local_ip(), Retired::LocalIp);
    builder
}

pub fn small() -> Limits {
    Limits {
        flows: 64,
        services: 8,
        targets: 16,
        local_ips: 4,
        neighbours: 16,
        held_frames: 8,
        held_per_neighbour: 4,
        sources: 64,
        icmp_errors_per_second: 10,
        ..Limits::default()
    }
}

/// A node whose next hops are known.
pub fn node(limits: &Limits, ports: &[Port], services: &[ServiceConfig]) -> Rig {
    Rig::from(limits, &builder(ports, services), 0, 1).resolved()
}

pub struct Rig {
    /// The family of the connections that it opens itself.
    pub net: Net,
    pub ids: Ids,
    pub tables: Tables,
    pub counters: Arc<Counters>,
    pub worker: Worker,
    pub now: Now,
    pub out: Emitted,
}

impl Rig {
    /// The node with the usual services, its next hops resolved.
    pub fn new() -> Self {
        Self::of(Net::V4)
    }

    /// As that, of one family.
    pub fn of(net: Net) -> Self {
        Self::serving(net, &small(), &net.services()).resolved()
    }

    /// A node that knows no next hop yet.
    pub fn with(limits: &Limits, services: &[ServiceConfig]) -> Self {
        Self::serving(Net::V4, limits, services)
    }

    /// A node that serves both families, its next hops known.
    pub fn both() -> Self {
        let services = [Net::V4.services(), Net::V6.services()].concat();
        node(&small(), &net::both_ports(), &services)
    }

    pub fn serving(net: Net, limits: &Limits, services: &[ServiceConfig]) -> Self {
        Self::from(limits, &builder(&net.ports(), services), 0, 1).speaking(net)
    }

    pub fn speaking(mut self, net: Net) -> Self {
        // Seen when a test fails: the last line tells for which family.
        println!("a node that speaks {net:?}");
        self.net = net;
        self
    }

    pub fn from(limits: &Limits, builder: &TablesBuilder, index: u16, workers: u16) -> Self {
        let counters = Arc::new(Counters::new(workers, limits));
        Self::sharing(limits, builder, index, &counters)
    }

    pub fn sharing(
        limits: &Limits,
        builder: &TablesBuilder,
        index: u16,
        counters: &Arc<Counters>,
    ) -> Self {
        let mut ids = Ids::new(limits);
        let tables = builder.build(&mut ids, None).unwrap();
        Self {
            net: Net::V4,
            ids,
            tables,
            worker: Worker::new(
                index,
                counters.workers(),
                limits,
                Secret::new([7; 32]),
                Arc::clone(counters),
            ),
            counters: Arc::clone(counters),
            now: Now(SECOND),
            out: Emitted::new(),
        }
    }

    /// Makes the gateway and the targets known.
    pub fn resolved(mut self) -> Self {
        for _ in 0..3 {
            self.refresh();
        }
        self.out.clear();
        self
    }

    /// Runs the timers and answers every ARP request and neighbour solicitation.
    pub fn refresh(&mut self) {
        self.worker.tick(&self.tables, self.now, &mut self.out);
        let asked: Vec<(PortIndex, IpAddr)> = self
            .out
            .frames()
            .filter_map(|(port, frame)| Some((port, asked_for(frame)?)))
            .collect();
        for (port, address) in asked {
            let mac = if BOTH.iter().any(|net| address == net.gateway()) {
                ROUTER_MAC
            } else {
                mac(last(address))
            };
            self.resolve(port, address, mac);
        }
    }

    /// Answers the port's question for a next hop.
    pub fn resolve(&mut self, port: PortIndex, address: impl Into<IpAddr>, from: MacAddr) {
        let reply = answer(port, address, from);
        let (verdict, _) = self.try_send(port, reply);
        assert!(
            matches!(verdict, Verdict::Consumed | Verdict::Kernel),
            "{verdict:?}"
        );
    }

    /// One frame in; its verdict, and the frame afterwards.
    pub fn try_send<F: Frame>(&mut self, port: PortIndex, frame: F) -> (Verdict, F) {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Kernel];
        self.worker.burst(
            &self.tables,
            self.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut self.out,
        );
        self.worker.check_invariants();
        let [frame] = frames;
        (verdicts[0], frame)
    }

    /// A packet from a client or router outside; the frame that leaves, and where.
    pub fn outside(&mut self, packet: &Packet) -> (PortIndex, Vec<u8>) {
        self.transmitted(OUTSIDE, from_client(packet))
    }

    /// A packet from target `n`.
    pub fn inside(&mut self, packet: &Packet, n: u8) -> (PortIndex, Vec<u8>) {
        self.transmitted(INSIDE, from_target(packet, n))
    }

    pub fn transmitted(&mut self, port: PortIndex, frame: Vec<u8>) -> (PortIndex, Vec<u8>) {
        match self.try_send(port, frame) {
            (Verdict::Transmit(port), frame) => (port, frame),
            (verdict, _) => panic!("expected the frame to be sent, got {verdict:?}"),
        }
    }

    pub fn dropped(&mut self, port: PortIndex, frame: Vec<u8>) -> DropReason {
        let before: Vec<u64> = DropReason::ALL
            .iter()
            .map(|reason| self.counters.dropped(0, *reason))
            .collect();
        match self.try_send(port, frame).0 {
            Verdict::Drop(reason) => {
                for (reason_before, count) in DropReason::ALL.iter().zip(before) {
                    let more = u64::from(*reason_before == reason);
                    assert_eq!(
                        self.counters.dropped(0, *reason_before),
                        count + more,
                        "counter of {reason_before:?}"
                    );
                }
                reason
            }
            verdict => panic!("expected a drop, got {verdict:?}"),
        }
    }

    /// Opens a connection up to the SYN's arrival at its target.
    pub fn open(&mut self, from: impl Into<SocketAddr>, seq: u32) -> Opened {
        let from = from.into();
        let vip = self.net.vip(80);
        let (port, sent) = self.outside(&frame::tcp(from, vip, frame::SYN).seq(seq, 0));
        assert_eq!(port, INSIDE);
        Opened {
            client: from,
            local_port: frame::source_port(&sent),
            shift: frame::tcp_word(&sent, 4).wrapping_sub(seq),
            target: frame::target_of(&sent),
        }
    }

    /// Opens a connection and completes its handshake.
    pub fn establish(&mut self, from: impl Into<SocketAddr>, seq: u32) -> Opened {
        let opened = self.open(from, seq);
        self.from_target(&opened, frame::SYN | frame::ACK, 9000, seq.wrapping_add(1));
        self.from_client(&opened, frame::ACK, seq.wrapping_add(1), 9001);
        opened
    }

    /// A segment from the client of a connection; what the target gets. Numbers as the client sees them.
    pub fn from_client(&mut self, opened: &Opened, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let vip = self.net.vip(80);
        self.outside(&frame::tcp(opened.client, vip, flags).seq(seq, ack))
            .1
    }

    /// A segment from the target of a connection; what the client gets. Numbers as the client sees them.
    pub fn from_target(&mut self, opened: &Opened, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let ack = ack.wrapping_add(opened.shift);
        let (target, local) = opened.inside(self.net);
        let packet = frame::tcp(target, local, flags).seq(seq, ack);
        self.inside(&packet, opened.target).1
    }

    /// Lets time pass, the timers running every ten milliseconds and ARP being answered.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 100 {
            self.now.0 += 10 * MILLISECOND;
            self.out.clear();
            self.refresh();
        }
        self.out.clear();
        self.worker.check_invariants();
    }

    /// Lets as much time pass as a contest for a next hop's address takes, in which nobody answers.
    pub fn outlast_contest(&mut self) {
        for _ in 0..50 {
            self.now.0 += 10 * MILLISECOND;
            self.worker.tick(&self.tables, self.now, &mut self.out);
        }
        self.worker.check_invariants();
    }

    pub fn swap(&mut self, services: &[ServiceConfig]) {
        self.tables = builder(&self.net.ports(), services)
            .build(&mut self.ids, Some(&self.tables))
            .unwrap();
    }

    pub fn service(&self, port: u16, protocol: Protocol) -> &Service {
        let vip = self.net.vip(port).ip();
        self.tables.service_at(vip, port, protocol).unwrap()
    }

    pub fn service_counts(&self, port: u16, protocol: Protocol) -> ServiceCounts {
        self.counters.service(self.service(port, protocol).id)
    }

    /// Counters of target `n` of a service.
    pub fn target_counts(&self, port: u16, protocol: Protocol, n: u8) -> TargetCounts {
        let target = self.net.target(n, 8080);
        let mut ids = self.service(port, protocol).targets.iter().copied();
        let id = ids.find(|id| self.tables.target(*id).unwrap().config.address == target);
        self.counters.target(id.unwrap())
    }

    pub fn worker_counts(&self) -> WorkerCounts {
        self.counters.worker(0)
    }

    /// Flows in the table.
    pub fn flow_count(&self) -> usize {
        self.worker.flows(self.now).count()
    }

    pub fn emitted(&self) -> Vec<(PortIndex, Vec<u8>)> {
        self.out
            .frames()
            .map(|(port, frame)| (port, frame.to_vec()))
            .collect()
    }

    pub fn events(&self) -> Vec<Event> {
        self.out.events().to_vec()
    }
}

/// A connection as a test knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub client: SocketAddr,
    pub local_port: u16,
    pub shift: u32,
    pub target: u8,
}

impl Opened {
    /// The target and the LocalIP that speaks to it.
    pub fn inside(&self, net: Net) -> (SocketAddr, SocketAddr) {
        (net.target(self.target, 8080), net.local(self.local_port))
    }
}

/// The address that an ARP request or neighbour solicitation asks for, announcements left out.
pub fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    let at = |place: std::ops::Range<usize>| &frame[place];
    match frame[12..14] {
        [8, 6] if frame[21] == 1 && at(28..32) != at(38..42) => {
            let address: [u8; 4] = at(38..42).try_into().ok()?;
            Some(address.into())
        }
        [0x86, 0xdd] if frame[20] == 58 && frame[54] == 135 => {
            let address: [u8; 16] = at(62..78).try_into().ok()?;
            Some(address.into())
        }
        _ => None,
    }
}

/// What a neighbour answers to the port's own address.
pub fn answer(port: PortIndex, asked: impl Into<IpAddr>, from: MacAddr) -> Vec<u8> {
    let (own_mac, segment) = match port {
        OUTSIDE => (OUTSIDE_MAC, 1),
        _ => (INSIDE_MAC, 2),
    };
    match asked.into() {
        IpAddr::V4(asked) => {
            let own = (own_mac, v4(Net::V4.address(segment, 11)));
            frame::arp(2, own_mac, (from, asked), own)
        }
        asked => {
            let own = Net::V6.address(segment, 11);
            let option = Some((2, from));
            let answer = ndp(136, (asked, own), 0x60, asked, option);
            answer.macs(from, own_mac).frame()
        }
    }
}

/// The last byte of an address: by it a host's MAC is known.
pub fn last(address: IpAddr) -> u8 {
    *frame::octets(address).last().unwrap()
}

/// As it arrives from outside: by the router.
pub fn from_client(packet: &Packet) -> Vec<u8> {
    packet.clone().macs(ROUTER_MAC, OUTSIDE_MAC).frame()
}

pub fn from_target(packet: &Packet, n: u8) -> Vec<u8> {
    packet.clone().macs(mac(n), INSIDE_MAC).frame()
}

/// As it leaves to a client: to the router.
pub fn to_client(packet: &Packet) -> Vec<u8> {
    packet.clone().macs(OUTSIDE_MAC, ROUTER_MAC).frame()
}

pub fn to_target(packet: &Packet, n: u8) -> Vec<u8> {
    packet.clone().macs(INSIDE_MAC, mac(n)).frame()
}
