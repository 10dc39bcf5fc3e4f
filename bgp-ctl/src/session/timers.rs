//! A session's deadlines, the jitter on them, and the backoff between attempts.

use std::time::{Duration, Instant};

/// Deadlines of one session. `None` means the timer isn't running.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Ends a connect attempt, or the wait before the next one (RFC 4271 8.1.3).
    pub(super) connect_retry: Option<Instant>,
    /// The neighbour has to be heard before this (RFC 4271 6.5).
    pub(super) hold: Option<Instant>,
    /// A KEEPALIVE is due (RFC 4271 4.4).
    pub(super) keepalive: Option<Instant>,
    /// A session that ended in Idle starts again (IdleHoldTime, RFC 4271 8.1.1).
    pub(super) idle_hold: Option<Instant>,
}

/// A timer that has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    Hold,
    Keepalive,
    ConnectRetry,
    IdleHold,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        [
            self.connect_retry,
            self.hold,
            self.keepalive,
            self.idle_hold,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Stops and returns one expired timer. Hold comes first: a session that is over sends no KEEPALIVE.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Expired> {
        let timers = [
            (&mut self.hold, Expired::Hold),
            (&mut self.keepalive, Expired::Keepalive),
            (&mut self.connect_retry, Expired::ConnectRetry),
            (&mut self.idle_hold, Expired::IdleHold),
        ];
        for (timer, expired) in timers {
            if timer.is_some_and(|deadline| deadline <= now) {
                *timer = None;
                return Some(expired);
            }
        }
        None
    }

    /// Stops the timers that belong to a connection.
    pub(super) fn stop_connection(&mut self) {
        self.connect_retry = None;
        self.hold = None;
        self.keepalive = None;
    }
}

/// Spreads timers over 0.75 to 1.0 of their value (RFC 4271 10), repeatably for one seed.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn spread(&mut self, value: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood 2014): all that is needed is that fleets don't move in step.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let fraction = (z >> 40) as f64 / (1u64 << 24) as f64;
        value.mul_f64(0.75 + 0.25 * fraction)
    }
}

/// `base` doubled for each failure, never above `longest`.
pub(super) fn backoff(base: Duration, longest: Duration, failures: u32) -> Duration {
    base.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX))
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(1);
        let mut smallest = Duration::MAX;
        let mut largest = Duration::ZERO;
        for _ in 0..10_000 {
            let value = jitter.spread(Duration::from_secs(100));
            smallest = smallest.min(value);
            largest = largest.max(value);
        }
        assert!(
            smallest >= Duration::from_secs(75) && smallest < Duration::from_secs(76),
            "{smallest:?}"
        );
        assert!(
            largest <= Duration::from_secs(100) && largest > Duration::from_secs(99),
            "{largest:?}"
        );
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let delays: Vec<u64> = (0..7)
            .map(|n| backoff(Duration::from_secs(1), Duration::from_secs(30), n).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(
            backoff(Duration::from_secs(1), Duration::from_secs(30), u32::MAX).as_secs(),
            30
        );
    }

    #[test]
    fn expired_timers_come_out_once_hold_first() {
        let now = Instant::now();
        let mut timers = Timers {
            keepalive: Some(now),
            hold: Some(now),
            ..Timers::default()
        };
        assert_eq!(timers.pop(now), Some(Expired::Hold));
        assert_eq!(timers.pop(now), Some(Expired::Keepalive));
        assert_eq!(timers.pop(now), None);
        assert_eq!(timers.next(), None);
    }
}
