//! Logs and metrics, the same in every tier.

mod dependencies;
mod meaning;
mod process;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use self::dependencies::Limited;
use crate::config::sections::{LogFormat, LogSection};

pub use meaning::{Kind, Meaning, describe, describe_process};
pub use worker::WorkerTime;

/// Starts logging to standard error, once per process; later calls change nothing (tests start several nodes in one process).
pub fn init_logs(section: &LogSection) {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _already_started =
        tracing::subscriber::set_global_default(subscriber(section, std::io::stderr, colours));
}

fn subscriber<W>(
    section: &LogSection,
    writer: W,
    colours: bool,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&section.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // The NATS client logs each failed attempt to connect; the bus says the same, at most so often.
    let filter = match "async_nats=off".parse() {
        Ok(directive) if !section.level.contains("async_nats") => filter.add_directive(directive),
        _ => filter,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let level = &section.level;
    match section.format {
        LogFormat::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .map_event_format(|format| Limited::new(format, level))
                .finish(),
        ),
        LogFormat::Text => Box::new(
            builder
                .with_ansi(colours)
                .map_event_format(|format| Limited::new(format, level))
                .finish(),
        ),
    }
}

/// Upper bounds of histogram buckets for `_seconds` metrics: 0.5 ms to 60 s, about three to a decade.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// How often the samples of histograms are counted into their buckets. Until then each takes memory, whether or not anybody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// All metrics in the Prometheus text format, those of the process itself among them.
    pub fn render(&self) -> String {
        // What was described since the last time is shown from here on.
        self.0.run_upkeep();
        let mut text = self.0.render();
        process::render(&mut text);
        text
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
    let upkeep = handle.clone();
    let spawned = std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        });
    if let Err(error) = spawned {
        tracing::error!("histograms grow until /metrics is read, no thread for them: {error}");
    }
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
    use std::io::{Result, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, log: impl FnOnce()) -> String {
        let written = Written::default();
        let section = LogSection {
            format,
            level: level.to_owned(),
        };
        let writer = written.clone();
        tracing::subscriber::with_default(subscriber(&section, move || writer.clone(), false), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_nats_client_is_heard_only_if_asked_for() {
        let attempt =
            || tracing::error!(target: "async_nats::connector", "authorization violation");
        assert_eq!(logged(LogFormat::Text, "info", attempt), "");
        assert_ne!(
            logged(LogFormat::Text, "info,async_nats=error", attempt),
            ""
        );
    }

    #[test]
    fn a_dependency_writes_one_line_of_a_kind_at_a_time_unless_it_is_asked_for() {
        let flood = || {
            for number in 0..1000 {
                tracing::warn!(target: "h2::proto::ping_pong", number, "recv PING ack that we never sent");
            }
            for number in 0..10 {
                tracing::warn!(target: "h2::proto::streams", number, "another place");
                tracing::info!(number, "ours");
            }
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, "info", flood);
            let of = |text: &str| lines.lines().filter(|line| line.contains(text)).count();
            assert_eq!(
                (of("PING"), of("another"), of("ours")),
                (1, 1, 10),
                "{lines}"
            );
            let whole = logged(format, "info,h2=warn", flood);
            assert_eq!(whole.lines().count(), 1020);
        }
    }

    #[test]
    fn json_logs_are_one_object_a_line_even_with_hostile_text() {
        let lines = logged(LogFormat::Json, "info", || {
            tracing::info!(peer = "10.0.0.1\n{\"level\":\"ERROR\"}", "hello\nthere");
            tracing::debug!("not shown");
        });
        assert_eq!(lines.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(
            (&line["level"], &line["message"]),
            (&"INFO".into(), &"hello\nthere".into())
        );
        assert_eq!(line["peer"], "10.0.0.1\n{\"level\":\"ERROR\"}");
    }

    #[test]
    fn text_logs_are_filtered_by_module_and_can_not_be_forged_by_fields() {
        let lines = logged(LogFormat::Text, "warn,shared=debug", || {
            tracing::debug!(key = "x\n2026 ERROR forged", "shown");
            tracing::info!(target: "other", "not shown");
        });
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains("DEBUG") && lines.contains("shown") && !lines.contains("not shown"));
    }

    #[test]
    fn a_flood_of_lines_is_one_line_with_a_count() {
        let flood = || {
            for number in 0..1000 {
                crate::log_at_most_every!(
                    Duration::from_secs(3600),
                    tracing::Level::WARN,
                    number,
                    "garbage"
                );
            }
        };
        assert_eq!(logged(LogFormat::Text, "info", flood).lines().count(), 1);
    }

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
