//! What routing control looks like from outside: the JSON of `/status`, kept current by the actors.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use shared::bus::VipState;

use crate::decision::Force;
use crate::session::{Counts, State};

/// State of routing control.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The L4 node whose VIPs are announced.
    pub node: String,
    /// Whether a record of that node is known and current.
    pub node_known: bool,
    /// Whether the bus is connected; nothing is withdrawn because it isn't.
    pub bus_connected: bool,
    /// Whether an operator asked the node to drain.
    pub drain: bool,
    /// Whether this process is taking its leave.
    pub stopping: bool,
    /// Every VIP the node serves or has served.
    pub vips: BTreeMap<Ipv4Addr, VipStatus>,
    /// Every neighbour of the configuration.
    pub neighbours: BTreeMap<Ipv4Addr, NeighbourStatus>,
}

/// A VIP at this node.
#[derive(Debug, Clone, Serialize)]
pub struct VipStatus {
    /// What the routers are told.
    pub state: VipState,
    /// Why.
    pub why: String,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
    /// What an operator forces.
    pub force: Option<Force>,
}

/// The session to a neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct NeighbourStatus {
    /// The neighbour's autonomous system.
    pub remote_as: u32,
    /// Where the session stands.
    pub state: State,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
    /// The neighbour's BGP identifier, while connected.
    pub router_id: Option<Ipv4Addr>,
    /// Agreed hold time in seconds, while connected.
    pub hold_time: Option<u16>,
    /// Why the session last failed; cleared when it comes up.
    pub last_error: Option<String>,
    /// VIPs the neighbour has been told about.
    pub advertised: Vec<Ipv4Addr>,
    /// Counts since the start.
    pub counts: Counts,
}

/// Where actors put their state and anybody may read it at any time. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Status>>);

impl StatusBoard {
    /// The state now.
    pub fn read(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Writers only assign whole fields, so a panic elsewhere can't leave half a state behind.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
