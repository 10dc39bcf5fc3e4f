//! The maximum segment size (RFC 9293 3.7.1) that a target tells a client: less what is put into the client's segments, so that they
//! fit as they did. The client's own is left alone, as nothing is put into what it gets.

use super::segment::{Span, update};
use crate::Frame;
use crate::limits::LEAST_MSS;
use crate::wire::checksum::Delta;
use crate::wire::{put, tcp, u16_at};

/// The option with its kind and length, bytes.
const OPTION: usize = 4;

/// What a client's segments may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// What holds if the target says nothing: 536 for IPv4, 1220 for IPv6.
    pub(crate) default: u16,
    /// What passes the link to the target.
    pub(crate) most: u16,
    /// What is put into a segment.
    pub(crate) inserted: u16,
}

impl Room {
    /// Of what a target announces.
    fn left(self, announced: u16) -> u16 {
        let left = announced.min(self.most).saturating_sub(self.inserted);
        left.max(LEAST_MSS.min(announced))
    }
}

/// Lowers the size in a target's SYN-ACK. One without the option gets it, if there is room.
pub(crate) fn lower<F: Frame>(frame: &mut F, place: &mut Span, room: Room) {
    let mut found = false;
    let mut delta = Delta::NONE;
    let segment = place.of_mut(frame.bytes_mut());
    tcp::each_option(segment, |segment, at, kind, length| {
        if kind == tcp::MSS && length == OPTION {
            let old = u16_at(segment, at + 2);
            let new = room.left(old);
            put(segment, at + 2, new.to_be_bytes());
            delta = delta.and(Delta::word(old, new).at(at));
            found = true;
        }
    });
    update(segment, delta);
    if !found {
        let [high, low] = room.left(room.default).to_be_bytes();
        place.insert_option(frame, &[tcp::MSS, OPTION as u8, high, low]);
    }
}
