//! What runs on a worker's thread: an accept loop per listener, a task per connection, orders to serve by another generation, housekeeping.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustls::ServerConfig;
use shared::telemetry::WorkerTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::Door;
use crate::edge::connection;
use crate::edge::refusal::Refusals;
use crate::exchange::snapshot::Snapshot;
use crate::exchange::{Entrance, Permit, Worker};
use crate::observe::access_log::Buffer;

const TICK: Duration = Duration::from_secs(1);

/// Pause after an accept that failed for want of descriptors or memory: the first, and the longest.
const BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// Most connections taken from the kernel's queue when the listener closes.
const LAST_ACCEPTS: usize = 4096;

/// What a worker is to serve with from now on.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) snapshot: Arc<Snapshot>,
    /// In the order of the listeners. Doors that are not among them are closed by their course.
    pub(super) places: Vec<Place>,
    pub(super) log: Log,
    /// Dropped when it is carried out.
    pub(super) done: mpsc::Sender<()>,
}

/// A listener.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) door: Door,
    /// This worker's sockets, if the door is new.
    pub(super) sockets: Vec<std::net::TcpListener>,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// The access log.
#[derive(Debug)]
pub(super) enum Log {
    Stays,
    Becomes(Option<Buffer>),
}

/// Starts the worker on the current thread's runtime.
pub(super) fn start(index: usize, mut first: Order, mut orders: mpsc::Receiver<Order>) {
    let log = match std::mem::replace(&mut first.log, Log::Stays) {
        Log::Stays => None,
        Log::Becomes(log) => log,
    };
    let worker = Rc::new(Worker::new(index, first.snapshot.clone(), log));
    let mut doors = Doors {
        index,
        worker: worker.clone(),
        entrances: HashMap::new(),
    };
    doors.arrange(first.snapshot, first.places);
    actix_rt::spawn(async move {
        while let Some(Order {
            snapshot,
            places,
            log,
            done,
        }) = orders.recv().await
        {
            doors.worker.adopt(snapshot.clone());
            if let Log::Becomes(log) = log {
                doors.worker.log_to(log);
            }
            doors.arrange(snapshot, places);
            drop(done);
        }
    });
    actix_rt::spawn(async move {
        let mut ticks = interval(TICK);
        let mut time = WorkerTime::new(
            "weir_l7_worker_busy_ratio",
            "weir_l7_worker_time_seconds",
            index,
        );
        loop {
            ticks.tick().await;
            worker.tick();
            time.tick();
        }
    });
}

/// The listeners this worker accepts from.
struct Doors {
    index: usize,
    worker: Rc<Worker>,
    /// By the address listened on: what the next connection is served by.
    entrances: HashMap<SocketAddr, Rc<RefCell<Rc<Entrance>>>>,
}

impl Doors {
    /// Opens what is new, and serves what connects from now on as the snapshot says.
    fn arrange(&mut self, snapshot: Arc<Snapshot>, places: Vec<Place>) {
        let mut arranged = HashMap::with_capacity(places.len());
        for (number, Place { door, sockets, tls }) in places.into_iter().enumerate() {
            let Some(entrance) = Entrance::new(
                snapshot.clone(),
                number,
                tls,
                door.open.clone(),
                door.course.subscribe(),
            ) else {
                continue;
            };
            let entrance = Rc::new(entrance);
            if let Some(current) = self.entrances.remove(&door.address) {
                current.replace(entrance);
                arranged.insert(door.address, current);
                continue;
            }
            let current = Rc::new(RefCell::new(entrance));
            for socket in sockets {
                match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        actix_rt::spawn(accept(self.worker.clone(), current.clone(), socket));
                    }
                    Err(error) => {
                        tracing::error!(worker = self.index, %error, "a listener could not be started")
                    }
                }
            }
            arranged.insert(door.address, current);
        }
        self.entrances = arranged;
    }
}

/// Accepts until the listener is told to stop. Ends by taking what the kernel has already completed: closing the socket would reset it.
async fn accept(worker: Rc<Worker>, current: Rc<RefCell<Rc<Entrance>>>, socket: TcpListener) {
    let mut course = current.borrow().course.clone();
    let mut back_off = BACK_OFF;
    let refusals = Refusals::default();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            _ = course.wait_for(|course| !course.accepting()) => break,
        };
        let entrance = current.borrow().clone();
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF;
                admit(&worker, &entrance, &refusals, stream, peer);
            }
            Err(error) => {
                let (reason, exhausted) = sort(&error);
                entrance.metrics.accept_error(reason);
                if exhausted {
                    tracing::warn!(listener = entrance.listener().name, %error, pause = ?back_off, "cannot accept");
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(LONGEST_BACK_OFF);
                }
            }
        }
    }
    let entrance = current.borrow().clone();
    for _ in 0..LAST_ACCEPTS {
        let next = std::future::poll_fn(|cx| match socket.poll_accept(cx) {
            std::task::Poll::Ready(result) => std::task::Poll::Ready(result.ok()),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        });
        let Some((stream, peer)) = next.await else {
            break;
        };
        admit(&worker, &entrance, &refusals, stream, peer);
    }
}

fn admit(
    worker: &Rc<Worker>,
    entrance: &Rc<Entrance>,
    refusals: &Refusals,
    stream: TcpStream,
    peer: SocketAddr,
) {
    match Permit::take(entrance) {
        Some(permit) => {
            actix_rt::spawn(connection::serve(
                worker.clone(),
                entrance.clone(),
                stream,
                peer,
                permit,
            ));
        }
        // Waiting in the kernel's queue would hide the overload from the client and from us.
        None => refusals.turn_away(worker, entrance, stream, peer),
    }
}

/// A name for an accept error, and whether trying again at once is pointless.
fn sort(error: &io::Error) -> (&'static str, bool) {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => ("too_many_files", true),
        Some(Errno::NFILE) => ("too_many_files_in_system", true),
        Some(Errno::NOMEM | Errno::NOBUFS) => ("no_memory", true),
        Some(Errno::CONNABORTED) => ("aborted", false),
        _ => ("other", true),
    }
}
