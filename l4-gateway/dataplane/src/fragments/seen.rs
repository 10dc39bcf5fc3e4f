//! Which bytes of a fragmented packet have been seen.

use crate::DropReason;
use crate::limits::FRAGMENT_SPANS;

/// The bytes seen, in spans that neither overlap nor touch, sorted; and where the packet ends, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    spans: [Span; FRAGMENT_SPANS],
    count: u8,
    end: Option<u16>,
}

/// From the first byte up to, not including, the second.
type Span = (u16, u16);

impl Seen {
    pub(super) const NOTHING: Seen = Seen {
        spans: [(0, 0); FRAGMENT_SPANS],
        count: 0,
        end: None,
    };

    /// Adds the bytes from `start` up to `end`, the packet's last if `last`. Nothing is changed by what can't be added.
    pub(super) fn add(&mut self, start: u16, end: u16, last: bool) -> Result<(), DropReason> {
        let beyond = match (self.end, last) {
            (Some(known), true) => known != end,
            // The last fragment, which has been seen, has bytes of its own: this one must end before the packet does.
            (Some(known), false) => end >= known,
            (None, true) => self.seen().last().is_some_and(|(_, seen)| *seen > end),
            (None, false) => false,
        };
        let place = self.seen().partition_point(|(_, seen)| *seen < start);
        let touched = self.seen()[place..].partition_point(|(seen, _)| *seen <= end);
        let overlaps = |(from, to): &Span| *from < end && start < *to;
        if beyond || self.seen()[place..place + touched].iter().any(overlaps) {
            return Err(DropReason::FragmentOverlap);
        }
        let count = usize::from(self.count);
        match touched {
            0 if count == FRAGMENT_SPANS => return Err(DropReason::FragmentNoRoom),
            0 => {
                self.spans.copy_within(place..count, place + 1);
                self.spans[place] = (start, end);
                self.count += 1;
            }
            1 => {
                let (from, to) = &mut self.spans[place];
                (*from, *to) = ((*from).min(start), (*to).max(end));
            }
            // Touches the one before and the one behind: two spans become one.
            _ => {
                self.spans[place].1 = self.spans[place + 1].1;
                self.spans.copy_within(place + 2..count, place + 1);
                self.count -= 1;
            }
        }
        if last {
            self.end = Some(end);
        }
        debug_assert!(self.seen().is_sorted_by(|(_, a), (b, _)| a < b));
        Ok(())
    }

    /// Whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.end.is_some_and(|end| *self.seen() == [(0, end)])
    }

    fn seen(&self) -> &[Span] {
        &self.spans[..usize::from(self.count)]
    }
}
