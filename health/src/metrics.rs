//! The checker's metrics. Labels hold the kind of probe and its outcome, never a target: their number does not grow with the targets.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::telemetry::{Kind, Meaning, describe};

use crate::check::Check;
use crate::threshold::Outcome;

const MEANINGS: &[Meaning] = &[
    (
        Kind::Counter,
        "weir_health_probes_total",
        "Probes made, by what they probe and how they ended",
    ),
    (
        Kind::Histogram,
        "weir_health_probe_duration_seconds",
        "How long probes take",
    ),
    (
        Kind::Counter,
        "weir_health_changes_total",
        "Targets that changed their state",
    ),
    (
        Kind::Gauge,
        "weir_health_probes_running",
        "Probes running now",
    ),
    (
        Kind::Gauge,
        "weir_health_overdue_seconds",
        "How long the next probe has been due: above zero for long means too many probes",
    ),
    (
        Kind::Gauge,
        "weir_health_targets",
        "Targets of a service, by their state",
    ),
    (
        Kind::Gauge,
        "weir_health_worker_busy_ratio",
        "Share of the last second in which the process's working thread had work, 0 to 1",
    ),
    (
        Kind::Gauge,
        "weir_health_worker_time_seconds",
        "Time the process's working thread had work (busy) and waited for some (idle), since the start",
    ),
];

/// Says what they mean, and registers the series of such checks: the first failure then counts from 0.
pub(crate) fn register(checks: &[Check]) {
    describe(MEANINGS);
    let kinds: BTreeSet<_> = checks
        .iter()
        .map(|check| check.settings.probe.kind())
        .collect();
    for kind in kinds {
        for outcome in OUTCOMES.map(word) {
            metrics::counter!("weir_health_probes_total", "type" => kind, "outcome" => outcome)
                .increment(0);
        }
        metrics::counter!("weir_health_changes_total", "type" => kind).increment(0);
        let _registered = metrics::histogram!("weir_health_probe_duration_seconds", "type" => kind);
    }
}

const OUTCOMES: [Outcome; 4] = [
    Outcome::Success,
    Outcome::Failure,
    Outcome::Silence,
    Outcome::Unknown,
];

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::Failure => "failure",
        Outcome::Silence => "silence",
        Outcome::Unknown => "unknown",
    }
}

/// A probe ended, having taken `took`.
pub(crate) fn probed(check: &Check, outcome: Outcome, took: Duration) {
    let outcome = word(outcome);
    metrics::counter!("weir_health_probes_total", "type" => check.settings.probe.kind(), "outcome" => outcome).increment(1);
    metrics::histogram!("weir_health_probe_duration_seconds", "type" => check.settings.probe.kind())
        .record(took.as_secs_f64());
}

/// A target's state became known (`first`) or changed.
pub(crate) fn changed(check: &Check, first: bool) {
    if !first {
        metrics::counter!("weir_health_changes_total", "type" => check.settings.probe.kind())
            .increment(1);
    }
}

/// Probes that run now, and how long the next one has been due. Gauges of the process: each tier has one checker.
pub(crate) fn running(probes: usize, overdue: Duration) {
    metrics::gauge!("weir_health_probes_running").set(probes as f64);
    metrics::gauge!("weir_health_overdue_seconds").set(overdue.as_secs_f64());
}
