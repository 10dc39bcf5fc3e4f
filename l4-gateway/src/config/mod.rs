//! The configuration of a node, parsed into types that can't be wrong. The reference is `deploy/reference/l4-gateway.md`.

mod ports;
mod process;
mod services;

use std::net::IpAddr;
use std::path::Path;

use bgp_ctl::config::BgpSection;
use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection, Transport};
use shared::config::{Document, Mistakes, Table};

pub use ports::{Network, PortConfig, RouteConfig};
pub use process::{DrainSection, EalSection, WorkersSection};
pub use services::{ServiceSettings, StaticTarget};
pub(crate) use services::{MOST_WEIGHT, reachable};

/// Where `l4-gateway` answers `status`, unless configured.
pub const ADMIN_PORT: u16 = 9401;

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[node]`.
    pub node: NodeSection,
    /// `[admin]`.
    pub admin: AdminSection,
    /// `[bus]`.
    pub bus: BusSection,
    /// `[log]`.
    pub log: LogSection,
    /// `[eal]`.
    pub eal: EalSection,
    /// `[workers]`.
    pub workers: WorkersSection,
    /// `[drain]`.
    pub drain: DrainSection,
    /// `[[ports]]`, at least one; a port's place is its [`PortConfig::index`].
    pub ports: Vec<PortConfig>,
    /// `[[services]]`, at least one.
    pub services: Vec<ServiceSettings>,
    /// `[bgp]`; without it nobody is told of the VIPs.
    pub bgp: Option<BgpSection>,
}

impl Config {
    /// Reads a file and the environment.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(path: &Path) -> Result<Config, Mistakes> {
        Document::load(path)?.parse(Config::parse)
    }

    /// Reads the whole document.
    pub fn parse(root: &mut Table<'_>) -> Option<Config> {
        let node = NodeSection::parse(root);
        let admin = AdminSection::parse(root, ADMIN_PORT);
        let bus = BusSection::parse(root);
        let log = LogSection::parse(root);
        let workers = WorkersSection::parse(root);
        let eal = EalSection::parse(root);
        let drain = DrainSection::parse(root);
        let ports = ports::parse(root, workers.count());
        let services = services::parse(root, &ports);
        let bgp = BgpSection::parse(root);

        if bus.transport == Transport::Local
            && let Some(index) = services.iter().position(|service| service.from_registrations)
        {
            let hint = "set bus.transport = \"nats\", or list the targets in [[services.targets]]";
            root.mistake(
                &format!("services[{index}].from_registrations"),
                "registrations come by the bus, and the bus stays within this process",
                hint,
            );
        }
        if let Some(bgp) = &bgp {
            for vip in bgp.vips.keys().filter(|vip| services.iter().all(|service| service.vip != **vip)) {
                root.mistake("bgp.vips", format!("{vip} is the VIP of no service here"), "leave it out, or add the service");
            }
        }
        Some(Config { node: node?, admin, bus, log, eal, workers, drain, ports, services, bgp })
    }

    /// The VIPs of all services, each once.
    pub fn vips(&self) -> Vec<IpAddr> {
        let mut vips: Vec<IpAddr> = self.services.iter().map(|service| service.vip.into()).collect();
        vips.sort();
        vips.dedup();
        vips
    }
}

#[cfg(test)]
mod tests;
