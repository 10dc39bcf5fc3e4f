//! Rate limits: for ICMP errors made here, for events, and for new flows.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Now;
use crate::limits::EVENT_INTERVAL;

/// A token bucket that fills at `rate` a second and holds as much.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: u64,
    /// Thousandths of a token.
    level: u64,
    filled: u64,
}

impl TokenBucket {
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate: u64::from(rate),
            level: u64::from(rate) * 1000,
            filled: 0,
        }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn take(&mut self, now: Now) -> bool {
        let elapsed = now.millis().saturating_sub(self.filled);
        self.filled = now.millis();
        self.level = (self.level + elapsed.min(1000) * self.rate).min(self.rate * 1000);
        let taken = self.level >= 1000;
        if taken {
            self.level -= 1000;
        }
        taken
    }
}

/// How many ICMP errors may go. Those that say a packet was too big have a bucket of their own: nothing else makes a sender find the
/// size that passes, and others come in floods (UDP to closed ports, hops that run out).
#[derive(Debug)]
pub(crate) struct ErrorRate {
    too_big: TokenBucket,
    others: TokenBucket,
}

impl ErrorRate {
    /// So many of each kind a second.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            too_big: TokenBucket::new(rate),
            others: TokenBucket::new(rate),
        }
    }

    /// Takes a token for an error; false if there is none.
    pub(crate) fn take(&mut self, now: Now, too_big: bool) -> bool {
        match too_big {
            true => self.too_big.take(now),
            false => self.others.take(now),
        }
    }
}

/// A rate that all workers keep together, exactly: the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371,
/// annex A), in nanoseconds. One that has rested lets a second's worth through at once.
#[derive(Debug, Default)]
pub(crate) struct SharedRate(AtomicU64);

impl SharedRate {
    /// Takes one of so many a second; false if it is too early for one. What is refused costs nothing.
    pub(crate) fn take(&self, now: Now, per_second: u32) -> bool {
        let next = |due| Self::next(due, now, per_second);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }

    /// Whether one could be taken now.
    pub(crate) fn has_one(&self, now: Now, per_second: u32) -> bool {
        Self::next(self.0.load(Ordering::Relaxed), now, per_second).is_some()
    }

    fn next(due: u64, now: Now, per_second: u32) -> Option<u64> {
        const SECOND: u64 = 1_000_000_000;
        let interval = SECOND / u64::from(per_second.max(1));
        let due = due.max(now.0).saturating_add(interval);
        (due - now.0 <= SECOND).then_some(due)
    }

    /// Whether nothing was taken for so long that it makes no difference any more.
    pub(crate) fn is_rested(&self, now: Now) -> bool {
        self.0.load(Ordering::Relaxed) <= now.0
    }
}

/// Lets something through once an interval.
#[derive(Debug, Default)]
pub(crate) struct Interval {
    last: Option<u64>,
}

impl Interval {
    pub(crate) fn pass(&mut self, now: Now) -> bool {
        let pass = self
            .last
            .is_none_or(|last| now.millis().saturating_sub(last) >= EVENT_INTERVAL);
        if pass {
            self.last = Some(now.millis());
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(rate: &SharedRate, now: u64, per_second: u32) -> u32 {
        (0..)
            .take_while(|_| rate.take(Now(now), per_second))
            .count() as u32
    }

    #[test]
    fn a_rested_rate_lets_a_second_s_worth_through_then_its_pace() {
        for per_second in [1, 3, 10, 1000, 10_000_000] {
            let rate = SharedRate::default();
            assert_eq!(
                taken(&rate, 0, per_second),
                per_second,
                "{per_second} a second"
            );
            let mut later = 0;
            for step in 1..=100 {
                later += taken(&rate, step * SECOND / 10, per_second);
            }
            assert_eq!(later, 10 * per_second, "{per_second} a second, in ten more");
            assert!(!rate.is_rested(Now(10 * SECOND)));
            assert!(rate.is_rested(Now(11 * SECOND)));
            assert_eq!(
                taken(&rate, 1_000 * SECOND, per_second),
                per_second,
                "rested again"
            );
        }
    }

    #[test]
    fn workers_together_take_no_more_than_one_alone() {
        let (rate, sum) = (SharedRate::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..2000 {
                        let took = rate.take(Now(step * SECOND / 1000), 500);
                        sum.fetch_add(u32::from(took), Ordering::Relaxed);
                    }
                });
            }
        });
        // A second's worth at once, and that of two seconds less a step.
        let sum = sum.into_inner();
        assert!((1498..=1500).contains(&sum), "{sum}");
    }
}
