//! Rate limits: for ICMP errors made here, and for events.

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
