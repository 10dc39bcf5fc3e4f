//! An upstream as configured.

use std::net::SocketAddr;
use std::time::Duration;

use health::CheckSettings;

use super::balance::Algorithm;

/// One upstream as configured.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name.
    pub name: String,
    /// How requests are spread.
    pub balance: Algorithm,
    /// At least one has a weight above 0.
    pub backends: Vec<BackendSettings>,
    /// Until a TCP connection to a backend is there.
    pub connect_timeout: Duration,
    /// From the request being sent until the response head is there; the longest pause within the response body, and in taking the rest of a request
    /// that is answered.
    pub response_timeout: Duration,
    /// Idle connections to backends.
    pub keep_alive: KeepAlive,
    /// Tries after the first one that failed.
    pub retries: u32,
    /// How backends are checked; without it they count as up.
    pub health: Option<CheckSettings>,
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
            health: None,
        }
    }
}

/// One backend as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to its siblings; 0 gets no new requests.
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
        // An idle connection should end here before it ends at the backend; a minute is the shortest default among common servers
        // apart from Node's five seconds, which a stale connection's retry covers.
        KeepAlive {
            idle: 32,
            idle_timeout: Duration::from_secs(55),
            max_age: Duration::from_secs(600),
        }
    }
}
