//! What is known about a request when it is over.

use crate::observe::reason::Reason;
use http::{HeaderValue, Method, StatusCode, Version};
use std::time::{Duration, SystemTime};

/// A finished request. Borrows, because it is formatted at once.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request's head was complete.
    pub time: SystemTime,
    /// The client's address: the peer's, or that of whom a trusted peer named.
    pub client: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The method.
    pub method: &'a Method,
    /// The host as the client sent it, if there was one.
    pub host: Option<&'a HeaderValue>,
    /// The request target as the client sent it.
    pub target: &'a str,
    /// The protocol version the client spoke.
    pub version: Version,
    /// The status sent, or 499 when the client left first.
    pub status: StatusCode,
    /// Bytes of the request body.
    pub bytes_received: u64,
    /// Bytes of the response body.
    pub bytes_sent: u64,
    /// From the head being complete to the last byte of the response.
    pub duration: Duration,
    /// From the first try until the response head of the last one; `None` when no backend was asked.
    pub upstream_duration: Option<Duration>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The upstream's name.
    pub upstream: Option<&'a str>,
    /// The address of the backend that answered or failed last.
    pub backend: Option<&'a str>,
    /// How many backends were tried.
    pub tries: u32,
    /// Why the proxy answered itself.
    pub reason: Option<Reason>,
    /// The `Referer` field.
    pub referer: Option<&'a HeaderValue>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a HeaderValue>,
}
