//! The configuration of a node, parsed into types that cannot be wrong. Every key is described in `deploy/reference/l7-proxy.md`.

mod listener;
mod routes;
mod sections;
#[cfg(test)]
mod tests;
mod upstream;

pub use listener::{Certificate, CertificatePlaces, Listener, Protocol, ProxyProtocol};
pub use sections::{Drain, Registration};

use crate::http::Forwarding;
use crate::observe::access_log::Settings as AccessLogSettings;
use crate::policy::Rule;
use crate::upstream::UpstreamSettings;
use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection};
use shared::config::{Document, Mistakes, Table};
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
    /// Upstreams in the order of their names; [`crate::policy::UpstreamId`] is an index into them.
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
        // The rest changes while the node serves.
        let mut live = root.live();
        let listeners = listener::parse_all(&mut live);
        let certificates = listener::parse_certificates(&mut live, &listeners);
        let (names, upstreams) = upstream::parse_all(&mut live);
        let routes = routes::parse_all(&mut live, &names);
        let registrations = sections::parse_registrations(&mut live);
        let access_log = sections::parse_access_log(&mut live);
        let forwarding = sections::parse_forwarding(&mut live);
        let drain = Drain::parse(&mut live);
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
