//! Cutting an IPv4 packet that is longer than the link it leaves by (RFC 791 3.2).

use crate::wire::ipv4::{FRAGMENTATION, MORE_FRAGMENTS, OFFSET};
use crate::wire::{checksum, ipv4, put, u16_at};

/// Longest header, bytes.
const LONGEST: usize = 60;

/// Cuts a packet (without Ethernet header, `header` bytes of it the IP header) into fragments of at most `mtu` bytes, which `each`
/// gets in order as header and payload. A packet that is a fragment itself is cut further. False, and nothing is cut, if the
/// link is too small for any payload.
///
/// The caller has checked the header and that "don't fragment" isn't set.
pub(crate) fn cut(
    packet: &[u8],
    header: usize,
    mtu: u16,
    mut each: impl FnMut(&[u8], &[u8]),
) -> bool {
    let Some((first, payload)) = packet.split_at_checked(header) else {
        return false;
    };
    if !(ipv4::HEADER..=LONGEST).contains(&header) {
        return false;
    }
    let mut later = [0; LONGEST];
    let later_length = later_header(first, &mut later);
    let word = u16_at(first, FRAGMENTATION);
    let (base, more) = (word & OFFSET, word & MORE_FRAGMENTS);
    let room = |header: usize| usize::from(mtu).saturating_sub(header) & !7;
    if room(header) == 0 {
        return false;
    }
    let mut done = 0;
    while done < payload.len() {
        let mut own = later;
        let length = if done == 0 {
            own[..header].copy_from_slice(first);
            header
        } else {
            later_length
        };
        let left = payload.len() - done;
        // What is left fits whole, whether it fills eights or not.
        let is_last = length + left <= usize::from(mtu);
        let take = if is_last { left } else { room(length) };
        let own = &mut own[..length];
        own[0] = 0x40 | (length / 4) as u8;
        put(own, 2, ((length + take) as u16).to_be_bytes());
        let offset = base.wrapping_add((done / 8) as u16) & OFFSET;
        let more = if is_last { more } else { MORE_FRAGMENTS };
        put(own, FRAGMENTATION, (offset | more).to_be_bytes());
        put(own, 10, [0, 0]);
        let sum = checksum::checksum(own);
        put(own, 10, sum.to_be_bytes());
        each(own, &payload[done..done + take]);
        done += take;
    }
    true
}

/// The header of all fragments but the first: of the options those go along whose copied flag is set. Its length.
fn later_header(first: &[u8], later: &mut [u8; LONGEST]) -> usize {
    later[..ipv4::HEADER].copy_from_slice(&first[..ipv4::HEADER]);
    let mut end = ipv4::HEADER;
    let mut rest = &first[ipv4::HEADER..];
    loop {
        let length = match rest {
            [] | [0, ..] => break,
            [1, ..] => 1,
            [_, length, ..] if (2..=rest.len()).contains(&usize::from(*length)) => {
                usize::from(*length)
            }
            // Checked on receipt.
            _ => break,
        };
        let (option, behind) = rest.split_at(length);
        if option[0] & 0x80 != 0 {
            later[end..end + length].copy_from_slice(option);
            end += length;
        }
        rest = behind;
    }
    // What is left of the last word ends the list (option 0).
    end.next_multiple_of(4)
}
