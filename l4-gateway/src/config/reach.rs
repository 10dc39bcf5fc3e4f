//! Whether a target can be a target: by its address, its port, and the way to it.

use std::net::{IpAddr, SocketAddr};

use dataplane::{ClientAddress, Mode, PortRange};

use super::PortConfig;
use super::ports::LEAST_MTU_OF_IPV6;
use crate::endpoint::Endpoint;

/// Why a target can't have the port it names, and what to do.
pub(crate) fn other_port(
    target: SocketAddr,
    mode: Mode,
    service: PortRange,
) -> Option<(String, String)> {
    (mode != Mode::FullNat && target.port() != service.kept_by_target()).then(|| {
        let ports = match service.single() {
            Some(port) => format!("port {port}"),
            None if service == PortRange::ALL => "all ports".to_owned(),
            None => format!("ports {service}"),
        };
        (
            format!(
                "packets reach {} for {ports}, as clients sent them",
                target.ip()
            ),
            format!("leave the port out, and have the target listen on {ports}"),
        )
    })
}

/// Why a target can't serve a VIP of the other family, and what to do.
pub(crate) fn other_family(target: SocketAddr, vip: IpAddr) -> Option<(String, String)> {
    (target.is_ipv6() != vip.is_ipv6()).then(|| {
        (
            format!("{} is not of the family of the VIP {vip}", Endpoint(target)),
            "a service and its targets are all IPv4 or all IPv6".into(),
        )
    })
}

/// Whether a target can be had: there is a way to it, with room for what packets grow by.
pub(crate) fn reachable(
    target: IpAddr,
    mode: Mode,
    client_address: ClientAddress,
    ports: &[PortConfig],
) -> Result<(), (String, String)> {
    let port = way_to(target, mode, ports)?;
    match mode {
        Mode::FullNat => {
            let grown = client_address.option_length(target);
            has_room(target, port, "client_address = \"toa\"", grown)
        }
        Mode::Direct | Mode::Tunnel => Ok(()),
    }
}

/// The port that leads to a target, if the data plane can forward to it: FULLNAT needs a LocalIP there, DR the target on the port's own
/// segment, a tunnel room for its outer header. Flows that there are go on by it, even where new ones would not fit ([`reachable`]).
pub(crate) fn way_to(
    target: IpAddr,
    mode: Mode,
    ports: &[PortConfig],
) -> Result<&PortConfig, (String, String)> {
    if !is_host(target) {
        return Err((
            format!("{target} is not an address of one host"),
            "take a unicast address".into(),
        ));
    }
    if let Some(port) = ports
        .iter()
        .find(|port| port.is_own(target) || port.local_ips.contains(&target))
    {
        return Err((
            format!("{target} is this node's own (port {})", port.name),
            "a target is another host".into(),
        ));
    }
    if let Some(why) = ports.iter().find_map(|port| port.reserves(target)) {
        return Err((why, "a target is one host".into()));
    }
    let Some((port, on_link)) = egress(target, ports) else {
        let hint = "give a port that network, a [[ports.routes]] to it, or a gateway";
        return Err((format!("no port leads to {target}"), hint.into()));
    };
    match mode {
        Mode::FullNat => has_local_ip(target, port)?,
        Mode::Direct if !on_link => {
            return Err((
                format!(
                    "{target} is behind a router of port {}, and DR reaches its own network only",
                    port.name
                ),
                "take mode = \"tunnel\" for it".into(),
            ));
        }
        Mode::Direct => {}
        Mode::Tunnel => {
            let grown = mode.outer_header(target);
            has_room(target, port, "mode = \"tunnel\"", grown)?;
        }
    }
    Ok(port)
}

/// Whether the MTU of the port to an IPv6 target has room for what every IPv6 link takes, and the bytes it `grew` by because of `what`:
/// nobody has to send smaller packets (RFC 8200 5).
fn has_room(
    target: IpAddr,
    port: &PortConfig,
    what: &str,
    grew: u16,
) -> Result<(), (String, String)> {
    let least = LEAST_MTU_OF_IPV6 + grew;
    if target.is_ipv4() || grew == 0 || port.mtu >= least {
        return Ok(());
    }
    Err((
        format!(
            "{target} is behind port {}, whose mtu of {} is too small for {what}",
            port.name, port.mtu
        ),
        format!("with IPv6 it takes {least} at least"),
    ))
}

fn has_local_ip(target: IpAddr, port: &PortConfig) -> Result<(), (String, String)> {
    let mut local_ips = port.local_ips.iter();
    if local_ips.any(|local| local.is_ipv6() == target.is_ipv6()) {
        return Ok(());
    }
    let hint = match port.network_for(target) {
        Some(network) => format!("give port {} local_ips of its network {network}", port.name),
        None => format!(
            "give port {} an address and local_ips of that family",
            port.name
        ),
    };
    Err((
        format!(
            "{target} is behind port {}, which has no LocalIP of its family",
            port.name
        ),
        hint,
    ))
}

/// The port of the longest match among networks and routes, else the first with a gateway; and whether the target is on its segment.
fn egress(target: IpAddr, ports: &[PortConfig]) -> Option<(&PortConfig, bool)> {
    let matches = ports.iter().flat_map(|port| {
        let networks = port.addresses.iter().map(|network| (*network, true));
        let routes = port.routes.iter();
        let routes = routes.map(|route| (route.to, route.via.is_on_link()));
        networks
            .chain(routes)
            .filter(|(network, _)| network.contains(target))
            .map(move |(network, on_link)| (network.prefix, port, on_link))
    });
    // Of equal lengths the first written wins, as in the data plane.
    let longest = matches.reduce(|best, next| if next.0 > best.0 { next } else { best });
    longest
        .map(|(_, port, on_link)| (port, on_link))
        .or_else(|| {
            let mut ports = ports.iter();
            ports
                .find(|port| port.gateways_for(target).next().is_some())
                .map(|port| (port, false))
        })
}

/// Whether one host can have the address.
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (1..224).contains(&address.octets()[0]) && !address.is_loopback(),
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some())
        }
    }
}
