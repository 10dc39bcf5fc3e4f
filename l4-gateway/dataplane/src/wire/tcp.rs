//! TCP headers and options (RFC 9293, RFC 7323, RFC 2018).

use super::checksum::Delta;
use super::{put, u32_at};
use crate::DropReason;

/// The fixed part of the header, bytes.
pub(crate) const HEADER: usize = 20;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// No flag of a segment: it has options that are more than timestamps, as most segments of a connection have at most.
pub(crate) const OPTIONS: u8 = 0x40;

/// Offset of the sequence number.
pub(crate) const SEQUENCE: usize = 4;
/// Offset of the acknowledgment number.
pub(crate) const ACKNOWLEDGMENT: usize = 8;
/// Offset of the word that begins with the length of the header, in 4 bits and double words.
pub(crate) const OFFSET: usize = 12;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 16;
/// Offset of the urgent pointer.
pub(crate) const URGENT: usize = 18;

/// Kinds of options.
const END: u8 = 0;
pub(crate) const NOP: u8 = 1;
pub(crate) const MSS: u8 = 2;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// All of MPTCP's, told apart by what is in them (RFC 8684 3).
const MPTCP: u8 = 30;

/// Two NOPs and the timestamps, as RFC 7323 appendix A has it and everybody sends it.
const LONE_TIMESTAMPS: u32 = 0x0101_080a;

/// Checks a segment (header, options, payload) and returns its flags, with [`OPTIONS`].
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
    if header > HEADER && (header != HEADER + 12 || !has_lone_timestamps(segment)) {
        return Ok(flags | OPTIONS);
    }
    Ok(flags)
}

/// Whether the options of a segment with a header of 32 bytes are timestamps and nothing else.
#[inline]
pub(crate) fn has_lone_timestamps(segment: &[u8]) -> bool {
    u32_at(segment, HEADER) == LONE_TIMESTAMPS
}

/// Bytes of the header with its options, as it says itself. Zero of what is no segment.
#[inline]
pub(crate) fn header_length(segment: &[u8]) -> usize {
    segment
        .get(12)
        .map_or(0, |offset| usize::from(offset >> 4) * 4)
}

/// Sequence numbers the segment occupies: its payload, SYN and FIN.
/// Zero of what is no segment.
pub(crate) fn occupies(segment: &[u8]) -> u32 {
    let Some(fixed) = segment.first_chunk::<HEADER>() else {
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
        if kind == TIMESTAMPS && length == 10 {
            delta = delta.and(blank(segment, at, length));
        }
    });
    delta
}

/// Overwrites MPTCP's options by NOPs; how that changes the checksum.
pub(crate) fn strip_mptcp(segment: &mut [u8]) -> Delta {
    let mut delta = Delta::NONE;
    each_option(segment, |segment, at, kind, length| {
        if kind == MPTCP {
            delta = delta.and(blank(segment, at, length));
        }
    });
    delta
}

/// Moves the edges of SACK blocks by `-offset`; how that changes the checksum.
pub(crate) fn shift_sack(segment: &mut [u8], offset: u32) -> Delta {
    map_sack(segment, |edge| edge.wrapping_sub(offset))
}

/// Replaces the edges of SACK blocks; how that changes the checksum.
pub(crate) fn map_sack(segment: &mut [u8], map: impl Fn(u32) -> u32) -> Delta {
    let mut delta = Delta::NONE;
    each_option(segment, |segment, at, kind, length| {
        if kind == SACK && length % 8 == 2 {
            for edge in (at + 2..at + length).step_by(4) {
                let old = u32_at(segment, edge);
                let new = map(old);
                put(segment, edge, new.to_be_bytes());
                delta = delta.and(Delta::double(old, new).at(edge));
            }
        }
    });
    delta
}

/// Overwrites an option by NOPs; how that changes the checksum.
pub(crate) fn blank(segment: &mut [u8], at: usize, length: usize) -> Delta {
    let Some(option) = segment.get_mut(at..at + length) else {
        return Delta::NONE;
    };
    let removed = Delta::removed(option);
    option.fill(NOP);
    removed.and(Delta::added(option)).at(at)
}

/// Calls `visit(segment, offset, kind, length)` for each option that lies within the header. Stops at the first that
/// doesn't parse: the receiver judges that.
pub(crate) fn each_option(segment: &mut [u8], mut visit: impl FnMut(&mut [u8], usize, u8, usize)) {
    let end = header_length(segment).min(segment.len());
    let mut at = HEADER;
    while at < end {
        match segment[at] {
            END => return,
            NOP => at += 1,
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
