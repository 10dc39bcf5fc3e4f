//! The checker's metrics. Labels hold the kind of probe and its outcome, never a target: their number does not grow with the targets.

use std::time::Duration;

use crate::check::Check;
use crate::threshold::Outcome;

/// A probe ended, having taken `took`.
pub(crate) fn probed(check: &Check, outcome: Outcome, took: Duration) {
    let outcome = match outcome {
        Outcome::Success => "success",
        Outcome::Failure => "failure",
        Outcome::Silence => "silence",
        Outcome::Unknown => "unknown",
    };
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
