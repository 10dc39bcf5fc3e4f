//! What a worker does between two rounds: nothing, or sleep a little when there was nothing to do for a while.

use std::time::Duration;

use super::TICK;

/// Empty rounds before the first sleep. At well under a microsecond a round, a worker under load never gets there.
const PATIENCE: u32 = 256;

/// The first sleep; each further one is twice as long, up to the limit.
const FIRST: Duration = Duration::from_micros(10);

/// Traffic that pauses for less than [`DOZE`] is waited for in sleeps of this at most, so that it hardly feels them.
const SHORT: Duration = Duration::from_micros(200);
const DOZE: Duration = Duration::from_millis(100);

/// How a worker waits for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Never sleeps: the lowest latency, one whole core.
    Busy,
    /// Sleeps when idle, 200 us at most between frames of running traffic, longer after 100 ms without any.
    Adaptive {
        /// Longest sleep: what an idle node adds to the latency of the first frame.
        longest: Duration,
    },
}

impl Poll {
    /// The most that is between two ticks of the data plane, but for the scheduler: a worker may fall asleep right before one is due.
    pub fn longest_tick(self) -> Duration {
        let tick = Duration::from_nanos(TICK);
        match self {
            Poll::Busy => tick,
            Poll::Adaptive { longest } => tick.saturating_add(longest),
        }
    }
}

/// How a worker that waits for frames sleeps: what [`Poll`] says, and how long it has waited.
#[derive(Debug)]
pub(super) struct Naps {
    poll: Poll,
    empty_rounds: u32,
    next: Duration,
    /// Time slept since the last frame.
    slept: Duration,
}

impl Naps {
    pub(super) fn new(poll: Poll) -> Naps {
        Naps {
            poll,
            empty_rounds: 0,
            next: FIRST,
            slept: Duration::ZERO,
        }
    }

    /// Says after each round how long to sleep.
    #[inline]
    pub(super) fn after_round(&mut self, worked: bool) -> Option<Duration> {
        let Poll::Adaptive { longest } = self.poll else {
            return None;
        };
        if worked {
            self.empty_rounds = 0;
            self.next = FIRST;
            self.slept = Duration::ZERO;
            return None;
        }
        self.empty_rounds = self.empty_rounds.saturating_add(1);
        if self.empty_rounds < PATIENCE {
            return None;
        }
        let limit = if self.slept < DOZE {
            SHORT.min(longest)
        } else {
            longest
        };
        let sleep = self.next.min(limit);
        self.next = (self.next * 2).min(longest);
        self.slept = self.slept.saturating_add(sleep);
        Some(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_workers_never_sleep() {
        let mut naps = Naps::new(Poll::Busy);
        assert!((0..10_000).all(|_| naps.after_round(false).is_none()));
    }

    #[test]
    fn sleeps_grow_to_the_limit_and_end_with_the_first_frame() {
        let longest = Duration::from_millis(1);
        let mut naps = Naps::new(Poll::Adaptive { longest });
        let sleeps: Vec<_> = (0..PATIENCE + 2000)
            .filter_map(|_| naps.after_round(false))
            .collect();
        assert_eq!(sleeps[..2], [FIRST, FIRST * 2]);
        let running: Duration = sleeps.iter().take_while(|sleep| **sleep <= SHORT).sum();
        assert!(running >= DOZE && running < DOZE + SHORT, "{running:?}");
        assert_eq!(sleeps.last(), Some(&longest));
        assert_eq!(naps.after_round(true), None);
        assert_eq!(naps.after_round(false), None);
    }
}
