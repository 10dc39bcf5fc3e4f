//! The other end of a connection, and its place among those a listener takes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::strict::Wire;
use super::worker::{Entrance, Worker};
use crate::normalise::Peer;

/// The client of a connection, as its requests see it. Lives until the connection and any tunnel out of it are over.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) entrance: Rc<Entrance>,
    /// Who sends the requests: where a PROXY header is expected, whom it names.
    pub(crate) peer: Peer,
    /// The address the client connected to.
    pub(crate) local: SocketAddr,
    pub(crate) wire: Arc<Wire>,
    pub(super) _permit: Permit,
}

impl Client {
    /// Whether clients are asked to move elsewhere.
    pub(crate) fn draining(&self) -> bool {
        self.worker.course.borrow().draining()
    }
}

/// Counts a connection as open until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    entrance: Rc<Entrance>,
}

impl Permit {
    /// `None` when the listener is full.
    pub(crate) fn take(entrance: &Rc<Entrance>) -> Option<Permit> {
        let limit = entrance.listener().max_connections;
        if entrance.open.fetch_add(1, Ordering::Relaxed) >= limit {
            entrance.open.fetch_sub(1, Ordering::Relaxed);
            entrance.metrics.over_limit.increment(1);
            return None;
        }
        entrance.metrics.accepted.increment(1);
        entrance.metrics.connections.increment(1.0);
        Some(Permit {
            entrance: entrance.clone(),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.entrance.open.fetch_sub(1, Ordering::Relaxed);
        self.entrance.metrics.connections.decrement(1.0);
    }
}
