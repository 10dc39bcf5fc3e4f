//! From what is known to what the workers forward by.

use std::net::{IpAddr, SocketAddr};

use dataplane::{
    Port, Retired as RetiredRole, Route, Segment, ServiceConfig, ServiceId, Tables, TablesBuilder,
    TargetConfig, TargetId,
};

use super::Service;
use super::retired::{Retired, Used};
use crate::config::{PortConfig, ServiceSettings, other_port, way_to};
use crate::nic::Nic;

/// The whole snapshot, to be built.
pub(super) fn describe(
    ports: &[PortConfig],
    nics: &[Nic],
    services: &[Service],
    retired: &Retired,
) -> TablesBuilder {
    let mut builder = base(ports, nics);
    for service in services {
        let ServiceSettings {
            vip,
            protocol,
            port,
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
            ..ServiceConfig::new(vip, protocol, port)
        });
    }
    retired.describe(&mut builder);
    builder
}

/// While one of a service's targets starts slowly, the weights of all are in smaller units.
fn targets(service: &Service) -> impl Iterator<Item = TargetConfig> {
    let gradual = &service.gradual;
    let grows = gradual.grows();
    service.targets.iter().map(move |(address, target)| {
        let unit = if grows { gradual.share(*address) } else { 1 };
        TargetConfig {
            address: *address,
            weight: target.weight().saturating_mul(unit),
            up: target.is_up(),
            draining: target.is_draining(),
            cut: gradual.is_cut(*address),
        }
    })
}

/// Targets that are gone, and whose flows are to be cut; if there still is a way to them. New flows need
/// not fit on it: those from before a reload grow by what the service said then.
fn gone(service: &Service, ports: &[PortConfig]) -> impl Iterator<Item = TargetConfig> {
    let gone = service.gradual.gone().iter().copied();
    let ServiceSettings { mode, port, .. } = service.settings;
    gone.filter(move |address| way_to(address.ip(), mode, ports).is_ok())
        .filter(move |address| other_port(*address, mode, port).is_none())
        .map(|address| TargetConfig {
            address,
            weight: 0,
            up: false,
            draining: true,
            cut: service.gradual.is_cut(address),
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
            port,
            cut_drained_after,
            ..
        } = service.settings;
        ((vip, protocol, port), cut_drained_after)
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
            let (prefix, gateway) = (network.prefix, config.gateway_for(network.address));
            match network.address {
                IpAddr::V4(address) => {
                    let gateway = gateway.and_then(|gateway| match gateway {
                        IpAddr::V4(gateway) => Some(gateway),
                        IpAddr::V6(_) => None,
                    });
                    ipv4 = Some(Segment {
                        address,
                        prefix,
                        gateway,
                    });
                }
                IpAddr::V6(address) => {
                    let gateway = gateway.and_then(|gateway| match gateway {
                        IpAddr::V4(_) => None,
                        IpAddr::V6(gateway) => Some(gateway),
                    });
                    ipv6 = Some(Segment {
                        address,
                        prefix,
                        gateway,
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
            hears_kernel: config.hears_kernel(),
        });
        builder.spread(config.index, nic.spread.clone());
        for route in &config.routes {
            builder.route(Route {
                destination: route.to.address,
                prefix: route.to.prefix,
                port: config.index,
                gateway: route.via,
            });
        }
        for address in &config.local_ips {
            builder.local_ip(*address);
        }
    }
    builder
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
