//! The life of a node: start, forward, leave.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use bgp_ctl::RouteControl;
use bgp_ctl::actors::route_control::Shutdown;
use bgp_ctl::status::StatusBoard;
use shared::bus::Bus;
use shared::config::Loaded;
use shared::config::sections::Transport;
use shared::lifecycle::{Service, Start, listen};
use shared::reload::Reloader;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::actors::{Board, ControlPlane, Failure, Leave, Stop, Watchdog};
use crate::admin::{NodeAdmin, flows};
use crate::capture::Captures;
use crate::config::Config;
use crate::control::Control;
use crate::drain;
use crate::error::Error;
use crate::filter::FlowFilter;
use crate::forwarder::Forwarder;
use crate::host::Host;
use crate::meanings::MEANINGS;
use crate::nic::Nic;
use crate::reload::Following;

/// Events of the workers that may wait to be logged.
const NEWS: usize = 256;
/// How often a leaving node looks whether flows are left.
const LOOK: Duration = Duration::from_millis(100);
/// How long a leaving node goes on at least when others announce its VIPs: they hear of it by the bus.
const NOTICE: Duration = Duration::from_secs(1);

/// Runs a node by `loaded` until it is told to end.
///
/// # Errors
/// What kept it from starting, or a worker that panicked.
pub async fn run(loaded: Loaded<Config>) -> Result<(), Error> {
    let config = loaded.config.clone();
    let start = Start::new(loaded, &config.log, MEANINGS)?;
    let listener = listen(config.admin.listen)?;
    let host = Host::before_start(&config);
    let node = Node::start(&start.reloader)?;
    let (ended, failure) = mpsc::channel(1);
    node.watch(ended);
    let serving = start.serve(listener, node.admin(host), node.bus.clone(), pending())?;
    tracing::info!(node = config.node.id, admin = %config.admin.listen, "running");
    let mut error = None;
    serving.until_left(&node, failed(failure, &mut error)).await;
    let stopped = node.forwarder.stop();
    error.map_or(stopped, Err)
}

/// Waits for what only a new process puts right. Why that is a reason to leave, and the error to leave with.
async fn failed(mut failure: mpsc::Receiver<Failure>, error: &mut Option<Error>) -> String {
    match failure.recv().await {
        // A worker that panicked is an error of its end.
        Some(Failure::Worker(worker)) => {
            tracing::error!(
                worker,
                "a worker's loop ended by itself: leaving, as it can't be trusted to come back"
            );
            format!("worker {worker} failed")
        }
        Some(Failure::InterfaceReplaced { port, interface }) => {
            tracing::error!(
                port,
                interface,
                "the interface is back: leaving, as a new process alone can open it"
            );
            let why = format!("interface {interface} of port {port} was replaced");
            *error = Some(Error::InterfaceReplaced { port, interface });
            why
        }
        None => pending().await,
    }
}

/// A running node.
struct Node {
    reloader: Reloader<Config>,
    forwarder: Arc<Forwarder>,
    bus: Bus,
    board: Board,
    control: Addr<ControlPlane>,
    route_control: Option<(Addr<RouteControl>, StatusBoard)>,
}

