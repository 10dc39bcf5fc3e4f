//! IPv6 headers and extension headers (RFC 8200).

use std::net::Ipv6Addr;

use super::ip::Ip;
use super::u16_at;
use crate::DropReason;
use crate::family::V6;
use crate::limits::EXTENSION_HEADERS;

/// The fixed header, bytes.
pub(crate) const HEADER: usize = 40;

/// Protocol number of ICMPv6.
pub(crate) const ICMP: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Parses a packet that starts at the IP header.
#[inline]
pub(crate) fn parse(packet: &[u8]) -> Result<Ip<V6>, DropReason> {
    let ip = parse_fixed(packet)?;
    if usize::from(ip.total) > packet.len() {
        return Err(DropReason::BadIpHeader);
    }
    if is_extension(ip.protocol) {
        return walk(&packet[..usize::from(ip.total)], ip);
    }
    Ok(ip)
}

/// Parses the header of a packet that may be cut off behind its extension headers.
pub(crate) fn parse_quoted(packet: &[u8]) -> Result<Ip<V6>, DropReason> {
    walk(packet, parse_fixed(packet)?)
}

#[inline]
fn parse_fixed(packet: &[u8]) -> Result<Ip<V6>, DropReason> {
    let fixed: &[u8; HEADER] = packet.first_chunk().ok_or(DropReason::Truncated)?;
    // A payload length of 0 is right without payload only: jumbograms (RFC 2675) aren't for this network.
    let total = u16::from_be_bytes([fixed[4], fixed[5]]).checked_add(HEADER as u16);
    let (Some(total), 6) = (total, fixed[0] >> 4) else {
        return Err(DropReason::BadIpHeader);
    };
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    Ok(Ip {
        header: HEADER as u16,
        total,
        ttl: fixed[7],
        protocol: fixed[6],
        dont_fragment: true,
        fragment: false,
        first: true,
        source: address(8),
        destination: address(24),
    })
}

#[inline]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
    )
}

/// Walks the extension headers. Options are carried along unread. Refused are routes that are not at their end, and type 0 at all
/// (RFC 5095): they would steer around the rewriting, as IPv4 source routes would; and a fragment of a fragment. Of a later fragment nothing
/// behind the fragment header can be read.
#[cold]
fn walk(packet: &[u8], mut ip: Ip<V6>) -> Result<Ip<V6>, DropReason> {
    let mut at = HEADER;
    let mut is_part = false;
    for count in 0.. {
        if !is_extension(ip.protocol) {
            break;
        }
        let header: &[u8; 8] = packet
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(DropReason::BadExtensionHeader)?;
        if count == EXTENSION_HEADERS || ip.protocol == HOP_BY_HOP && count > 0 {
            return Err(DropReason::BadExtensionHeader);
        }
        let (next, in_eights) = (header[0], header[1]);
        match ip.protocol {
            // Type and segments left.
            ROUTING if header[2] == 0 || header[3] != 0 => {
                return Err(DropReason::BadExtensionHeader);
            }
            // No sender makes two, and each would say something else of what is behind it.
            FRAGMENT if std::mem::replace(&mut is_part, true) => {
                return Err(DropReason::BadExtensionHeader);
            }
            FRAGMENT => {
                let word = u16_at(header, 2);
                // A packet in one fragment is whole (RFC 6946).
                ip.fragment = word & 0xfff9 != 0;
                at += 8;
                if word & 0xfff8 != 0 {
                    ip.first = false;
                    ip.protocol = next;
                    break;
                }
            }
            _ => at += 8 + 8 * usize::from(in_eights),
        }
        ip.protocol = next;
    }
    if at > packet.len() {
        return Err(DropReason::BadExtensionHeader);
    }
    ip.header = u16::try_from(at).map_err(|_| DropReason::BadExtensionHeader)?;
    Ok(ip)
}

/// Where the fragment header of a fragment stands that [`parse`] took.
pub(crate) fn fragment_header(packet: &[u8]) -> Option<u16> {
    let mut at = HEADER;
    let mut protocol = *packet.get(6)?;
    for _ in 0..=EXTENSION_HEADERS {
        if protocol == FRAGMENT {
            return u16::try_from(at).ok();
        }
        if !is_extension(protocol) {
            return None;
        }
        protocol = *packet.get(at)?;
        at += 8 + 8 * usize::from(*packet.get(at + 1)?);
    }
    None
}

/// A header without extension headers for a packet made here.
pub(crate) fn header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload: usize,
    hop_limit: u8,
) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    header[6] = protocol;
    header[7] = hop_limit;
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// The solicited-node multicast address of an address (RFC 4291 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let last = u128::from(0xff00_0000u32) | address.to_bits() & 0x00ff_ffff;
    Ipv6Addr::from_bits(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0, 0).to_bits() | last)
}

/// All nodes of a link (RFC 4291 2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
