//! From what is known to what the workers forward by.

use std::net::{IpAddr, SocketAddr};

use dataplane::{
    NextHops, Port, Retired as RetiredRole, Route, Segment, ServiceConfig, ServiceId, Tables,
    TablesBuilder, TargetConfig, TargetId,
};

use super::Service;
use super::retired::{Retired, Used};
use crate::config::{PortConfig, ServiceSettings, other_port, way_to};
use crate::nic::Nic;

/// The whole snapshot, to be built; `announcement` counts how often the addresses were to be announced again.
pub(super) fn describe(
    (ports, nics): (&[PortConfig], &[Nic]),
    services: &[Service],
    retired: &Retired,
    announcement: u64,
) -> TablesBuilder {
    let mut builder = base(ports, nics);
    builder.announcement(announcement);
    if announcement == 0 {
        builder.silent();
    }
    for service in services {
        let ServiceSettings {
            vip,
            protocol,
            ports: served,
            mode,
            scheduler,
            on_unknown_segment,
            reset_on_expiry,
            timestamps,
            client_address,
            least_path_mtu,
            timeouts,
            ref policy,
            ..
        } = service.settings;
        builder.service(ServiceConfig {
            mode,
            scheduler,
            timeouts,
            unknown_segment: on_unknown_segment,
            reset_on_expiry,
            timestamps,
            arp: answers_for(ports, vip),
            client_address,
            least_path_mtu,
            policy: policy.clone(),
            targets: targets(service).chain(gone(service, ports)).collect(),
            ..ServiceConfig::new(vip, protocol, served)
        });
    }
    retired.describe(&mut builder);
    builder
}

/// While one of a service's targets starts slowly, the weights of all are in smaller units.
fn targets(service: &Service) -> impl Iterator<Item = TargetConfig> {
    let (shares, is_sorry) = (service.shares(), service.is_sorry());
    service.targets.iter().map(move |(address, target)| {
        let unit = match target.sorry && !is_sorry {
            // It serves when no other target does; its flows go on after that.
            true => 0,
            false => shares.as_ref().map_or(1, |share| share(*address)),
        };
        TargetConfig {
            address: *address,
            weight: target.weight().saturating_mul(unit),
            up: target.is_up(),
            draining: target.is_draining(),
            cut: service.is_cut(*address),
        }
    })
}

/// Targets that are gone, and whose flows are to be cut; if there still is a way to them. New flows need
/// not fit on it: those from before a reload grow by what the service said then.
fn gone(service: &Service, ports: &[PortConfig]) -> impl Iterator<Item = TargetConfig> {
    let ServiceSettings {
        mode,
        ports: served,
        ..
    } = service.settings;
    let is_open = |address: SocketAddr| address.port() == 0;
    service
        .gone()
        .filter(move |(address, _)| way_to(address.ip(), mode, ports).is_ok())
        .filter(move |(address, _)| other_port(*address, mode, served).is_none())
        .filter(move |(address, _)| !is_open(*address) || served.single().is_none())
        .map(|(address, was_down)| TargetConfig {
            address,
            weight: 0,
            up: !was_down,
            draining: true,
            cut: service.is_cut(address),
        })
}

/// What flows may use by this configuration.
pub(super) fn used(ports: &[PortConfig], services: &[Service]) -> Used {
    let vip = |service: &Service| {
        let vip = service.settings.vip;
        let arp = answers_for(ports, vip);
        (vip, RetiredRole::Vip { arp })
    };
    let key = |service: &Service| {
        let ServiceSettings {
            vip,
            protocol,
            ports,
            cut_drained_after,
            ..
        } = service.settings;
        ((vip, protocol, ports), cut_drained_after)
    };
    let local_ips = ports.iter().flat_map(|port| &port.local_ips);
    let local_ips = local_ips.map(|address| (*address, RetiredRole::LocalIp));
    Used {
        addresses: services.iter().map(vip).chain(local_ips).collect(),
        services: services.iter().map(key).collect(),
    }
}

fn answers_for(ports: &[PortConfig], vip: IpAddr) -> bool {
    ports
        .iter()
        .any(|port| port.answer_arp_for_vips && port.contains(vip))
}

/// Ports, routes and LocalIPs.
fn base(ports: &[PortConfig], nics: &[Nic]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for (config, nic) in ports.iter().zip(nics) {
        let (mut ipv4, mut ipv6) = (None, None);
        for network in &config.addresses {
            let prefix = network.prefix;
            match network.address {
                IpAddr::V4(address) => {
                    let gateways = gateways(config, |gateway| match gateway {
                        IpAddr::V4(gateway) => Some(gateway),
                        IpAddr::V6(_) => None,
                    });
                    ipv4 = Some(Segment {
                        address,
                        prefix,
                        gateways,
                    });
                }
                IpAddr::V6(address) => {
                    let gateways = gateways(config, |gateway| match gateway {
                        IpAddr::V4(_) => None,
                        IpAddr::V6(gateway) => Some(gateway),
                    });
                    ipv6 = Some(Segment {
                        address,
                        prefix,
                        gateways,
                    });
                }
            }
        }
        builder.port(Port {
            index: config.index,
            mac: nic.mac,
            ipv4,
            ipv6,
            mtu: config.mtu,
            answers: config.answer_for_address,
            announce_every: config.announce_every,
            hears_kernel: config.hears_kernel(),
        });
        builder.spread(config.index, nic.spread.clone());
        for route in &config.routes {
            builder.route(Route {
                destination: route.to.address,
                prefix: route.to.prefix,
                port: config.index,
                via: route.via,
            });
        }
        for address in &config.local_ips {
            builder.local_ip(*address);
        }
    }
    builder
}

/// A port's gateways of one family; no more than there may be were read.
fn gateways<A: Copy>(port: &PortConfig, of_family: impl Fn(IpAddr) -> Option<A>) -> NextHops<A> {
    let gateways = port.gateways.iter().copied().filter_map(of_family);
    NextHops::new(gateways, port.sharing).unwrap_or(NextHops::ON_LINK)
}

/// A target's number in a snapshot.
pub fn target_id(tables: &Tables, service: ServiceId, address: SocketAddr) -> Option<TargetId> {
    // In the order of their addresses.
    let targets = &tables.service(service)?.targets;
    let place = targets.binary_search_by_key(&Some(address), |id| {
        tables.target(*id).map(|target| target.config.address)
    });
    targets.get(place.ok()?).copied()
}
