//! The configuration of a node, parsed into types that cannot be wrong. Every key is described in `deploy/reference/l7-proxy.md`.

mod listener;
mod routes;
mod sections;
#[cfg(test)]
mod tests;
mod upstream;

pub use listener::{Certificate, Listener, Protocol, ProxyProtocol};
pub use sections::{Drain, Registration};
pub use upstream::{BackendSettings, KeepAlive, UpstreamSettings};

use crate::access_log::Settings as AccessLogSettings;
use crate::normalise::Forwarding;
use crate::route::Rule;
use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection};
use shared::config::{Cidr, Document, Mistakes, Table};
use std::path::Path;

/// The admin listener's port where the configuration names none.
pub const ADMIN_PORT: u16 = 9402;

/// Everything the configuration file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is.
    pub node: NodeSection,
    /// Where it is operated from.
    pub admin: AdminSection,
    /// How it shares state with the other nodes.
    pub bus: BusSection,
    /// What it logs of itself.
    pub log: LogSection,
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

impl Config {
    /// Loads a file, laid over by `WEIR__...` variables of the environment.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(path: &Path) -> Result<Config, Mistakes> {
        Document::load(path)?.parse(Config::parse)
    }

    /// Parses text; `name` stands for the file in messages.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_toml(name: &str, text: &str) -> Result<Config, Mistakes> {
        Document::from_toml(name, text)?.parse(Config::parse)
    }

    /// Reads the root table. Every table is read whatever the others hold, so that all mistakes are found.
    pub fn parse(root: &mut Table<'_>) -> Option<Config> {
        let node = NodeSection::parse(root);
        let admin = AdminSection::parse(root, ADMIN_PORT);
        let bus = BusSection::parse(root);
        let log = LogSection::parse(root);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = root.within("workers", 1..=256, cores.min(256));
        let listeners = listener::parse_all(root);
        let certificates = listener::parse_certificates(root, &listeners);
        let (names, upstreams) = upstream::parse_all(root);
        let routes = routes::parse_all(root, &names);
        let registrations = sections::parse_registrations(root);
        let access_log = sections::parse_access_log(root);
        let trusted = root
            .table("forwarding")
            .map(|mut table| table.or::<Vec<Cidr>>("trusted", Vec::new()));
        let forwarding = Forwarding::trusting(trusted.unwrap_or_default());
        let drain = Drain::parse(root);
        Some(Config {
            node: node?,
            admin,
            bus,
            log,
            workers,
            listeners,
            certificates,
            routes,
            upstreams,
            registrations,
            access_log,
            forwarding,
            drain,
        })
    }
}
