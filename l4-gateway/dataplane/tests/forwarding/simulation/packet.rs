//! Packets as hosts read them: every header and checksum looked at, fragments put together, tunnels opened.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::endpoint::Segment;
use super::world::SECOND;
use crate::frame::{self, RST, SYN, checksum};

/// A packet that a host makes.
pub use crate::frame::Packet as Made;

pub const ICMP: u8 = 1;
pub const IPV4: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6: u8 = 41;
const FRAGMENT: u8 = 44;
pub const ICMP6: u8 = 58;

/// One packet, or a part of one.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hops: u8,
    pub protocol: u8,
    pub payload: Vec<u8>,
    part: Option<Part>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug)]
struct Part {
    identification: u32,
    start: usize,
    more: bool,
}

impl Packet {
    /// Reads a packet; what stands behind it is padding.
    pub fn read(bytes: &[u8]) -> Self {
        match bytes[0] >> 4 {
            4 => Self::read_ipv4(bytes),
            6 => Self::read_ipv6(bytes),
            version => panic!("IP version {version}"),
        }
    }

    fn read_ipv4(bytes: &[u8]) -> Self {
        assert_eq!(bytes[0], 0x45, "a header without options");
        assert_eq!(checksum(&bytes[..20]), 0, "IP checksum");
        let word = word(bytes, 6);
        let is_part = word & 0x3fff != 0;
        Self {
            source: Ipv4Addr::from(octets(bytes, 12)).into(),
            destination: Ipv4Addr::from(octets(bytes, 16)).into(),
            hops: bytes[8],
            protocol: bytes[9],
            payload: bytes[20..usize::from(self::word(bytes, 2))].to_vec(),
            part: is_part.then(|| Part {
                identification: self::word(bytes, 4).into(),
                start: usize::from(word & 0x1fff) * 8,
                more: word & 0x2000 != 0,
            }),
        }
    }

    fn read_ipv6(bytes: &[u8]) -> Self {
        let mut packet = Self {
            source: Ipv6Addr::from(octets(bytes, 8)).into(),
            destination: Ipv6Addr::from(octets(bytes, 24)).into(),
            hops: bytes[7],
            protocol: bytes[6],
            payload: bytes[40..40 + usize::from(word(bytes, 4))].to_vec(),
            part: None,
        };
        if packet.protocol == FRAGMENT {
            let header: Vec<u8> = packet.payload.drain(..8).collect();
            packet.protocol = header[0];
            packet.part = Some(Part {
                identification: u32::from_be_bytes(octets(&header, 4)),
                start: usize::from(word(&header, 2) & 0xfff8),
                more: header[3] & 1 != 0,
            });
        }
        packet
    }

    pub fn is_part(&self) -> bool {
        self.part.is_some()
    }

    /// The packet inside this one, if it is a tunnel's.
    pub fn inner(&self) -> Option<Self> {
        if ![IPV4, IPV6].contains(&self.protocol) {
            return None;
        }
        assert!(self.part.is_none(), "an outer packet in fragments");
        Some(Self::read(&self.payload))
    }

    /// Whether the node made it, rather than passed it on: an RST or an ICMP error.
    pub fn is_of_node(&self) -> bool {
        match self.protocol {
            TCP => self.payload[13] & RST != 0,
            ICMP | ICMP6 => true,
            _ => false,
        }
    }

    /// Holds the transport checksum of a whole packet to be right, and there.
    pub fn check(&self) {
        assert_eq!(self.residue(), 0, "transport checksum of {self:?}");
        assert!(
            self.protocol != UDP || word(&self.payload, 6) != 0,
            "the checksum went missing: {self:?}"
        );
    }

    /// Whether a whole packet is as wrong as [`damaged`] made it, whatever was rewritten since.
    pub fn is_damaged(&self) -> bool {
        self.residue() == !DAMAGE
    }

    /// Whether a whole segment has an option of this kind.
    pub fn has_option(&self, kind: u8) -> bool {
        let mut options = &self.payload[20..usize::from(self.payload[12] >> 4) * 4];
        while let [first, rest @ ..] = options {
            options = match first {
                0 => return false,
                1 => rest,
                first if *first == kind => return true,
                _ => &options[usize::from(rest[0])..],
            };
        }
        false
    }

    pub fn is_syn(&self) -> bool {
        self.part.is_none() && self.protocol == TCP && self.payload[13] & SYN != 0
    }

    /// What the sum over a whole packet leaves: 0 if its transport checksum is right.
    fn residue(&self) -> u16 {
        let mut summed = Vec::new();
        if self.protocol != ICMP {
            for address in [self.source, self.destination] {
                match address {
                    IpAddr::V4(address) => summed.extend(address.octets()),
                    IpAddr::V6(address) => summed.extend(address.octets()),
                }
            }
            summed.extend((self.payload.len() as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.protocol]);
        }
        summed.extend(&self.payload);
        checksum(&summed)
    }

    pub fn from(&self) -> SocketAddr {
        (self.source, word(&self.payload, 0)).into()
    }

