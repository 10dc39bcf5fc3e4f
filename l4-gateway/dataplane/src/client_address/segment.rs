//! A TCP segment in a frame, made longer or shorter: with its lengths and checksums, which are updated and not computed anew.

use crate::Frame;
use crate::limits::{ETHERNET_HEADER, TCP_OPTIONS};
use crate::wire::checksum::Delta;
use crate::wire::{put, tcp, u16_at};

/// Where a frame's segment is, bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    /// The frame may go on behind it: padding.
    pub(crate) end: usize,
}

impl Span {
    pub(crate) fn of(self, frame: &[u8]) -> &[u8] {
        frame.get(self.start..self.end).unwrap_or(&[])
    }

    pub(crate) fn of_mut(self, frame: &mut [u8]) -> &mut [u8] {
        frame.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// Puts `bytes`, an even number of them, in front of the payload. False, and nothing is changed, if the frame has no room.
    pub(crate) fn insert_payload<F: Frame>(&mut self, frame: &mut F, bytes: &[u8]) -> bool {
        let header = tcp::header_length(self.of(frame.bytes()));
        let inserted = self.insert(frame, header, bytes);
        let segment = self.of_mut(frame.bytes_mut());
        if inserted && segment.get(13).is_some_and(|flags| flags & tcp::URG != 0) {
            // Counts from the sequence number, which stays.
            let old = u16_at(segment, tcp::URGENT);
            let new = old.saturating_add(bytes.len() as u16);
            put(segment, tcp::URGENT, new.to_be_bytes());
            update(segment, Delta::word(old, new));
        }
        inserted
    }

    /// Puts an option of a multiple of 4 bytes in front of the others, where a reader comes first. False, and nothing is changed, if
    /// the header or the frame has no room.
    pub(crate) fn insert_option<F: Frame>(&mut self, frame: &mut F, option: &[u8]) -> bool {
        let header = tcp::header_length(self.of(frame.bytes()));
        if header + option.len() > tcp::HEADER + TCP_OPTIONS
            || !self.insert(frame, tcp::HEADER, option)
        {
            return false;
        }
        let segment = self.of_mut(frame.bytes_mut());
        let old = u16_at(segment, tcp::OFFSET);
        let new = old.wrapping_add((option.len() as u16 / 4) << 12);
        put(segment, tcp::OFFSET, new.to_be_bytes());
        update(segment, Delta::word(old, new));
        true
    }

    /// Cuts the payload off.
    pub(crate) fn cut_payload<F: Frame>(&mut self, frame: &mut F) {
        let segment = self.of_mut(frame.bytes_mut());
        let (before, header) = (segment.len(), tcp::header_length(segment));
        let Some(payload) = segment.get(header..).filter(|payload| !payload.is_empty()) else {
            return;
        };
        let delta = Delta::removed(payload).and(Delta::word(before as u16, header as u16));
        update(segment, delta);
        self.end = self.start + header;
        self.write_length(frame.bytes_mut());
        frame.trim(self.end);
    }

    fn insert<F: Frame>(&mut self, frame: &mut F, at: usize, bytes: &[u8]) -> bool {
        debug_assert!(
            bytes.len().is_multiple_of(2),
            "the words behind would change places"
        );
        let before = self.end - self.start;
        let after = before + bytes.len();
        if ETHERNET_HEADER + usize::from(u16::MAX) < self.end + bytes.len()
            || !frame.make_room(self.start + at, bytes.len())
        {
            return false;
        }
        self.end += bytes.len();
        let segment = self.of_mut(frame.bytes_mut());
        if let Some(room) = segment.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        // The length is in the pseudo header.
        update(
            segment,
            Delta::added(bytes).and(Delta::word(before as u16, after as u16)),
        );
        self.write_length(frame.bytes_mut());
        true
    }

    /// Writes the length into the IP header of the frame's packet.
    pub(super) fn write_length(self, frame: &mut [u8]) {
        let packet = frame.get_mut(ETHERNET_HEADER..).unwrap_or(&mut []);
        write_length(packet, self.end - ETHERNET_HEADER);
    }
}

/// Writes the length of a packet, with its header, into that, of whichever version it is.
pub(super) fn write_length(packet: &mut [u8], total: usize) {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        // Without the fixed header (RFC 8200 3).
        put(packet, 4, (total.saturating_sub(40) as u16).to_be_bytes());
    } else {
        let (old, new) = (u16_at(packet, 2), total as u16);
        put(packet, 2, new.to_be_bytes());
        Delta::word(old, new).apply_at(packet, 10);
    }
}

/// Applies a change to the segment's checksum.
pub(crate) fn update(segment: &mut [u8], delta: Delta) {
    delta.apply_at(segment, tcp::CHECKSUM);
}
