//! IPv6 frames built field by field. Checksums are computed here by the book, not by the code under test.

use std::net::{Ipv6Addr, SocketAddrV6};

use dataplane::MacAddr;

use super::frame::{Icmp, Payload, Tcp, Udp, checksum};

/// Next header numbers.
pub const HOP_BY_HOP: u8 = 0;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ICMP: u8 = 58;
pub const NOTHING: u8 = 59;
pub const OPTIONS: u8 = 60;

/// An IPv6 packet in a frame. Fields can be changed before [`Packet6::frame`].
#[derive(Clone, Debug)]
pub struct Packet6 {
    pub destination_mac: MacAddr,
    pub source_mac: MacAddr,
    pub traffic_class: u8,
    pub flow_label: u32,
    pub hop_limit: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// Number and body of each extension header, the next header number left out.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub payload: Payload,
}

pub fn tcp(from: SocketAddrV6, to: SocketAddrV6, flags: u8) -> Packet6 {
    let tcp = Tcp {
        source: from.port(),
        destination: to.port(),
        seq: 0,
        ack: 0,
        flags,
        window: 64_000,
        options: Vec::new(),
        data: Vec::new(),
    };
    Packet6::new(*from.ip(), *to.ip(), Payload::Tcp(tcp))
}

pub fn udp(from: SocketAddrV6, to: SocketAddrV6, data: &[u8]) -> Packet6 {
    let udp = Udp {
        source: from.port(),
        destination: to.port(),
        data: data.to_vec(),
        unchecked: false,
    };
    Packet6::new(*from.ip(), *to.ip(), Payload::Udp(udp))
}

pub fn icmp(from: Ipv6Addr, to: Ipv6Addr, kind: u8, code: u8, rest: u32, data: &[u8]) -> Packet6 {
    let icmp = Icmp {
        kind,
        code,
        rest,
        data: data.to_vec(),
    };
    Packet6::new(from, to, Payload::Icmp(icmp))
}

impl Packet6 {
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, payload: Payload) -> Self {
        Self {
            destination_mac: MacAddr::default(),
            source_mac: MacAddr::default(),
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            source,
            destination,
            extensions: Vec::new(),
            payload,
        }
    }

    pub fn macs(mut self, source: MacAddr, destination: MacAddr) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn hop_limit(self, hop_limit: u8) -> Self {
        self.with(|packet| packet.hop_limit = hop_limit)
    }

    pub fn extension(self, number: u8, body: &[u8]) -> Self {
        self.with(|packet| packet.extensions.push((number, body.to_vec())))
    }

    pub fn tcp_mut(&mut self) -> &mut Tcp {
        match &mut self.payload {
            Payload::Tcp(tcp) => tcp,
            other => panic!("not TCP: {other:?}"),
        }
    }

    pub fn seq(mut self, seq: u32, ack: u32) -> Self {
        let tcp = self.tcp_mut();
        (tcp.seq, tcp.ack) = (seq, ack);
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.tcp_mut().data = data.to_vec();
        self
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, mut payload) = match &self.payload {
            Payload::Tcp(tcp) => (TCP, tcp.bytes()),
            Payload::Udp(udp) => (UDP, udp.bytes()),
            Payload::Icmp(icmp) => (ICMP, icmp.bytes()),
            Payload::Raw(protocol, bytes) => (*protocol, bytes.clone()),
        };
        let place = match &self.payload {
            Payload::Tcp(_) => Some(16),
            Payload::Udp(udp) if !udp.unchecked => Some(6),
            Payload::Icmp(_) => Some(2),
            _ => None,
        };
        if let Some(place) = place {
            payload[place..place + 2].fill(0);
            let mut pseudo = self.source.octets().to_vec();
            pseudo.extend(self.destination.octets());
            pseudo.extend((payload.len() as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, protocol]);
            pseudo.extend(&payload);
            let sum = match checksum(&pseudo) {
                0 if protocol == UDP => 0xffff,
                sum => sum,
            };
            payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut behind = Vec::new();
        for (place, (_, body)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(place + 1);
            behind.push(next.map_or(protocol, |(number, _)| *number));
            behind.extend(body);
        }
        behind.extend(payload);
        let first = self
            .extensions
            .first()
            .map_or(protocol, |(number, _)| *number);
        let word = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut packet = word.to_be_bytes().to_vec();
        packet.extend((behind.len() as u16).to_be_bytes());
        packet.extend([first, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(behind);
        packet
    }

    /// The whole frame, without padding.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.destination_mac.0.to_vec();
        frame.extend(self.source_mac.0);
        frame.extend([0x86, 0xdd]);
        frame.extend(self.ip());
        frame
    }
}

/// A neighbour solicitation (135) or advertisement (136) with its flags, and a MAC as option of this type.
pub fn ndp(
    kind: u8,
    (from, to): (Ipv6Addr, Ipv6Addr),
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Packet6 {
    let mut data = target.octets().to_vec();
    if let Some((number, mac)) = option {
        data.extend([number, 1]);
        data.extend(mac.0);
    }
    icmp(from, to, kind, 0, u32::from(flags) << 24, &data).hop_limit(255)
}
