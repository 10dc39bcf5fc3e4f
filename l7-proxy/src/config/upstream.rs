//! `[upstreams.NAME]`.

use crate::balance::Algorithm;
use std::net::SocketAddr;
use std::time::Duration;

/// One upstream as configured.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name.
    pub name: String,
    /// How requests are spread.
    pub balance: Algorithm,
    /// At least one.
    pub backends: Vec<BackendSettings>,
    /// Until a TCP connection to a backend is there.
    pub connect_timeout: Duration,
    /// From the request being sent until the response head is there, and the longest pause within the response body.
    pub response_timeout: Duration,
    /// Idle connections to backends.
    pub keep_alive: KeepAlive,
    /// Tries after the first one that failed.
    pub retries: u32,
}

impl UpstreamSettings {
    /// An upstream with every setting that has a default at its default.
    pub fn new(
        name: impl Into<String>,
        balance: Algorithm,
        backends: Vec<BackendSettings>,
    ) -> UpstreamSettings {
        UpstreamSettings {
            name: name.into(),
            balance,
            backends,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(60),
            keep_alive: KeepAlive::default(),
            retries: 1,
        }
    }
}

/// One backend as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to its siblings, at least 1.
    pub weight: u32,
}

/// What is kept of connections no request is using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle connections kept per backend and worker; 0 closes each after its request.
    pub idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is closed after its request.
    pub max_age: Duration,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive {
            idle: 32,
            idle_timeout: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
        }
    }
}
