//! The configuration of the `health` binary. The reference is `deploy/reference/health.md`.

use std::net::SocketAddr;

use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection, Transport};
use shared::config::{Configuration, Table};

use crate::settings::CheckSettings;

/// Port of the admin listener on loopback, unless configured.
pub const ADMIN_PORT: u16 = 9403;

/// Probes at a time, unless configured.
const DEFAULT_PROBES: usize = 512;

/// Most probes at a time: each takes an open file.
const MOST_PROBES: usize = 65_536;

/// What the observer does.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who it is.
    pub node: NodeSection,
    /// Where it answers.
    pub admin: AdminSection,
    /// Where it publishes what it sees.
    pub bus: BusSection,
    /// What it logs.
    pub log: LogSection,
    /// Probes at a time.
    pub max_probes: usize,
    /// What it observes.
    pub services: Vec<ObservedService>,
}

/// A service and its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedService {
    /// The service's name in bus records.
    pub name: String,
    /// Targets that are always observed.
    pub targets: Vec<SocketAddr>,
    /// Whether targets that offer themselves for the service on the bus are observed too.
    pub from_registrations: bool,
    /// How its targets are checked.
    pub settings: CheckSettings,
}

impl Config {
    /// Reads the root table of a configuration.
    pub fn parse(root: &mut Table<'_>) -> Option<Config> {
        let node = NodeSection::parse(root);
        let admin = AdminSection::parse(root, ADMIN_PORT);
        let bus = BusSection::parse(root);
        let log = LogSection::parse(root);
        let max_probes = root
            .live()
            .within("max_probes", 1..=MOST_PROBES, DEFAULT_PROBES);
        let services = services(root, &bus);
        Some(Config {
            node: node?,
            admin,
            bus,
            log,
            max_probes,
            services: services?,
        })
    }
}

impl Configuration for Config {
    const TIER: &'static str = "health";
    const ADMIN_PORT: u16 = ADMIN_PORT;

    fn parse(root: &mut Table<'_>) -> Option<Config> {
        Config::parse(root)
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Config) -> impl PartialEq + '_ {
            let Config {
                node,
                admin,
                bus,
                log,
                max_probes: _,
                services: _,
            } = config;
            (node, admin, bus, log)
        }
        fixed(self) == fixed(other)
    }
}

/// Reads `[services.<name>]`. `None` if one of them is no use.
fn services(root: &mut Table<'_>, bus: &BusSection) -> Option<Vec<ObservedService>> {
    let tables = root.live().map("services");
    if tables.is_empty() {
        root.mistake(
            "services",
            "there is none",
            "write [services.<name>] with `targets`, and [services.<name>.health]",
        );
    }
    // Read all of them before giving up on one, so that all mistakes are found.
    let services: Vec<Option<ObservedService>> = tables
        .into_iter()
        .map(|(name, mut table)| service(name, &mut table, bus))
        .collect();
    services.into_iter().collect()
}

fn service(name: String, table: &mut Table<'_>, bus: &BusSection) -> Option<ObservedService> {
    table.allows_name("", &name, "a service");
    let targets: Vec<SocketAddr> = table.or("targets", Vec::new());
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].contains(target) {
            table.mistake(
                "targets",
                format!("{target} is there twice"),
                "keep one of them",
            );
        }
        if target.port() == 0 || target.ip().is_unspecified() || target.ip().is_multicast() {
            table.mistake(
                "targets",
                format!("{target} can't be reached"),
                "write an address and a port other than 0",
            );
        }
    }
    let from_registrations = table.or("from_registrations", false);
    if targets.is_empty() && !from_registrations {
        table.mistake(
            "targets",
            "there is none",
            "name targets, or set `from_registrations = true`",
        );
    }
    if from_registrations && bus.transport == Transport::Local {
        table.mistake(
            "from_registrations",
            "registrations come by the bus, and the bus stays within this process",
            "set bus.transport = \"nats\", or name the targets",
        );
    }
    let settings = table
        .required_table("health")
        .and_then(|mut health| CheckSettings::parse(&mut health));
    Some(ObservedService {
        name,
        targets,
        from_registrations,
        settings: settings?,
    })
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let document =
            Document::from_toml("health.toml", text).map_err(|mistakes| mistakes.to_string())?;
        document
            .parse(Config::parse)
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_example_is_valid() {
        let config = parse(include_str!("../../deploy/examples/health.toml")).unwrap();
        assert_eq!(config.node.id, "observer-1");
        assert!(!config.services.is_empty());
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let complaints = parse(
            "max_probes = 0\n[services.\"a b\"]\ntargets = [\"10.0.0.1:0\"]\n[services.\"a b\".health]\ntype = \"tcp\"\n\
             [services.web]\ntargets = [\"10.0.0.1:80\", \"10.0.0.1:80\"]\nfrom_registration = true\n[services.dns]\nhealth.type = \"icmp\"",
        )
        .unwrap_err();
        for complaint in [
            "node: is missing",
            "max_probes: expected an integer from 1 to 65536, got 0",
            "\"a b\" can't be a service's name",
            "targets: 10.0.0.1:0 can't be reached",
            "services.web.targets: 10.0.0.1:80 is there twice",
            "services.web.from_registration: unknown key — did you mean `from_registrations`?",
            "services.web.health: is missing",
            "services.dns.targets: there is none",
            "services.dns.health.type: expected one of",
        ] {
            assert!(
                complaints.contains(complaint),
                "{complaint:?} is not in:\n{complaints}"
            );
        }
        assert_eq!(complaints.lines().count(), 9, "{complaints}");
    }

    #[test]
    fn registrations_need_a_bus_they_come_by() {
        let text =
            "node.id = \"a\"\n[services.web]\nfrom_registrations = true\nhealth.type = \"tcp\"\n";
        let complaints = parse(text).unwrap_err();
        assert!(
            complaints.contains("services.web.from_registrations: registrations come by the bus"),
            "{complaints}"
        );
    }

    #[test]
    fn a_configuration_without_services_is_a_mistake() {
        assert!(
            parse("node.id = \"a\"")
                .unwrap_err()
                .contains("services: there is none")
        );
    }
}
