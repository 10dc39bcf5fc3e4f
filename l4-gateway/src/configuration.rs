//! The configuration as the process takes it on: what it must be as a whole, and what of it a restart alone changes.
//!
//! This stands above [`config`](crate::config), which reads it, and [`control`](crate::control), which runs by it, so that neither asks the other.

use bgp_ctl::BgpSection;
use shared::config::{Configuration, Table, Warning};

use crate::config::{ADMIN_PORT, Config, PortConfig};
use crate::control::Control;
use crate::nic::Nic;

impl Configuration for Config {
    const TIER: &'static str = "l4";
    const ADMIN_PORT: u16 = ADMIN_PORT;

    fn parse(root: &mut Table<'_>) -> Option<Config> {
        Config::parse(root)
    }

    /// What the data plane itself would refuse, should a check of the parser have missed it.
    fn feasible(&self) -> Result<Vec<Warning>, String> {
        let nics = vec![Nic::default(); self.ports.len()];
        match Control::new(self, &nics).first_tables() {
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(format!("unusable configuration: {error}")),
        }
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Config) -> impl PartialEq + '_ {
            let Config {
                node,
                admin,
                bus,
                log,
                eal,
                workers,
                drain: _,
                ports,
                services: _,
                bgp,
            } = config;
            let ports: Vec<_> = ports.iter().map(opened).collect();
            let bgp = bgp.as_ref().map(BgpSection::fixed);
            (node, admin, bus, log, eal, workers, ports, bgp)
        }
        fixed(self) == fixed(other)
    }
}

/// What a port was opened with.
fn opened(port: &PortConfig) -> impl PartialEq + '_ {
    let PortConfig {
        index,
        name,
        device,
        members,
        addresses,
        gateways: _,
        sharing: _,
        routes: _,
        local_ips: _,
        queues,
        descriptors,
        mtu,
        vlan,
        exception,
        answer_arp_for_vips: _,
        announce_every: _,
        answer_for_address: _,
    } = port;
    let link = (queues, descriptors, mtu, vlan);
    (index, name, device, members, addresses, link, exception)
}
