//! Where connections come in. Every worker thread has its own socket on every listener's address (SO_REUSEPORT), so the kernel
//! spreads connections over the workers and no thread hands one to another.
//!
//! ```text
//!   control: open() ──> Opened ──> Workers::start, Hands::adopt ── Order ──▶ every worker: swaps its generation, opens and keeps doors
//!            Door::steer ───────────── Course (watch) ────────────────────▶ accept loops, connections, tunnels
//! ```

mod socket;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::Arbiter;
use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

use crate::config::Listener;
use crate::exchange::Course;
use crate::exchange::snapshot::Snapshot;
use crate::observe::access_log::AccessLog;
use worker::{Log, Order, Place};

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (listener `{name}`): {error}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
    error: io::Error,
}

/// A listener that is open, for as long as its address stays in the configuration: what all workers and generations share about it.
#[derive(Clone, Debug)]
pub struct Door {
    /// As configured; with port 0, what was asked for.
    configured: SocketAddr,
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    course: watch::Sender<Course>,
    /// Duplicates of the workers' sockets, for a process that takes over. Emptied when the door closes: the kernel goes on completing
    /// connections for as long as one is left.
    sockets: Arc<Mutex<Vec<TcpListener>>>,
}

/// Listening sockets by the address they were configured with.
pub type Inherited = Vec<(SocketAddr, Vec<TcpListener>)>;

impl Door {
    /// The address as configured.
    pub fn configured(&self) -> SocketAddr {
        self.configured
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open, over all workers.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many accept loops and connections there are behind it. One that was told to close has some for as long as a worker takes what the
    /// kernel has completed.
    pub fn behind(&self) -> usize {
        self.course.receiver_count()
    }

    /// Its sockets, to be given to another process.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().map(TcpListener::try_clone).collect()
    }

    /// Tells the accept loops, connections and tunnels of this listener where its drain stands.
    pub fn steer(&self, course: Course) {
        if !course.accepting() {
            let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.clear();
        }
        self.course.send_if_modified(|told| {
            let differs = *told != course;
            *told = course;
            differs
        });
    }
}

/// The doors of a configuration, and the new sockets among them, open but not yet accepted from.
#[derive(Debug)]
pub struct Opened {
    /// In the order of the listeners.
    doors: Vec<Door>,
    /// By worker, then by listener; none where the listener is open already.
    sockets: Vec<Vec<Vec<TcpListener>>>,
}

impl Opened {
    /// Keeps the doors of `current` at the addresses that stay, takes what is `inherited` at others, and opens every other socket before any
    /// serves, so that a taken port is known before anything has changed.
    ///
    /// # Errors
    /// The first address that can't be listened on.
    pub fn new(
        listeners: &[Listener],
        workers: usize,
        current: &[Door],
        mut inherited: Inherited,
    ) -> Result<Opened, BindError> {
        let mut doors = Vec::with_capacity(listeners.len());
        let mut all: Vec<Vec<Vec<TcpListener>>> = (0..workers).map(|_| Vec::new()).collect();
        let failed = |listener: &Listener, error| BindError {
            name: listener.name.clone(),
            address: listener.address,
            error,
        };
        // Those that join inherited ones get their share of the connections from the moment they listen, and would lose it with a process that
        // can't have another listener's address after all.
        let known = |listener: &Listener| {
            let inherited = inherited.iter().map(|(address, _)| *address);
            let mut known = current.iter().map(Door::configured).chain(inherited);
            known.any(|address| address == listener.address)
        };
        let open = |listener: &Listener| match known(listener) {
            true => Ok(None),
            false => sockets(listener.address, workers, Vec::new())
                .map(Some)
                .map_err(|error| failed(listener, error)),
        };
        let first = listeners
            .iter()
            .map(open)
            .collect::<Result<Vec<_>, BindError>>()?;
        for (listener, first) in listeners.iter().zip(first) {
            let stays = |door: &&Door| door.configured == listener.address;
            if let Some(door) = current.iter().find(stays) {
                doors.push(door.clone());
                all.iter_mut().for_each(|sockets| sockets.push(Vec::new()));
                continue;
            }
            let place = inherited
                .iter()
                .position(|(address, _)| *address == listener.address);
            let inherited = place.map(|place| inherited.swap_remove(place).1);
            let failed = |error| failed(listener, error);
            let mine = match first {
                Some(mine) => mine,
                None => sockets(listener.address, workers, inherited.unwrap_or_default())
                    .map_err(failed)?,
            };
            let one = mine.iter().flatten().next();
            let address = one.map_or(Ok(listener.address), TcpListener::local_addr);
            let duplicates = mine.iter().flatten().map(TcpListener::try_clone);
            let duplicates = duplicates.collect::<io::Result<Vec<_>>>();
            doors.push(Door {
                configured: listener.address,
                address: address.map_err(failed)?,
                open: Arc::default(),
                course: watch::Sender::new(Course::SERVING),
                sockets: Arc::new(Mutex::new(duplicates.map_err(failed)?)),
            });
            for (sockets, mine) in all.iter_mut().zip(mine) {
                sockets.push(mine);
            }
        }
        Ok(Opened {
            doors,
            sockets: all,
        })
    }

