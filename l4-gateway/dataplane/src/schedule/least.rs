//! Least connections.
//!
//! How many flows a target has is what all workers together have given it: a load for each worker, of cache lines that others are
//! writing. Up to [`ASKED_ALL`] targets all are asked, and the choice is exact. Of more, [`ASKED`] drawn at random are: what a SYN costs
//! doesn't grow with the service, and the fullest target is hardly above the mean (the power of d choices: Azar, Broder, Karlin, Upfal,
//! "Balanced allocations", 1999: log log n / log d above it). An empty target among many is then not flooded either: it gets
//! [`ASKED`] times its share until it is as full as the others.

use crate::ids::TargetId;
use crate::limits::{ASKED, ASKED_ALL};

/// Whether a service of so many targets has a plan to draw from, in proportion to weights: a heavy target asked no more often than a
/// light one would never get its share.
pub(super) fn draws(targets: usize) -> bool {
    targets > ASKED_ALL
}

/// The place of the target with the fewest flows per weight among those that are asked, counting the one about to come. `plan` holds
/// places in proportion to weights; an empty one, each once.
pub(super) fn place(
    eligible: &[TargetId],
    plan: &[u16],
    cursor: &mut u32,
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
) -> Option<usize> {
    if !draws(eligible.len()) {
        // Of equals the one whose turn it is, or those that are always empty would never have a flow but the first.
        let first = super::turn(cursor, eligible.len())?;
        let places = (first..eligible.len()).chain(0..first);
        let place = least(places, eligible, flows, weight)?;
        *cursor = (place + 1) as u32;
        return Some(place);
    }
    let turns = if plan.is_empty() {
        eligible.len()
    } else {
        plan.len()
    };
    let drawn = (1..=ASKED as u64).map(|draw| {
        let random = scrambled(u64::from(*cursor) * ASKED as u64 + draw) >> 32;
        let turn = ((random * turns as u64) >> 32) as usize;
        plan.get(turn).map_or(turn, super::place_of)
    });
    let place = least(drawn, eligible, flows, weight);
    *cursor = cursor.wrapping_add(1);
    place
}

/// Of these places the one with the fewest flows per weight, the first of equals.
fn least(
    places: impl Iterator<Item = usize>,
    eligible: &[TargetId],
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (place, id) in places.filter_map(|place| Some((place, eligible.get(place)?))) {
        let (flows, weight) = (flows(*id) + 1, u64::from(weight(*id)));
        // flows / weight < best.flows / best.weight, without dividing.
        if best.is_none_or(|(_, least, of)| flows * of < least * weight) {
            best = Some((place, flows, weight));
        }
    }
    best.map(|(place, ..)| place)
}

/// Counts up to what looks random: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn scrambled(count: u64) -> u64 {
    let mut bits = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
