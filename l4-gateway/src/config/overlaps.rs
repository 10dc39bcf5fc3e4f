//! What several ports, or several keys, claim at once, so that one of them gets nothing.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp_ctl::config::BgpSection;
use dataplane::Scheduler;
use shared::config::{Cidr, Table};

use super::devices::interfaces;
use super::ports::{Network, PortConfig};
use super::services::StaticTarget;

/// Records a mistake at each device that stands on an interface of the kernel's which another one has.
pub(super) fn interfaces_have_one_device(root: &mut Table<'_>, ports: &[PortConfig]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut tables = root.ordered_tables_by("ports", "name");
    for (port, table) in ports.iter().zip(&mut tables) {
        for (key, name) in interfaces(port) {
            let Some(first) = seen.get(name) else {
                seen.insert(name, &port.name);
                continue;
            };
            let message = format!("interface {name} is port {first}'s already");
            let hint = match key {
                "exception" => "name another for the kernel's side, such as iface=weir-ext",
                _ => "each device has an interface of its own",
            };
            table.mistake(key, message, hint);
        }
    }
}

/// Records a mistake at each route of a port whose destinations have another one there. On several ports it is right: those of the first port are used while
/// they can be.
pub(super) fn destinations_have_one_route(root: &mut Table<'_>, ports: &[PortConfig]) {
    let mut tables = root.live().ordered_tables_by("ports", "name");
    for (port, table) in ports.iter().zip(&mut tables) {
        let mut seen: HashMap<(IpAddr, u8), String> = HashMap::new();
        let mut routes = table.tables_by("routes", "to");
        for (route, table) in port.routes.iter().zip(&mut routes) {
            let to = destinations(route.to);
            let Some(first) = seen.get(&to) else {
                seen.insert(to, table.path().to_owned());
                continue;
            };
            let message = format!("{} has a route of this port already, at {first}", route.to);
            table.mistake("to", message, "name all its routers in the `via` of one");
        }
    }
}

/// The network without the bits of a host.
fn destinations(to: Network) -> (IpAddr, u8) {
    let network = match to.address {
        IpAddr::V4(address) => {
            let hosts = u32::MAX.checked_shr(to.prefix.into()).unwrap_or(0);
            IpAddr::V4((address.to_bits() & !hosts).into())
        }
        IpAddr::V6(address) => {
            let hosts = u128::MAX.checked_shr(to.prefix.into()).unwrap_or(0);
            IpAddr::V6((address.to_bits() & !hosts).into())
        }
    };
    (network, to.prefix)
}

/// Warns of VIPs that `bgp.allowed` leaves out.
pub(super) fn vips_are_allowed(root: &mut Table<'_>, bgp: &BgpSection, vips: &[IpAddr]) {
    let allowed = |vip: &IpAddr| {
        bgp.allowed
            .iter()
            .any(|network: &Cidr| network.contains(*vip))
    };
    let left_out: Vec<String> = vips
        .iter()
        .filter(|vip| vip.is_ipv4() && !bgp.allowed.is_empty() && !allowed(vip))
        .map(ToString::to_string)
        .collect();
    if !left_out.is_empty()
        && let Some(mut table) = root.table("bgp").map(|bgp| bgp.live())
    {
        table.warning(
            "allowed",
            format!(
                "leaves out VIPs of this node, which are announced to nobody: {}",
                left_out.join(", ")
            ),
            "add their networks, or tell routers of them in another way",
        );
    }
}

/// Warns of weights that a scheduler doesn't look at. None where they say nothing: 0 keeps new flows away from a target by any scheduler.
pub(super) fn weights_count(table: &mut Table<'_>, scheduler: Scheduler, targets: &[StaticTarget]) {
    let (name, weighted) = match scheduler {
        Scheduler::RoundRobin => ("rr", "wrr"),
        Scheduler::LeastConnections => ("lc", "wlc"),
        Scheduler::WeightedRoundRobin
        | Scheduler::WeightedLeastConnections
        | Scheduler::SourceHash
        | Scheduler::Maglev => return,
    };
    let mut weights = targets
        .iter()
        .map(|target| target.weight)
        .filter(|weight| *weight > 0);
    let first = weights.next();
    if weights.any(|weight| Some(weight) != first) {
        table.warning(
            "scheduler",
            format!("{name} treats all targets alike, whatever their weights are"),
            format!("write \"{weighted}\", or leave the weights out"),
        );
    }
}
