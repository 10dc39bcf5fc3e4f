//! Frames built field by field. Checksums are computed here by the book, not by the code under test.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane::MacAddr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// An IPv4 packet in a frame. Fields can be changed before [`Packet::frame`].
#[derive(Clone, Debug)]
pub struct Packet {
    pub destination_mac: MacAddr,
    pub source_mac: MacAddr,
    pub tos: u8,
    pub id: u16,
    /// The word of flags and fragment offset.
    pub fragment: u16,
    pub ttl: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
    pub payload: Payload,
}

#[derive(Clone, Debug)]
pub enum Payload {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    Raw(u8, Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Udp {
    pub source: u16,
    pub destination: u16,
    pub data: Vec<u8>,
    /// Sent without checksum.
    pub unchecked: bool,
}

#[derive(Clone, Debug)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub rest: u32,
    pub data: Vec<u8>,
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, last])
}

pub fn tcp(from: SocketAddrV4, to: SocketAddrV4, flags: u8) -> Packet {
    Packet::new(
        *from.ip(),
        *to.ip(),
        Payload::Tcp(Tcp {
            source: from.port(),
            destination: to.port(),
            seq: 0,
            ack: 0,
            flags,
            window: 64_000,
            options: Vec::new(),
            data: Vec::new(),
        }),
    )
}

pub fn udp(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Packet {
    let payload = Udp {
        source: from.port(),
        destination: to.port(),
        data: data.to_vec(),
        unchecked: false,
    };
    Packet::new(*from.ip(), *to.ip(), Payload::Udp(payload))
}

pub fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: u8, code: u8, rest: u32, data: &[u8]) -> Packet {
    Packet::new(
        from,
        to,
        Payload::Icmp(Icmp {
            kind,
            code,
            rest,
            data: data.to_vec(),
        }),
    )
}

impl Packet {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, payload: Payload) -> Self {
        Self {
            destination_mac: MacAddr::default(),
            source_mac: MacAddr::default(),
            tos: 0,
            id: 0,
            fragment: 0x4000,
            ttl: 64,
            source,
            destination,
            options: Vec::new(),
            payload,
        }
    }

    pub fn macs(mut self, source: MacAddr, destination: MacAddr) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
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

    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_mut().options = options.to_vec();
        self
    }

    pub fn tcp_mut(&mut self) -> &mut Tcp {
        match &mut self.payload {
            Payload::Tcp(tcp) => tcp,
            other => panic!("not TCP: {other:?}"),
        }
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, mut payload) = match &self.payload {
            Payload::Tcp(tcp) => (6, tcp.bytes()),
            Payload::Udp(udp) => (17, udp.bytes()),
            Payload::Icmp(icmp) => (1, icmp.bytes()),
            Payload::Raw(protocol, bytes) => (*protocol, bytes.clone()),
        };
        let mut pseudo = Vec::new();
        pseudo.extend(self.source.octets());
        pseudo.extend(self.destination.octets());
        pseudo.extend([0, protocol]);
        pseudo.extend((payload.len() as u16).to_be_bytes());
        pseudo.extend(&payload);
        match &self.payload {
            Payload::Tcp(_) => payload[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes()),
            Payload::Udp(udp) if !udp.unchecked => {
                let sum = match checksum(&pseudo) {
                    0 => 0xffff,
                    sum => sum,
                };
                payload[6..8].copy_from_slice(&sum.to_be_bytes());
            }
            _ => {}
        }
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, self.tos];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    /// The whole frame, without padding.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.destination_mac.0.to_vec();
        frame.extend(self.source_mac.0);
        frame.extend([0x08, 0x00]);
        frame.extend(self.ip());
        frame
    }
}

impl Tcp {
    pub fn bytes(&self) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0, "options fill words");
        let mut bytes = self.source.to_be_bytes().to_vec();
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.push(((5 + self.options.len() / 4) << 4) as u8);
        bytes.push(self.flags);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.data);
        bytes
    }
}

impl Udp {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.source.to_be_bytes().to_vec();
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend((8 + self.data.len() as u16).to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(&self.data);
        bytes
    }
}

impl Icmp {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest.to_be_bytes());
        bytes.extend(&self.data);
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// RFC 1071, the slow way.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum = sum - 0x1_0000 + 1;
        }
    }
    !(sum as u16)
}

/// An ARP frame.
pub fn arp(
    operation: u16,
    destination: MacAddr,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = destination.0.to_vec();
    frame.extend(sender.0.0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0.0);
    frame.extend(sender.1.octets());
    frame.extend(target.0.0);
    frame.extend(target.1.octets());
    frame
}

/// A word of a TCP segment in a frame without IP options.
pub fn tcp_word(frame: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(frame[34 + offset..38 + offset].try_into().unwrap())
}

pub fn port_word(frame: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes(frame[34 + offset..36 + offset].try_into().unwrap())
}
