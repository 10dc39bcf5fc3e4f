//! Where connections come in. Every worker thread has its own socket on every listener's address (SO_REUSEPORT), so the kernel
//! spreads connections over the workers and no thread hands one to another.

mod socket;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::Arbiter;
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::config::Listener;
use crate::drain::Course;
use crate::snapshot::Snapshot;
use crate::tls::Identity;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (listener `{name}`): {error}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
    error: io::Error,
}

/// Sockets of all listeners for all workers, open but not yet accepted from.
#[derive(Debug)]
pub struct Listeners {
    /// By worker, then by listener.
    workers: Vec<Vec<TcpListener>>,
}

impl Listeners {
    /// Opens every socket before any serves, so that a taken port is known before the first connection.
    pub fn bind(listeners: &[Listener], workers: usize) -> Result<Listeners, BindError> {
        let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for listener in listeners {
            let mut address = listener.address;
            for sockets in &mut all {
                let bound = socket::bind(address).and_then(|socket| {
                    // Port 0: the first socket is given one, the others join it.
                    address = socket.local_addr()?;
                    Ok(socket)
                });
                sockets.push(bound.map_err(|error| BindError {
                    name: listener.name.clone(),
                    address,
                    error,
                })?);
            }
        }
        Ok(Listeners { workers: all })
    }

    /// The addresses listened on, in the order of the listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.workers
            .first()
            .into_iter()
            .flatten()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }
}

/// Connections open per listener, over all workers.
#[derive(Clone, Debug)]
pub struct Open(Arc<[Arc<AtomicUsize>]>);

impl Open {
    fn new(listeners: usize) -> Open {
        Open((0..listeners).map(|_| Arc::default()).collect())
    }

    /// By listener.
    pub fn by_listener(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|open| open.load(Ordering::Relaxed))
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.by_listener().sum()
    }
}

/// Starts a thread with a runtime of its own for every worker.
pub fn start(
    listeners: Listeners,
    snapshot: &Arc<Snapshot>,
    identity: Option<&Identity>,
    log: Option<&AccessLog>,
    course: &watch::Receiver<Course>,
) -> Result<Workers, rustls::Error> {
    let open = Open::new(snapshot.config.listeners.len());
    let tls = snapshot
        .config
        .listeners
        .iter()
        .map(|listener| match identity {
            Some(identity) if listener.protocol == crate::config::Protocol::Https => {
                identity.server(listener.http2).map(Some)
            }
            _ => Ok(None),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let arbiters = listeners
        .workers
        .into_iter()
        .enumerate()
        .map(|(index, sockets)| {
            let arbiter = Arbiter::new();
            let (snapshot, tls, open, course) =
                (snapshot.clone(), tls.clone(), open.clone(), course.clone());
            let log = log.map(AccessLog::buffer);
            let sent = arbiter.spawn_fn(move || {
                worker::start(index, sockets, snapshot, &tls, log, &open, course)
            });
            debug_assert!(sent, "a new arbiter takes work");
            arbiter
        })
        .collect();
    Ok(Workers { arbiters, open })
}

/// The running worker threads.
#[derive(Debug)]
pub struct Workers {
    arbiters: Vec<Arbiter>,
    open: Open,
}

impl Workers {
    /// Connections open now.
    pub fn open(&self) -> Open {
        self.open.clone()
    }

    /// Ends the threads and whatever is still open on them, and waits for them.
    pub fn stop(self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        for arbiter in self.arbiters {
            // A worker that panicked has said so through the panic hook.
            let _ = arbiter.join();
        }
    }
}
