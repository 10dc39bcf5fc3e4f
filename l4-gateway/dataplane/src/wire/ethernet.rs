//! Ethernet II headers.

use crate::MacAddr;
use crate::limits::ETHERNET_HEADER;

/// EtherType of IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub(crate) const ARP: u16 = 0x0806;

/// EtherType of a VLAN tag, which stands between the addresses and the EtherType of the payload (IEEE 802.1Q-2022 9.5).
pub(crate) const VLAN: u16 = 0x8100;
/// Where a tag stands in the frame, and its bytes.
pub(crate) const TAG: (usize, usize) = (12, 4);

/// Whether a tag, from behind its EtherType on, has the null VLAN: it says a priority and nothing else (IEEE 802.1Q-2022 table 9-2).
pub(crate) fn is_priority_tag(tag: &[u8]) -> bool {
    tag.first_chunk()
        .is_some_and(|word| u16::from_be_bytes(*word) & 0x0fff == 0)
}

/// The first 14 bytes of a frame.
pub(crate) type Header = [u8; ETHERNET_HEADER];

#[inline]
pub(crate) fn source(header: &Header) -> MacAddr {
    let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *header;
    MacAddr([a, b, c, d, e, f])
}

#[inline]
pub(crate) fn ether_type(header: &Header) -> u16 {
    u16::from_be_bytes([header[12], header[13]])
}

/// The group bit of an address as a number ([`MacAddr::number`]).
pub(crate) const GROUP: u64 = 1 << 40;

/// Destination and source as numbers ([`MacAddr::number`]), and the EtherType.
#[inline]
pub(crate) fn numbers(header: &Header) -> (u64, u64, u16) {
    // Both are there: a header is longer than either.
    let first = header
        .first_chunk()
        .map_or(0, |word| u64::from_be_bytes(*word));
    let last = header
        .last_chunk()
        .map_or(0, |word| u64::from_be_bytes(*word));
    (first >> 16, last >> 16, last as u16)
}

/// The header of a frame between two stations.
pub(crate) fn header(destination: MacAddr, source: MacAddr, ether_type: u16) -> Header {
    let mut header = [0; ETHERNET_HEADER];
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
    header
}
