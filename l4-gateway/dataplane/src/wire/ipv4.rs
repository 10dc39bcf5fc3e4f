//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use super::checksum;
use super::ip::Ip;
use crate::DropReason;
use crate::family::V4;

/// The fixed part of the header, bytes.
pub(crate) const HEADER: usize = 20;

/// Offset of the identification in the header.
pub(crate) const IDENTIFICATION: usize = 4;
/// Offset of the word of flags and fragment offset.
pub(crate) const FRAGMENTATION: usize = 6;
/// In that word: no router may cut the packet.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// It is a fragment, and not the last.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Where it belongs in its packet, in eights of bytes.
pub(crate) const OFFSET: u16 = 0x1fff;

/// Protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;

/// Parses a packet that starts at the IP header.
#[inline]
pub(crate) fn parse(packet: &[u8]) -> Result<Ip<V4>, DropReason> {
    let fixed: &[u8; HEADER] = packet.first_chunk().ok_or(DropReason::Truncated)?;
    let ip = fields(fixed)?;
    if ip.total < ip.header || usize::from(ip.total) > packet.len() {
        return Err(DropReason::BadIpHeader);
    }
    let header = usize::from(ip.header);
    let sum = if header == HEADER {
        checksum::sum(fixed)
    } else {
        checksum::sum(&packet[..header])
    };
    if sum != 0xffff {
        return Err(DropReason::BadIpChecksum);
    }
    if header > HEADER {
        check_options(&packet[HEADER..header])?;
    }
    Ok(ip)
}

/// Parses the header of a packet that may be cut off behind it; nobody promised that its checksum is right.
pub(crate) fn parse_quoted(packet: &[u8]) -> Result<Ip<V4>, DropReason> {
    let fixed: &[u8; HEADER] = packet.first_chunk().ok_or(DropReason::Truncated)?;
    let ip = fields(fixed)?;
    if usize::from(ip.header) > packet.len() {
        return Err(DropReason::BadIpHeader);
    }
    Ok(ip)
}

#[inline]
fn fields(fixed: &[u8; HEADER]) -> Result<Ip<V4>, DropReason> {
    let header = u16::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || usize::from(header) < HEADER {
        return Err(DropReason::BadIpHeader);
    }
    let fragmentation = u16::from_be_bytes([fixed[6], fixed[7]]);
    Ok(Ip {
        header,
        total: u16::from_be_bytes([fixed[2], fixed[3]]),
        ttl: fixed[8],
        protocol: fixed[9],
        dont_fragment: fragmentation & DONT_FRAGMENT != 0,
        fragment: fragmentation & (MORE_FRAGMENTS | OFFSET) != 0,
        first: fragmentation & OFFSET == 0,
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
    })
}

/// Walks the options. Those that parse are carried along unread, but for source routes, which would steer around the
/// rewriting (and which RFC 7126 4.3 and 4.4 advise to drop).
fn check_options(options: &[u8]) -> Result<(), DropReason> {
    let mut rest = options;
    loop {
        rest = match rest {
            [] | [0, ..] => return Ok(()),
            [1, after @ ..] => after,
            [131 | 137, ..] => return Err(DropReason::BadIpOptions),
            [_, length, ..] if *length >= 2 => rest
                .get(usize::from(*length)..)
                .ok_or(DropReason::BadIpOptions)?,
            _ => return Err(DropReason::BadIpOptions),
        };
    }
}

/// A header without options for a packet made here.
pub(crate) fn header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: usize,
    ttl: u8,
) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((HEADER + payload) as u16).to_be_bytes());
    // So that the identification may be 0 (RFC 6864 4.1).
    header[FRAGMENTATION..FRAGMENTATION + 2].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8] = ttl;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = checksum::checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}
