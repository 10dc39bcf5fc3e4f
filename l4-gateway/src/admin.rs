//! What the admin listener answers.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bgp_ctl::status::StatusBoard;
use dataplane::Mode;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError, Stream};
use shared::bus::Bus;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::actors::{Board, ServiceView, View};
use crate::capture::{Captures, Request};
use crate::config::Config;
use crate::drain;
use crate::filter::{End, Ends, FlowFilter};
use crate::forwarder::Forwarder;
use crate::metrics;
use crate::names::{PROTOCOLS, STATES};
use crate::range;
use crate::reloader::{Current, Reloader};
use crate::status::{ShownFlow, Sources, status};
use crate::worker::{Found, Inquiry, Question};

/// Flows listed unless asked for more.
pub(crate) const LISTED: usize = 100;
/// How many may be asked for; 0 asks for the count alone.
pub(crate) const LIMIT: RangeInclusive<usize> = 0..=10_000;

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
    pub(crate) captures: Captures,
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
pub(crate) struct Which {
    client: Option<End>,
    vip: Option<End>,
    local: Option<End>,
    target: Option<End>,
    /// By name.
    service: Option<String>,
    protocol: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
}

impl NodeAdmin {
    fn drain(&self, wanted: bool, args: Value) -> Result<Value, CommandError> {
        let by = asker(args)?;
        let note = drain::ask(&self.bus, &self.config.load(), wanted, by);
        let mut answer = json!({ "draining": wanted });
        if let Some(note) = note {
            answer["note"] = note.into();
        }
        Ok(answer)
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
                let services = self.board.read();
                Box::pin(async move {
                    let which: Which = arguments(args)?;
                    let limit = which.limit.unwrap_or(LISTED);
                    let filter = which.filter(&services).map_err(CommandError::Invalid)?;
                    let found = flows(&forwarder, filter, limit, true).await;
                    let Found { flows, left_out } = found.map_err(CommandError::Failed)?;
                    let flows: Vec<_> = flows.iter().map(ShownFlow::from).collect();
                    Ok(json!({ "flows": flows, "left_out": left_out }))
                })
            }
            _ => Box::pin(std::future::ready(Err(CommandError::Unknown))),
        }
    }

    fn stream(&self, name: &str, args: &Value) -> Option<Result<Stream, CommandError>> {
        (name == "capture").then(|| {
            let request: Request = arguments(args.clone())?;
            let config = self.config.load();
            if let Some(target) = request.target {
                shows(target, &config, &self.board.read()).map_err(CommandError::Invalid)?;
            }
            let names = config.ports.iter().map(|port| port.name.clone()).collect();
            let stream = self.captures.begin(&self.forwarder, names, &request)?;
            tracing::info!(?request, "capture");
            Ok(stream)
        })
    }

    fn refresh_metrics(&self) {
        metrics::refresh(&self.config.load(), &self.forwarder, &self.board.read());
    }
}

/// Whether frames to a target tell that they are.
///
/// # Errors
/// If all targets that are meant get frames as they are.
fn shows(wanted: End, config: &Config, view: &View) -> Result<(), String> {
    let has_it = |service: &ServiceView| {
        let mut targets = service.targets.iter();
        targets.any(|target| wanted.matches(target.address))
    };
    let meant = view.services.iter().filter(|service| has_it(service));
    let mut modes = meant.filter_map(|view| {
        let mut services = config.services.iter();
        services
            .find(|service| service.name == view.name)
            .map(|service| service.mode)
    });
    let is_direct = |mode| mode == Mode::Direct;
    match modes.next() {
        Some(mode) if is_direct(mode) && modes.all(is_direct) => Err(
            "target: frames to the targets of a service with mode = \"dr\" don't hold their addresses: ask by client or vip".into(),
        ),
        _ => Ok(()),
    }
}

/// Who asks, fit for a log.
pub(crate) fn asker(args: Value) -> Result<String, CommandError> {
    let Who { by } = arguments(args)?;
    let by = by.unwrap_or_else(|| "admin listener".into());
    Ok(by.chars().filter(|c| !c.is_control()).take(120).collect())
}

/// No arguments at all count as none given.
///
/// # Errors
/// What is expected, of anything but an object that fits: serde would also take an array, by the place of its items.
pub(crate) fn arguments<T: Default + for<'a> Deserialize<'a>>(
    args: Value,
) -> Result<T, CommandError> {
    match args {
        Value::Null => Ok(T::default()),
        Value::Object(_) => {
            serde_json::from_value(args).map_err(|error| CommandError::Invalid(error.to_string()))
        }
        _ => Err(CommandError::Invalid(
            "expected an object, such as {}".into(),
        )),
    }
}

impl Which {
    /// # Errors
    /// What is expected, if a part makes no sense.
    pub(crate) fn filter(self, view: &View) -> Result<FlowFilter, String> {
        if let Some(limit) = self.limit {
            range::check("limit", limit, &LIMIT)?;
        }
        let find = |name: &String| {
            let mut services = view.services.iter();
            let found = services.find(|service| service.name == *name);
            found.and_then(|service| service.id).ok_or_else(|| {
                let names: Vec<&str> = view.services.iter().map(|s| s.name.as_str()).collect();
                format!("service {name:?}: expected one of {}", names.join(", "))
            })
        };
        let service = self.service.as_ref().map(find).transpose()?;
        let protocol = self
            .protocol
            .map(|name| PROTOCOLS.find(&name))
            .transpose()?;
        let state = self.state.map(|name| STATES.find(&name)).transpose()?;
        Ok(FlowFilter {
            ends: Ends {
                client: self.client,
                vip: self.vip,
                local: self.local,
                target: self.target,
            },
            service,
            protocol,
            state,
            open: false,
        })
    }
}

/// Asks each worker in turn for flows, up to `limit` in all, and with `count` how many more there are.
///
/// # Errors
/// When a worker does not answer.
pub(crate) async fn flows(
    forwarder: &Forwarder,
    filter: FlowFilter,
    limit: usize,
    count: bool,
) -> Result<Found, String> {
    let mut found = Found::default();
    for (worker, questions) in forwarder.questions().iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        let inquiry = Inquiry {
            filter,
            limit: limit - found.flows.len(),
            count,
            reply,
        };
        questions
            .try_send(Question::Flows(inquiry))
            .map_err(|_| format!("worker {worker} has too many questions waiting"))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(more)) => {
                found.flows.extend(more.flows);
                found.left_out += more.left_out;
            }
            _ => return Err(format!("worker {worker} does not answer")),
        }
        if found.flows.len() >= limit && !count {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_or_none() {
        let limit = |args| arguments::<Which>(args).map(|which| which.limit);
        assert!(matches!(limit(Value::Null), Ok(None)));
        assert!(matches!(limit(json!({})), Ok(None)));
        assert!(matches!(limit(json!({ "limit": 7 })), Ok(Some(7))));
        for args in [
            json!([]),
            json!(["10.2.0.1"]),
            json!("10.2.0.1"),
            json!(7),
            json!(true),
        ] {
            match arguments::<Which>(args) {
                Err(CommandError::Invalid(why)) => {
                    assert_eq!(why, "expected an object, such as {}");
                }
                answer => panic!("{answer:?}"),
            }
        }
        assert!(matches!(asker(json!(["x"])), Err(CommandError::Invalid(_))));
    }
}
