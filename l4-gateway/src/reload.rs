//! A new configuration for the running node. Where it is refused, nothing has changed but that NICs may have rules for LocalIPs of the refused one,
//! which nobody uses ([`crate::forwarder::Forwarder::follow`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bgp_ctl::status::StatusBoard;
use bgp_ctl::{Reconfigure, RouteControl};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use shared::config::FromValue;
use shared::reload::{Follow, Step};

use crate::actors::{Board, ControlPlane, Forgets, Reload};
use crate::config::{Config, ServiceSettings};
use crate::endpoint::Endpoint;
use crate::forwarder::Forwarder;

/// The node, as it goes on by another configuration.
pub(crate) struct Following {
    pub(crate) control: Addr<ControlPlane>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) board: Board,
    pub(crate) bgp: Option<(Addr<RouteControl>, StatusBoard)>,
}

impl Follow<Config> for Following {
    fn follow(&self, step: Step<Config>) -> BoxFuture<'static, Result<(), String>> {
        let sent = self.control.send(Reload(step.after.clone()));
        let bgp = self.bgp.clone().zip(step.after.bgp.clone());
        async move {
            let leaving = |_| "the node is leaving".to_owned();
            let followed = sent.await.map_err(leaving)?;
            followed.map_err(|why| format!("unusable configuration: {why}"))?;
            // Routing control refuses nothing, so it comes second.
            if let Some(((route_control, _), section)) = bgp {
                let sent = route_control.send(Reconfigure(section));
                sent.await.map_err(leaving)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn notes(&self, step: Step<Config>) -> BoxFuture<'static, Vec<String>> {
        let sent = self.control.send(Forgets(step.after));
        // Where the node is leaving, following says so.
        async move { sent.await.unwrap_or_default() }.boxed()
    }

    fn would_end(&self, step: Step<Config>) -> BoxFuture<'static, Vec<String>> {
        let counters = self.forwarder.counters();
        let view = self.board.read();
        let mut flows = Vec::new();
        for service in &view.services {
            let active = service.id.map_or(0, |id| counters.service(id).flows_active);
            let of_targets = service.targets.iter().map(|target| {
                let active = target.id.map_or(0, |id| counters.target(id).flows_active);
                (target.address, active)
            });
            flows.push(Flows {
                service: service.name.clone(),
                active,
                of_targets: of_targets.collect(),
            });
        }
        let mut lines = ends(&step.before, &step.after, &flows);
        if let (Some((_, status)), Some(before), Some(after)) =
            (&self.bgp, &step.before.bgp, &step.after.bgp)
        {
            lines.extend(bgp_ctl::would_end(before, after, status));
        }
        ready(lines).boxed()
    }
}

/// How many flows a service has, and each of its targets.
struct Flows {
    service: String,
    active: u64,
    of_targets: Vec<(Endpoint, u64)>,
}

/// Which flows would be ended for what changes from `before` to `after`, and when. Those that go on until they end by themselves are not among them.
fn ends(before: &Config, after: &Config, flows: &[Flows]) -> Vec<String> {
    let mut lines = Vec::new();
    for flows in flows.iter().filter(|flows| flows.active > 0) {
        let of = |config: &Config| {
            let mut services = config.services.iter();
            services
                .find(|service| service.name == flows.service)
                .cloned()
        };
        let Some(was) = of(before) else { continue };
        let at = was.ports.at(was.vip);
        let still_served = after
            .services
            .iter()
            .find(|service| has_flows_of(service, &was));
        match still_served {
            None => {
                let removed = after.drain.removed_addresses;
                let time = was
                    .cut_drained_after
                    .map_or(removed, |cut| cut.min(removed));
                lines.push(format!(
                    "{} flows of service {} ({at}): it is no longer configured; those left after {} are ended",
                    flows.active,
                    flows.service,
                    time.written()
                ));
            }
            Some(service) => {
                let Some(time) = service.cut_drained_after else {
                    continue;
                };
                lines.extend(cut(flows, &was, service, time));
            }
        }
    }
    lines
}

/// The flows of targets that would take no new ones any more.
fn cut(flows: &Flows, was: &ServiceSettings, is: &ServiceSettings, time: Duration) -> Vec<String> {
    let weight = |service: &ServiceSettings, address: SocketAddr| {
        let mut targets = service.targets.iter();
        let found = targets.find(|target| target.address == address);
        found.map(|target| target.weight)
    };
    let open = flows.of_targets.iter().filter(|(_, active)| *active > 0);
    open.filter_map(|(target, active)| {
        let why = match (weight(was, target.0), weight(is, target.0)) {
            (Some(_), None) => "is removed",
            (Some(1..), Some(0)) => "has weight 0",
            _ => return None,
        };
        let (service, time) = (&flows.service, time.written());
        Some(format!(
            "{active} flows of service {service} to {target}: the target {why}; those left after {time} are ended"
        ))
    })
    .collect()
}

/// Whether flows of a service are a service's from now on.
fn has_flows_of(service: &ServiceSettings, was: &ServiceSettings) -> bool {
    was.goes_on_as(service) && (service.ports == was.ports || service.name == was.name)
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    #[test]
    fn flows_that_would_be_ended_are_told_with_the_reason_and_the_time() {
        let example = include_str!("../../deploy/examples/l4-standalone.toml");
        let parse = |text: &str| {
            let document = Document::from_toml("l4.toml", text).unwrap();
            document.parse(Config::parse).unwrap()
        };
        let config = parse(example);
        let service = config.services[0].clone();
        let target = Endpoint(service.targets[0].address);
        let flows = |active| {
            [Flows {
                service: service.name.clone(),
                active,
                of_targets: vec![(target, active)],
            }]
        };
        let changed = |change: &dyn Fn(&mut ServiceSettings)| {
            let mut after = config.clone();
            change(&mut after.services[0]);
            (
                ends(&config, &after, &flows(3)),
                ends(&config, &after, &flows(0)),
            )
        };
        let cut = |service: &mut ServiceSettings| {
            service.cut_drained_after = Some(Duration::from_secs(5));
        };
        let none = (vec![], vec![]);
        assert_eq!(changed(&|_| {}), none);
        assert_eq!(changed(&|service| service.targets.clear()), none);
        assert_eq!(changed(&|service| service.name = "other".into()), none);
        let (name, at) = (&service.name, service.ports.at(service.vip));
        let alone = |line: String| (vec![line], vec![]);
        assert_eq!(
            changed(&|service| {
                service.targets.clear();
                cut(service);
            }),
            alone(format!(
                "3 flows of service {name} to {target}: the target is removed; those left after 5s are ended"
            ))
        );
        assert_eq!(
            changed(&|service| {
                service.targets[0].weight = 0;
                cut(service);
            }),
            alone(format!(
                "3 flows of service {name} to {target}: the target has weight 0; those left after 5s are ended"
            ))
        );
        assert_eq!(
            changed(&|service| service.ports = (service.ports.first() + 1).into()),
            alone(format!(
                "3 flows of service {name} ({at}): it is no longer configured; those left after 1h are ended"
            ))
        );
    }
}
