//! What an ICMP error from the target's side says of a client's segment, told to the client: it sent less than the routers saw.

use super::segment::{Span, update, write_length};
use crate::Frame;
use crate::wire::checksum::Delta;
use crate::wire::{icmp, put, tcp, u16_at};

/// A packet in an error, where both are in the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// The message, from its ICMP header on.
    pub(crate) message: Span,
    /// Bytes of the quoted IP header.
    pub(crate) header: usize,
}

/// Where in a segment, and what.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Inserted<'a> {
    /// In front of the payload.
    Payload(&'a [u8]),
    /// In front of the options.
    Option(&'a [u8]),
}

impl Quoted {
    /// The quoted segment, as much as there is of it.
    pub(crate) fn segment(self, frame: &[u8]) -> &[u8] {
        frame
            .get(self.start() + self.header..self.message.end)
            .unwrap_or(&[])
    }

    /// Bytes of the packet's payload as sent, however much of it is quoted; `None` if the quote ends before what tells.
    pub(crate) fn payload_sent(self, frame: &[u8]) -> Option<usize> {
        let segment = self.segment(frame);
        (segment.len() > tcp::OFFSET)
            .then(|| self.sent(frame).saturating_sub(tcp::header_length(segment)))
    }

    /// Takes out what was inserted, as far as it is quoted; the lengths and checksums become those of the packet as it was. The error's
    /// own checksum is left to be made anew. The message gets shorter, and the frame is cut.
    pub(crate) fn take_out<F: Frame>(&mut self, frame: &mut F, inserted: Inserted<'_>) {
        let quote = self.start();
        let transport = quote + self.header;
        let sent = self.sent(frame.bytes());
        let segment = self.segment(frame.bytes());
        let (at, bytes) = match inserted {
            Inserted::Payload(bytes) => (tcp::header_length(segment), bytes),
            Inserted::Option(bytes) => (tcp::HEADER, bytes),
        };
        let quoted = segment.len();
        let Some(left) = sent.checked_sub(bytes.len()) else {
            return;
        };
        let mut delta = Delta::removed(bytes).and(Delta::word(sent as u16, left as u16));
        let all = frame.bytes_mut();
        let Some(segment) = all.get_mut(transport..self.message.end) else {
            return;
        };
        let from = (at + bytes.len()).min(quoted);
        let gone = from.saturating_sub(at);
        segment.copy_within(from.., from - gone);
        match inserted {
            Inserted::Option(_) => {
                let old = u16_at(segment, tcp::OFFSET);
                let new = old.wrapping_sub((bytes.len() as u16 / 4) << 12);
                put(segment, tcp::OFFSET, new.to_be_bytes());
                delta = delta.and(Delta::word(old, new));
            }
            Inserted::Payload(_) if segment.get(13).is_some_and(|flags| flags & tcp::URG != 0) => {
                let old = u16_at(segment, tcp::URGENT);
                let new = old.saturating_sub(bytes.len() as u16);
                put(segment, tcp::URGENT, new.to_be_bytes());
                delta = delta.and(Delta::word(old, new));
            }
            Inserted::Payload(_) => {}
        }
        if quoted >= tcp::CHECKSUM + 2 {
            update(segment, delta);
        }
        self.message.end -= gone;
        write_length(all.get_mut(quote..).unwrap_or(&mut []), self.header + left);
        self.message.write_length(all);
        frame.trim(self.message.end);
    }

    fn start(self) -> usize {
        self.message.start + icmp::HEADER
    }

    /// Bytes of the segment as it was sent, by the quoted IP header.
    fn sent(self, frame: &[u8]) -> usize {
        let packet = frame.get(self.start()..).unwrap_or(&[]);
        let total = match packet.first() {
            Some(first) if first >> 4 == 6 => usize::from(u16_at(packet, 4)) + 40,
            _ => usize::from(u16_at(packet, 2)),
        };
        total.saturating_sub(self.header)
    }
}
