//! The life of a node: start, forward, leave.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use arc_swap::ArcSwap;
use bgp_ctl::RouteControl;
use bgp_ctl::actors::route_control::Shutdown;
use bgp_ctl::status::StatusBoard;
use shared::admin;
use shared::bus::Bus;
use shared::config::sections::Transport;
use shared::lifecycle::{Request, Signals};
use shared::telemetry::MetricsHandle;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::actors::{Board, ControlPlane, Leave, Stop, Watchdog};
use crate::admin::{NodeAdmin, flows};
use crate::capture::Captures;
use crate::config::Config;
use crate::control::Control;
use crate::drain;
use crate::error::Error;
use crate::filter::FlowFilter;
use crate::forwarder::Forwarder;
use crate::nic::Nic;
use crate::reloader::{Current, Reloader};

/// Events of the workers that may wait to be logged.
const NEWS: usize = 256;
/// How often a leaving node looks whether flows are left.
const LOOK: Duration = Duration::from_millis(100);
/// How long a leaving node goes on at least when others announce its VIPs: they hear of it by the bus.
const NOTICE: Duration = Duration::from_secs(1);
/// How long the last records may take to reach the bus's servers.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs a node by `config`, which was read from `file`, until it is told to end.
///
/// # Errors
/// What kept it from starting, or a worker that panicked.
pub async fn run(file: PathBuf, config: Config, metrics: MetricsHandle) -> Result<(), Error> {
    let config = Arc::new(config);
    let address = config.admin.listen;
    let admin_error = |error| Error::Admin { address, error };
    // Signals first: one that comes while DPDK starts must not leave half a node behind.
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let listener = TcpListener::bind(address).await.map_err(admin_error)?;
    let node = Node::start(file, config.clone())?;
    let (ended, mut worker_ended) = mpsc::channel::<usize>(1);
    node.watch(ended);

    let (close_admin, admin_closed) = tokio::sync::oneshot::channel::<()>();
    let admin: Arc<dyn admin::Admin> = Arc::new(node.admin());
    let server = actix_rt::spawn(admin::serve(listener, metrics, admin, async move {
        let _ = admin_closed.await;
    }));
    tracing::info!(node = config.node.id, admin = %address, "running");

    loop {
        tokio::select! {
            request = signals.next() => match request {
                Request::Drain => node.drain(true),
                Request::Undrain => node.drain(false),
                Request::Reload => {
                    let reloader = node.reloader.clone();
                    // It logs what came of it.
                    actix_rt::spawn(async move { reloader.reload("signal").await.is_ok() });
                }
                Request::Terminate => break node.leave(signals).await,
            },
            Some(worker) = worker_ended.recv() => {
                tracing::error!(worker, "a worker's loop ended by itself: leaving, as it can't be trusted to come back");
                node.take_leave(&format!("worker {worker} failed")).await;
                break;
            }
        }
    }
    let _ = close_admin.send(());
    let _ = server.await;
    node.forwarder.stop()
}

/// A running node.
struct Node {
    config: Current,
    reloader: Arc<Reloader>,
    forwarder: Arc<Forwarder>,
    bus: Bus,
    board: Board,
    control: Addr<ControlPlane>,
    route_control: Option<(Addr<RouteControl>, StatusBoard)>,
}

impl Node {
    fn start(file: PathBuf, config: Arc<Config>) -> Result<Node, Error> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
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
        let control =
            ControlPlane::launch(knowledge, forwarder.clone(), bus.clone(), board.clone());
        let to = control.clone();
        actix_rt::spawn(async move {
            while let Some(news) = news.recv().await {
                to.do_send(news);
            }
        });
        let route_control = config.bgp.clone().map(|section| {
            let status = StatusBoard::default();
            (
                RouteControl::start_reporting(
                    section,
                    config.node.id.clone(),
                    bus.clone(),
                    status.clone(),
                ),
                status,
            )
        });
        let config: Current = Arc::new(ArcSwap::new(config));
        let reloader = Reloader::new(file, config.clone(), control.clone());
        Ok(Node {
            config,
            reloader: Arc::new(reloader),
            forwarder,
            bus,
            board,
            control,
            route_control,
        })
    }

    /// Starts the watchdog; `ended` hears of a worker whose loop ends by itself.
    fn watch(&self, ended: mpsc::Sender<usize>) {
        let config = self.config.load();
        let names = config.ports.iter().map(|port| port.name.clone()).collect();
        let to = self.control.clone().recipient();
        let limit = config.workers.stall_limit;
        // The channel holds one, and there is one.
        let tell = move |worker| {
            let _ = ended.try_send(worker);
        };
        Watchdog::new(self.forwarder.clone(), names, limit, to, tell).start();
    }

    fn admin(&self) -> NodeAdmin {
        NodeAdmin {
            config: self.config.clone(),
            reloader: self.reloader.clone(),
            forwarder: self.forwarder.clone(),
            board: self.board.clone(),
            bus: self.bus.clone(),
            captures: Captures::default(),
            bgp: self
                .route_control
                .as_ref()
                .map(|(_, status)| status.clone()),
        }
    }

    fn drain(&self, wanted: bool) {
        // What it says is in the log.
        drain::ask(&self.bus, &self.config.load(), wanted, "signal".into());
    }

    /// Has the VIPs withdrawn and forwards on until no flow is open, the deadline passes, or a second signal comes.
    async fn leave(&self, mut signals: Signals) {
        // Send errors here and below mean that the actor's system has ended, and with it all that could be told.
        let _ = self.control.send(Stop).await;
        if let Some(note) = drain::still_coming(&self.config.load()) {
            tracing::info!("{note}");
        }
        tokio::select! {
            () = self.flows_finished() => {}
            () = signals.terminate() => {}
        }
        self.take_leave("shutting down").await;
    }

    fn flows_finished(&self) -> impl Future<Output = ()> {
        let began = Instant::now();
        let config = self.config.load();
        let deadline = began + config.drain.deadline;
        // Without [bgp] another process may announce the VIPs.
        let elsewhere = self.route_control.is_none() && config.bus.transport != Transport::Local;
        let notice = if elsewhere { began + NOTICE } else { began };
        let forwarder = self.forwarder.clone();
        async move {
            let mut empty = false;
            loop {
                sleep(LOOK).await;
                let open = FlowFilter {
                    open: true,
                    ..FlowFilter::default()
                };
                let left = flows(&forwarder, open, 1, false).await;
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

    /// Routers first, then the bus.
    async fn take_leave(&self, why: &str) {
        let _ = self.control.send(Stop).await;
        if let Some((route_control, _)) = &self.route_control {
            let _ = route_control.send(Shutdown { text: why.into() }).await;
        }
        let _ = self.control.send(Leave).await;
        if !self.bus.flush(FAREWELL).await {
            tracing::warn!("the bus did not take the last records in time");
        }
    }
}
