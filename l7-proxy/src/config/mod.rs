//! The configuration of a node, parsed into types that cannot be wrong.

mod listener;
mod upstream;

pub use listener::{Certificate, Listener, Protocol};
pub use upstream::{BackendSettings, KeepAlive, UpstreamSettings};

use crate::access_log::Settings as AccessLogSettings;
use crate::normalise::Forwarding;
use crate::route::Rule;
use std::net::SocketAddr;
use std::time::Duration;

/// Everything the configuration file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads; each runs its own listeners and connections.
    pub workers: usize,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Certificates for the https listeners.
    pub certificates: Vec<Certificate>,
    /// Routes in the order of the file.
    pub routes: Vec<Rule>,
    /// Upstreams in the order of their names; [`crate::route::UpstreamId`] is an index into them.
    pub upstreams: Vec<UpstreamSettings>,
    /// What this node offers itself for on the bus.
    pub registrations: Vec<Registration>,
    /// Where requests are logged; `None` when switched off.
    pub access_log: Option<AccessLogSettings>,
    /// How clients are described to backends, and whom to believe.
    pub forwarding: Forwarding,
    /// How a drain goes.
    pub drain: Drain,
}

/// A service this node offers itself for as a target of the L4 tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The L4 service's name.
    pub service: String,
    /// The address the L4 tier sends to: one of this node's listeners as others reach it.
    pub address: SocketAddr,
    /// Share of the service relative to other nodes.
    pub weight: u32,
    /// How long the offer holds without being repeated.
    pub ttl: Duration,
}

/// How a drain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From the start of the drain until listeners close: time for the L4 tier to stop sending new connections.
    pub grace: Duration,
    /// From the start of the drain until connections that are still open are cut.
    pub deadline: Duration,
}
