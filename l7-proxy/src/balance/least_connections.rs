//! Weighted least connections: the backend with the fewest requests under way per unit of weight.

use super::Backend;
use super::round_robin::Turns;
use std::sync::Arc;

/// The index of the eligible backend with the lowest `active / weight`. Ties, which are the rule on an idle upstream, go by weighted
/// round robin, so that weights hold there too.
pub(super) fn choose(
    backends: &[Arc<Backend>],
    eligible: impl Fn(usize) -> bool,
    turns: &mut Turns,
) -> Option<usize> {
    // Counts move under us while we compare; each is read once so that the minimum and the tie are about the same numbers.
    let load: Vec<(u64, u64)> = backends
        .iter()
        .map(|backend| (u64::from(backend.active()), u64::from(backend.weight())))
        .collect();
    let lighter = |a: (u64, u64), b: (u64, u64)| (a.0 * b.1).cmp(&(b.0 * a.1));
    let lowest = (0..backends.len())
        .filter(|&index| eligible(index))
        .map(|index| load[index])
        .min_by(|a, b| lighter(*a, *b))?;
    turns.next(
        |index| backends[index].weight(),
        |index| eligible(index) && lighter(load[index], lowest).is_eq(),
    )
}
