//! A node of both families, and packets built byte by byte for either: tests that hold for IPv4 and IPv6 alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane::{
    Limits, MacAddr, Port, Protocol, Segment, ServiceConfig, Tables, TablesBuilder, Verdict,
};

use super::frame::{checksum, mac};
use super::rig::{self, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, ROUTER_MAC, Rig};

/// One of the families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    V4,
    V6,
}

pub const BOTH: [Net; 2] = [Net::V4, Net::V6];

impl Net {
    /// Address `last` on the segment: 1 is outside (port 0), 2 inside (port 1), 0 the VIP's, 9 clients'.
    pub fn address(self, segment: u8, last: u8) -> IpAddr {
        let second = match segment {
            0 => 0,
            9 => 1,
            segment => segment + 1,
        };
        match self {
            Net::V4 => Ipv4Addr::new(10, second, 0, last).into(),
            Net::V6 => Ipv6Addr::new(0xfd00, second.into(), 0, 0, 0, 0, 0, u16::from(last)).into(),
        }
    }

    pub fn vip(self, port: u16) -> SocketAddr {
        (self.address(0, 100), port).into()
    }

    pub fn client(self, last: u8, port: u16) -> SocketAddr {
        (self.address(9, last), port).into()
    }

    pub fn target(self, last: u8, port: u16) -> SocketAddr {
        (self.address(2, last), port).into()
    }

    pub fn local(self, port: u16) -> SocketAddr {
        (self.address(2, 100), port).into()
    }

    /// Bytes of a header without options.
    pub fn header(self) -> usize {
        match self {
            Net::V4 => 20,
            Net::V6 => 40,
        }
    }
}

pub fn ports() -> [Port; 2] {
    let [mut outside, mut inside] = rig::ports();
    let v6 = |address| match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("{address} isn't IPv6"),
    };
    outside.ipv6 = Some(Segment {
        address: v6(Net::V6.address(1, 11)),
        prefix: 64,
        gateway: Some(v6(Net::V6.address(1, 1))),
    });
    inside.ipv6 = Some(Segment {
        address: v6(Net::V6.address(2, 11)),
        prefix: 64,
        gateway: None,
    });
    [outside, inside]
}

/// A service at port 80 (TCP) or 53 (UDP) of each family's VIP, with one target, 21, at `target_port`.
pub fn services(target_port: u16) -> Vec<ServiceConfig> {
    let mut services = Vec::new();
    for net in BOTH {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let mut service = ServiceConfig::new(net.vip(port).ip(), protocol, port);
            let target_port = if target_port == 0 { port } else { target_port };
            service.targets = vec![rig::up(net.target(21, target_port))];
            services.push(service);
        }
    }
    services
}

pub fn builder(ports: &[Port], services: &[ServiceConfig]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in ports {
        builder.port(port.clone());
    }
    for net in BOTH {
        builder.local_ip(net.address(2, 100));
    }
    for service in services {
        builder.service(service.clone());
    }
    builder
}

/// A node whose next hops are known.
pub fn node(limits: &Limits, ports: &[Port], services: &[ServiceConfig]) -> Rig {
    resolved(Rig::from(limits, &builder(ports, services), 0, 1))
}

pub fn resolved(mut rig: Rig) -> Rig {
    for _ in 0..3 {
        refresh(&mut rig);
    }
    rig.out.clear();
    rig
}

/// Runs the timers and answers ARP requests and neighbour solicitations.
pub fn refresh(rig: &mut Rig) {
    rig.refresh();
    for (port, frame) in rig.emitted() {
        if frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135 {
            let own: [u8; 16] = frame[22..38].try_into().unwrap();
            let asked: [u8; 16] = frame[62..78].try_into().unwrap();
            let last = asked[15];
            let from = if last == 1 { ROUTER_MAC } else { mac(last) };
            let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
            message.extend(asked);
            message.extend([2, 1]);
            message.extend(from.0);
            let mut answer = Ip::new(asked.into(), own.into(), 58, message);
            answer.hops = 255;
            answer.seal(2);
            let to = if port == OUTSIDE {
                OUTSIDE_MAC
            } else {
                INSIDE_MAC
            };
            let (verdict, _) = rig.try_send(port, frame_of(from, to, &answer.bytes()));
            assert_eq!(verdict, Verdict::Consumed);
        }
    }
    rig.out.clear();
}

/// An IP packet with everything that differs between tests.
#[derive(Clone, Debug)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hops: u8,
    pub class: u8,
    /// IPv4: identification, flags and offset. IPv6: the flow label.
    pub id: u16,
    pub word: u16,
    pub label: u32,
    pub protocol: u8,
    pub payload: Vec<u8>,
}

