//! Weighted least connections: the backend with the fewest requests under way per unit of weight.

use super::round_robin::Turns;
use crate::upstream::Member;
use std::cmp::Ordering;

/// Requests under way and weight of each backend, as read for one choice. Kept between choices for its memory.
#[derive(Debug, Default)]
pub(super) struct Loads(Vec<(u64, u64)>);

impl Loads {
    /// The index of the eligible backend with the lowest `active / weight`. Ties, which are the rule on an idle upstream, go by weighted
    /// round robin, so that weights hold there too.
    pub(super) fn choose(
        &mut self,
        members: &[Member],
        eligible: impl Fn(usize) -> bool,
        turns: &mut Turns,
    ) -> Option<usize> {
        // Counts move under us while we compare; each is read once so that the minimum and the ties are about the same numbers.
        self.0.clear();
        self.0.extend(
            members
                .iter()
                .map(|member| (u64::from(member.backend.active()), u64::from(member.weight))),
        );
        let loads = &self.0;
        let lowest = (0..loads.len())
            .filter(|&index| eligible(index))
            .min_by(|&a, &b| compare(loads[a], loads[b]))?;
        let tied = |index: usize| eligible(index) && compare(loads[index], loads[lowest]).is_eq();
        turns.next(|index| members[index].weight, tied)
    }
}

/// Compares `active / weight` without dividing.
fn compare(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (a.0 * b.1).cmp(&(b.0 * a.1))
}
