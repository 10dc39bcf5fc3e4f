//! What the admin listener answers: ready or not, `/status`, commands.

use std::sync::Arc;
use std::time::SystemTime;

use actix::Addr;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError};
use shared::bus::Bus;
use shared::reload::Reloader;
use tokio::sync::watch;

use super::explain;
use super::upgrade::Upgrade;
use crate::config::Config;
use crate::exchange::Course;
use crate::node::certificates;
use crate::node::metrics::Mirror;
use crate::node::{Board, Drain, Reasons, Supervisor, View};
use crate::upstream::{Member, Upstream};

/// The L7 tier's side of the admin listener.
pub struct L7Admin {
    /// What is served.
    pub board: Board,
    /// Who carries out commands.
    pub supervisor: Addr<Supervisor>,
    /// Where the drain stands.
    pub course: watch::Receiver<Course>,
    /// Why backends are in their states.
    pub reasons: Reasons,
    /// The bus, for its state.
    pub bus: Bus,
    /// How a changed configuration comes into force.
    pub reloader: Reloader<Config>,
    /// How another process takes over.
    pub(super) upgrade: Arc<Upgrade>,
    /// The gauges set before a scrape.
    pub(super) mirror: Mirror,
}

impl L7Admin {
    fn listeners(view: &View) -> Vec<Value> {
        let listeners = view.snapshot.config.listeners.iter().zip(&view.doors);
        listeners
            .map(|(listener, door)| {
                json!({
                    "name": listener.name,
                    "address": door.address(),
                    "protocol": listener.protocol.scheme(),
                    "http2": listener.http2,
                    "proxy_protocol": listener.proxy_protocol.is_some(),
                    "connections": door.open(),
                    "max_connections": listener.max_connections,
                })
            })
            .collect()
    }

    fn leaving(view: &View) -> Vec<Value> {
        let leaving = view.leaving.iter();
        leaving
            .map(|door| json!({ "address": door.address(), "connections": door.open() }))
            .collect()
    }

    fn upstreams(&self, view: &View) -> Vec<Value> {
        let upstreams = view.snapshot.upstreams().iter();
        upstreams
            .map(|upstream| {
                json!({
                    "name": &*upstream.name,
                    "available": upstream.available(),
                    "backends": backends(upstream, &self.reasons),
                })
            })
            .collect()
    }
}

impl Admin for L7Admin {
    fn ready(&self) -> Result<(), String> {
        let course = *self.course.borrow();
        if course.draining() {
            return Err(format!("draining ({})", course.phase.name()));
        }
        // Where it registers nothing, clients are sent here by other means.
        let registers = !self.board.load().snapshot.config.registrations.is_empty();
        match self.bus.duplicate() {
            Some(first) if registers && first.silences() => {
                Err(format!("{first}: not registered until it is gone"))
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let course = *self.course.borrow();
        let view = self.board.load();
        json!({
            "tier": "l7",
            "node": view.snapshot.config.node.id,
            "version": env!("CARGO_PKG_VERSION"),
            "process": std::process::id(),
            "binary": self.upgrade.binary(),
            "configuration": self.reloader.standing(),
            "ready": self.ready().is_ok(),
            "drain": { "phase": course.phase.name(), "exiting": course.exiting },
            "workers": view.snapshot.config.workers,
            "connections": view.connections(),
            "listeners": L7Admin::listeners(&view),
            "leaving": L7Admin::leaving(&view),
            "certificates": certificates::status(&view, SystemTime::now()),
            "upstreams": self.upstreams(&view),
            "bus": self.bus.status(),
        })
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        if let Some(answer) = self.reloader.command(name, &args) {
            return answer;
        }
        let supervisor = self.supervisor.clone();
        match name {
            "drain" => Box::pin(drain(supervisor, self.bus.clone(), true)),
            "undrain" => Box::pin(drain(supervisor, self.bus.clone(), false)),
            "upgrade" => {
                let (upgrade, reloader) = (self.upgrade.clone(), self.reloader.clone());
                Box::pin(async move {
                    let upgraded = upgrade.run(supervisor, reloader).await;
                    let process = upgraded.map_err(CommandError::Refused)?;
                    Ok(json!({ "process": process }))
                })
            }
            "explain" => {
                let explained = explain::answer(&self.board.load(), &self.reasons, args);
                Box::pin(std::future::ready(explained.map_err(CommandError::Invalid)))
            }
            _ => Box::pin(std::future::ready(Err(CommandError::Unknown))),
        }
    }

    fn refresh_metrics(&self) {
        let draining = self.course.borrow().draining();
        self.mirror.refresh(&self.board.load(), draining);
    }
}

/// An upstream's backends and their states.
pub(super) fn backends(upstream: &Upstream, reasons: &Reasons) -> Vec<Value> {
    let members = upstream.members.iter();
    members
        .map(
            |Member {
                 backend, weight, ..
             }| {
                json!({
                    "address": backend.address(),
                    "weight": weight,
                    "state": backend.state().as_str(),
                    "reason": reasons.of(&upstream.name, backend.address()),
                    "active": backend.active(),
                })
            },
        )
        .collect()
}

async fn drain(supervisor: Addr<Supervisor>, bus: Bus, drain: bool) -> Result<Value, CommandError> {
    match supervisor.send(Drain(drain)).await {
        Ok(Ok(state)) => Ok(json!({ "state": state, "warnings": bus.warn() })),
        Ok(Err(why)) => Err(CommandError::Refused(why.to_owned())),
        Err(error) => Err(CommandError::Failed(error.to_string())),
    }
}
