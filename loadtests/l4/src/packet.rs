//! Frames as clients and targets make them, and as they judge what comes back.
//!
//! A packet carries a number, its *tag* (a flow, or a connection), where the gateway leaves it alone: the low half in the IP
//! identification, the high half in TCP's urgent pointer (without URG, so it means nothing) or in the UDP payload.

use dataplane::{Frame, Protocol};
use l4_gateway::dpdk::Mbuf;

use crate::address::Endpoint;

/// Bytes of the frames of a stream.
pub(crate) const STREAM: usize = 64;
/// Of the frames sent here, only ARP is shorter than this.
pub(crate) const SHORTEST: usize = 60;
/// Payload bytes of a TCP segment that has any.
pub(crate) const PAYLOAD: u16 = 10;

/// Bytes of a PROXY header, version 2, over IPv4.
pub(crate) const PROXY: usize = 28;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

const IP: usize = 14;
const L4: usize = 34;
/// When a frame was sent, at the begin of its payload.
const UDP_STAMP: usize = L4 + 8;
const TCP_STAMP: usize = L4 + 20;
/// The tag's high half.
const UDP_TAG: usize = 50;
const URGENT: usize = L4 + 18;
const TTL: u8 = 64;

/// The Ethernet header of all frames one way.
pub(crate) type Ethernet = [u8; 14];

/// The fields of a TCP segment that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    /// Bytes it carries: [`PAYLOAD`] or none when it is sent.
    pub(crate) payload: u16,
}

impl Segment {
    /// That of a datagram, which has no such fields.
    pub(crate) const NONE: Segment = Segment {
        sequence: 0,
        acknowledgment: 0,
        flags: 0,
        payload: 0,
    };
}

const UDP_TEMPLATE: [u8; STREAM] = {
    let mut bytes = [0; STREAM];
    bytes[IP] = 0x45;
    bytes[IP + 3] = (STREAM - IP) as u8;
    bytes[IP + 8] = TTL;
    bytes[IP + 9] = 17;
    bytes[L4 + 5] = (STREAM - L4) as u8;
    bytes
};

const TCP_TEMPLATE: [u8; STREAM] = {
    let mut bytes = [0; STREAM];
    bytes[IP] = 0x45;
    bytes[IP + 8] = TTL;
    bytes[IP + 9] = 6;
    bytes[L4 + 12] = 0x50;
    bytes[L4 + 14] = 0xff;
    bytes[L4 + 15] = 0xff;
    bytes
};

/// Maximum segment size 1460, as every SYN has.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

/// Makes a UDP datagram of [`STREAM`] bytes.
#[inline]
pub(crate) fn udp(
    frame: &mut Mbuf,
    ethernet: &Ethernet,
    ends: (Endpoint, Endpoint),
    tag: u32,
    stamp: u64,
) {
    if let Some(bytes) = start(frame, &UDP_TEMPLATE) {
        fill_udp(bytes, ethernet, ends, tag, stamp);
    }
}

/// Makes a TCP segment. With payload, which begins with the stamp, it is [`STREAM`] bytes long, else the shortest there is.
#[inline]
pub(crate) fn tcp(
    frame: &mut Mbuf,
    ethernet: &Ethernet,
    ends: (Endpoint, Endpoint),
    (tag, stamp): (u32, u64),
    segment: &Segment,
) {
    if let Some(bytes) = start(frame, &TCP_TEMPLATE) {
        fill_tcp(bytes, ethernet, ends, (tag, stamp), segment);
        if segment.payload == 0 {
            frame.trim(SHORTEST);
        }
    }
}

#[inline]
fn fill_udp(
    bytes: &mut [u8; STREAM],
    ethernet: &Ethernet,
    (from, to): (Endpoint, Endpoint),
    tag: u32,
    stamp: u64,
) {
    bytes[..14].copy_from_slice(ethernet);
    bytes[UDP_STAMP..UDP_STAMP + 8].copy_from_slice(&stamp.to_be_bytes());
    put(bytes, UDP_TAG, (tag >> 16) as u16);
    let length = (STREAM - L4) as u32;
    let addresses = ip(bytes, (from, to), tag, (STREAM - IP) as u16, 17);
    let sum = 17 + 2 * length + (tag >> 16) + words(stamp) + addresses + ports(bytes, from, to);
    // A sum of zero would say that there is none (RFC 768).
    let checksum = match !fold(sum) {
        0 => 0xffff,
        sum => sum,
    };
    put(bytes, L4 + 6, checksum);
}

