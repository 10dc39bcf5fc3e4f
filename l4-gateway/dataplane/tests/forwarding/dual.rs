//! A node of both families, and packets built byte by byte for either: tests that hold for IPv4 and IPv6 alike.

use std::net::{IpAddr, SocketAddr};

use dataplane::{Limits, MacAddr, Port, Protocol, ServiceConfig};

use super::frame::{checksum, mac, octets};
pub use super::net::{BOTH, Net};
use super::rig::{self, INSIDE_MAC, OUTSIDE_MAC, ROUTER_MAC, Rig};

pub fn ports() -> [Port; 2] {
    super::net::both_ports()
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

/// A node whose next hops are known.
pub fn node(limits: &Limits, ports: &[Port], services: &[ServiceConfig]) -> Rig {
    Rig::from(limits, &rig::builder(ports, services), 0, 1).resolved()
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

/// The packet in a frame that was sent: what can't be foreseen is read from it.
pub fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}
