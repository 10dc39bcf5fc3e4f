//! Frames of either family built field by field. Checksums are computed here by the book, not by the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use dataplane::MacAddr;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// Numbers of IPv6 extension headers, and of none.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const NOTHING: u8 = 59;
pub const OPTIONS: u8 = 60;

/// An IP packet in a frame. Fields can be changed before [`Packet::frame`].
#[derive(Clone, Debug)]
pub struct Packet {
    pub destination_mac: MacAddr,
    pub source_mac: MacAddr,
    /// Type of service; the traffic class of IPv6.
    pub tos: u8,
    /// The hop limit of IPv6.
    pub ttl: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 only, as are the word of flags and fragment offset and the options.
    pub id: u16,
    pub fragment: u16,
    pub options: Vec<u8>,
    /// IPv6 only, as are the extension headers: number and body of each, the next header number left out.
    pub flow_label: u32,
    pub extensions: Vec<(u8, Vec<u8>)>,
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
    pub urgent: u16,
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

pub const fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, last])
}

pub fn tcp(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>, flags: u8) -> Packet {
    let (from, to) = (from.into(), to.into());
    let payload = Tcp {
        source: from.port(),
        destination: to.port(),
        seq: 0,
        ack: 0,
        flags,
        window: 64_000,
        urgent: 0,
        options: Vec::new(),
        data: Vec::new(),
    };
    Packet::new(from.ip(), to.ip(), Payload::Tcp(payload))
}

pub fn udp(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>, data: &[u8]) -> Packet {
    let (from, to) = (from.into(), to.into());
    let payload = Udp {
        source: from.port(),
        destination: to.port(),
        data: data.to_vec(),
        unchecked: false,
    };
    Packet::new(from.ip(), to.ip(), Payload::Udp(payload))
}

/// An ICMP message between IPv4 addresses, an ICMPv6 message between others.
pub fn icmp(
    from: impl Into<IpAddr>,
    to: impl Into<IpAddr>,
    kind: u8,
    code: u8,
    rest: u32,
    data: &[u8],
) -> Packet {
    let payload = Icmp {
        kind,
        code,
        rest,
        data: data.to_vec(),
    };
    Packet::new(from, to, Payload::Icmp(payload))
}

/// A neighbour solicitation (135) or advertisement (136) with its flags, and a MAC as option of this type.
pub fn ndp(
    kind: u8,
    (from, to): (IpAddr, IpAddr),
    flags: u8,
    target: IpAddr,
    option: Option<(u8, MacAddr)>,
) -> Packet {
    let mut data = octets(target);
    if let Some((number, mac)) = option {
        data.extend([number, 1]);
        data.extend(mac.0);
    }
    icmp(from, to, kind, 0, u32::from(flags) << 24, &data).ttl(255)
}

