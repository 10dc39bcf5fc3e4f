//! UDP headers (RFC 768).

use super::u16_at;
use crate::DropReason;

/// The header, bytes.
pub(crate) const HEADER: usize = 8;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 6;

/// Checks a datagram: the header is there, and its length lies between the header and what IP carried.
#[inline]
pub(crate) fn parse(datagram: &[u8]) -> Result<(), DropReason> {
    let length = usize::from(u16_at(datagram, 4));
    if datagram.len() < HEADER || length < HEADER || length > datagram.len() {
        return Err(DropReason::BadUdp);
    }
    Ok(())
}
