//! PROXY protocol v2 (HAProxy's `proxy-protocol.txt`, section 2.2): the header, and what it does to the numbers of the stream.
//!
//! The header stands in front of the stream's first byte. The client knows nothing of it, so to the target all that follows is
//! further on by its length, and what the target acknowledges is that much too far. It is made from the flow's addresses alone,
//! hence a segment sent again carries the same.

use std::net::{IpAddr, SocketAddr};

use crate::wire::checksum::Delta;
use crate::wire::{put, tcp, u32_at};

/// Bytes of a header of TCP over IPv4.
pub(crate) const OVER_IPV4: usize = 28;
/// Bytes of a header of TCP over IPv6.
pub(crate) const OVER_IPV6: usize = 52;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of one connection.
pub(crate) struct Header {
    bytes: [u8; OVER_IPV6],
    length: usize,
}

impl Header {
    /// Of a client and what it connected to, which are of one family.
    pub(crate) fn new(client: SocketAddr, vip: SocketAddr) -> Self {
        let mut bytes = [0; OVER_IPV6];
        put(&mut bytes, 0, SIGNATURE);
        let (family, length) = match (client.ip(), vip.ip()) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                put(&mut bytes, 16, client.octets());
                put(&mut bytes, 20, vip.octets());
                (TCP_OVER_IPV4, OVER_IPV4)
            }
            (client, vip) => {
                put(&mut bytes, 16, to_ipv6(client));
                put(&mut bytes, 32, to_ipv6(vip));
                (TCP_OVER_IPV6, OVER_IPV6)
            }
        };
        put(&mut bytes, 12, [PROXY, family]);
        put(&mut bytes, 14, (length as u16 - 16).to_be_bytes());
        put(&mut bytes, length - 4, client.port().to_be_bytes());
        put(&mut bytes, length - 2, vip.port().to_be_bytes());
        Self { bytes, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn to_ipv6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Where the header stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The number of the stream's first byte.
    pub(crate) origin: u32,
    /// Bytes of the header.
    pub(crate) length: u32,
}

/// How a client's segment lies to the [`Gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It says nothing from behind the gap: a SYN, an acknowledgment, a keep-alive probe (one below what is next, RFC 9293 3.8.4),
    /// something old. Its number holds.
    Before,
    /// It has the stream's first byte, or its end if there is none: the header goes with it.
    First,
    /// Its number is that much too low.
    Behind,
    /// It begins before the stream and reaches into it, as no segment of a client does but a SYN.
    Across,
}

impl Gap {
    /// How a client's segment lies, by its own numbers.
    pub(crate) fn place(self, segment: &[u8]) -> Place {
        let flags = segment.get(13).copied().unwrap_or(0);
        let ahead = distance(self.origin, u32_at(segment, tcp::SEQUENCE));
        if flags & tcp::SYN != 0 {
            return Place::Before;
        }
        if ahead > 0 {
            return Place::Behind;
        }
        // What it carries is no part of the stream (RFC 9293 3.5.3).
        if flags & tcp::RST != 0 {
            return Place::Before;
        }
        match i64::from(ahead) + i64::from(tcp::occupies(segment)) {
            ..=0 => Place::Before,
            _ if ahead == 0 => Place::First,
            _ => Place::Across,
        }
    }

    /// Makes the number of a client's segment that is [`Place::Behind`] what the target counts; how that changes the checksum.
    pub(crate) fn move_on(self, segment: &mut [u8]) -> Delta {
        let old = u32_at(segment, tcp::SEQUENCE);
        let new = old.wrapping_add(self.length);
        put(segment, tcp::SEQUENCE, new.to_be_bytes());
        Delta::double(old, new)
    }

    /// What the target calls the client's `sequence`. The stream's first byte is behind the header, but where the stream has not begun
    /// yet, that is what comes next.
    pub(crate) fn to_target(self, sequence: u32) -> u32 {
        if distance(self.origin, sequence) > 0 {
            sequence.wrapping_add(self.length)
        } else {
            sequence
        }
    }

    /// What the client calls the target's `sequence`: of the header it has sent nothing.
    pub(crate) fn to_client(self, sequence: u32) -> u32 {
        match distance(self.origin, sequence) {
            ..=0 => sequence,
            behind if behind.unsigned_abs() < self.length => self.origin,
            _ => sequence.wrapping_sub(self.length),
        }
    }

    /// Whether a target that acknowledges `sequence` has the whole header.
    pub(crate) fn is_filled_by(self, sequence: u32) -> bool {
        distance(self.origin.wrapping_add(self.length), sequence) >= 0
    }

    /// Makes what a target's segment acknowledges, blocks included, the client's; how that changes the checksum.
    pub(crate) fn acknowledge(self, segment: &mut [u8]) -> Delta {
        let old = u32_at(segment, tcp::ACKNOWLEDGMENT);
        let new = self.to_client(old);
        put(segment, tcp::ACKNOWLEDGMENT, new.to_be_bytes());
        Delta::double(old, new).and(tcp::map_sack(segment, |edge| self.to_client(edge)))
    }
}

/// How far `b` is behind `a` in sequence space (RFC 9293 3.4), negative if before.
pub(crate) fn distance(a: u32, b: u32) -> i32 {
    b.wrapping_sub(a) as i32
}
