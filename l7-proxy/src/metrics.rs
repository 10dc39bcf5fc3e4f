//! What the L7 tier counts. Handles are made once per worker and label set; a request looks one up by small numbers and adds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::config::Listener;
use crate::reason::Reason;
use crate::route::UpstreamId;
use crate::serve::Violation;
use crate::snapshot::Snapshot;
use crate::tunnel::End;

/// Tells the recorder what each metric means. Call once, after the recorder is installed.
pub fn describe() {
    describe_counter!(
        "weir_l7_requests_total",
        "Requests answered, by status class"
    );
    describe_histogram!(
        "weir_l7_request_duration_seconds",
        "From a complete request head to the last byte of the response"
    );
    describe_counter!(
        "weir_l7_answered_by_proxy_total",
        "Requests the proxy answered or cut itself, by reason"
    );
    describe_counter!(
        "weir_l7_upstream_errors_total",
        "Failed tries at backends, by reason"
    );
    describe_counter!(
        "weir_l7_retries_total",
        "Tries after the first one of a request"
    );
    describe_counter!(
        "weir_l7_upstream_connections_total",
        "Connections used for tries: from the pool or opened"
    );
    describe_gauge!("weir_l7_backend_up", "1 while a backend may get requests");
    describe_gauge!("weir_l7_backend_active", "Requests under way to a backend");
    describe_gauge!(
        "weir_l7_connections",
        "Client connections open now, tunnels included"
    );
    describe_counter!("weir_l7_connections_total", "Client connections accepted");
    describe_counter!(
        "weir_l7_connections_over_limit_total",
        "Client connections closed because the listener is full"
    );
    describe_counter!("weir_l7_accept_errors_total", "Failed accepts, by reason");
    describe_counter!(
        "weir_l7_proxy_headers_total",
        "Connections of which a PROXY header was expected, by what came"
    );
    describe_counter!("weir_l7_tls_handshakes_total", "TLS handshakes, by result");
    describe_counter!(
        "weir_l7_framing_violations_total",
        "Requests refused for ambiguous or invalid HTTP/1 framing, by kind"
    );
    describe_counter!(
        "weir_l7_slow_heads_total",
        "Connections closed because a request head took too long"
    );
    describe_counter!(
        "weir_l7_slow_readers_total",
        "Responses cut because the client took nothing of them for too long"
    );
    describe_counter!(
        "weir_l7_tunnels_total",
        "Tunnels (upgraded connections) that ended, by how"
    );
    describe_gauge!("weir_l7_tunnels", "Tunnels open now");
    describe_counter!(
        "weir_l7_access_log_dropped_total",
        "Access log lines dropped because the writer could not keep up"
    );
    describe_gauge!("weir_l7_draining", "1 while the node drains");
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
    Failed,
    /// The client closed before it was done: port scans and TCP health checks do.
    Abandoned,
    TimedOut,
}

/// A listener's handles.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) over_limit: Counter,
    pub(crate) slow_heads: Counter,
    pub(crate) slow_readers: Counter,
    proxied: Counter,
    full: Counter,
    resumed: Counter,
    failed: Counter,
    abandoned: Counter,
    timed_out: Counter,
    name: String,
    routes: RefCell<HashMap<Option<usize>, RouteMetrics>>,
}

#[derive(Debug)]
struct RouteMetrics {
    classes: [Counter; 5],
    duration: Histogram,
}

impl ListenerMetrics {
    pub(crate) fn new(listener: &Listener) -> ListenerMetrics {
        let name = listener.name.clone();
        let handshake = |result: &'static str| counter!("weir_l7_tls_handshakes_total", "listener" => name.clone(), "result" => result);
        ListenerMetrics {
            connections: gauge!("weir_l7_connections", "listener" => name.clone()),
            accepted: counter!("weir_l7_connections_total", "listener" => name.clone()),
            over_limit: counter!("weir_l7_connections_over_limit_total", "listener" => name.clone()),
            slow_heads: counter!("weir_l7_slow_heads_total", "listener" => name.clone()),
            slow_readers: ListenerMetrics::slow_readers(&name),
            proxied: proxy_header(&name, "proxied"),
            full: handshake("full"),
            resumed: handshake("resumed"),
            failed: handshake("failed"),
            abandoned: handshake("abandoned"),
            timed_out: handshake("timeout"),
            routes: RefCell::new(HashMap::new()),
            name,
        }
    }

    /// Responses cut because of their reader, for a listener named `name`.
    pub(crate) fn slow_readers(name: &str) -> Counter {
        counter!("weir_l7_slow_readers_total", "listener" => name.to_owned())
    }

    pub(crate) fn handshake(&self, result: Handshake) {
        match result {
            Handshake::Full => self.full.increment(1),
            Handshake::Resumed => self.resumed.increment(1),
            Handshake::Failed => self.failed.increment(1),
            Handshake::Abandoned => self.abandoned.increment(1),
            Handshake::TimedOut => self.timed_out.increment(1),
        }
    }

