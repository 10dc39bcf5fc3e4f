//! From what is known to what the workers forward by.

use std::net::SocketAddrV4;

use dataplane::{
    MacAddr, Port, Route, ServiceConfig, ServiceId, Tables, TablesBuilder, TargetConfig, TargetId,
};

use super::Service;
use crate::config::{PortConfig, ServiceSettings};

/// The whole snapshot, to be built.
pub(super) fn describe(
    ports: &[PortConfig],
    macs: &[MacAddr],
    services: &[Service],
) -> TablesBuilder {
    let mut builder = base(ports, macs);
    for service in services {
        let ServiceSettings {
            vip,
            protocol,
            port,
            scheduler,
            on_unknown_segment,
            timestamps,
            timeouts,
            ..
        } = service.settings;
        builder.service(ServiceConfig {
            scheduler,
            timeouts,
            unknown_segment: on_unknown_segment,
            timestamps,
            arp: ports
                .iter()
                .any(|port| port.answer_arp_for_vips && port.address.contains(vip)),
            targets: service
                .targets
                .iter()
                .map(|(address, target)| TargetConfig {
                    address: *address,
                    weight: target.weight(),
                    up: target.is_up(),
                    draining: target.is_draining(),
                })
                .collect(),
            ..ServiceConfig::new(vip, protocol, port)
        });
    }
    builder
}

/// Ports, routes and LocalIPs: what does not change while the process runs.
fn base(ports: &[PortConfig], macs: &[MacAddr]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for (config, mac) in ports.iter().zip(macs) {
        builder.port(Port {
            index: config.index,
            mac: *mac,
            address: config.address.address,
            prefix: config.address.prefix,
            gateway: config.gateway,
            mtu: config.mtu,
            answers: config.answer_for_address,
        });
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
pub fn target_id(tables: &Tables, service: ServiceId, address: SocketAddrV4) -> Option<TargetId> {
    let targets = &tables.service(service)?.targets;
    targets.iter().copied().find(|id| {
        tables
            .target(*id)
            .is_some_and(|target| target.config.address == address)
    })
}
