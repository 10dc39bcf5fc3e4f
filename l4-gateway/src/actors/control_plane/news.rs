//! What workers report, as the log says it.

use std::net::IpAddr;
use std::time::Duration;

use actix::{Context, Handler, Message};
use dataplane::{Event, PortIndex, ServiceId, TargetId};

use super::ControlPlane;
use crate::endpoint::Endpoint;
use crate::worker::News;

impl Message for News {
    type Result = ();
}

impl Handler<News> for ControlPlane {
    type Result = ();

    /// The data plane limits what it reports: to one a second of most kinds, to ten of next hops that fall silent or move.
    fn handle(&mut self, News { worker, event }: News, _: &mut Context<ControlPlane>) {
        match event {
            Event::PortsExhausted { service, target } => {
                let (service, target) = (self.service_name(service), self.target_address(target));
                tracing::warn!(
                    worker,
                    service,
                    target,
                    "no local port is free towards the target, new flows are refused: add local_ips"
                );
            }
            Event::FlowTableFull => {
                tracing::warn!(
                    worker,
                    "the flow table is full, new flows are refused: raise workers.flows"
                );
            }
            Event::NoTarget { service } => {
                tracing::warn!(
                    worker,
                    service = self.service_name(service),
                    "no target takes new flows"
                );
            }
            // The watchdog logs what becomes of routers.
            Event::Unresolved { port, address } if !self.is_router(port, address) => {
                let port = self.port_name(port);
                tracing::warn!(worker, port, %address, "the next hop does not answer ARP or neighbour solicitations");
            }
            Event::Resolved { port, address } if !self.is_router(port, address) => {
                tracing::info!(worker, port = self.port_name(port), %address, "the next hop answers");
            }
            Event::Unresolved { .. } | Event::Resolved { .. } => {}
            Event::NextHopMoved {
                port,
                address,
                from,
                to,
            } => {
                tracing::warn!(
                    worker,
                    port = self.port_name(port),
                    %address,
                    %from,
                    %to,
                    "the next hop is at another MAC: it failed over, the old MAC no longer answers"
                );
            }
            Event::NextHopContested {
                port,
                address,
                mac,
                other,
            } => {
                tracing::warn!(
                    worker,
                    port = self.port_name(port),
                    %address,
                    %mac,
                    %other,
                    "another host says that it has the address of a next hop, which still answers and stays in use: a spare that took over too \
                     early, a duplicate address or a forgery; find it by its MAC"
                );
            }
            Event::AddressConflict { port, address, mac } => {
                // All workers hear of it.
                shared::log_at_most_every!(
                    Duration::from_secs(1),
                    tracing::Level::WARN,
                    worker,
                    port = self.port_name(port),
                    %address,
                    %mac,
                    "another host says that it has an address of this node: traffic to one of the two goes astray; find it by its MAC"
                );
            }
            Event::WrongChecksums { port } => {
                let port = self.control.ports().get(usize::from(port.0));
                if let Some(port) = port
                    && let Some(advice) = self.wrong_checksums.advice(port)
                {
                    tracing::warn!(
                        worker,
                        port = port.name,
                        advice,
                        "packets come in with wrong TCP or UDP checksums: offloads left on make them so; they begin no flow and get no answer \
                         (dropped: bad_transport_checksum)"
                    );
                }
            }
            Event::Learned(_) => {}
        }
    }
}

impl ControlPlane {
    fn port_name(&self, index: PortIndex) -> &str {
        let port = self.control.ports().get(usize::from(index.0));
        port.map_or("(removed)", |port| &port.name)
    }

    fn is_router(&self, port: PortIndex, address: IpAddr) -> bool {
        let port = self.control.ports().get(usize::from(port.0));
        port.is_some_and(|port| port.is_router(address))
    }

    fn service_name(&self, id: ServiceId) -> &str {
        let known = self
            .control
            .services()
            .iter()
            .find(|service| service.id == Some(id));
        known.map_or("(removed)", |service| &service.settings.name)
    }

    fn target_address(&self, id: TargetId) -> String {
        let tables = self.forwarder.tables();
        tables.target(id).map_or_else(
            || "(removed)".into(),
            |target| Endpoint(target.config.address).to_string(),
        )
    }
}
