//! What the admin listener answers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bgp_ctl::status::StatusBoard;
use dataplane::FlowView;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError};
use shared::bus::{Bus, DrainRecord, Tier, unix_ms};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::actors::Board;
use crate::forwarder::Forwarder;
use crate::metrics;
use crate::reload::{Current, Reloader};
use crate::status::{ShownFlow, Sources, status};
use crate::worker::{FlowFilter, Inquiry};

/// Flows listed unless asked for more, and at most.
const FLOWS: usize = 100;
const MOST_FLOWS: usize = 10_000;

/// How long a worker may take to answer: it walks its flow table.
const PATIENCE: Duration = Duration::from_secs(5);

/// The node, as seen from the admin listener.
pub(crate) struct NodeAdmin {
    pub(crate) config: Current,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) board: Board,
    pub(crate) bus: Bus,
    pub(crate) bgp: Option<StatusBoard>,
}

/// Arguments of `drain`, `undrain` and `reload`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Who {
    by: Option<String>,
}

/// Arguments of `flows`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    client: Option<Ipv4Addr>,
    target: Option<SocketAddrV4>,
    local: Option<SocketAddrV4>,
    limit: Option<usize>,
}

impl NodeAdmin {
    fn drain(&self, drain: bool, args: Value) -> Result<Value, CommandError> {
        let by = asker(args)?;
        tracing::info!(drain, by, "drain asked for");
        let id = self.config.load().node.id.clone();
        self.bus.put(DrainRecord {
            tier: Tier::L4,
            id,
            drain,
            by,
            since_unix_ms: unix_ms(),
        });
        Ok(json!({ "draining": drain }))
    }
}

impl Admin for NodeAdmin {
    fn ready(&self) -> Result<(), String> {
        match &self.board.read().not_ready {
            None => Ok(()),
            Some(why) => Err(why.clone()),
        }
    }

    fn status(&self) -> Value {
        status(Sources {
            config: &self.config.load(),
            reloader: &self.reloader,
            forwarder: &self.forwarder,
            board: &self.board,
            bus: &self.bus,
            bgp: self.bgp.as_ref(),
        })
    }

    fn command(
        &self,
        name: &str,
        args: Value,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, CommandError>> {
        match name {
            "drain" | "undrain" => {
                let answer = self.drain(name == "drain", args);
                Box::pin(std::future::ready(answer))
            }
            "reload" => {
                let reloader = self.reloader.clone();
                Box::pin(async move {
                    let by = asker(args)?;
                    let changes = reloader.reload(&by).await;
                    Ok(json!({ "changes": changes.map_err(CommandError::Refused)? }))
                })
            }
            "flows" => {
                let forwarder = self.forwarder.clone();
                Box::pin(async move {
                    let Which {
                        client,
                        target,
                        local,
                        limit,
                    } = arguments(args)?;
                    let filter = FlowFilter {
                        client,
                        target,
                        local,
                        open: false,
                    };
                    let flows =
                        flows(&forwarder, filter, limit.unwrap_or(FLOWS).min(MOST_FLOWS)).await;
                    let flows = flows.map_err(CommandError::Failed)?;
                    Ok(json!(flows.iter().map(ShownFlow::from).collect::<Vec<_>>()))
                })
            }
            _ => Box::pin(std::future::ready(Err(CommandError::Unknown))),
        }
    }

    fn refresh_metrics(&self) {
        metrics::refresh(&self.config.load(), &self.forwarder, &self.board.read());
    }
}

/// Who asks, fit for a log.
fn asker(args: Value) -> Result<String, CommandError> {
    let Who { by } = arguments(args)?;
    let by = by.unwrap_or_else(|| "admin listener".into());
    Ok(by.chars().filter(|c| !c.is_control()).take(120).collect())
}

/// No arguments at all count as none given.
fn arguments<T: Default + for<'a> Deserialize<'a>>(args: Value) -> Result<T, CommandError> {
    match args {
        Value::Null => Ok(T::default()),
        args => {
            serde_json::from_value(args).map_err(|error| CommandError::Invalid(error.to_string()))
        }
    }
}

/// Asks each worker in turn for flows, up to `limit` in all.
///
/// # Errors
/// When a worker does not answer.
pub(crate) async fn flows(
    forwarder: &Forwarder,
    filter: FlowFilter,
    limit: usize,
) -> Result<Vec<FlowView>, String> {
    let mut flows = Vec::new();
    for (worker, inquiries) in forwarder.inquiries().iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        let inquiry = Inquiry {
            filter,
            limit: limit - flows.len(),
            reply,
        };
        inquiries
            .try_send(inquiry)
            .map_err(|_| format!("worker {worker} has too many questions waiting"))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(more)) => flows.extend(more),
            _ => return Err(format!("worker {worker} does not answer")),
        }
        if flows.len() >= limit {
            break;
        }
    }
    Ok(flows)
}
