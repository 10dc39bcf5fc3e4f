//! When to probe: one timer queue for all checks, spread out so that ten thousand of them make an even stream.
//!
//! Pure and, for one seed, deterministic: times go in as arguments. A check is in the queue only while no probe of it runs,
//! so that late probes cannot pile up; after a late one, the next is due an interval later, not at once for each one missed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// First probes are at least this far apart on average, until their interval is full: a few checks are all probed at once,
/// thousands are spread over their interval.
const FIRST_PROBE_SPACING: Duration = Duration::from_millis(1);

/// The fractional part of the golden ratio: its multiples modulo 1 fall evenly for any number of them.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;

/// Names a scheduled check. Never used again once its check is gone, so that a forgotten entry harms nothing.
pub type Token = u64;

/// Due times of checks.
#[derive(Debug)]
pub struct Schedule {
    queue: BinaryHeap<Reverse<(Instant, Token)>>,
    /// Where in its interval the next new check starts, 0.0 to 1.0.
    phase: f64,
    random: SplitMix64,
}

impl Schedule {
    /// An empty schedule. Nodes should have different seeds, so that they do not probe in step.
    pub fn new(seed: u64) -> Schedule {
        let mut random = SplitMix64(seed);
        Schedule {
            queue: BinaryHeap::new(),
            phase: random.fraction(),
            random,
        }
    }

    /// Enters a new check, one of `batch` that arrive together, somewhere in its first interval.
    /// Returns when it is due.
    pub fn enter(
        &mut self,
        token: Token,
        now: Instant,
        interval: Duration,
        batch: usize,
    ) -> Instant {
        let window = interval
            .min(FIRST_PROBE_SPACING.saturating_mul(u32::try_from(batch).unwrap_or(u32::MAX)));
        self.phase = (self.phase + GOLDEN_RATIO).fract();
        self.at(token, now + window.mul_f64(self.phase))
    }

    /// Enters a check whose probe began at `started` and ended `now`: an interval, give or take the jitter, after it began.
    /// Returns when it is due.
    pub fn after(
        &mut self,
        token: Token,
        started: Instant,
        now: Instant,
        interval: Duration,
        jitter: f64,
    ) -> Instant {
        let share = 1.0 + jitter * (2.0 * self.random.fraction() - 1.0);
        self.at(token, (started + interval.mul_f64(share)).max(now))
    }

    /// Enters a check at a given time, which it returns.
    pub fn at(&mut self, token: Token, due: Instant) -> Instant {
        self.queue.push(Reverse((due, token)));
        due
    }

    /// How many entries there are, forgotten ones among them.
    pub fn entries(&self) -> usize {
        self.queue.len()
    }

    /// Drops all entries but those for which `holds` is true.
    pub fn retain(&mut self, holds: impl Fn(Instant, Token) -> bool) {
        self.queue
            .retain(|Reverse((due, token))| holds(*due, *token));
    }

    /// When the earliest check is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the earliest check that is due, with its time; the longest overdue first.
    pub fn take_due(&mut self, now: Instant) -> Option<(Instant, Token)> {
        if self.next_due()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry)
    }
}

/// A small random number generator (Steele, Lea and Flood 2014); enough to keep probes out of step.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0.0 to just below 1.0.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn drain(schedule: &mut Schedule, until: Instant) -> Vec<(Duration, Token)> {
        let start = until - Duration::from_secs(3600);
        std::iter::from_fn(|| {
            schedule
                .take_due(until)
                .map(|(due, token)| (due - start, token))
        })
        .collect()
    }

    #[test]
    fn ten_thousand_first_probes_fill_their_interval_evenly() {
        let now = Instant::now();
        let mut schedule = Schedule::new(7);
        for token in 0..10_000 {
            schedule.enter(token, now, INTERVAL, 10_000);
        }
        let mut per_slice = [0u32; 100];
        for (due, _) in drain(&mut schedule, now + Duration::from_secs(3600)) {
            per_slice[(due.as_millis() / 20) as usize] += 1;
        }
        assert!(
            per_slice.iter().all(|count| (90..=110).contains(count)),
            "{per_slice:?}"
        );
    }

    #[test]
    fn a_few_first_probes_do_not_wait() {
        let now = Instant::now();
        let mut schedule = Schedule::new(7);
        for token in 0..5 {
            schedule.enter(token, now, INTERVAL, 5);
        }
        assert_eq!(
            drain(&mut schedule, now + Duration::from_millis(5)).len(),
            5
        );
    }

    #[test]
    fn jitter_stays_within_its_share_and_keeps_the_mean() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        let mut dues: Vec<f64> = (0..10_000)
            .map(|token| (schedule.after(token, now, now, INTERVAL, 0.1) - now).as_secs_f64())
            .collect();
        dues.sort_by(f64::total_cmp);
        assert!(dues.iter().all(|due| (1.8..=2.2).contains(due)));
        let mean = dues.iter().sum::<f64>() / dues.len() as f64;
        assert!((mean - 2.0).abs() < 0.01, "{mean}");
        assert!(
            dues[0] < 1.81 && dues[9_999] > 2.19,
            "the whole range is used"
        );
    }

    #[test]
    fn a_late_probe_is_not_made_up_for() {
        let started = Instant::now();
        let ended = started + INTERVAL * 5;
        let mut schedule = Schedule::new(1);
        schedule.after(1, started, ended, INTERVAL, 0.0);
        assert_eq!(
            schedule.next_due(),
            Some(ended),
            "one probe follows, not five"
        );
        assert_eq!(schedule.take_due(ended), Some((ended, 1)));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn the_longest_overdue_comes_first() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        for (token, seconds) in [(1, 3), (2, 1), (3, 2), (4, 9)] {
            schedule.at(token, now + Duration::from_secs(seconds));
        }
        let late = now + Duration::from_secs(5);
        let order: Vec<Token> =
            std::iter::from_fn(|| schedule.take_due(late).map(|(_, token)| token)).collect();
        assert_eq!(order, [2, 3, 1]);
        assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(9)));
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        let now = Instant::now();
        let run = |seed| {
            let mut schedule = Schedule::new(seed);
            for token in 0..100 {
                schedule.enter(token, now, INTERVAL, 100);
                schedule.after(token + 100, now, now, INTERVAL, 0.3);
            }
            drain(&mut schedule, now + Duration::from_secs(3600))
        };
        assert_eq!(run(42), run(42));
        assert_ne!(run(42), run(43));
    }
}
