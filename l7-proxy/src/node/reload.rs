//! A configuration on its way into force: everything that can fail is done before anything changes.

use std::sync::Arc;

use actix::Addr;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use shared::config::FromValue;
use shared::reload::{Follow, Step};

use super::handover::Down;
use super::metrics;
use super::run::StartError;
use super::supervisor::{Apply, Supervisor};
use super::view::{Board, View};
use crate::config::{Config, Listener, Protocol};
use crate::edge::accept::{Equipment, Inherited, Opened};
use crate::edge::tls::{Identity, Tickets};
use crate::exchange::snapshot::Snapshot;
use crate::observe::access_log::{AccessLog, Writer};
use crate::upstream::State;

/// A configuration that is ready to be served. Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct Prepared {
    /// For the workers.
    pub(super) equipment: Equipment,
    /// What is served over TLS, if anything is.
    pub(super) identity: Option<Arc<Identity>>,
    /// The access log from now on; `None` leaves it as it is.
    pub(super) log: Option<Option<(AccessLog, Writer)>>,
}

impl Prepared {
    /// Loads certificates, opens the access log where its settings changed, and listens on addresses that are new, in this order: a socket
    /// that listens has clients. `current` is what is served now, none at the start; `inherited` are sockets of a process that is taken over from.
    ///
    /// # Errors
    /// What is not to be had.
    pub fn new(
        config: Arc<Config>,
        tickets: &Tickets,
        current: Option<&View>,
        inherited: Inherited,
    ) -> Result<Prepared, StartError> {
        let identity = identity(&config, tickets)?;
        let tls = match &identity {
            Some(identity) => identity.servers(&config.listeners)?,
            None => config.listeners.iter().map(|_| None).collect(),
        };
        let before = current.map(|view| &view.snapshot.config.access_log);
        let log = match &config.access_log {
            settings if before == Some(settings) => None,
            Some(settings) => Some(Some(AccessLog::open(settings)?)),
            None => Some(None),
        };
        let doors = current.map_or(&[][..], |view| &view.doors);
        let opened = Opened::new(&config.listeners, config.workers, doors, inherited)?;
        let previous = current.map(|view| &*view.snapshot);
        let for_workers =
            |log: &Option<(AccessLog, Writer)>| log.as_ref().map(|(log, _)| log.clone());
        let snapshot = Arc::new(Snapshot::new(config, previous));
        metrics::register(&snapshot);
        Ok(Prepared {
            identity: identity.map(Arc::new),
            equipment: Equipment {
                snapshot,
                opened,
                tls,
                log: log.as_ref().map(for_workers),
            },
            log,
        })
    }

    /// Takes over what another process knows of backends. Only of those that are checked: nobody would bring the others back.
    pub(super) fn mark(&self, down: &[Down]) {
        for Down { upstream, address } in down {
            let upstreams = self.equipment.snapshot.upstreams().iter();
            let checked = upstreams
                .filter(|known| *known.name == **upstream && known.settings.health.is_some());
            for member in checked.filter_map(|known| known.member(*address)) {
                member.backend.set_state(State::Down);
            }
        }
    }

    /// What it is to be seen as once it is served.
    pub(super) fn view(&self, current: Option<&View>) -> View {
        let log = match &self.log {
            None => current.and_then(|view| view.log.clone()),
            Some(log) => log.clone(),
        };
        View {
            snapshot: self.equipment.snapshot.clone(),
            doors: self.equipment.opened.doors().to_vec(),
            leaving: Vec::new(),
            identity: self.identity.clone(),
            log,
        }
    }
}

/// The node, as it goes on by another configuration.
pub(super) struct Following {
    pub(super) board: Board,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) tickets: Tickets,
}

impl Follow<Config> for Following {
    fn follow(&self, step: Step<Config>) -> BoxFuture<'static, Result<(), String>> {
        let (board, supervisor) = (self.board.clone(), self.supervisor.clone());
        let tickets = self.tickets.clone();
        async move {
            // It reads files.
            let preparing = tokio::task::spawn_blocking(move || {
                let current = board.load();
                Prepared::new(step.after, &tickets, Some(&current), Vec::new())
            });
            let prepared = preparing
                .await
                .map_err(|error| format!("preparing it broke off: {error}"))?
                .map_err(|error| error.to_string())?;
            let applied = supervisor.send(Apply(prepared)).await;
            applied.map_err(|_| "the node is leaving".to_owned())
        }
        .boxed()
    }

    fn would_end(&self, step: Step<Config>) -> BoxFuture<'static, Vec<String>> {
        ready(ends(&self.board.load(), &step.after)).boxed()
    }
}

/// Which connections would end, and when. Those of listeners that stay are not among them.
fn ends(view: &View, after: &Config) -> Vec<String> {
    let listeners = view.snapshot.config.listeners.iter().zip(&view.doors);
    let leaving = listeners.filter(|(listener, door)| {
        let stays = |other: &Listener| other.address == listener.address;
        door.open() > 0 && !after.listeners.iter().any(stays)
    });
    leaving
        .map(|(listener, door)| {
            format!(
                "{} connections of listener {} ({}): it is no longer configured; idle ones are closed at once, others after the answer they wait for, those left \
                 after {} are cut",
                door.open(),
                listener.name,
                door.address(),
                after.drain.deadline.written()
            )
        })
        .collect()
}

/// The certificates of a configuration; `None` when no listener wants any and none are named.
///
/// # Errors
/// Everything that is wrong with them.
pub fn identity(config: &Config, tickets: &Tickets) -> Result<Option<Identity>, StartError> {
    let plain = config
        .listeners
        .iter()
        .all(|listener| listener.protocol == Protocol::Http);
    if plain && config.certificates.is_empty() {
        return Ok(None);
    }
    Ok(Some(Identity::load(&config.certificates, tickets)?))
}
