//! What least connections costs, and how even it is.

use std::cell::Cell;

use super::*;

const BOTH: [Scheduler; 2] = [
    Scheduler::LeastConnections,
    Scheduler::WeightedLeastConnections,
];

/// A service whose flows come and go.
struct Live {
    service: Service,
    weights: Vec<u16>,
    cursor: u32,
    /// By target, and by flow its target.
    counts: Vec<u64>,
    flows: Vec<usize>,
    asked: Cell<usize>,
}

impl Live {
    fn new(scheduler: Scheduler, weights: Vec<u16>) -> Self {
        Self {
            service: service(scheduler, &weights),
            counts: vec![0; weights.len()],
            weights,
            cursor: 0,
            flows: Vec::new(),
            asked: Cell::new(0),
        }
    }

    fn open(&mut self) -> usize {
        let (counts, weights, asked) = (&self.counts, &self.weights, &self.asked);
        asked.set(0);
        let flows = |id: TargetId| {
            asked.set(asked.get() + 1);
            counts[id.0 as usize]
        };
        let weight = |id: TargetId| weights[id.0 as usize];
        let target = choose(
            &self.service,
            &mut self.cursor,
            CLIENT,
            flows,
            weight,
            |_| true,
        );
        let target = target.unwrap().0 as usize;
        self.counts[target] += 1;
        self.flows.push(target);
        target
    }

    /// So many flows in all: then each that comes replaces one, at random.
    fn churn(&mut self, flows: usize, changes: usize) {
        let mut random = 7u64;
        for n in 0..flows + changes {
            if n >= flows {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let ended = (random >> 33) as usize % self.flows.len();
                self.counts[self.flows.swap_remove(ended)] -= 1;
            }
            self.open();
        }
    }

    /// Of the targets with this weight: the least, all and the most flows.
    fn spread(&self, weight: u16) -> (u64, u64, u64) {
        let of_weight = self.counts.iter().zip(&self.weights);
        let counts: Vec<u64> = of_weight
            .filter(|(_, of)| **of == weight)
            .map(|(count, _)| *count)
            .collect();
        let sum = counts.iter().sum();
        (
            *counts.iter().min().unwrap(),
            sum,
            *counts.iter().max().unwrap(),
        )
    }
}

#[test]
fn a_new_flow_asks_a_bounded_number_of_targets_for_their_flows() {
    for scheduler in BOTH {
        for (targets, asked) in [(1, 1), (2, 2), (32, 32), (33, 8), (1000, 8), (5000, 8)] {
            let weights = (0..targets).map(|n| n % 3 + 1).collect();
            let mut live = Live::new(scheduler, weights);
            for _ in 0..50 {
                live.open();
                assert_eq!(live.asked.get(), asked, "{scheduler:?} of {targets}");
            }
        }
    }
}

#[test]
fn a_small_service_is_balanced_exactly() {
    for scheduler in BOTH {
        let mut live = Live::new(scheduler, vec![1; 32]);
        for flows in 1..=3200u64 {
            live.open();
            let (least, _, most) = live.spread(1);
            assert!(most - least <= 1, "{scheduler:?} after {flows}");
        }
    }
}

#[test]
fn flows_of_a_large_service_are_spread_nearly_evenly() {
    // Round robin beside it: which flows end is left to chance.
    for (scheduler, expected) in [
        (Scheduler::RoundRobin, 33..=68),
        (Scheduler::LeastConnections, 47..=51),
        (Scheduler::WeightedLeastConnections, 47..=51),
    ] {
        let mut live = Live::new(scheduler, vec![1; 1000]);
        live.churn(50_000, 150_000);
        let (least, sum, most) = live.spread(1);
        assert_eq!(sum, 50_000);
        assert_eq!(least..=most, expected, "{scheduler:?}");
    }
}

#[test]
fn heavy_targets_of_a_large_service_get_their_share() {
    let weights: Vec<u16> = (0..1000)
        .map(|n| if n % 100 == 0 { 500 } else { 1 })
        .collect();
    let mut live = Live::new(Scheduler::WeightedLeastConnections, weights);
    live.churn(60_000, 120_000);
    let (heavy, light) = (live.spread(500), live.spread(1));
    assert_eq!(heavy.1 + light.1, 60_000);
    // Evenly by weight, the heavy ones would have 5008 each.
    assert!(heavy.0 >= 5000 && heavy.2 <= 5030, "{heavy:?}");
    assert!(light.0 >= 7 && light.2 <= 10, "{light:?}");
}

#[test]
fn an_empty_target_among_many_is_filled_without_being_flooded() {
    let mut live = Live::new(Scheduler::LeastConnections, vec![1; 1000]);
    live.churn(100_000, 0);
    live.flows.retain(|target| *target != 77);
    live.counts[77] = 0;
    let mut got = 0;
    for _ in 0..10_000 {
        got += u32::from(live.open() == 77);
    }
    // A thousandth would be 10; if all were asked, it would get every one of the first hundred.
    assert!((60..=100).contains(&got), "{got}");
}