impl Node {
    fn start(reloader: &Reloader<Config>) -> Result<Node, Error> {
        let config = reloader.current();
        let bus = Bus::start(&config.bus, &config.node.id);
        let (to_control, mut news) = mpsc::channel(NEWS);
        let mut control = None;
        let first = |nics: &[Nic]| {
            let knowledge = control.insert(Control::new(&config, nics));
            Ok(knowledge.first_tables()?)
        };
        let forwarder = Arc::new(Forwarder::start(&config, first, to_control)?);
        let board = Board::default();
        let knowledge = match control {
            Some(knowledge) => knowledge,
            None => unreachable!("the forwarder has asked for the first snapshot"),
        };
        let route_control = config.bgp.clone().map(|section| {
            let status = StatusBoard::default();
            (
                RouteControl::start_within(
                    section,
                    config.node.id.clone(),
                    bus.clone(),
                    status.clone(),
                ),
                status,
            )
        });
        let routes = route_control.as_ref().map(|(control, _)| control.clone());
        let control = ControlPlane::launch(
            knowledge,
            forwarder.clone(),
            bus.clone(),
            board.clone(),
            routes,
        );
        let to = control.clone();
        actix_rt::spawn(async move {
            while let Some(news) = news.recv().await {
                to.do_send(news);
            }
        });
        reloader.followed_by(Following {
            control: control.clone(),
            forwarder: forwarder.clone(),
            board: board.clone(),
            bgp: route_control.clone(),
        });
        Ok(Node {
            reloader: reloader.clone(),
            forwarder,
            bus,
            board,
            control,
            route_control,
        })
    }

    /// Starts the watchdog; `ended` hears of what only a new process puts right.
    fn watch(&self, ended: mpsc::Sender<Failure>) {
        let config = self.reloader.current();
        let names = config.ports.iter().map(|port| port.name.clone()).collect();
        let to = self.control.clone().recipient();
        let limit = config.workers.stall_limit;
        // The channel holds one, and there is one.
        let tell = move |failure| {
            let _ = ended.try_send(failure);
        };
        Watchdog::new(self.forwarder.clone(), names, limit, to, tell).start();
    }

    fn admin(&self, host: Host) -> NodeAdmin {
        NodeAdmin {
            reloader: self.reloader.clone(),
            forwarder: self.forwarder.clone(),
            board: self.board.clone(),
            control: self.control.clone(),
            bus: self.bus.clone(),
            captures: Captures::default(),
            routes: self
                .route_control
                .as_ref()
                .map(|(routes, _)| routes.clone()),
            host,
            bgp: self
                .route_control
                .as_ref()
                .map(|(_, status)| status.clone()),
        }
    }

    async fn flows_finished(&self) {
        let began = Instant::now();
        let config = self.reloader.current();
        let deadline = began + config.drain.deadline;
        // Without [bgp] another process may announce the VIPs.
        let elsewhere = self.route_control.is_none() && config.bus.transport != Transport::Local;
        let notice = if elsewhere { began + NOTICE } else { began };
        let mut empty = false;
        loop {
            sleep(LOOK).await;
            let open = FlowFilter {
                open: true,
                ..FlowFilter::default()
            };
            let left = flows(&self.forwarder, open, 1, false).await;
            let now = Instant::now();
            if now >= deadline {
                tracing::warn!("the drain's deadline has passed with flows left");
                return;
            }
            // A walk over the table takes a while, and a flow may have begun behind it: it is in the next.
            let was_empty = empty;
            empty = left.is_ok_and(|left| left.flows.is_empty());
            if was_empty && empty && now >= notice {
                tracing::info!(took = ?now - began, "no flow is left");
                return;
            }
        }
    }
}

impl Service for Node {
    async fn drain(&self, wanted: bool) {
        // What it warns of is in the log.
        drain::ask(&self.bus, &self.reloader.current(), wanted, "signal".into());
    }

    /// Has the VIPs withdrawn and forwards on until no flow is open or the deadline passes. Nothing is reloaded from here on.
    async fn finish(&self) {
        self.reloader.close().await;
        // Send errors here and below mean that the actor's system has ended, and with it all that could be told.
        let _ = self.control.send(Stop).await;
        if let Some(note) = drain::still_coming(&self.reloader.current()) {
            tracing::info!("{note}");
        }
        self.flows_finished().await;
    }

    /// Routers first, then the bus.
    async fn take_leave(&self, why: &str) {
        let _ = self.control.send(Stop).await;
        if let Some((route_control, _)) = &self.route_control {
            let _ = route_control.send(Shutdown { text: why.into() }).await;
        }
        let _ = self.control.send(Leave).await;
    }
}
