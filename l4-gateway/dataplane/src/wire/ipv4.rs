//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use super::checksum;
use crate::DropReason;

/// The fixed part of the header, bytes.
pub(crate) const HEADER: usize = 20;

/// Protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// What the forwarder needs of a header that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ipv4 {
    /// Bytes of the header with its options, 20 to 60.
    pub(crate) header: u8,
    /// Bytes of header and payload; the frame may be longer (Ethernet padding).
    pub(crate) total: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) dont_fragment: bool,
    /// Part of a fragmented packet.
    pub(crate) fragment: bool,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Ipv4 {
    /// Parses a packet that starts at the IP header.
    #[inline]
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; HEADER] = packet.first_chunk().ok_or(DropReason::Truncated)?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let total = u16::from_be_bytes([fixed[2], fixed[3]]);
        if fixed[0] >> 4 != 4
            || header < HEADER
            || usize::from(total) < header
            || usize::from(total) > packet.len()
        {
            return Err(DropReason::BadIpHeader);
        }
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
        let fragmentation = u16::from_be_bytes([fixed[6], fixed[7]]);
        Ok(Self {
            header: header as u8,
            total,
            ttl: fixed[8],
            protocol: fixed[9],
            dont_fragment: fragmentation & 0x4000 != 0,
            fragment: fragmentation & 0x3fff != 0,
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
        })
    }
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
    header[6] = 0x40; // don't fragment, so that the identification may be 0 (RFC 6864 4.1)
    header[8] = ttl;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = checksum::checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}
