//! A dual-arm node in a test: port 0 outside (10.2.0.11/24, gateway .1), port 1 inside (10.3.0.11/24, LocalIP .100).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use dataplane::{
    Counters, DropReason, Emitted, Event, Ids, Limits, MacAddr, Now, Port, PortIndex, Protocol,
    Retired, Secret, Segment, Service, ServiceConfig, ServiceCounts, Tables, TablesBuilder,
    TargetConfig, TargetCounts, Verdict, Worker, WorkerCounts,
};

use super::frame::{self, Packet, mac};

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
    [
        Port {
            index: OUTSIDE,
            mac: OUTSIDE_MAC,
            ipv4: Some(Segment {
                address: OUTSIDE_ADDRESS,
                prefix: 24,
                gateway: Some(GATEWAY),
            }),
            ipv6: None,
            mtu: 1500,
            answers: true,
        },
        Port {
            index: INSIDE,
            mac: INSIDE_MAC,
            ipv4: Some(Segment {
                address: INSIDE_ADDRESS,
                prefix: 24,
                gateway: None,
            }),
            ipv6: None,
            mtu: 1500,
            answers: true,
        },
    ]
}

pub fn narrow(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} isn't IPv4"),
    }
}

/// The IPv4 side of a port.
pub fn ipv4(port: &mut Port) -> &mut Segment<Ipv4Addr> {
    port.ipv4.as_mut().unwrap()
}

/// TCP 80 and UDP 53 on the VIP, each with targets 21 and 22 in turn.
pub fn services() -> Vec<ServiceConfig> {
    let mut http = ServiceConfig::new(VIP, Protocol::Tcp, 80);
    http.targets = vec![up(target(21)), up(target(22))];
    let mut dns = ServiceConfig::new(VIP, Protocol::Udp, 53);
    dns.targets = vec![up(target(21)), up(target(22))];
    vec![http, dns]
}

pub fn builder(ports: &[Port], services: &[ServiceConfig]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in ports {
        builder.port(port.clone());
    }
    builder.local_ip(LOCAL_IP);
    for service in services {
        builder.service(service.clone());
    }
    builder
}

/// The same services on 10.0.0.101 with LocalIP 10.3.0.101; VIP and LocalIP of before are kept for their flows.
pub fn moved() -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in ports() {
        builder.port(port);
    }
    builder.local_ip(Ipv4Addr::new(10, 3, 0, 101));
    for mut service in services() {
        service.vip = Ipv4Addr::new(10, 0, 0, 101).into();
        builder.service(service);
    }
    builder
        .retired(VIP.into(), Retired::Vip { arp: false })
        .retired(LOCAL_IP.into(), Retired::LocalIp);
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

pub struct Rig {
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
        Self::with(&small(), &services()).resolved()
    }

    /// A node that knows no next hop yet.
    pub fn with(limits: &Limits, services: &[ServiceConfig]) -> Self {
        Self::from(limits, &builder(&ports(), services), 0, 1)
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

    /// Runs the timers and answers every ARP request.
    pub fn refresh(&mut self) {
        self.worker.tick(&self.tables, self.now, &mut self.out);
        let asked: Vec<(PortIndex, Ipv4Addr)> = self
            .out
            .frames()
            .filter(|(_, frame)| {
                frame[12..14] == [8, 6] && frame[21] == 1 && frame[28..32] != frame[38..42]
            })
            .map(|(port, frame)| {
                (
                    port,
                    Ipv4Addr::from(<[u8; 4]>::try_from(&frame[38..42]).unwrap()),
                )
            })
            .collect();
        for (port, address) in asked {
            let mac = if address == GATEWAY {
                ROUTER_MAC
            } else {
                mac(address.octets()[3])
            };
            self.answer_arp(port, address, mac);
        }
    }

    pub fn answer_arp(&mut self, port: PortIndex, address: Ipv4Addr, from: MacAddr) {
        let (own_mac, own) = match port {
            OUTSIDE => (OUTSIDE_MAC, OUTSIDE_ADDRESS),
            _ => (INSIDE_MAC, INSIDE_ADDRESS),
        };
        let reply = frame::arp(2, own_mac, (from, address), (own_mac, own));
        let (verdict, _) = self.try_send(port, reply);
        assert!(
            matches!(verdict, Verdict::Consumed | Verdict::Kernel),
            "{verdict:?}"
        );
    }

    /// One frame in; its verdict, and the frame afterwards.
    pub fn try_send(&mut self, port: PortIndex, frame: Vec<u8>) -> (Verdict, Vec<u8>) {
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
    pub fn open(&mut self, from: SocketAddrV4, seq: u32) -> Opened {
        let (port, sent) = self.outside(&frame::tcp(from, vip(80), frame::SYN).seq(seq, 0));
        assert_eq!(port, INSIDE);
        Opened {
            client: from,
            local_port: frame::port_word(&sent, 0),
            shift: frame::tcp_word(&sent, 4).wrapping_sub(seq),
            target: sent[33],
        }
    }

    /// Opens a connection and completes its handshake.
    pub fn establish(&mut self, from: SocketAddrV4, seq: u32) -> Opened {
        let opened = self.open(from, seq);
        self.from_target(&opened, frame::SYN | frame::ACK, 9000, seq.wrapping_add(1));
        self.from_client(&opened, frame::ACK, seq.wrapping_add(1), 9001);
        opened
    }

    /// A segment from the client of a connection; what the target gets. Numbers as the client sees them.
    pub fn from_client(&mut self, opened: &Opened, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        self.outside(&frame::tcp(opened.client, vip(80), flags).seq(seq, ack))
            .1
    }

    /// A segment from the target of a connection; what the client gets. Numbers as the client sees them.
    pub fn from_target(&mut self, opened: &Opened, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let ack = ack.wrapping_add(opened.shift);
        let packet =
            frame::tcp(target(opened.target), local(opened.local_port), flags).seq(seq, ack);
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

    pub fn swap(&mut self, services: &[ServiceConfig]) {
        self.tables = builder(&ports(), services)
            .build(&mut self.ids, Some(&self.tables))
            .unwrap();
    }

    pub fn service(&self, port: u16, protocol: Protocol) -> &Service {
        self.tables.service_at(VIP, port, protocol).unwrap()
    }

    pub fn service_counts(&self, port: u16, protocol: Protocol) -> ServiceCounts {
        self.counters.service(self.service(port, protocol).id)
    }

    /// Counters of target `n` of a service.
    pub fn target_counts(&self, port: u16, protocol: Protocol, n: u8) -> TargetCounts {
        let id = self
            .service(port, protocol)
            .targets
            .iter()
            .copied()
            .find(|id| {
                self.tables.target(*id).unwrap().config.address == SocketAddr::V4(target(n))
            });
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
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub client: SocketAddrV4,
    pub local_port: u16,
    pub shift: u32,
    pub target: u8,
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
