//! Whether workers turn their loops. Pure: heartbeats and the time go in.

use std::time::Duration;

/// Watches heartbeats for standstill.
///
/// Only time in which the watcher itself ran counts: when the whole machine stood still for a while, nobody is at fault.
#[derive(Debug)]
pub struct Liveness {
    limit: Duration,
    interval: Duration,
    last_look: Option<Duration>,
    workers: Vec<Worker>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Worker {
    beat: u64,
    still: Duration,
}

impl Liveness {
    /// Of so many workers, each taken for dead after `limit` without a beat; to be asked every [`Liveness::interval`].
    pub fn new(workers: usize, limit: Duration) -> Liveness {
        Liveness {
            limit,
            interval: limit / 5,
            last_look: None,
            workers: vec![Worker::default(); workers],
        }
    }

    /// How often to look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Looks at the heartbeats at `now`; returns the workers that stand still, by number.
    pub fn look(&mut self, now: Duration, beats: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let since = now.saturating_sub(self.last_look.replace(now).unwrap_or(now));
        let observed = since.min(self.interval * 2);
        for (worker, beat) in self.workers.iter_mut().zip(beats) {
            worker.still = if worker.beat == beat {
                worker.still + observed
            } else {
                Duration::ZERO
            };
            worker.beat = beat;
        }
        let still = |worker: &Worker| worker.beat == 0 || worker.still >= self.limit;
        self.workers
            .iter()
            .enumerate()
            .filter(|(_, worker)| still(worker))
            .map(|(index, _)| index)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_worker_that_has_not_turned_once_is_not_alive() {
        let mut liveness = Liveness::new(2, ms(100));
        assert_eq!(liveness.look(ms(0), [0, 1]), [0]);
        assert!(liveness.look(ms(20), [1, 2]).is_empty());
    }

    #[test]
    fn standstill_is_noticed_at_the_limit_and_over_with_the_next_beat() {
        let mut liveness = Liveness::new(1, ms(100));
        assert!(liveness.look(ms(0), [7]).is_empty());
        for at in [20, 40, 60, 80] {
            assert!(liveness.look(ms(at), [7]).is_empty(), "at {at} ms");
        }
        assert_eq!(liveness.look(ms(100), [7]), [0]);
        assert!(liveness.look(ms(120), [8]).is_empty());
    }

    #[test]
    fn a_late_watcher_blames_nobody() {
        let mut liveness = Liveness::new(1, ms(100));
        liveness.look(ms(0), [7]);
        // Ten seconds in which neither the watcher nor the worker ran.
        assert!(liveness.look(ms(10_000), [7]).is_empty());
        assert!(liveness.look(ms(10_020), [8]).is_empty());
    }
}
