//! What the node serves now, for `/status` and metrics: swapped whole with every reload.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::edge::accept::Door;
use crate::edge::tls::{Identity, Served};
use crate::exchange::snapshot::Snapshot;
use crate::observe::access_log::{AccessLog, Writer};

/// A generation of the configuration and what carries it.
#[derive(Clone, Debug)]
pub struct View {
    /// The generation.
    pub snapshot: Arc<Snapshot>,
    /// Its doors, in the order of its listeners.
    pub doors: Vec<Door>,
    /// Doors that have left the configuration and still have connections.
    pub leaving: Vec<Door>,
    /// What is served over TLS, if anything is.
    pub identity: Option<Arc<Identity>>,
    /// The access log, if there is one, and who writes it.
    pub log: Option<(AccessLog, Writer)>,
}

impl View {
    /// Client connections open, over all listeners.
    pub fn connections(&self) -> usize {
        self.doors.iter().chain(&self.leaving).map(Door::open).sum()
    }

    /// The certificates, in the order of the configuration.
    pub fn certificates(&self) -> &[Served] {
        self.identity
            .as_ref()
            .map_or(&[], |identity| identity.served())
    }

    /// The most client connections there may be.
    pub fn connection_limit(&self) -> usize {
        let listeners = self.snapshot.config.listeners.iter();
        listeners.map(|listener| listener.max_connections).sum()
    }
}

/// The latest [`View`].
pub type Board = Arc<ArcSwap<View>>;
