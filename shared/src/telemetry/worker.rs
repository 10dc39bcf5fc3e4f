//! How busy a thread is.

use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::monotonic;

/// Follows the runtime of one thread.
#[derive(Debug)]
pub struct WorkerTime {
    runtime: RuntimeMetrics,
    began: Duration,
    last: (Duration, Duration),
    ratio: Gauge,
    // Gauges, as the recorder's counters are whole numbers.
    busy: Gauge,
    idle: Gauge,
}

impl WorkerTime {
    /// Of worker number `worker`, on whose runtime of one thread this is called. `ratio` is the gauge of the share of time it had work, 0 to 1, `time`
    /// the one of seconds by state.
    pub fn new(ratio: &'static str, time: &'static str, worker: usize) -> Self {
        let time =
            |state: &'static str| gauge!(time, "worker" => worker.to_string(), "state" => state);
        let runtime = Handle::current().metrics();
        let now = monotonic();
        Self {
            last: (now, runtime.worker_total_busy_duration(0)),
            runtime,
            began: now,
            ratio: gauge!(ratio, "worker" => worker.to_string()),
            busy: time("busy"),
            idle: time("idle"),
        }
    }

    /// Brings the gauges up to date; call it about once a second.
    pub fn tick(&mut self) {
        let now = monotonic();
        let busy = self.runtime.worker_total_busy_duration(0);
        let (before, busy_before) = self.last;
        let passed = now.saturating_sub(before).as_secs_f64();
        if passed > 0.0 {
            let share = busy.saturating_sub(busy_before).as_secs_f64() / passed;
            self.ratio.set(share.min(1.0));
        }
        self.last = (now, busy);
        self.busy.set(busy.as_secs_f64());
        let all = now.saturating_sub(self.began);
        self.idle.set(all.saturating_sub(busy).as_secs_f64());
    }
}
