//! What is counted by listener, and by listener and route.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{CLASSES, class};
use crate::observe::reason::Reason;

/// Why accepting fails.
const ACCEPT_ERRORS: [&str; 5] = [
    "too_many_files",
    "too_many_files_in_system",
    "no_memory",
    "aborted",
    "other",
];

/// Status codes whose series are there from the start: those of our own answers, and what applications commonly say. Others appear when
/// they are first sent.
const COMMON_CODES: [u16; 21] = [
    200, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 429, 499, 500, 502,
    503, 504,
];

/// Codes are three digits, the first of them 1 to 9 (RFC 9110 section 15).
const CODES: std::ops::Range<u16> = 100..1000;

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

impl Handshake {
    /// Their labels, by their numbers.
    const NAMES: [&str; 5] = ["full", "resumed", "failed", "abandoned", "timeout"];
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
    /// By [`Handshake`]; none on a listener without TLS.
    handshakes: Vec<Counter>,
    /// By [`Reason`].
    answered: Vec<Counter>,
    /// By code, from the first of [`CODES`] on.
    codes: Box<[OnceLock<Counter>]>,
    name: String,
    /// By the routes' numbers.
    routes: Vec<RouteMetrics>,
    unrouted: RouteMetrics,
}

#[derive(Debug)]
struct RouteMetrics {
    classes: [Counter; 5],
    duration: Histogram,
}

impl ListenerMetrics {
    /// For a listener, and the names of all routes and their upstreams in the order of their numbers.
    pub(crate) fn new<'r>(
        name: &str,
        tls: bool,
        routes: impl Iterator<Item = (&'r str, &'r str)>,
    ) -> ListenerMetrics {
        let own = |metric: &'static str| counter!(metric, "listener" => name.to_owned());
        let handshake = |result: &&'static str| counter!("weir_l7_tls_handshakes_total", "listener" => name.to_owned(), "result" => *result);
        let answered = |reason: &Reason| counter!("weir_l7_answered_by_proxy_total", "listener" => name.to_owned(), "reason" => reason.as_str());
        let handshakes = if tls { &Handshake::NAMES[..] } else { &[] };
        let metrics = ListenerMetrics {
            connections: gauge!("weir_l7_connections", "listener" => name.to_owned()),
            accepted: own("weir_l7_connections_total"),
            over_limit: own("weir_l7_connections_over_limit_total"),
            slow_heads: own("weir_l7_slow_heads_total"),
            slow_readers: own("weir_l7_slow_readers_total"),
            proxied: proxy_header(name, "proxied"),
            handshakes: handshakes.iter().map(handshake).collect(),
            answered: Reason::ALL.iter().map(answered).collect(),
            codes: CODES.map(|_| OnceLock::new()).collect(),
            name: name.to_owned(),
            routes: routes
                .map(|(route, upstream)| RouteMetrics::new(name, route, upstream))
                .collect(),
            unrouted: RouteMetrics::new(name, "", ""),
        };
        for code in COMMON_CODES {
            metrics.code(code, 0);
        }
        for reason in ACCEPT_ERRORS {
            metrics.accept_error_by(reason, 0);
        }
        metrics
    }

    /// Registers what hangs on words that rooms above this one know: why framing is refused, and what comes in place of a PROXY header (nothing
    /// where none is expected).
    pub(crate) fn register(
        &self,
        violations: impl Iterator<Item = &'static str>,
        instead_of_headers: impl Iterator<Item = &'static str>,
    ) {
        for violation in violations {
            self.violations(violation).increment(0);
        }
        for result in instead_of_headers {
            proxy_header(&self.name, result).increment(0);
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn handshake(&self, result: Handshake) {
        if let Some(counter) = self.handshakes.get(result as usize) {
            counter.increment(1);
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
        debug_assert!(
            ACCEPT_ERRORS.contains(&reason),
            "{reason} is not registered"
        );
        self.accept_error_by(reason, 1);
    }

    fn accept_error_by(&self, reason: &'static str, count: u64) {
        counter!("weir_l7_accept_errors_total", "listener" => self.name.clone(), "reason" => reason).increment(count);
    }

    /// Off the common path, so the handle isn't kept.
    pub(crate) fn violation(&self, violation: &'static str) {
        self.violations(violation).increment(1);
    }

    fn violations(&self, violation: &'static str) -> Counter {
        counter!("weir_l7_framing_violations_total", "listener" => self.name.clone(), "kind" => violation)
    }

    /// The proxy answered, or cut, a request itself.
    pub(crate) fn answered(&self, reason: Reason) {
        if let Some(counter) = self.answered.get(reason as usize) {
            counter.increment(1);
        }
    }

    /// A request is over. `route` is the number of its route among those this was made for; none if it came to no route.
    pub(crate) fn request(&self, route: Option<usize>, status: u16, seconds: f64) {
        let route = route.and_then(|number| self.routes.get(number));
        route.unwrap_or(&self.unrouted).count(status, seconds);
        self.code(status, 1);
    }

    /// As [`Self::request`], by the names of a route and its upstream in a configuration that has this listener no more.
    pub(crate) fn late_request(&self, route: Option<(&str, &str)>, status: u16, seconds: f64) {
        let (route, upstream) = route.unwrap_or_default();
        RouteMetrics::new(&self.name, route, upstream).count(status, seconds);
        self.code(status, 1);
    }

    fn code(&self, status: u16, count: u64) {
        let place = status.checked_sub(CODES.start).map(usize::from);
        let Some(handle) = place.and_then(|place| self.codes.get(place)) else {
            return;
        };
        let make = || counter!("weir_l7_responses_total", "listener" => self.name.clone(), "code" => status.to_string());
        handle.get_or_init(make).increment(count);
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
            classes: CLASSES.map(class),
            duration: histogram!("weir_l7_request_duration_seconds", "listener" => listener.to_owned(), "route" => route.to_owned()),
        }
    }

    fn count(&self, status: u16, seconds: f64) {
        if let Some(counter) = self.classes.get(class(status)) {
            counter.increment(1);
        }
        self.duration.record(seconds);
    }
}
