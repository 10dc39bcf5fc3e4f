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
    /// Where the quote ends in the frame. More stands behind it in extended messages (RFC 4884 4), which stays where it is.
    end: usize,
    /// Bytes of the quoted IP header.
    header: usize,
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
    /// In a message whose quote is `length` bytes long, `header` of them the IP header; `None`: all that is left of the message.
    pub(crate) fn new(message: Span, length: Option<usize>, header: usize) -> Self {
        let quote = message.start + icmp::HEADER;
        let end = length.map_or(message.end, |length| message.end.min(quote + length));
        Self {
            message,
            end,
            header,
        }
    }

    /// The quoted segment, as much as there is of it.
    pub(crate) fn segment(self, frame: &[u8]) -> &[u8] {
        frame
            .get(self.start() + self.header..self.end)
            .unwrap_or(&[])
    }

    /// Whether the packet as sent can hold `inserted`. A quote may be too short to show it, or how long the segment's own header is
    /// (RFC 792: 8 bytes of it); then what is long enough is taken to hold it.
    pub(crate) fn can_hold(self, frame: &[u8], inserted: Inserted<'_>) -> bool {
        let segment = self.segment(frame);
        let header = (segment.len() > tcp::OFFSET).then(|| tcp::header_length(segment));
        let sent = self.sent(frame);
        match inserted {
            Inserted::Payload(bytes) => sent >= header.unwrap_or(tcp::HEADER) + bytes.len(),
            Inserted::Option(bytes) => {
                let shown = segment.get(tcp::HEADER..).unwrap_or(&[]);
                header.unwrap_or(sent).min(sent) >= tcp::HEADER + bytes.len()
                    && bytes.starts_with(&shown[..shown.len().min(bytes.len())])
            }
        }
    }

    /// Takes out what was inserted, as far as it is quoted; the lengths and checksums become those of the packet as it was. The error's
    /// own checksum is left to be made anew. The message gets shorter, and the frame is cut; in an extended one the quote is padded by
    /// zeros instead (RFC 4884 4).
    pub(crate) fn take_out<F: Frame>(&mut self, frame: &mut F, inserted: Inserted<'_>) {
        let quote = self.start();
        let transport = quote + self.header;
        let sent = self.sent(frame.bytes());
        let segment = self.segment(frame.bytes());
        let quoted = segment.len();
        let (at, bytes) = match inserted {
            Inserted::Payload(bytes) if quoted > tcp::OFFSET => {
                (tcp::header_length(segment), bytes)
            }
            Inserted::Payload(bytes) => (quoted, bytes),
            Inserted::Option(bytes) => (tcp::HEADER, bytes),
        };
        let Some(left) = sent.checked_sub(bytes.len()) else {
            return;
        };
        let mut delta = Delta::removed(bytes).and(Delta::word(sent as u16, left as u16));
        let all = frame.bytes_mut();
        let Some(segment) = all.get_mut(transport..self.end) else {
            return;
        };
        let from = (at + bytes.len()).min(quoted);
        let gone = from.saturating_sub(at);
        segment.copy_within(from.., from - gone);
        match inserted {
            Inserted::Option(_) if quoted >= tcp::OFFSET + 2 => {
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
            Inserted::Payload(_) | Inserted::Option(_) => {}
        }
        if quoted >= tcp::CHECKSUM + 2 {
            update(segment, delta);
        }
        if self.end < self.message.end {
            segment[quoted - gone..].fill(0);
        } else {
            self.message.end -= gone;
            self.end = self.message.end;
        }
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
