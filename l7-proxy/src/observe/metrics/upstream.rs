//! What is counted by upstream, and by upstream and backend.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::{CLASSES, class};
use crate::observe::reason::Reason;

/// An upstream's handles.
#[derive(Debug)]
pub(crate) struct UpstreamMetrics {
    retries: Counter,
    pooled: Counter,
    opened: Counter,
}

impl UpstreamMetrics {
    pub(crate) fn new(name: &str) -> UpstreamMetrics {
        let used = |from: &'static str| counter!("weir_l7_upstream_connections_total", "upstream" => name.to_owned(), "from" => from);
        UpstreamMetrics {
            retries: counter!("weir_l7_retries_total", "upstream" => name.to_owned()),
            pooled: used("pool"),
            opened: used("connect"),
        }
    }

    pub(crate) fn retry(&self) {
        self.retries.increment(1);
    }

    pub(crate) fn connection(&self, reused: bool) {
        if reused {
            self.pooled.increment(1)
        } else {
            self.opened.increment(1)
        }
    }
}

/// A backend's handles.
#[derive(Debug)]
pub(crate) struct BackendMetrics {
    classes: [Counter; 5],
    duration: Histogram,
    sent: Counter,
    received: Counter,
    /// By [`Reason`]; none for those that no try fails with.
    errors: Vec<Option<Counter>>,
}

impl BackendMetrics {
    pub(crate) fn new(upstream: &str, backend: SocketAddr) -> BackendMetrics {
        let labels = [
            ("upstream", upstream.to_owned()),
            ("backend", backend.to_string()),
        ];
        let with = |name: &'static str, value: &'static str| {
            let [upstream, backend] = labels.clone();
            [upstream, backend, (name, value.to_owned())]
        };
        let error = |reason: &Reason| {
            let labels = with("reason", reason.as_str());
            reason
                .is_of_backend()
                .then(|| counter!("weir_l7_upstream_errors_total", &labels))
        };
        BackendMetrics {
            classes: CLASSES
                .map(|class| counter!("weir_l7_backend_requests_total", &with("class", class))),
            duration: histogram!("weir_l7_backend_response_duration_seconds", &labels),
            sent: counter!("weir_l7_backend_sent_bytes_total", &labels),
            received: counter!("weir_l7_backend_received_bytes_total", &labels),
            errors: Reason::ALL.iter().map(error).collect(),
        }
    }

    /// A try was answered after `took`.
    pub(crate) fn answered(&self, status: u16, took: Duration) {
        if let Some(counter) = self.classes.get(class(status)) {
            counter.increment(1);
        }
        self.duration.record(took.as_secs_f64());
    }

    /// A try failed.
    pub(crate) fn failed(&self, reason: Reason) {
        let counter = self.errors.get(reason as usize).and_then(Option::as_ref);
        debug_assert!(counter.is_some(), "{reason} is not registered");
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }

    /// Bytes of bodies there and back.
    pub(crate) fn carried(&self, sent: u64, received: u64) {
        self.sent.increment(sent);
        self.received.increment(received);
    }
}
