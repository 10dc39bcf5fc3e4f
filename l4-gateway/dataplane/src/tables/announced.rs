//! Which of this node's addresses are announced, and on which segments.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{LocalIp, Owned, Tables};
use crate::MacAddr;
use crate::family::{Family, V4, V6};
use crate::port::{Port, PortIndex};

/// An address that this node answers ARP or neighbour solicitations for on a port, and by which MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Announced {
    pub(crate) port: PortIndex,
    pub(crate) address: IpAddr,
    pub(crate) mac: MacAddr,
}

/// What a snapshot announces, in order. Shared with the snapshot before where it is the same, so that workers see at once that nothing is new.
pub(super) fn announced(tables: &Tables, previous: Option<&Tables>) -> Arc<[Announced]> {
    let mut all = Vec::new();
    of_family::<V4>(tables, &mut all);
    of_family::<V6>(tables, &mut all);
    all.sort_unstable();
    match previous {
        Some(previous) if *previous.announced == *all => Arc::clone(&previous.announced),
        _ => all.into(),
    }
}

fn of_family<V: Family>(tables: &Tables, all: &mut Vec<Announced>) {
    let net = tables.net::<V>();
    let vips: HashSet<IpAddr> = tables
        .services()
        .map(|service| service.config.vip)
        .collect();
    for (&address, &owned) in &net.owned {
        let place = |port: &Port| Announced {
            port: port.index,
            address: address.into(),
            mac: port.mac,
        };
        match owned {
            // Retired ones may be another's by now; who still uses them here is answered.
            Owned::Vip { arp: true } if !vips.contains(&address.into()) => {}
            Owned::Vip { arp: true } => {
                let ports = tables.ports.iter();
                all.extend(ports.filter(|port| port.covers::<V>(address)).map(place));
            }
            Owned::Port { answers: true } => {
                let mut ports = tables.ports.iter();
                all.extend(
                    ports
                        .find(|port| port.address::<V>() == Some(address))
                        .map(place),
                );
            }
            // Retired ones stay known to their targets.
            Owned::LocalIp(_) | Owned::Vip { arp: false } | Owned::Port { answers: false } => {}
        }
    }
    let place = |local: &LocalIp<V::Address>| {
        let port = tables.port(local.port)?;
        port.covers::<V>(local.address).then(|| Announced {
            port: port.index,
            address: local.address.into(),
            mac: port.mac,
        })
    };
    all.extend(net.local_ips.iter().filter_map(place));
}
