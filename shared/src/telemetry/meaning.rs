//! What metrics mean: the HELP lines of `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};

/// A metric: its kind, its name, what it means.
pub type Meaning = (Kind, &'static str, &'static str);

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Tells the recorder what metrics mean. Call it once it is installed.
pub fn describe(meanings: &[Meaning]) {
    for (kind, name, meaning) in meanings {
        match kind {
            Kind::Counter => describe_counter!(*name, *meaning),
            Kind::Gauge => describe_gauge!(*name, *meaning),
            Kind::Histogram => describe_histogram!(*name, *meaning),
        }
    }
}

/// Describes what every process has, and says which this is: of which tier and version.
pub fn describe_process(tier: &'static str, version: &'static str) {
    describe(&[
        (
            Kind::Gauge,
            "weir_build_info",
            "1, with what the process was built from",
        ),
        (
            Kind::Gauge,
            "weir_bus_connected",
            "1 while the servers are in reach and all they know is known here",
        ),
        (
            Kind::Gauge,
            "weir_bus_hearing",
            "1 while it is proven that what others put is heard here",
        ),
        (
            Kind::Gauge,
            "weir_bus_duplicate",
            "1 while another living process uses this node's name, or an address it registers",
        ),
        (
            Kind::Counter,
            "weir_bus_readers_renewed_total",
            "Times the bucket was read anew on a connection that lived, by reason",
        ),
        (
            Kind::Gauge,
            "weir_bus_remembered_age_seconds",
            "How old what an earlier life had kept of the bus was at the start",
        ),
        (Kind::Gauge, "weir_bus_keys", "Keys kept by this node"),
        (
            Kind::Counter,
            "weir_bus_puts_total",
            "Records put by this node",
        ),
        (
            Kind::Counter,
            "weir_bus_put_failures_total",
            "Changes the servers did not take at the first attempt",
        ),
        (
            Kind::Counter,
            "weir_bus_ignored_total",
            "Records not acted on, by reason",
        ),
    ]);
    let of_reload = |what: &str| format!("weir_{tier}_config_last_reload_{what}");
    describe_gauge!(
        of_reload("successful"),
        "1 if the last reload, or the start, put the file in force; 0 if it was refused"
    );
    describe_gauge!(
        of_reload("success_timestamp_seconds"),
        "Since when the configuration in force is, in seconds since 1970"
    );
    gauge!("weir_build_info", "tier" => tier, "version" => version, "commit" => crate::build::COMMIT).set(1.0);
}
