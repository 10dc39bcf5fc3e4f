//! Named groups of backends, and everything about reaching them: which backend (`balance/`), over which
//! connection (`pool.rs`), and one exchange on it (`link.rs`).
//!
//! What workers share about a backend is in its atomics; turns and connections each worker keeps for itself, so nothing is locked and a
//! response never changes threads.

mod backend;
mod balance;
mod error;
mod idle;
mod link;
mod pool;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::observe::metrics::{BackendMetrics, UpstreamMetrics};

pub use backend::{Backend, InFlight, State};
pub use balance::{Algorithm, Asking, Balancer, Outcome, Tried};
pub use error::{ConnectError, ExchangeError};
pub use idle::Idle;
pub(crate) use link::Link;
pub(crate) use pool::{Lease, Likeness, Pool, Shelf};
pub use settings::{BackendSettings, KeepAlive, UpstreamSettings};

/// A named group of backends.
#[derive(Debug)]
pub struct Upstream {
    /// The name routes, logs and metrics use.
    pub name: Arc<str>,
    /// Timeouts, retries, keep-alive, health.
    pub settings: UpstreamSettings,
    /// Its backends; a [`Balancer`] answers with an index into them.
    pub members: Box<[Member]>,
    pub(crate) metrics: UpstreamMetrics,
}

/// A backend as one generation of the configuration has it.
#[derive(Clone, Debug)]
pub struct Member {
    /// What is known about it, whatever the generation.
    pub backend: Arc<Backend>,
    /// Its share of requests relative to its siblings; 0 gets no new ones.
    pub weight: u32,
    pub(crate) metrics: Arc<BackendMetrics>,
}

impl Member {
    /// Whether a new request may go to it.
    pub fn is_available(&self) -> bool {
        self.weight > 0 && self.backend.state() == State::Up
    }
}

impl Upstream {
    /// Builds the upstream. Backends whose address `previous` had too go on with their state and counts, whatever their new weight.
    pub fn new(settings: UpstreamSettings, previous: Option<&Upstream>) -> Upstream {
        let initially = match settings.health.as_ref().map(|health| health.initially) {
            Some(health::State::Down) => State::Down,
            Some(health::State::Up) | None => State::Up,
        };
        let known = |address| Some(previous?.member(address)?.backend.clone());
        let members = settings
            .backends
            .iter()
            .map(|wanted| Member {
                backend: known(wanted.address)
                    .unwrap_or_else(|| Arc::new(Backend::new(wanted.address, initially))),
                weight: wanted.weight,
                metrics: Arc::new(BackendMetrics::new(&settings.name, wanted.address)),
            })
            .collect();
        Upstream {
            metrics: UpstreamMetrics::new(&settings.name),
            name: settings.name.as_str().into(),
            settings,
            members,
        }
    }

    /// The backend at an address.
    pub fn member(&self, address: SocketAddr) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.backend.address() == address)
    }

    /// How many backends may get requests now.
    pub fn available(&self) -> usize {
        self.members
            .iter()
            .filter(|member| member.is_available())
            .count()
    }
}
