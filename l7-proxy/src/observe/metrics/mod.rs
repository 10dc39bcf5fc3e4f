//! What the L7 tier counts. Handles are made with the snapshot they belong to, once for all workers, and a request finds them by small
//! numbers: no label is put together on its way. Making them also registers their series, so that the first error is a step from 0 to 1,
//! which `rate()` sees, and not a series that begins with 1.

mod listener;
mod upstream;

use metrics::{Counter, Gauge, counter, gauge};
use shared::telemetry::{Kind, Meaning};

pub(crate) use listener::{Handshake, ListenerMetrics};
pub(crate) use upstream::{BackendMetrics, UpstreamMetrics};

/// Every metric of the tier, and what it means.
pub const MEANINGS: &[Meaning] = &[
    (
        Kind::Counter,
        "weir_l7_requests_total",
        "Requests answered, by status class",
    ),
    (
        Kind::Histogram,
        "weir_l7_request_duration_seconds",
        "From a complete request head to the last byte of the response",
    ),
    (
        Kind::Counter,
        "weir_l7_responses_total",
        "Requests answered, by status code",
    ),
    (
        Kind::Counter,
        "weir_l7_answered_by_proxy_total",
        "Requests the proxy answered or cut itself, by reason",
    ),
    (
        Kind::Counter,
        "weir_l7_upstream_errors_total",
        "Failed tries at backends, by reason",
    ),
    (
        Kind::Counter,
        "weir_l7_retries_total",
        "Tries after the first one of a request",
    ),
    (
        Kind::Counter,
        "weir_l7_upstream_connections_total",
        "Connections used for tries: from the pool or opened",
    ),
    (
        Kind::Counter,
        "weir_l7_backend_requests_total",
        "Tries a backend answered, by status class",
    ),
    (
        Kind::Histogram,
        "weir_l7_backend_response_duration_seconds",
        "From the beginning of a try, connecting included, to the response head",
    ),
    (
        Kind::Counter,
        "weir_l7_backend_sent_bytes_total",
        "Bytes of request bodies a backend answered",
    ),
    (
        Kind::Counter,
        "weir_l7_backend_received_bytes_total",
        "Bytes of response bodies of a backend that were passed on",
    ),
    (
        Kind::Gauge,
        "weir_l7_backend_up",
        "1 while a backend may get requests",
    ),
    (
        Kind::Gauge,
        "weir_l7_backend_active",
        "Requests under way to a backend",
    ),
    (
        Kind::Gauge,
        "weir_l7_connections",
        "Client connections open now, tunnels included; of a listener that left, those that stay until they end",
    ),
    (
        Kind::Gauge,
        "weir_l7_connections_limit",
        "The most client connections a listener takes (max_connections)",
    ),
    (
        Kind::Counter,
        "weir_l7_connections_total",
        "Client connections accepted",
    ),
    (
        Kind::Counter,
        "weir_l7_connections_over_limit_total",
        "Client connections turned away because the listener is full",
    ),
    (
        Kind::Counter,
        "weir_l7_accept_errors_total",
        "Failed accepts, by reason",
    ),
    (
        Kind::Counter,
        "weir_l7_proxy_headers_total",
        "Connections of which a PROXY header was expected, by what came",
    ),
    (
        Kind::Counter,
        "weir_l7_tls_handshakes_total",
        "TLS handshakes, by result",
    ),
    (
        Kind::Counter,
        "weir_l7_framing_violations_total",
        "Requests refused for ambiguous or invalid HTTP/1 framing, by kind",
    ),
    (
        Kind::Counter,
        "weir_l7_slow_heads_total",
        "Connections closed because a request head took too long",
    ),
    (
        Kind::Counter,
        "weir_l7_slow_readers_total",
        "Responses cut because the client took nothing of them for too long",
    ),
    (
        Kind::Counter,
        "weir_l7_tunnels_total",
        "Tunnels (upgraded connections) that ended, by how",
    ),
    (Kind::Gauge, "weir_l7_tunnels", "Tunnels open now"),
    (
        Kind::Counter,
        "weir_l7_access_log_dropped_total",
        "Lines lost of the log at access_log.path, by reason: it can't be written (failed), or not fast enough (slow)",
    ),
    (
        Kind::Gauge,
        "weir_l7_certificate_expiry_timestamp_seconds",
        "When the certificate in a file expires, in seconds since 1970",
    ),
    (
        Kind::Gauge,
        "weir_l7_worker_busy_ratio",
        "Share of the last second in which a worker had work, 0 to 1",
    ),
    (
        Kind::Gauge,
        "weir_l7_worker_time_seconds",
        "Time a worker had work (busy) and waited for some (idle), since the start",
    ),
    (Kind::Gauge, "weir_l7_draining", "1 while the node drains"),
];

/// How tunnels end.
const TUNNEL_ENDS: [&str; 4] = ["closed", "idle", "stopped", "broken"];

/// Registers the series that hang on no listener, route or upstream.
pub(crate) fn register() {
    for end in TUNNEL_ENDS {
        tunnels_ended(end).increment(0);
    }
    gauge!("weir_l7_tunnels").increment(0.0);
    for loss in [Loss::Slow, Loss::Failed] {
        log_lines_dropped(loss).increment(0);
    }
}

/// Why lines of the access log are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The writer could not keep up.
    Slow,
    /// They could not be written.
    Failed,
}

/// Lines of the access log that are lost.
pub(crate) fn log_lines_dropped(loss: Loss) -> Counter {
    let reason = match loss {
        Loss::Slow => "slow",
        Loss::Failed => "failed",
    };
    counter!("weir_l7_access_log_dropped_total", "reason" => reason)
}

/// Counts one tunnel while it is open, and how it ended.
#[derive(Debug)]
pub(crate) struct Tunnel(Gauge);

impl Tunnel {
    pub(crate) fn open() -> Tunnel {
        let open = gauge!("weir_l7_tunnels");
        open.increment(1.0);
        Tunnel(open)
    }

    pub(crate) fn ended(&self, end: &'static str) {
        debug_assert!(TUNNEL_ENDS.contains(&end), "{end} is not registered");
        tunnels_ended(end).increment(1);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn tunnels_ended(end: &'static str) -> Counter {
    counter!("weir_l7_tunnels_total", "end" => end)
}

/// The class of a status code, as an index into [`CLASSES`].
fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, CLASSES.len()) - 1
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
