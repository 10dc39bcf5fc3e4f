//! The configuration of a node, parsed into types that can't be wrong. The reference is `deploy/reference/l4-gateway.md`.

mod devices;
mod groups;
mod memory;
mod overlaps;
mod policy;
mod port_ranges;
mod ports;
mod process;
mod reach;
mod services;

use std::net::{IpAddr, Ipv4Addr};

use bgp_ctl::config::BgpSection;
use dataplane::Limits;
use shared::bus::{MAX_REGISTERED, MAX_SERVICES};
use shared::config::Table;
use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection};

pub use ports::{Network, PortConfig, RouteConfig};
pub use process::{DrainSection, EalSection, WorkersSection};
pub(crate) use reach::{other_family, other_port, reachable, way_to};
pub(crate) use services::MOST_WEIGHT;
pub use services::{ServiceSettings, StaticTarget};

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
    /// Reads the whole document.
    pub fn parse(root: &mut Table<'_>) -> Option<Config> {
        let node = NodeSection::parse(root);
        let admin = AdminSection::parse(root, ADMIN_PORT);
        let bus = BusSection::parse(root);
        let log = LogSection::parse(root);
        let workers = WorkersSection::parse(root);
        let eal = EalSection::parse(root);
        let drain = DrainSection::parse(root);
        let (ports, ports_sound) = ports::parse(root, workers.count());
        let services = services::parse(root, &bus.transport, &ports, ports_sound);
        let bgp = BgpSection::parse(root);

        if let (Some(bgp), Some(services)) = (&bgp, &services) {
            announced_are_served(root, bgp, services);
        }
        if !ports_sound {
            return None;
        }
        let config = Config {
            node: node?,
            admin,
            bus,
            log,
            eal,
            workers,
            drain,
            ports,
            services: services?,
            bgp,
        };
        if let Some(bgp) = &config.bgp {
            wide_vips_are_not_announced(root, &config.vips());
            overlaps::vips_are_allowed(root, bgp, &config.vips());
        }
        memory::holds_frames(root, &config);
        Some(config)
    }

    /// What each worker may hold: enough for all that is configured, and for registrations besides.
    pub fn limits(&self) -> Limits {
        let defaults = Limits::default();
        let targets: usize = self
            .services
            .iter()
            .map(|service| service.targets.len())
            .sum();
        let registering = self
            .services
            .iter()
            .filter(|service| service.from_registrations)
            .count();
        // Twice, as numbers of targets that are gone come back only when their last flow has ended.
        let targets = 2 * (targets + registering * MAX_REGISTERED) as u32;
        let local_ips: usize = self.ports.iter().map(|port| port.local_ips.len()).sum();
        Limits {
            flows: self.workers.flows,
            // Twice for the same reason, and not by how many there are: a reload may bring more.
            services: 2 * MAX_SERVICES as u32,
            targets: targets.max(defaults.targets),
            local_ips: (local_ips as u16).max(defaults.local_ips),
            sources: self.workers.sources,
            ..defaults
        }
    }

    /// The VIPs of all services, each once.
    pub fn vips(&self) -> Vec<IpAddr> {
        let mut vips: Vec<IpAddr> = self.services.iter().map(|service| service.vip).collect();
        vips.sort();
        vips.dedup();
        vips
    }
}

/// Warns of VIPs that `[bgp]` doesn't announce.
fn wide_vips_are_not_announced(root: &mut Table<'_>, vips: &[IpAddr]) {
    let wide = vips.iter().filter(|vip| vip.is_ipv6());
    let wide: Vec<String> = wide.map(ToString::to_string).collect();
    if !wide.is_empty() {
        root.warning(
            "bgp",
            "only IPv4 VIPs are announced so far",
            format!("tell routers of {} in another way", wide.join(", ")),
        );
    }
}

/// Records a mistake at each of `[[bgp.vips]]` that no service has.
fn announced_are_served(root: &mut Table<'_>, bgp: &BgpSection, services: &[ServiceSettings]) {
    let tables = root
        .table("bgp")
        .map(|mut bgp| bgp.tables_by("vips", "address"));
    for mut table in tables.unwrap_or_default() {
        // What can't be a VIP at all is a mistake already.
        let address = table.optional::<Ipv4Addr>("address");
        let Some(vip) = address.filter(|address| bgp.vips.contains_key(address)) else {
            continue;
        };
        if services.iter().all(|service| service.vip != vip) {
            table.mistake(
                "address",
                format!("{vip} is the VIP of no service here"),
                "leave it out, or add the service",
            );
        }
    }
}

#[cfg(test)]
mod tests;
