//! One VLAN tag (IEEE 802.1Q), taken off frames that come in and put on those that leave: the data plane sees none. What has no tag, or one
//! that only says a priority (number 0), is in the network of the wire that has no number: not this port's.

use dataplane::Frame;

use crate::dpdk::Mbuf;

/// Where the tag stands: behind both addresses.
const AT: usize = 12;
/// Bytes of a tag: its type, then priority and number.
const TAG: usize = 4;
const TYPE: [u8; 2] = [0x81, 0x00];
/// The number within the tag's second half; the bits above are the priority.
const NUMBER: u16 = 0x0fff;

/// The VLAN of a port, 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan(u16);

impl Vlan {
    /// Numbers that a VLAN can have; 0 says priority only, and 4095 is reserved (IEEE 802.1Q-2022 table 9-2).
    pub const NUMBERS: std::ops::RangeInclusive<u16> = 1..=4094;

    /// None for a number that no VLAN can have.
    pub fn new(number: u16) -> Option<Vlan> {
        Vlan::NUMBERS.contains(&number).then_some(Vlan(number))
    }

    /// Takes the tags off; frames with another one or none are freed. How many those were.
    pub(super) fn take_off(self, frames: &mut Vec<Mbuf>) -> u64 {
        let before = frames.len();
        frames.retain_mut(|frame| self.is_on(frame.bytes()) && frame.cut(AT, TAG));
        (before - frames.len()) as u64
    }

    /// Puts the tag on; frames without room for it are freed. How many those were.
    pub(super) fn put_on(self, frames: &mut Vec<Mbuf>) -> u64 {
        let before = frames.len();
        frames.retain_mut(|frame| {
            let room = frame.make_room(AT, TAG);
            if let Some(tag) = frame.bytes_mut().get_mut(AT..AT + TAG).filter(|_| room) {
                tag[..2].copy_from_slice(&TYPE);
                tag[2..].copy_from_slice(&self.0.to_be_bytes());
            }
            room
        });
        (before - frames.len()) as u64
    }

    /// Whether a frame has this tag.
    pub(crate) fn is_on(self, frame: &[u8]) -> bool {
        let tag = frame.get(AT..).and_then(|rest| rest.first_chunk::<TAG>());
        tag.is_some_and(|[t0, t1, n0, n1]| {
            [*t0, *t1] == TYPE && u16::from_be_bytes([*n0, *n1]) & NUMBER == self.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_by_type_and_number_whatever_its_priority() {
        let vlan = Vlan::new(100).unwrap();
        let frame = |tag: [u8; 4]| [&[0; 12][..], &tag, &[8, 0, 1]].concat();
        for (tag, on) in [
            ([0x81, 0, 0, 100], true),
            ([0x81, 0, 0xe0, 100], true),
            ([0x81, 0, 0x01, 100], false),
            ([0x81, 0, 0, 0], false),
            ([0x81, 0, 0xa0, 0], false),
            ([0x88, 0xa8, 0, 100], false),
            ([0x08, 0, 0, 100], false),
        ] {
            assert_eq!(vlan.is_on(&frame(tag)), on, "{tag:?}");
        }
        assert!(!vlan.is_on(&frame([0x81, 0, 0, 100])[..15]));
        assert_eq!([Vlan::new(0), Vlan::new(4095)], [None, None]);
    }
}