#[inline]
fn fill_tcp(
    bytes: &mut [u8; STREAM],
    ethernet: &Ethernet,
    (from, to): (Endpoint, Endpoint),
    (tag, stamp): (u32, u64),
    segment: &Segment,
) {
    bytes[..14].copy_from_slice(ethernet);
    let mut length = 20;
    let mut rest = 0;
    if segment.payload > 0 {
        length += u32::from(PAYLOAD);
        bytes[TCP_STAMP..TCP_STAMP + 8].copy_from_slice(&stamp.to_be_bytes());
        rest = words(stamp);
    } else if segment.flags & SYN != 0 {
        length += MSS.len() as u32;
        bytes[L4 + 12] = 0x60;
        bytes[L4 + 20..L4 + 24].copy_from_slice(&MSS);
        rest = 0x1000 + 0x0204 + 0x05b4;
    }
    bytes[L4 + 4..L4 + 8].copy_from_slice(&segment.sequence.to_be_bytes());
    bytes[L4 + 8..L4 + 12].copy_from_slice(&segment.acknowledgment.to_be_bytes());
    bytes[L4 + 13] = segment.flags;
    put(bytes, URGENT, (tag >> 16) as u16);
    let addresses = ip(bytes, (from, to), tag, 20 + length as u16, 6);
    let fields = halves(segment.sequence) + halves(segment.acknowledgment) + (tag >> 16);
    let fixed = 0x5000 + u32::from(segment.flags) + 0xffff + rest;
    let sum = 6 + length + fields + fixed + addresses + ports(bytes, from, to);
    put(bytes, L4 + 16, !fold(sum));
}

/// What a receiver finds in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    pub(crate) tag: u32,
    /// Of TCP; zeros for UDP.
    pub(crate) segment: Segment,
}

/// Reads a frame as its receiver's stack would: none if a length or checksum is wrong.
pub(crate) fn read(frame: &[u8], protocol: Protocol) -> Option<Seen> {
    let packet = frame.get(IP..)?;
    let total = usize::from(word(packet, 2)?);
    let packet = packet.get(..total)?;
    let (header, transport) = packet.split_at_checked(20)?;
    let is_ours = header[0] == 0x45 && header[9] == protocol as u8 && frame[12..14] == [8, 0];
    if !is_ours || fold(sum(header)) != 0xffff {
        return None;
    }
    let pseudo = sum(&header[12..20]) + u32::from(header[9]) + transport.len() as u32;
    if fold(pseudo + sum(transport)) != 0xffff {
        return None;
    }
    let (high, segment) = match protocol {
        Protocol::Udp => (word(transport, UDP_TAG - L4)?, None),
        Protocol::Tcp => {
            let offset = usize::from(transport.get(12)? >> 4) * 4;
            let segment = Segment {
                sequence: double(transport, 4)?,
                acknowledgment: double(transport, 8)?,
                flags: *transport.get(13)?,
                payload: transport.len().checked_sub(offset)? as u16,
            };
            (word(transport, URGENT - L4)?, Some(segment))
        }
    };
    Some(Seen {
        from: Endpoint {
            address: double(header, 12)?,
            port: word(transport, 0)?,
        },
        to: Endpoint {
            address: double(header, 16)?,
            port: word(transport, 2)?,
        },
        tag: u32::from(high) << 16 | u32::from(word(header, 4)?),
        segment: segment.unwrap_or(Segment::NONE),
    })
}

/// The PROXY header, version 2, of a TCP connection over IPv4 (the PROXY protocol's specification, section 2.2).
pub(crate) fn proxy_header(client: Endpoint, vip: Endpoint) -> [u8; PROXY] {
    let mut header = [0; PROXY];
    header[..16].copy_from_slice(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    header[16..20].copy_from_slice(&client.address.to_be_bytes());
    header[20..24].copy_from_slice(&vip.address.to_be_bytes());
    header[24..26].copy_from_slice(&client.port.to_be_bytes());
    header[26..28].copy_from_slice(&vip.port.to_be_bytes());
    header
}

/// Whether the payload of a TCP segment begins with these bytes.
pub(crate) fn begins_with(frame: &[u8], begin: &[u8]) -> bool {
    let header = frame
        .get(L4 + 12)
        .map_or(0, |offset| usize::from(offset >> 4) * 4);
    frame
        .get(L4 + header..)
        .is_some_and(|payload| payload.starts_with(begin))
}

/// When a frame of a stream was sent, by what its sender wrote.
#[inline]
pub(crate) fn stamp(frame: &[u8], protocol: Protocol) -> Option<u64> {
    let at = match protocol {
        Protocol::Udp => UDP_STAMP,
        Protocol::Tcp => TCP_STAMP,
    };
    frame
        .get(at..)?
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

#[inline]
fn start<'a>(frame: &'a mut Mbuf, template: &[u8; STREAM]) -> Option<&'a mut [u8; STREAM]> {
    frame.fill(template);
    frame.bytes_mut().first_chunk_mut()
}

