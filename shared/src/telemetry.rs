//! Logs and metrics, the same in every tier.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::sections::{LogFormat, LogSection};

/// Starts logging to standard error, once per process; later calls change nothing (tests start several nodes in one process).
pub fn init_logs(section: &LogSection) {
    let filter = EnvFilter::try_new(&section.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _already_started = match section.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
}

/// Upper bounds of histogram buckets for `_seconds` metrics: 0.5 ms to 60 s, about three to a decade.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

/// Starts recording metrics; once per process.
///
/// # Errors
/// If a recorder is installed already.
pub fn init_metrics() -> Result<MetricsHandle, BuildError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(SECONDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(MetricsHandle(handle))
}

/// Lets one of many through per interval and counts the rest. For log lines that the network can cause.
#[derive(Debug)]
pub struct AtMostEvery {
    /// Nanoseconds of [`monotonic`] at which the next may pass.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl AtMostEvery {
    /// Lets the first one through.
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether one may pass now: if so, how many were held back since the last.
    pub fn pass(&self, interval: Duration) -> Option<u64> {
        self.pass_at(monotonic(), interval)
    }

    fn pass_at(&self, now: Duration, interval: Duration) -> Option<u64> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let passes = nanos(now) >= next
            && self
                .next
                .compare_exchange(
                    next,
                    nanos(now + interval),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if passes {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for AtMostEvery {
    fn default() -> Self {
        Self::new()
    }
}

/// Time since this process first asked; never goes back.
pub fn monotonic() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Logs at most once per interval at this place in the code; the line says how many were held back. For lines the network can cause.
///
/// The first argument is the interval, the second the level, then what `tracing::event!` takes, the message last.
#[macro_export]
macro_rules! log_at_most_every {
    ($interval:expr, $level:expr, $($event:tt)+) => {{
        static GATE: $crate::telemetry::AtMostEvery = $crate::telemetry::AtMostEvery::new();
        if let Some(held_back) = GATE.pass($interval) {
            $crate::telemetry::__event!($level, held_back, $($event)+);
        }
    }};
}

#[doc(hidden)]
pub mod event {
    pub use tracing;
}

#[doc(hidden)]
#[macro_export]
macro_rules! __event {
    ($level:expr, $held_back:ident, $($event:tt)+) => {
        $crate::telemetry::event::tracing::event!($level, held_back = $held_back, $($event)+)
    };
}
#[doc(hidden)]
pub use __event;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_per_interval_and_the_rest_are_counted() {
        let gate = AtMostEvery::new();
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
        assert_eq!(gate.pass_at(ms(10), second), Some(0));
        assert_eq!(gate.pass_at(ms(20), second), None);
        assert_eq!(gate.pass_at(ms(900), second), None);
        assert_eq!(gate.pass_at(ms(1010), second), Some(2));
        assert_eq!(gate.pass_at(ms(1011), second), None);
    }
}