    /// A PROXY header named a connection's client.
    pub(crate) fn proxied(&self) {
        self.proxied.increment(1);
    }

    /// Where a PROXY header was expected, something else came. Off the common path, so the handle isn't kept.
    pub(crate) fn not_proxied(&self, result: &'static str) {
        proxy_header(&self.name, result).increment(1);
    }

    pub(crate) fn accept_error(&self, reason: &'static str) {
        counter!("weir_l7_accept_errors_total", "listener" => self.name.clone(), "reason" => reason).increment(1);
    }

    pub(crate) fn violation(&self, violation: Violation) {
        counter!("weir_l7_framing_violations_total", "listener" => self.name.clone(), "kind" => violation.name()).increment(1);
    }

    /// The proxy answered, or cut, a request itself. Off the common path, so the handle isn't kept.
    pub(crate) fn answered(&self, reason: Reason) {
        counter!("weir_l7_answered_by_proxy_total", "listener" => self.name.clone(), "reason" => reason.as_str()).increment(1);
    }

    /// A request is over. `route` is its number among the routes and its names, if there was one.
    pub(crate) fn request(&self, route: Option<(usize, &str, &str)>, status: u16, seconds: f64) {
        let mut routes = self.routes.borrow_mut();
        let metrics = routes
            .entry(route.map(|(number, _, _)| number))
            .or_insert_with(|| {
                let (_, route, upstream) = route.unwrap_or((0, "", ""));
                RouteMetrics::new(&self.name, route, upstream)
            });
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        metrics.classes[class].increment(1);
        metrics.duration.record(seconds);
    }
}

fn proxy_header(listener: &str, result: &'static str) -> Counter {
    counter!("weir_l7_proxy_headers_total", "listener" => listener.to_owned(), "result" => result)
}

impl RouteMetrics {
    fn new(listener: &str, route: &str, upstream: &str) -> RouteMetrics {
        let class = |class: &'static str| {
            counter!("weir_l7_requests_total", "listener" => listener.to_owned(), "route" => route.to_owned(),
                "upstream" => upstream.to_owned(), "class" => class)
        };
        RouteMetrics {
            classes: [
                class("1xx"),
                class("2xx"),
                class("3xx"),
                class("4xx"),
                class("5xx"),
            ],
            duration: histogram!("weir_l7_request_duration_seconds", "listener" => listener.to_owned(), "route" => route.to_owned()),
        }
    }
}

/// Handles for all upstreams, by [`UpstreamId`].
#[derive(Debug)]
pub(crate) struct UpstreamsMetrics(Vec<UpstreamMetrics>);

#[derive(Debug)]
struct UpstreamMetrics {
    name: String,
    retries: Counter,
    pooled: Counter,
    opened: Counter,
}

impl UpstreamsMetrics {
    pub(crate) fn new(snapshot: &Snapshot) -> UpstreamsMetrics {
        let upstreams = snapshot.upstreams().iter().map(|upstream| {
            let name = upstream.name.to_string();
            let used = |from: &'static str| counter!("weir_l7_upstream_connections_total", "upstream" => name.clone(), "from" => from);
            UpstreamMetrics {
                retries: counter!("weir_l7_retries_total", "upstream" => name.clone()),
                pooled: used("pool"),
                opened: used("connect"),
                name,
            }
        });
        UpstreamsMetrics(upstreams.collect())
    }

    pub(crate) fn retry(&self, id: UpstreamId) {
        if let Some(upstream) = self.0.get(id.0) {
            upstream.retries.increment(1);
        }
    }

    pub(crate) fn connection(&self, id: UpstreamId, reused: bool) {
        if let Some(upstream) = self.0.get(id.0) {
            if reused {
                upstream.pooled.increment(1)
            } else {
                upstream.opened.increment(1)
            }
        }
    }

    pub(crate) fn error(&self, id: UpstreamId, backend: SocketAddr, reason: Reason) {
        if let Some(upstream) = self.0.get(id.0) {
            counter!("weir_l7_upstream_errors_total", "upstream" => upstream.name.clone(), "backend" => backend.to_string(),
                "reason" => reason.as_str())
            .increment(1);
        }
    }
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

    pub(crate) fn ended(&self, end: End) {
        counter!("weir_l7_tunnels_total", "end" => end.name()).increment(1);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Brings the gauges that mirror state up to date before a scrape.
pub(crate) fn refresh(snapshot: &Snapshot, draining: bool, log_lines_dropped: u64) {
    for upstream in snapshot.upstreams() {
        for backend in &upstream.backends {
            let labels = [
                ("upstream", upstream.name.to_string()),
                ("backend", backend.address().to_string()),
            ];
            gauge!("weir_l7_backend_up", &labels).set(if backend.is_available() {
                1.0
            } else {
                0.0
            });
            gauge!("weir_l7_backend_active", &labels).set(f64::from(backend.active()));
        }
    }
    gauge!("weir_l7_draining").set(if draining { 1.0 } else { 0.0 });
    counter!("weir_l7_access_log_dropped_total").absolute(log_lines_dropped);
}
