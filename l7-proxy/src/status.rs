//! What the admin listener answers: ready or not, `/status`, commands.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::Addr;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError};
use shared::bus::Bus;
use tokio::sync::watch;

use crate::accept::Open;
use crate::access_log::AccessLog;
use crate::actors::{Drain, Reasons, Supervisor};
use crate::drain::Course;
use crate::metrics;
use crate::snapshot::Snapshot;

/// The L7 tier's side of the admin listener.
pub struct L7Admin {
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    /// Who carries out commands.
    pub supervisor: Addr<Supervisor>,
    /// Where the drain stands.
    pub course: watch::Receiver<Course>,
    /// Connections by listener.
    pub open: Open,
    /// The addresses listened on, in the order of the listeners.
    pub addresses: Vec<SocketAddr>,
    /// Why backends are in their states.
    pub reasons: Reasons,
    /// The bus, for its state.
    pub bus: Bus,
    /// The access log, for what it dropped.
    pub log: Option<AccessLog>,
}

impl L7Admin {
    fn listeners(&self) -> Vec<Value> {
        let listeners = self
            .snapshot
            .config
            .listeners
            .iter()
            .zip(&self.addresses)
            .zip(self.open.by_listener());
        listeners
            .map(|((listener, address), connections)| {
                json!({
                    "name": listener.name,
                    "address": address,
                    "protocol": listener.protocol.scheme(),
                    "http2": listener.http2,
                    "proxy_protocol": listener.proxy_protocol.is_some(),
                    "connections": connections,
                    "max_connections": listener.max_connections,
                })
            })
            .collect()
    }

    fn upstreams(&self) -> Vec<Value> {
        let upstreams = self.snapshot.upstreams().iter();
        upstreams
            .map(|upstream| {
                let backends = upstream.backends.iter().map(|backend| {
                    json!({
                        "address": backend.address(),
                        "weight": backend.weight(),
                        "state": backend.state().as_str(),
                        "reason": self.reasons.of(&upstream.name, backend.address()),
                        "active": backend.active(),
                    })
                });
                json!({
                    "name": &*upstream.name,
                    "available": upstream.available(),
                    "backends": backends.collect::<Vec<_>>(),
                })
            })
            .collect()
    }
}

impl Admin for L7Admin {
    fn ready(&self) -> Result<(), String> {
        let course = *self.course.borrow();
        if course.draining() {
            Err(format!("draining ({})", course.phase.name()))
        } else {
            Ok(())
        }
    }

    fn status(&self) -> Value {
        let course = *self.course.borrow();
        json!({
            "tier": "l7",
            "node": self.snapshot.config.node.id,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": !course.draining(),
            "drain": { "phase": course.phase.name(), "exiting": course.exiting },
            "workers": self.snapshot.config.workers,
            "connections": self.open.total(),
            "listeners": self.listeners(),
            "upstreams": self.upstreams(),
            "bus": self.bus.status(),
        })
    }

    fn command(&self, name: &str, _: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        let drain = match name {
            "drain" => true,
            "undrain" => false,
            _ => return Box::pin(std::future::ready(Err(CommandError::Unknown))),
        };
        let asked = self.supervisor.send(Drain(drain));
        Box::pin(async move {
            match asked.await {
                Ok(Ok(state)) => Ok(json!({ "state": state })),
                Ok(Err(why)) => Err(CommandError::Refused(why.to_owned())),
                Err(error) => Err(CommandError::Failed(error.to_string())),
            }
        })
    }

    fn refresh_metrics(&self) {
        let draining = self.course.borrow().draining();
        metrics::refresh(
            &self.snapshot,
            draining,
            self.log.as_ref().map_or(0, AccessLog::dropped),
        );
    }
}