/// Completes the IP header; the sum of the addresses, which the transport's checksum covers too.
#[inline]
fn ip(
    bytes: &mut [u8; STREAM],
    (from, to): (Endpoint, Endpoint),
    tag: u32,
    total: u16,
    protocol: u32,
) -> u32 {
    put(bytes, IP + 2, total);
    put(bytes, IP + 4, tag as u16);
    bytes[IP + 12..IP + 16].copy_from_slice(&from.address.to_be_bytes());
    bytes[IP + 16..IP + 20].copy_from_slice(&to.address.to_be_bytes());
    let addresses = halves(from.address) + halves(to.address);
    let fixed = 0x4500 + (u32::from(TTL) << 8) + protocol;
    let sum = fixed + u32::from(total) + (tag & 0xffff) + addresses;
    put(bytes, IP + 10, !fold(sum));
    addresses
}

/// Writes the ports; their sum.
#[inline]
fn ports(bytes: &mut [u8; STREAM], from: Endpoint, to: Endpoint) -> u32 {
    put(bytes, L4, from.port);
    put(bytes, L4 + 2, to.port);
    u32::from(from.port) + u32::from(to.port)
}

#[inline]
fn put(bytes: &mut [u8; STREAM], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

#[inline]
fn halves(value: u32) -> u32 {
    (value >> 16) + (value & 0xffff)
}

#[inline]
fn words(value: u64) -> u32 {
    halves((value >> 32) as u32) + halves(value as u32)
}

/// Ones' complement sum of 16-bit words, not folded (RFC 1071).
#[inline]
fn sum(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let words = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)));
    words.sum::<u32>() + last.first().map_or(0, |last| u32::from(*last) << 8)
}

#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
const ETHERNET: Ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];

/// A frame without the buffer that it would be sent in.
#[cfg(test)]
pub(crate) fn bytes_of(
    protocol: Protocol,
    ends: (Endpoint, Endpoint),
    tag: u32,
    segment: &Segment,
) -> [u8; STREAM] {
    let mut bytes = match protocol {
        Protocol::Udp => UDP_TEMPLATE,
        Protocol::Tcp => TCP_TEMPLATE,
    };
    match protocol {
        Protocol::Udp => fill_udp(&mut bytes, &ETHERNET, ends, tag, 0),
        Protocol::Tcp => fill_tcp(&mut bytes, &ETHERNET, ends, (tag, 0), segment),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: (Endpoint, Endpoint) = (
        Endpoint {
            address: 0x1000_0001,
            port: 0xffff,
        },
        Endpoint {
            address: 0xfffe_0101,
            port: 80,
        },
    );

    #[test]
    fn a_receiver_reads_what_was_made_and_notices_any_change() {
        let segments = [
            (SYN, 0),
            (SYN | ACK, 0),
            (ACK, 0),
            (PSH | ACK, PAYLOAD),
            (FIN | ACK, 0),
        ];
        for (tag, (flags, payload)) in (0xffff_fff8u32..).zip(segments) {
            let segment = Segment {
                sequence: 0xffff_ffff,
                acknowledgment: 0x8000_0001,
                flags,
                payload,
            };
            let mut bytes = TCP_TEMPLATE;
            let stamp = 0xfedc_ba98_0000_ffff ^ u64::from(tag);
            fill_tcp(&mut bytes, &ETHERNET, ENDS, (tag, stamp), &segment);
            let (from, to) = ENDS;
            let seen = Seen {
                from,
                to,
                tag,
                segment,
            };
            assert_eq!(read(&bytes, Protocol::Tcp), Some(seen));
            let stamped = super::stamp(&bytes, Protocol::Tcp) == Some(stamp);
            assert_eq!(stamped, payload > 0);
            detects_changes(&bytes, Protocol::Tcp);
        }
        for tag in 0..70_000 {
            let mut bytes = UDP_TEMPLATE;
            fill_udp(&mut bytes, &ETHERNET, ENDS, tag, u64::from(tag) << 40);
            let seen = read(&bytes, Protocol::Udp).unwrap();
            assert_eq!((seen.from, seen.to, seen.tag), (ENDS.0, ENDS.1, tag));
            assert_eq!(stamp(&bytes, Protocol::Udp), Some(u64::from(tag) << 40));
            assert_ne!(bytes[40..42], [0, 0], "a UDP checksum of zero means none");
        }
    }

    fn detects_changes(frame: &[u8; STREAM], protocol: Protocol) {
        let end = IP + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        for at in 12..end {
            let mut changed = *frame;
            changed[at] ^= 0x10;
            assert_eq!(read(&changed, protocol), None, "byte {at}");
        }
    }
}
