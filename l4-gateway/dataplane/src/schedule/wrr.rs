//! Smooth weighted round robin, laid out as one period of turns.

use crate::limits::WRR_SEQUENCE;

/// One period: each place appears in proportion to its weight, spread as evenly as nginx's smooth algorithm spreads it
/// (each turn adds every weight to its credit, the highest credit goes, and pays the sum). Takes as many steps as the period is long
/// times the places.
pub(super) fn sequence(weights: impl Iterator<Item = u16>) -> Vec<u16> {
    let weights = scaled(weights);
    let total = weights.iter().sum::<u64>() as i64;
    let mut credits = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for place in 0..weights.len() {
                credits[place] += weights[place] as i64;
                if credits[place] > credits[best] {
                    best = place;
                }
            }
            credits[best] -= total;
            best as u16
        })
        .collect()
}

/// The same places as often, in no order: for who draws among them.
pub(super) fn places(weights: impl Iterator<Item = u16>) -> Vec<u16> {
    let repeated = |(place, weight)| std::iter::repeat_n(place, weight as usize);
    (0..).zip(scaled(weights)).flat_map(repeated).collect()
}

/// Weights divided by their common divisor, and scaled down (to no less than 1) if their sum would be more than [`WRR_SEQUENCE`].
fn scaled(weights: impl Iterator<Item = u16>) -> Vec<u64> {
    let mut weights: Vec<u64> = weights.map(u64::from).collect();
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    for weight in &mut weights {
        *weight /= divisor;
    }
    let total: u64 = weights.iter().sum();
    if total > WRR_SEQUENCE {
        for weight in &mut weights {
            *weight = (*weight * WRR_SEQUENCE / total).max(1);
        }
    }
    weights
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
