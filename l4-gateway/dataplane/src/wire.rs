//! The formats on the wire: parsing that trusts nothing, and writing in place.

pub(crate) mod arp;
pub(crate) mod checksum;
pub(crate) mod ethernet;
pub(crate) mod icmp;
pub(crate) mod ip;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod ndp;
pub(crate) mod tcp;
pub(crate) mod transport;
pub(crate) mod udp;

/// Reads a big-endian word; the caller has checked that it is there, a missing one reads as 0.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
}

/// Reads a big-endian double word; the caller has checked that it is there, a missing one reads as 0.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| {
        u32::from_be_bytes([word[0], word[1], word[2], word[3]])
    })
}

/// Overwrites bytes; the caller has checked that there is room, without it nothing is written.
#[inline]
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..at + N) {
        place.copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests;
