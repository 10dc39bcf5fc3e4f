//! What the admin listener answers.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use bgp_ctl::RouteControl;
use bgp_ctl::status::StatusBoard;
use dataplane::Mode;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError, Stream, arguments, asker};
use shared::bus::Bus;
use shared::reload::Reloader;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::actors::{Board, ControlPlane, ServiceView, View};
use crate::announce::announce;
use crate::capture::{Captures, Request};
use crate::config::Config;
use crate::drain;
use crate::filter::{End, Ends, FlowFilter};
use crate::flows::end;
use crate::forwarder::Forwarder;
use crate::host::Host;
use crate::intent;
use crate::known;
use crate::metrics;
use crate::names::{PROTOCOLS, STATES};
use crate::neighbours::neighbours;
use crate::persistence::persistence;
use crate::range;
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
    pub(crate) reloader: Reloader<Config>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) board: Board,
    pub(crate) control: Addr<ControlPlane>,
    pub(crate) bus: Bus,
    pub(crate) bgp: Option<StatusBoard>,
    pub(crate) routes: Option<Addr<RouteControl>>,
    pub(crate) captures: Captures,
    pub(crate) host: Host,
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
    fn port_names(&self) -> Vec<String> {
        let config = self.reloader.current();
        config.ports.iter().map(|port| port.name.clone()).collect()
    }

    fn drain(&self, wanted: bool, args: Value) -> Result<Value, CommandError> {
        let by = asker(&args)?;
        let warnings = drain::ask(&self.bus, &self.reloader.current(), wanted, by);
        Ok(json!({ "draining": wanted, "warnings": warnings }))
    }
}

impl Admin for NodeAdmin {
    fn ready(&self) -> Result<(), String> {
        ready(&self.board.read(), self.bgp.as_ref())
    }

    fn status(&self) -> Value {
        status(Sources {
            config: &self.reloader.current(),
            standing: self.reloader.standing(),
            forwarder: &self.forwarder,
            board: &self.board,
            bus: &self.bus,
            bgp: self.bgp.as_ref(),
            host: &self.host,
        })
    }

    fn command(
        &self,
        name: &str,
        args: Value,
    ) -> futures_util::future::BoxFuture<'static, Result<Value, CommandError>> {
        if let Some(answer) = self.reloader.command(name, &args) {
            return answer;
        }
        match name {
            "drain" | "undrain" => {
                let answer = self.drain(name == "drain", args);
                Box::pin(std::future::ready(answer))
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
                    let tables = forwarder.tables();
                    if flows.is_empty()
                        && left_out == 0
                        && let Some(why) = known::missing(&filter, &services, &tables)
                    {
                        return Err(CommandError::Invalid(why));
                    }
                    let shown = flows.iter().map(|flow| ShownFlow::new(flow, &tables));
                    let flows: Vec<_> = shown.collect();
                    Ok(json!({ "flows": flows, "left_out": left_out }))
                })
            }
            "vip" => {
                let (routes, config) = (self.routes.clone(), self.reloader.current());
                Box::pin(async move { intent::vip(routes, &config, args).await })
            }
            "neighbours" | "announce" => {
                let (forwarder, announces) = (self.forwarder.clone(), name == "announce");
                let names = self.port_names();
                Box::pin(async move {
                    match announces {
                        true => announce(&forwarder, &names, args).await,
                        false => neighbours(&forwarder, &names, args).await,
                    }
                })
            }
            "persistence" => Box::pin(persistence(self.forwarder.clone(), self.board.read(), args)),
            "cut" => {
                let (forwarder, view) = (self.forwarder.clone(), self.board.read());
                Box::pin(async move { end(&forwarder, &view, args).await })
            }
            "target" => {
                let (control, board) = (self.control.clone(), self.board.clone());
                let forwarder = self.forwarder.clone();
                Box::pin(async move { intent::target(control, &board, &forwarder, args).await })
            }
            _ => Box::pin(std::future::ready(Err(CommandError::Unknown))),
        }
    }

    fn stream(&self, name: &str, args: &Value) -> Option<Result<Stream, CommandError>> {
        (name == "capture").then(|| {
            let request: Request = arguments(args.clone())?;
            let config = self.reloader.current();
            if let Some(target) = request.target {
                shows(target, &config, &self.board.read()).map_err(CommandError::Invalid)?;
            }
            let names = self.port_names();
            let stream = self.captures.begin(&self.forwarder, names, &request)?;
            tracing::info!(?request, "capture");
            Ok(stream)
        })
    }

    fn refresh_metrics(&self) {
        let config = self.reloader.current();
        let ports = self.forwarder.ports();
        metrics::host(self.host.warnings(&config, &ports).len());
        metrics::refresh(
            &config,
            &self.forwarder,
            &ports,
            &self.board.read(),
            self.ready().is_ok(),
        );
    }
}

/// Whether clients can come and are served: the node forwards, and with `[bgp]` the routers know of its VIPs.
///
/// # Errors
/// Why not.
pub(crate) fn ready(view: &View, bgp: Option<&StatusBoard>) -> Result<(), String> {
    if let Some(why) = &view.not_ready {
        return Err(why.clone());
    }
    bgp.map_or(Ok(()), |bgp| bgp.read().ready(Instant::now()))
}

/// Whether frames to a target tell that they are.
///
/// # Errors
/// If all targets that are meant get frames as they are.
fn shows(wanted: End, config: &Config, view: &View) -> Result<(), String> {
    let has_it = |service: &ServiceView| {
        let mut targets = service.targets.iter();
        targets.any(|target| wanted.matches(target.address.0))
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

impl Which {
    /// # Errors
    /// What is expected, if a part makes no sense.
    pub(crate) fn filter(self, view: &View) -> Result<FlowFilter, String> {
        if let Some(limit) = self.limit {
            range::check("limit", limit, &LIMIT)?;
        }
        let service = match &self.service {
            // Without a number it has no flows yet, and a filter without one would match those of all services.
            Some(name) => {
                let id = known::service(view, name)?.id;
                Some(id.ok_or_else(|| format!("service {name:?}: not in force yet, ask again"))?)
            }
            None => None,
        };
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

/// A worker's answer to a question.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn of_worker<T>(
    forwarder: &Forwarder,
    worker: usize,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, CommandError> {
    let failed = |why: &str| CommandError::Failed(format!("worker {worker} {why}"));
    let (reply, answer) = oneshot::channel();
    let questions = forwarder.questions();
    let worker_questions = questions
        .get(worker)
        .ok_or_else(|| failed("is not there"))?;
    worker_questions
        .try_send(question(reply))
        .map_err(|_| failed("has too many questions waiting"))?;
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(failed("does not answer")),
    }
}
