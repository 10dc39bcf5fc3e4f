//! What the `bgp-ctl` binary answers on its admin listener.

use std::net::Ipv4Addr;
use std::time::Instant;

use actix::Addr;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError, asked, asker};
use shared::bus::{Bus, DrainRecord, Tier, unix_ms};
use shared::reload::Reloader;

use crate::actors::route_control::{RouteControl, SetForce};
use crate::config::Config;
use crate::decision::Force;
use crate::status::StatusBoard;

/// Commands and state of this process.
pub(crate) struct Front {
    pub(crate) status: StatusBoard,
    pub(crate) control: Addr<RouteControl>,
    pub(crate) bus: Bus,
    pub(crate) reloader: Reloader<Config>,
}

impl Front {
    /// Asks the followed node to drain, or to take traffic again: state on the bus, which the node acts on too.
    pub(crate) fn drain(&self, drain: bool, by: String) -> Value {
        let id = self.status.read().node;
        let record = DrainRecord {
            tier: Tier::L4,
            id: id.clone(),
            drain,
            by,
            since_unix_ms: unix_ms(),
        };
        self.bus.put(record);
        json!({ "node": id, "drain": drain, "warnings": self.bus.warn() })
    }
}

impl Admin for Front {
    fn ready(&self) -> Result<(), String> {
        self.status.read().ready(Instant::now())
    }

    fn status(&self) -> Value {
        // Neither type has a map with keys that are not text, the only thing JSON can't hold.
        let mut status = serde_json::to_value(self.status.read()).unwrap_or_default();
        status["configuration"] =
            serde_json::to_value(self.reloader.standing()).unwrap_or_default();
        status["bus"] = serde_json::to_value(self.bus.status()).unwrap_or_default();
        status
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        if let Some(answer) = self.reloader.command(name, &args) {
            return answer;
        }
        match name {
            "drain" | "undrain" => {
                let answer = asker(&args).map(|by| self.drain(name == "drain", by));
                std::future::ready(answer).boxed()
            }
            "force" => {
                let force = match parse_force(&args) {
                    Ok(force) => force,
                    Err(error) => return std::future::ready(Err(error)).boxed(),
                };
                let SetForce {
                    vip,
                    force: to,
                    asked,
                } = &force;
                let (by, reason) = (&asked.by, &asked.reason);
                tracing::info!(%vip, force = ?to, by, reason, "VIP: changed by an operator");
                let sent = self.control.send(force);
                async move {
                    sent.await
                        .map_err(|error| CommandError::Failed(error.to_string()))?;
                    Ok(json!({ "done": true }))
                }
                .boxed()
            }
            _ => std::future::ready(Err(CommandError::Unknown)).boxed(),
        }
    }
}

/// `{"vip": "10.0.0.100", "force": "announce" | "withdraw" | "none", "by": ..., "reason": ...}`.
fn parse_force(args: &Value) -> Result<SetForce, CommandError> {
    let text = |key: &str| {
        args.get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| CommandError::Invalid(format!("`{key}` is missing")))
    };
    let vip: Ipv4Addr = text("vip")?
        .parse()
        .map_err(|_| CommandError::Invalid("`vip` is not an IPv4 address".to_owned()))?;
    let force = match text("force")? {
        "announce" => Some(Force::Announce),
        "withdraw" => Some(Force::Withdraw),
        "none" => None,
        other => {
            return Err(CommandError::Invalid(format!(
                "`force` is {other:?}, expected \"announce\", \"withdraw\" or \"none\""
            )));
        }
    };
    Ok(SetForce {
        vip,
        force,
        asked: asked(args)?,
    })
}
