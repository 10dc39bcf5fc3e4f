//! What several ports, or several keys, claim at once, so that one of them gets nothing.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp_ctl::config::BgpSection;
use dataplane::Scheduler;
use shared::config::{Cidr, Table};

use super::devices;
use super::ports::Network;
use super::services::StaticTarget;

/// Records a mistake at each device that stands on an interface of the kernel's which another one has.
pub(super) fn interfaces_have_one_device(ports: &mut [Table<'_>]) {
    let mut seen: HashMap<String, String> = HashMap::new();
    for port in ports {
        for (key, device) in devices::written(port) {
            let Some(interface) = device.argument("iface") else {
                continue;
            };
            let Some(first) = seen.get(interface) else {
                let name = port.peek("name").unwrap_or_else(|| port.path().to_owned());
                seen.insert(interface.to_owned(), name);
                continue;
            };
            let message = format!("interface {interface} is port {first}'s already");
            let hint = match key {
                "exception" => "name another for the kernel's side, such as iface=weir-ext",
                _ => "each device has an interface of its own",
            };
            port.mistake(key, message, hint);
        }
    }
}

/// Records a mistake at each route of a port whose destinations have another one there. On several ports it is right: those of the first port are used while
/// they can be.
pub(super) fn destinations_have_one_route(ports: &mut [Table<'_>]) {
    for port in ports {
        let mut seen: HashMap<(IpAddr, u8), String> = HashMap::new();
        for mut route in port.live().tables_by("routes", "to") {
            let Some(to) = route.peek::<Network>("to") else {
                continue;
            };
            let Some(first) = seen.get(&destinations(to)) else {
                seen.insert(destinations(to), route.path().to_owned());
                continue;
            };
            let message = format!("{to} has a route of this port already, at {first}");
            route.mistake("to", message, "name all its routers in the `via` of one");
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
