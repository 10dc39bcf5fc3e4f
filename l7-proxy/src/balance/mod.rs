//! Choosing a backend: what is shared between workers ([`Backend`]) and what each worker keeps for itself ([`Balancer`]).
//!
//! Workers never wait for each other. Round robin turns in every worker's own [`Balancer`]; the counts that least connections
//! compares are atomics in the shared backends.

mod backend;
mod least_connections;
mod round_robin;
#[cfg(test)]
mod tests;
mod upstream;

pub use backend::{Backend, InFlight, State};
pub use upstream::Upstream;

use least_connections::Loads;
use round_robin::Turns;
use std::sync::Arc;

/// How an upstream spreads requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Fewest requests under way per weight; ties by weighted round robin.
    LeastConnections,
}

impl Algorithm {
    /// The names used in the configuration.
    pub const NAMES: &[(&str, Algorithm)] = &[
        ("round_robin", Algorithm::RoundRobin),
        ("least_connections", Algorithm::LeastConnections),
    ];
}

/// The backends a request has been to already, by index in [`Upstream::backends`]. Allocates only once something failed.
#[derive(Clone, Debug, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    /// Nothing tried yet.
    pub const fn new() -> Tried {
        Tried(Vec::new())
    }

    /// Marks a backend as not to be chosen again for this request.
    pub fn add(&mut self, index: usize) {
        if !self.contains(index) {
            self.0.push(index);
        }
    }

    /// Whether the backend was tried.
    pub fn contains(&self, index: usize) -> bool {
        self.0.contains(&index)
    }
}

/// One worker's balancing state for one upstream.
#[derive(Debug)]
pub struct Balancer {
    upstream: Arc<Upstream>,
    turns: Turns,
    loads: Loads,
}

impl Balancer {
    /// State for worker number `worker`. Workers start at different turns, so that the first requests of all workers do not meet at one
    /// backend.
    pub fn new(upstream: Arc<Upstream>, worker: usize) -> Balancer {
        let mut turns = Turns::new(upstream.backends.len());
        let weights = |index: usize| upstream.backends[index].weight();
        for _ in 0..worker.checked_rem(upstream.backends.len()).unwrap_or(0) {
            turns.next(weights, |index| weights(index) > 0);
        }
        Balancer {
            upstream,
            turns,
            loads: Loads::default(),
        }
    }

    /// The upstream it balances.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The backend for the next try of a request that has been to `tried`, as an index into [`Upstream::backends`]; `None` when no
    /// backend that is up is left.
    pub fn choose(&mut self, tried: &Tried) -> Option<usize> {
        let backends = &self.upstream.backends;
        let weight = |index: usize| backends[index].weight();
        let eligible = |index: usize| backends[index].is_available() && !tried.contains(index);
        match self.upstream.settings.balance {
            Algorithm::RoundRobin => self.turns.next(weight, eligible),
            Algorithm::LeastConnections => self.loads.choose(backends, eligible, &mut self.turns),
        }
    }
}
