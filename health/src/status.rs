//! What the observer's admin listener answers.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError};
use shared::bus::Bus;
use shared::reload::Reloader;

use crate::actors::View;
use crate::config::Config;
use crate::observation::Seen;

/// The observer's side of the admin listener.
pub struct ObserverAdmin {
    node: String,
    view: View,
    bus: Bus,
    reloader: Reloader<Config>,
}

/// A service in `/status`.
#[derive(Default, Serialize)]
struct ServiceStatus {
    up: usize,
    total: usize,
    targets: Vec<Seen>,
}

impl ObserverAdmin {
    /// Answers for `node`.
    pub fn new(node: &str, view: View, bus: Bus, reloader: Reloader<Config>) -> ObserverAdmin {
        ObserverAdmin {
            node: node.to_owned(),
            view,
            bus,
            reloader,
        }
    }

    fn services(&self) -> BTreeMap<String, ServiceStatus> {
        let observation = self.view.look();
        let mut services: BTreeMap<String, ServiceStatus> = observation
            .services()
            .map(|name| (name.to_owned(), ServiceStatus::default()))
            .collect();
        for seen in observation.targets() {
            let service = services.entry(seen.service.clone()).or_default();
            service.up += usize::from(seen.state.is_up());
            service.total += 1;
            service.targets.push(seen.clone());
        }
        services
    }
}

impl Admin for ObserverAdmin {
    fn ready(&self) -> Result<(), String> {
        match self.view.look().complete() {
            true => Ok(()),
            false => Err("some targets have not been probed yet".to_owned()),
        }
    }

    fn status(&self) -> Value {
        json!({
            "tier": "health",
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "configuration": self.reloader.standing(),
            "bus": self.bus.status(),
            "services": self.services(),
        })
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        if let Some(answer) = self.reloader.command(name, &args) {
            return answer;
        }
        let error = match name {
            "drain" | "undrain" => CommandError::Refused(
                "an observer carries no traffic: there is nothing to drain".to_owned(),
            ),
            _ => CommandError::Unknown,
        };
        Box::pin(std::future::ready(Err(error)))
    }

    fn refresh_metrics(&self) {
        for (service, status) in self.services() {
            let gauge = |state| metrics::gauge!("weir_health_targets", "service" => service.clone(), "state" => state);
            gauge("up").set(status.up as f64);
            gauge("down").set((status.total - status.up) as f64);
        }
    }
}
