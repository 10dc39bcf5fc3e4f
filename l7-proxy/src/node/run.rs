//! The proxy as a process: everything started in order, and ended in the opposite one.

use std::cell::Cell;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use arc_swap::ArcSwap;
use shared::bus::Bus;
use shared::config::{Loaded, Mistakes};
use shared::lifecycle::{self, Service, Serving, Start, listen};
use tokio::sync::{oneshot, watch};

use super::certificates;
use super::handover::Inheritance;
use super::metrics::Mirror;
use super::reload::Following;
use super::status::L7Admin;
use super::upgrade::{Heir, Origin, Upgrade};
use super::{Board, Drain, Exit, Prepared, Supervisor, Withdraw};
use crate::config::Config;
use crate::edge::accept::{BindError, Door, Workers};
use crate::edge::tls::Tickets;
use crate::exchange::Course;
use crate::observe::metrics::MEANINGS;

/// Time for the last lines to reach the access log.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// What keeps the proxy from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What every process needs is not to be had.
    #[error(transparent)]
    Process(#[from] lifecycle::StartError),
    /// Certificates or keys that can't be used; all of them, a line each.
    #[error(transparent)]
    Certificates(#[from] Mistakes),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The admin listener can't be kept for a process that takes over.
    #[error("cannot duplicate the admin listener: {0}")]
    Duplicate(std::io::Error),
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The access log can't be opened.
    #[error(transparent)]
    Log(#[from] crate::error::Error),
    /// This process was started to take over from another, which did not give it everything.
    #[error("upgrade: {0}")]
    Upgrade(std::io::Error),
}

/// Serves until asked to terminate, and then until the drain is done. To be called within an actix system. With `takes_over`, the process that
/// started this one hands over to it.
///
/// # Errors
/// If something it needs at the start is not to be had.
pub async fn run(loaded: Loaded<Config>, takes_over: bool) -> Result<(), StartError> {
    let file = loaded.file.clone();
    let config = loaded.config.clone();
    let start = Start::new(loaded, &config.log, MEANINGS)?;
    let origin = Origin::of_this_process().map_err(StartError::Upgrade)?;
    let inherited = takes_over
        .then(Heir::receive)
        .transpose()
        .map_err(StartError::Upgrade)?;
    let (heir, inheritance) = inherited.unzip();
    let started = Running::start(start, origin, file, inheritance.unwrap_or_default()).await;
    if let Some(heir) = heir {
        let outcome = started.as_ref().map(drop).map_err(ToString::to_string);
        heir.answer(outcome);
    }
    let Running {
        node,
        serving,
        board,
        workers,
        done,
    } = started?;
    let cut = Cell::new(None);
    let drained = async {
        // A supervisor that is gone can say nothing better.
        cut.set(done.await.ok());
        "drained".to_owned()
    };
    serving.until_left(&node, drained).await;
    // Asked a second time, it did not wait for those that are open.
    let cut = cut.get().unwrap_or_else(|| board.load().connections());
    workers.stop();
    if let Some((_, writer)) = &board.load().log
        && !writer.finish(FLUSH_TIME)
    {
        tracing::warn!("the access log did not take its last lines within {FLUSH_TIME:?}");
    }
    tracing::info!(pid = std::process::id(), cut, "ended");
    Ok(())
}

/// A process that serves.
struct Running {
    node: Node,
    serving: Serving<Config>,
    board: Board,
    workers: Workers,
    /// Completes when the drain is done, and the process may exit, with how many connections were cut for it.
    done: oneshot::Receiver<usize>,
}

impl Running {
    async fn start(
        start: Start<Config>,
        origin: Origin,
        file: PathBuf,
        inheritance: Inheritance,
    ) -> Result<Running, StartError> {
        let config = start.reloader.current();
        let node = config.node.id.clone();
        let admin_at = config.admin.listen;
        let tickets = Tickets::new()?;
        // Before the others: connections to a listener that is opened have nobody left to go to if this process ends.
        let admin_listener = match inheritance.admin {
            Some((address, socket)) if address == admin_at => socket,
            _ => listen(admin_at)?,
        };
        let duplicate = admin_listener.try_clone().map_err(StartError::Duplicate)?;
        let prepared = Prepared::new(config.clone(), &tickets, None, inheritance.listeners)?;
        prepared.mark(&inheritance.down);

        let bus = Bus::start(&config.bus, &node);
        let view = prepared.view(None);
        let addresses: Vec<_> = view.doors.iter().map(Door::address).collect();
        let board = Arc::new(ArcSwap::from_pointee(view));
        let workers = Workers::start(prepared.equipment).await;
        certificates::follow(board.clone());

        let (course, course_seen) = watch::channel(Course::SERVING);
        let (finished, done) = oneshot::channel();
        let supervisor = Supervisor::new(
            board.clone(),
            bus.clone(),
            workers.hands(),
            course,
            finished,
        );
        let reasons = supervisor.reasons();
        let supervisor = supervisor.start();
        let reloader = start.reloader.clone();
        reloader.followed_by(Following {
            board: board.clone(),
            supervisor: supervisor.clone(),
            tickets,
        });
        let mut handed_over = course_seen.clone();
        let upgrade = Arc::new(Upgrade::new(origin, file, admin_at, duplicate));
        let answers = L7Admin {
            board: board.clone(),
            supervisor: supervisor.clone(),
            course: course_seen,
            reasons,
            mirror: Mirror::default(),
            bus: bus.clone(),
            reloader,
            upgrade: upgrade.clone(),
        };
        // Whoever asks from then on is answered by the process that took over.
        let moved = async move {
            let _ = handed_over.wait_for(|course| course.handed_over).await;
        };
        let serving = start.serve(admin_listener, answers, bus.clone(), moved)?;
        tracing::info!(pid = std::process::id(), node, ?addresses, admin = %admin_at, "serving");
        Ok(Running {
            node: Node {
                supervisor,
                bus,
                upgrade,
            },
            serving,
            board,
            workers,
            done,
        })
    }
}

/// The node, as the process's signals ask it.
struct Node {
    supervisor: Addr<Supervisor>,
    bus: Bus,
    upgrade: Arc<Upgrade>,
}

impl Service for Node {
    async fn drain(&self, wanted: bool) {
        match self.supervisor.send(Drain(wanted)).await {
            Ok(Ok(state)) => {
                tracing::info!(state, "asked by signal");
                self.bus.warn();
            }
            Ok(Err(why)) => tracing::warn!(why, "refused what a signal asked"),
            Err(error) => tracing::error!(%error, "the supervisor does not answer"),
        }
    }

    /// The process ends when the supervisor says that it may, as it does after an upgrade.
    async fn finish(&self) {
        self.upgrade.give_up();
        self.supervisor.do_send(Exit);
        pending().await
    }

    async fn take_leave(&self, _: &str) {
        let _ = self.supervisor.send(Withdraw).await;
    }
}