    pub fn to(&self) -> SocketAddr {
        (self.destination, word(&self.payload, 2)).into()
    }

    pub fn segment(&self) -> Segment {
        let bytes = &self.payload;
        Segment {
            flags: bytes[13],
            seq: u32::from_be_bytes(octets(bytes, 4)),
            ack: u32::from_be_bytes(octets(bytes, 8)),
            data: bytes[usize::from(bytes[12] >> 4) * 4..].to_vec(),
        }
    }

    /// The client that the segment's first option names.
    pub fn told(&self) -> Option<SocketAddr> {
        let options = &self.payload[20..usize::from(self.payload[12] >> 4) * 4];
        let address: IpAddr = match options.first_chunk()? {
            [254, 8] => Ipv4Addr::from(octets(options, 4)).into(),
            [254, 20] => Ipv6Addr::from(octets(options, 4)).into(),
            _ => return None,
        };
        Some((address, word(options, 2)).into())
    }

    /// What a datagram carries.
    pub fn data(&self) -> &[u8] {
        &self.payload[8..]
    }

    /// The size that an ICMP error says is the largest; none if it says something else.
    pub fn largest(&self) -> Option<usize> {
        match (self.protocol, self.payload[0], self.payload[1]) {
            (ICMP, 3, 4) | (ICMP6, 2, 0) => {
                Some(u32::from_be_bytes(octets(&self.payload, 4)) as usize)
            }
            _ => None,
        }
    }
}

pub fn tcp(from: SocketAddr, to: SocketAddr, segment: &Segment) -> Made {
    let Segment {
        flags,
        seq,
        ack,
        ref data,
    } = *segment;
    frame::tcp(from, to, flags).seq(seq, ack).data(data)
}

/// MP_CAPABLE of a SYN (RFC 8684 3.1), which some ends have in theirs.
const CAPABLE: [u8; 4] = [MPTCP, 4, 1, 1];
pub const MPTCP: u8 = 30;

/// A segment as one end in two sends its SYN: with MPTCP.
pub fn offering(packet: Made, segment: &Segment) -> Made {
    match segment.flags & SYN != 0 && segment.seq.is_multiple_of(2) {
        true => packet.tcp_options(&CAPABLE),
        false => packet,
    }
}

/// By how much the checksum of a damaged packet is wrong. What is rewritten on the way leaves that as it is (RFC 1624).
const DAMAGE: u16 = 0x1234;

/// A whole segment or datagram, damaged on its way; none of what has another checksum, or none.
pub fn damaged(packet: &Made) -> Option<Made> {
    let is_part = packet.fragment & 0x3fff != 0 || !packet.extensions.is_empty();
    let at = match packet.transport().0 {
        TCP if !is_part => 16,
        UDP if !is_part => 6,
        _ => return None,
    };
    let mut packet = packet.clone();
    let bytes = packet.raw_mut();
    let (sum, carry) = word(bytes, at).overflowing_add(DAMAGE);
    let sum = sum.wrapping_add(u16::from(carry));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    // A datagram of 0 has none.
    (sum != 0).then_some(packet)
}

/// The fragments that have come of packets to one host, and the time the last of each came.
#[derive(Default)]
pub struct Reassembly(BTreeMap<Datagram, (u64, Vec<Packet>)>);

/// What the fragments of one packet have in common.
type Datagram = (IpAddr, IpAddr, u8, u32);

impl Reassembly {
    /// Takes a packet in; whole, if it is or has become so.
    pub fn take(&mut self, now: u64, packet: Packet) -> Option<Packet> {
        self.0
            .retain(|_, (since, _)| now.saturating_sub(*since) < 30 * SECOND);
        let Some(part) = packet.part else {
            return Some(packet);
        };
        let protocol = if packet.source.is_ipv4() {
            packet.protocol
        } else {
            0
        };
        let datagram = (
            packet.source,
            packet.destination,
            protocol,
            part.identification,
        );
        let (since, parts) = self.0.entry(datagram).or_default();
        *since = now;
        parts.push(packet);
        let whole = join(parts)?;
        self.0.remove(&datagram);
        Some(whole)
    }
}

/// The packet that parts make, if none is missing. Parts that came twice must be alike.
fn join(parts: &mut [Packet]) -> Option<Packet> {
    let of = |packet: &Packet| packet.part.expect("a fragment");
    parts.sort_by_key(|packet| of(packet).start);
    let mut payload: Vec<u8> = Vec::new();
    let mut ends = false;
    for packet in &*parts {
        let part = of(packet);
        if part.start > payload.len() {
            return None;
        }
        let known = &payload[part.start..];
        let both = known.len().min(packet.payload.len());
        assert_eq!(
            known[..both],
            packet.payload[..both],
            "two packets in fragments share an identification: {parts:?}"
        );
        payload.extend(&packet.payload[both..]);
        ends |= !part.more;
    }
    ends.then(|| Packet {
        payload,
        part: None,
        ..parts[0].clone()
    })
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(octets(bytes, at))
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("long enough")
}