    /// In the order of the listeners.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }
}

/// A listener's sockets, by worker. All that are inherited are used, however many workers there were: what the kernel has completed waits in
/// them. Workers that get none of those open their own.
fn sockets(
    address: SocketAddr,
    workers: usize,
    inherited: Vec<TcpListener>,
) -> io::Result<Vec<Vec<TcpListener>>> {
    let Some(address) = inherited.first().map(TcpListener::local_addr) else {
        let opened = socket::open(address, workers)?;
        return Ok(opened.into_iter().map(|socket| vec![socket]).collect());
    };
    let address = address?;
    let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (number, socket) in inherited.into_iter().enumerate() {
        all[number % workers].push(socket);
    }
    for mine in all.iter_mut().filter(|mine| mine.is_empty()) {
        mine.push(socket::join(address)?);
    }
    Ok(all)
}

/// Everything workers serve a generation of the configuration with.
#[derive(Debug)]
pub struct Equipment {
    /// The generation.
    pub snapshot: Arc<Snapshot>,
    /// Its doors.
    pub opened: Opened,
    /// TLS settings in the order of the listeners; none for those that speak plain HTTP.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Where requests are logged from now on; `None` leaves it as it is.
    pub log: Option<Option<AccessLog>>,
}

impl Equipment {
    /// An order for each worker. `done` is dropped by each that has carried it out.
    fn orders(self, done: &mpsc::Sender<()>) -> Vec<Order> {
        let Equipment {
            snapshot,
            opened: Opened { doors, sockets },
            tls,
            log,
        } = self;
        let order = |sockets: Vec<Vec<TcpListener>>| Order {
            snapshot: snapshot.clone(),
            places: doors
                .iter()
                .zip(sockets)
                .zip(&tls)
                .map(|((door, sockets), tls)| Place {
                    door: door.clone(),
                    sockets,
                    tls: tls.clone(),
                })
                .collect(),
            log: match &log {
                None => Log::Stays,
                Some(log) => Log::Becomes(log.as_ref().map(AccessLog::buffer)),
            },
            done: done.clone(),
        };
        sockets.into_iter().map(order).collect()
    }
}

/// The running worker threads.
#[derive(Debug)]
pub struct Workers {
    arbiters: Vec<Arbiter>,
    hands: Hands,
}

impl Workers {
    /// Starts a thread with a runtime of its own for every worker. Ends when all accept.
    pub async fn start(equipment: Equipment) -> Workers {
        let (done, mut all_done) = mpsc::channel(1);
        let orders = equipment.orders(&done);
        drop(done);
        let (arbiters, hands) = orders
            .into_iter()
            .enumerate()
            .map(|(index, order)| {
                let (orders, received) = mpsc::channel(1);
                let arbiter = Arbiter::new();
                let sent = arbiter.spawn_fn(move || worker::start(index, order, received));
                debug_assert!(sent, "a new arbiter takes work");
                (arbiter, orders)
            })
            .unzip();
        while all_done.recv().await.is_some() {}
        Workers {
            arbiters,
            hands: Hands(hands),
        }
    }

    /// For handing them another generation.
    pub fn hands(&self) -> Hands {
        self.hands.clone()
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

/// What hands a new generation to every worker.
#[derive(Clone, Debug)]
pub struct Hands(Vec<mpsc::Sender<Order>>);

impl Hands {
    /// Has every worker serve what begins from now on with `equipment`. Ends when all do, and can't fail: a worker that is busy does so as soon
    /// as it is not.
    pub fn adopt(&self, equipment: Equipment) -> impl Future<Output = ()> + use<> {
        let (done, mut all_done) = mpsc::channel(1);
        let orders = equipment.orders(&done);
        drop(done);
        let hands = self.0.clone();
        async move {
            for (hand, order) in hands.iter().zip(orders) {
                // A worker that has ended serves nothing.
                let _ = hand.send(order).await;
            }
            while all_done.recv().await.is_some() {}
        }
    }
}
