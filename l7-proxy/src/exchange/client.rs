//! The other end of a connection, and its place among those a listener takes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::upgrade::OnUpgrade;

use super::worker::{Entrance, Worker};
use crate::http::{Leaving, Peer, Wire};

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
    /// Of the last request that might have left HTTP and didn't: at the connection's end hyper hands the stream over to it instead of closing it.
    pub(crate) stayed: RefCell<Option<OnUpgrade>>,
    pub(crate) _permit: Permit,
}

impl Client {
    /// A request that might have left HTTP doesn't.
    pub(crate) fn stay(&self, on_client: Option<OnUpgrade>) {
        if let Some(on_client) = on_client {
            self.wire.decide(Leaving::Http);
            self.stayed.replace(Some(on_client));
        }
    }

    /// Whether clients are asked to move elsewhere.
    pub(crate) fn draining(&self) -> bool {
        self.entrance.course.borrow().draining()
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