impl Packet {
    pub fn new(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        payload: Payload,
    ) -> Self {
        Self {
            destination_mac: MacAddr::default(),
            source_mac: MacAddr::default(),
            tos: 0,
            ttl: 64,
            source: source.into(),
            destination: destination.into(),
            id: 0,
            fragment: 0x4000,
            options: Vec::new(),
            flow_label: 0,
            extensions: Vec::new(),
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

    pub fn window(mut self, window: u16) -> Self {
        self.tcp_mut().window = window;
        self
    }

    pub fn extension(self, number: u8, body: &[u8]) -> Self {
        self.with(|packet| packet.extensions.push((number, body.to_vec())))
    }

    /// The transport header and what follows it, its checksum in place; and its protocol number.
    pub fn transport(&self) -> (u8, Vec<u8>) {
        let icmp = if self.source.is_ipv4() { 1 } else { 58 };
        let (protocol, mut bytes, place) = match &self.payload {
            Payload::Tcp(tcp) => (6, tcp.bytes(), Some(16)),
            Payload::Udp(udp) => (17, udp.bytes(), (!udp.unchecked).then_some(6)),
            Payload::Icmp(message) => (icmp, message.bytes(), Some(2)),
            Payload::Raw(protocol, bytes) => (*protocol, bytes.clone(), None),
        };
        if let Some(place) = place {
            let mut summed = match protocol {
                1 => Vec::new(),
                _ => self.pseudo_header(protocol, bytes.len()),
            };
            summed.extend(&bytes);
            let sum = match checksum(&summed) {
                0 if protocol == 17 => 0xffff,
                sum => sum,
            };
            bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        }
        (protocol, bytes)
    }

    /// The packet in fragments, cut at these bytes of its payload, all called `id`.
    pub fn cut(&self, id: u32, at: &[usize]) -> Vec<Self> {
        let length = self.transport().1.len();
        let ends = at.iter().copied().chain([length]);
        let starts = [0].into_iter().chain(at.iter().copied());
        starts
            .zip(ends)
            .map(|(start, end)| self.part(id, start..end, end < length))
            .collect()
    }

    /// One fragment, right or wrong.
    pub fn part(&self, id: u32, bytes: Range<usize>, more: bool) -> Self {
        let (protocol, payload) = self.transport();
        let start = bytes.start;
        let part = self.clone().with(|part| {
            part.payload = Payload::Raw(protocol, payload[bytes].to_vec());
        });
        match self.source {
            IpAddr::V4(_) => part.with(|part| {
                part.id = id as u16;
                part.fragment = (start / 8) as u16 | if more { 0x2000 } else { 0 };
            }),
            IpAddr::V6(_) => {
                let [high, low] = (start as u16 | u16::from(more)).to_be_bytes();
                let [a, b, c, d] = id.to_be_bytes();
                part.extension(FRAGMENT, &[0, high, low, a, b, c, d])
            }
        }
    }

    /// The bytes behind the IP headers, to be made wrong: their checksum stays as it was.
    pub fn raw_mut(&mut self) -> &mut [u8] {
        let (protocol, bytes) = self.transport();
        self.payload = Payload::Raw(protocol, bytes);
        match &mut self.payload {
            Payload::Raw(_, bytes) => bytes,
            _ => unreachable!("made so above"),
        }
    }

    /// That of RFC 8200 8.1; for IPv4 it gives the sum that the shorter one of RFC 9293 3.1 gives.
    fn pseudo_header(&self, protocol: u8, length: usize) -> Vec<u8> {
        let mut bytes = octets(self.source);
        bytes.extend(octets(self.destination));
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, payload) = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.ipv4(source, destination, protocol, &payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.ipv6(source, destination, protocol, &payload)
            }
            ends => panic!("one family only: {ends:?}"),
        }
    }

    fn ipv4(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        behind: &[u8],
    ) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, self.tos];
        packet.extend(((header + behind.len()) as u16).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(behind);
        packet
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, last: &[u8]) -> Vec<u8> {
        let number = |place: usize| self.extensions.get(place).map_or(protocol, |(it, _)| *it);
        let mut behind = Vec::new();
        for (place, (_, body)) in self.extensions.iter().enumerate() {
            behind.push(number(place + 1));
            behind.extend(body);
        }
        behind.extend(last);
        let word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
        let mut packet = word.to_be_bytes().to_vec();
        packet.extend((behind.len() as u16).to_be_bytes());
        packet.extend([number(0), self.ttl]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(behind);
        packet
    }

    /// The whole frame, without padding.
    pub fn frame(&self) -> Vec<u8> {
        let kind: [u8; 2] = match self.source {
            IpAddr::V4(_) => [0x08, 0x00],
            IpAddr::V6(_) => [0x86, 0xdd],
        };
        [
            &self.destination_mac.0[..],
            &self.source_mac.0,
            &kind,
            &self.ip(),
        ]
        .concat()
    }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
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
        bytes.extend([0; 2]);
        bytes.extend(self.urgent.to_be_bytes());
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

/// Where the transport header of a frame without options or extension headers is.
fn transport(frame: &[u8]) -> usize {
    14 + if frame[14] >> 4 == 4 { 20 } else { 40 }
}

/// A word of its TCP segment.
pub fn tcp_word(frame: &[u8], offset: usize) -> u32 {
    let at = transport(frame) + offset;
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

pub fn port_word(frame: &[u8], offset: usize) -> u16 {
    let at = transport(frame) + offset;
    u16::from_be_bytes(frame[at..at + 2].try_into().unwrap())
}

/// The address a frame comes from.
pub fn source_of(frame: &[u8]) -> IpAddr {
    match frame[14] >> 4 {
        4 => <[u8; 4]>::try_from(&frame[26..30]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&frame[22..38]).unwrap().into(),
    }
}

/// The source port.
pub fn source_port(frame: &[u8]) -> u16 {
    port_word(frame, 0)
}

/// The last byte of the address a frame goes to: the number of the target.
pub fn target_of(frame: &[u8]) -> u8 {
    frame[transport(frame) - 1]
}

/// The flags of its TCP segment.
pub fn flags_of(frame: &[u8]) -> u8 {
    frame[transport(frame) + 13]
}
