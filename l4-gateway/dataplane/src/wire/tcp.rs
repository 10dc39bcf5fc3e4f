//! TCP headers and options (RFC 9293, RFC 7323, RFC 2018).

use super::checksum::Delta;
use super::{put, u16_at, u32_at};
use crate::DropReason;

/// The fixed part of the header, bytes.
pub(crate) const HEADER: usize = 20;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// Offset of the sequence number.
pub(crate) const SEQUENCE: usize = 4;
/// Offset of the acknowledgment number.
pub(crate) const ACKNOWLEDGMENT: usize = 8;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 16;

/// Checks a segment (header, options, payload) and returns its flags.
#[inline]
pub(crate) fn parse(segment: &[u8]) -> Result<u8, DropReason> {
    let fixed: &[u8; HEADER] = segment.first_chunk().ok_or(DropReason::BadTcp)?;
    let header = header_length(fixed);
    if header < HEADER || header > segment.len() {
        return Err(DropReason::BadTcp);
    }
    let flags = fixed[13] & (FIN | SYN | RST | ACK);
    if flags == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) {
        return Err(DropReason::BadTcpFlags);
    }
    Ok(flags)
}

#[inline]
fn header_length(fixed: &[u8; HEADER]) -> usize {
    usize::from(fixed[12] >> 4) * 4
}

/// Sequence numbers the segment occupies: its payload, SYN and FIN.
/// Zero of what is no segment.
pub(crate) fn occupies(segment: &[u8]) -> u32 {
    let Some(fixed) = segment.first_chunk() else {
        return 0;
    };
    let flags = fixed[13];
    let payload = segment.len().saturating_sub(header_length(fixed)) as u32;
    payload + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0)
}

/// The sequence number behind a segment of this length, bytes, with its header.
#[inline]
pub(crate) fn next(header: &[u8; HEADER], length: u32) -> u32 {
    let payload = length.wrapping_sub(header_length(header) as u32);
    let flags = header[13];
    u32_at(header, SEQUENCE)
        .wrapping_add(payload)
        .wrapping_add(u32::from(flags & FIN))
        .wrapping_add(u32::from(flags & SYN) >> 1)
}

/// Overwrites the timestamp option by NOPs; how that changes the checksum.
pub(crate) fn strip_timestamps(segment: &mut [u8]) -> Delta {
    let mut delta = Delta::NONE;
    each_option(segment, |segment, at, kind, length| {
        if kind == 8 && length == 10 {
            // Five words at `at`, replaced in two double words and one word; an odd start swaps halves.
            for double in [at, at + 4] {
                delta = delta.and(replace(segment, double, 0x0101_0101));
            }
            let old = u16_at(segment, at + 8);
            let word = Delta::double_at(at, u32::from(old), 0x0101);
            put(segment, at + 8, [1, 1]);
            delta = delta.and(word);
        }
    });
    delta
}

/// Moves the edges of SACK blocks by `-offset`; how that changes the checksum.
pub(crate) fn shift_sack(segment: &mut [u8], offset: u32) -> Delta {
    let mut delta = Delta::NONE;
    each_option(segment, |segment, at, kind, length| {
        if kind == 5 && length % 8 == 2 {
            for edge in (at + 2..at + length).step_by(4) {
                let moved = u32_at(segment, edge).wrapping_sub(offset);
                delta = delta.and(replace(segment, edge, moved));
            }
        }
    });
    delta
}

/// Calls `visit(segment, offset, kind, length)` for each option that lies within the header. Stops at the first that
/// doesn't parse: the receiver judges that.
fn each_option(segment: &mut [u8], mut visit: impl FnMut(&mut [u8], usize, u8, usize)) {
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let mut at = HEADER;
    while at < end {
        match segment[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let length = if at + 1 < end {
                    usize::from(segment[at + 1])
                } else {
                    0
                };
                if length < 2 || at + length > end {
                    return;
                }
                visit(segment, at, kind, length);
                at += length;
            }
        }
    }
}

fn replace(segment: &mut [u8], at: usize, new: u32) -> Delta {
    let old = u32_at(segment, at);
    put(segment, at, new.to_be_bytes());
    Delta::double_at(at, old, new)
}
