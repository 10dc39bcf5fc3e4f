//! UDP headers (RFC 768).

use super::u16_at;
use crate::DropReason;
use crate::family::Family;

/// The header, bytes.
pub(crate) const HEADER: usize = 8;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 6;

/// Checks a datagram: the header is there, its length lies between the header and what IP carried, and it has a checksum where
/// IP has none.
#[inline]
pub(crate) fn parse<V: Family>(datagram: &[u8]) -> Result<(), DropReason> {
    if usize::from(u16_at(datagram, 4)) > datagram.len() {
        return Err(DropReason::BadUdp);
    }
    parse_start::<V>(datagram)
}

/// As [`parse`] of the first fragment of a datagram, which may be longer than it.
#[inline]
pub(crate) fn parse_start<V: Family>(datagram: &[u8]) -> Result<(), DropReason> {
    if datagram.len() < HEADER || usize::from(u16_at(datagram, 4)) < HEADER {
        return Err(DropReason::BadUdp);
    }
    if !V::UDP_MAY_BE_UNCHECKED && u16_at(datagram, CHECKSUM) == 0 {
        return Err(DropReason::UdpUnchecked);
    }
    Ok(())
}
