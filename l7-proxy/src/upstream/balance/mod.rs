//! Choosing a backend: what is shared between workers ([`super::Backend`]) and what each worker keeps for itself ([`Balancer`]).
//!
//! Workers never wait for each other. Round robin turns in every worker's own [`Balancer`]; the counts that least connections
//! compares are atomics in the shared backends.

mod least_connections;
mod round_robin;
#[cfg(test)]
mod tests;

use http::{HeaderMap, StatusCode, Uri};
use std::net::IpAddr;
use std::time::Duration;

use super::{Member, Upstream};
use crate::observe::reason::Reason;
use least_connections::Loads;
use round_robin::Turns;
use std::collections::HashMap;
use std::net::SocketAddr;
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

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        let mut names = Algorithm::NAMES.iter();
        names
            .find(|(_, algorithm)| *algorithm == self)
            .map_or("", |(name, _)| name)
    }
}

/// What of a request a balancer may go by.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'r> {
    /// Who sent it.
    pub client: IpAddr,
    /// Its path and query.
    pub uri: &'r Uri,
    /// Its fields, without those of a connection.
    pub headers: &'r HeaderMap,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response head with this status came this long after the try began.
    Answered(StatusCode, Duration),
    /// None came.
    Failed(Reason),
}

/// The backends a request has been to already, by index in [`Upstream::members`]. Allocates only once something failed.
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
    /// State for worker number `worker`. Backends that `previous` balanced too keep their turns. Without it, workers start at different
    /// turns, so that the first requests of all workers do not meet at one backend.
    pub fn new(upstream: Arc<Upstream>, worker: usize, previous: Option<&Balancer>) -> Balancer {
        let members = &upstream.members;
        let turns = match previous {
            Some(previous) => {
                let before = previous.upstream.members.iter().enumerate();
                let before: HashMap<SocketAddr, usize> = before
                    .map(|(place, member)| (member.backend.address(), place))
                    .collect();
                let credit = |member: &Member| {
                    let place = before.get(&member.backend.address())?;
                    previous.turns.credit(*place)
                };
                let weights = members.iter().map(|member| i64::from(member.weight));
                Turns::continued(members.iter().map(credit), weights.sum())
            }
            None => {
                let mut turns = Turns::new(members.len());
                let weights = |index: usize| members[index].weight;
                for _ in 0..worker.checked_rem(members.len()).unwrap_or(0) {
                    turns.next(weights, |index| weights(index) > 0);
                }
                turns
            }
        };
        Balancer {
            upstream,
            turns,
            loads: Loads::default(),
        }
    }

    /// The backend for the next try of a request that asks so and has been to `tried`, as an index into [`Upstream::members`]; `None` when no
    /// backend that is up is left.
    pub fn choose(&mut self, _asking: &Asking<'_>, tried: &Tried) -> Option<usize> {
        let members = &self.upstream.members;
        let weight = |index: usize| members[index].weight;
        let eligible = |index: usize| members[index].is_available() && !tried.contains(index);
        match self.upstream.settings.balance {
            Algorithm::RoundRobin => self.turns.next(weight, eligible),
            Algorithm::LeastConnections => self.loads.choose(members, eligible, &mut self.turns),
        }
    }

    /// What came of a try at the backend with that index. Neither turns nor requests under way depend on it.
    pub fn told(&mut self, _index: usize, _outcome: Outcome) {
        match self.upstream.settings.balance {
            Algorithm::RoundRobin | Algorithm::LeastConnections => {}
        }
    }
}
