//! What connect attempts of the last second told of each target: facts for whoever judges its health, beside what probes find.

use dataplane::{TargetCounts, TargetId};
use serde::Serialize;

use crate::by_number::ByNumber;

/// What clients met at a target between two ticks, a second apart. All zeros, but for the flows, where answers don't pass here (DR, tunnels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Attempts {
    /// Flows created.
    pub flows_created: u64,
    /// SYNs it left unanswered.
    pub syns_unanswered: u64,
    /// SYNs it answered by RST.
    pub syns_refused: u64,
    /// ICMP errors that say it can't be reached.
    pub unreachable: u64,
}

/// The attempts of the last second, by target.
#[derive(Debug, Default)]
pub struct LastSecond {
    /// Each target's counters at the last look, and what they had risen by.
    known: ByNumber<(Attempts, Attempts)>,
}

impl LastSecond {
    /// Looks at the counters of all targets, each second. One that is new begins at nothing, as it may have another's number.
    pub fn look(&mut self, all: impl Iterator<Item = (TargetId, TargetCounts)>) {
        self.known.begin();
        for (target, counts) in all {
            let now = Attempts::from(counts);
            self.known.note(&target, |before| {
                let risen = before.map_or_else(Attempts::default, |(before, _)| now.since(before));
                (now, risen)
            });
        }
    }

    /// What the last second told; zeros for what was not looked at twice.
    pub fn of(&self, target: &TargetId) -> Attempts {
        self.known
            .of(target)
            .map(|(_, risen)| *risen)
            .unwrap_or_default()
    }
}

impl Attempts {
    /// Counters wrap.
    fn since(&self, before: &Attempts) -> Attempts {
        Attempts {
            flows_created: self.flows_created.wrapping_sub(before.flows_created),
            syns_unanswered: self.syns_unanswered.wrapping_sub(before.syns_unanswered),
            syns_refused: self.syns_refused.wrapping_sub(before.syns_refused),
            unreachable: self.unreachable.wrapping_sub(before.unreachable),
        }
    }
}

impl From<TargetCounts> for Attempts {
    fn from(counts: TargetCounts) -> Attempts {
        Attempts {
            flows_created: counts.flows_created,
            syns_unanswered: counts.syns_unanswered,
            syns_refused: counts.syns_refused,
            unreachable: counts.unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(n: u64) -> TargetCounts {
        TargetCounts {
            flows_created: n,
            syns_unanswered: n.wrapping_mul(2),
            syns_refused: n.wrapping_mul(3),
            unreachable: n.wrapping_mul(4),
            ..TargetCounts::default()
        }
    }

    fn attempts(n: u64) -> Attempts {
        Attempts::from(counts(n))
    }

    #[test]
    fn a_second_has_what_came_in_it_and_no_more() {
        let mut last = LastSecond::default();
        for (total, expected) in [(100, 0), (107, 7), (107, 0), (110, 3)] {
            last.look([(TargetId(1), counts(total))].into_iter());
            assert_eq!(last.of(&TargetId(1)), attempts(expected), "at {total}");
        }
        assert_eq!(last.of(&TargetId(2)), Attempts::default());
    }

    #[test]
    fn what_was_gone_begins_at_nothing_and_counters_may_wrap() {
        let mut last = LastSecond::default();
        for (total, expected) in [(Some(5), 0), (None, 0), (Some(50), 0), (Some(51), 1)] {
            last.look(total.map(|total| (TargetId(1), counts(total))).into_iter());
            assert_eq!(last.of(&TargetId(1)), attempts(expected), "at {total:?}");
        }
        last.look([(TargetId(1), counts(u64::MAX))].into_iter());
        last.look([(TargetId(1), counts(1))].into_iter());
        assert_eq!(last.of(&TargetId(1)), attempts(2));
    }
}