impl Ip {
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            hops: 64,
            class: 0,
            id: 0,
            word: 0x4000,
            label: 0,
            protocol,
            payload,
        }
    }

    /// Writes the transport checksum at this offset of the payload.
    pub fn seal(&mut self, at: usize) {
        self.payload[at..at + 2].fill(0);
        let mut sum = self.pseudo_header();
        if self.protocol == 1 {
            sum.clear();
        }
        sum.extend(&self.payload);
        let sum = match checksum(&sum) {
            0 if self.protocol == 17 => 0xffff,
            sum => sum,
        };
        self.payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn pseudo_header(&self) -> Vec<u8> {
        let mut bytes = octets(self.source);
        bytes.extend(octets(self.destination));
        bytes.extend((self.payload.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol]);
        bytes
    }

    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self.source {
            IpAddr::V4(_) => {
                let mut header = vec![0x45, self.class];
                header.extend((20 + self.payload.len() as u16).to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.extend(self.word.to_be_bytes());
                header.extend([self.hops, self.protocol, 0, 0]);
                header
            }
            IpAddr::V6(_) => {
                let first = 0x6000_0000 | u32::from(self.class) << 20 | self.label;
                let mut header = first.to_be_bytes().to_vec();
                header.extend((self.payload.len() as u16).to_be_bytes());
                header.extend([self.protocol, self.hops]);
                header
            }
        };
        bytes.extend(octets(self.source));
        bytes.extend(octets(self.destination));
        if self.source.is_ipv4() {
            let sum = checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in fragments, cut at these bytes of its payload, all called `id`.
    pub fn cut(&self, id: u32, at: &[usize]) -> Vec<Ip> {
        let ends = at.iter().copied().chain([self.payload.len()]);
        let starts = [0].into_iter().chain(at.iter().copied());
        starts
            .zip(ends)
            .map(|(start, end)| self.part(id, start..end, end < self.payload.len()))
            .collect()
    }

    /// One fragment, right or wrong.
    pub fn part(&self, id: u32, bytes: std::ops::Range<usize>, more: bool) -> Ip {
        let start = bytes.start;
        let mut part = self.clone();
        part.payload = self.payload[bytes].to_vec();
        match self.source {
            IpAddr::V4(_) => {
                part.id = id as u16;
                part.word = (start / 8) as u16 | if more { 0x2000 } else { 0 };
            }
            IpAddr::V6(_) => {
                let mut header = vec![self.protocol, 0];
                header.extend((start as u16 | u16::from(more)).to_be_bytes());
                header.extend(id.to_be_bytes());
                part.payload.splice(..0, header);
                part.protocol = 44;
            }
        }
        part
    }

    /// As it comes in from outside, and from target 21.
    pub fn from_outside(&self) -> Vec<u8> {
        frame_of(ROUTER_MAC, OUTSIDE_MAC, &self.bytes())
    }

    pub fn from_inside(&self) -> Vec<u8> {
        frame_of(mac(21), INSIDE_MAC, &self.bytes())
    }

    /// As it goes to the router outside, and to target 21.
    pub fn to_outside(&self) -> Vec<u8> {
        frame_of(OUTSIDE_MAC, ROUTER_MAC, &self.bytes())
    }

    pub fn to_inside(&self) -> Vec<u8> {
        frame_of(INSIDE_MAC, mac(21), &self.bytes())
    }
}

pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Ip {
    let mut payload = from.port().to_be_bytes().to_vec();
    payload.extend(to.port().to_be_bytes());
    payload.extend((8 + data.len() as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    let mut ip = Ip::new(from.ip(), to.ip(), 17, payload);
    ip.seal(6);
    ip
}

pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Ip {
    let mut payload = from.port().to_be_bytes().to_vec();
    payload.extend(to.port().to_be_bytes());
    payload.extend(seq.to_be_bytes());
    payload.extend(ack.to_be_bytes());
    payload.extend([0x50, flags, 0xfa, 0, 0, 0, 0, 0]);
    payload.extend(data);
    let mut ip = Ip::new(from.ip(), to.ip(), 6, payload);
    ip.seal(16);
    ip
}

/// An ICMP or ICMPv6 message.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: u32, data: &[u8]) -> Ip {
    let mut payload = vec![kind, code, 0, 0];
    payload.extend(rest.to_be_bytes());
    payload.extend(data);
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    let mut ip = Ip::new(from, to, protocol, payload);
    ip.seal(2);
    ip
}

pub fn frame_of(source: MacAddr, destination: MacAddr, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    };
    [&destination.0[..], &source.0, &kind, packet].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The packet in a frame that was sent: what can't be foreseen is read from it.
pub fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// Source port of the transport header of a frame without options or extension headers.
pub fn source_port(frame: &[u8]) -> u16 {
    let at = 14 + if frame[14] >> 4 == 4 { 20 } else { 40 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
