//! The state bus: the latest record per key, watched by prefix.
//!
//! The bus carries state, not events. Every process keeps its own copy; a put is seen by the watchers of the same process at once, whether or
//! not a server is in reach, and travels to the other nodes when one is. A watcher gets a [`Change::Snapshot`] of what is known, then changes, in
//! order per key; a slow watcher misses intermediate values, never the last one. [`Change::Connected`] with `true` follows when everything the
//! servers know has been told; on the in-process transport right after the snapshot.
//!
//! **Fail static**: losing the servers deletes nothing. Records that are to be trusted only for a while ([`Record::ttl`]) are expired by their
//! receivers with [`Expiry`], which counts connected time only.
//!
//! ```text
//!   put, delete ──> Store (own copy) ──> Watchers ──> actix mailboxes
//!                     │        ^
//!              unsent v        │ incoming, by revision
//!                    nats (own thread) <──> servers
//! ```

mod expiry;
mod key;
mod marks;
pub(crate) mod nats;
mod record;
mod store;
mod watchers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::{Message, Recipient};
use serde::Serialize;
use tokio::sync::Notify;

use crate::config::sections::{BusSection, Transport};
use store::{Event, Store, Unsent};
use watchers::Watchers;

pub use expiry::Expiry;
pub use key::{Key, MAX_NAME, Prefix, Tier, is_name};
pub use record::{
    DrainRecord, Invalid, MAX_ADDRESSES, MAX_RECORD, MAX_REGISTERED, MAX_SERVICES, MAX_TEXT,
    NodeRecord, Record, RegistrationRecord, ServiceState, TargetRecord, VERSION, VipRecord,
    VipState, unix_ms,
};

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "()")]
pub enum Change {
    /// All records known; replaces whatever the watcher held. First of all, and again after falling far behind.
    Snapshot(Vec<Record>),
    /// A record was put. It may equal the last one: the putter is still there.
    Put(Record),
    /// A record was deleted by a node.
    Deleted(Key),
    /// The servers were reached and all they know was told, or they were lost. Nothing else changes with it.
    Connected(bool),
}

/// Names a watch, to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchId(u64);

/// How the bus fares, for `/status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BusStatus {
    /// `local` or `nats`.
    pub transport: &'static str,
    /// Whether the servers are in reach and all they know is known here; always true in-process.
    pub connected: bool,
    /// Keys kept here.
    pub keys: usize,
    /// Watchers in this process.
    pub watchers: usize,
    /// Changes made here that the servers have not acknowledged.
    pub pending: usize,
    /// Records ignored since the start: garbage, other versions, too many.
    pub ignored: u64,
}

/// A handle to the bus. Clones are the same bus.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    transport: &'static str,
    connected: AtomicBool,
    ignored: AtomicU64,
    /// A thread is delivering to watchers whose mailbox was full.
    catching_up: AtomicBool,
    wake: Arc<Wake>,
}

struct State {
    store: Store,
    watchers: Watchers,
}

/// Wakes the transport; outlives the bus so that the transport hears of its end.
#[derive(Default)]
struct Wake {
    notify: Notify,
    closed: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.closed.store(true, Ordering::Release);
        self.wake.notify.notify_one();
    }
}

impl Bus {
    /// A bus within this process.
    pub fn local() -> Self {
        Self::new("local", true)
    }

    /// The bus of the configuration. With NATS it connects in the background, for as long as it takes; `node` names the connection at the servers.
    pub fn start(section: &BusSection, node: &str) -> Self {
        match &section.transport {
            Transport::Local => Self::local(),
            Transport::Nats(nats) => {
                let bus = Self::new("nats", false);
                nats::start(&bus.inner, nats.clone(), node);
                bus
            }
        }
    }

    fn new(transport: &'static str, connected: bool) -> Self {
        // From the start: a node that never reaches its servers is the one to be noticed.
        metrics::gauge!("weir_bus_connected").set(if connected { 1.0 } else { 0.0 });
        let state = State {
            store: Store::new(!connected),
            watchers: Watchers::default(),
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                transport,
                connected: AtomicBool::new(connected),
                ignored: AtomicU64::new(0),
                catching_up: AtomicBool::new(false),
                wake: Arc::default(),
            }),
        }
    }

    /// Puts a record under its own key. Never waits and never fails: what can't be sent now is sent when the servers are back, the latest per
    /// key. A record that is not valid is logged, counted and left out.
    pub fn put(&self, record: impl Into<Record>) {
        let record = record.into();
        if let Err(why) = record.validate() {
            self.inner.ignore(&record.key().to_string(), why);
            return;
        }
        metrics::counter!("weir_bus_puts_total").increment(1);
        let key = record.key();
        if !self.inner.change(|store| store.put(record)) {
            self.inner.ignore(&key.to_string(), Invalid::Full);
        }
        self.inner.wake.notify.notify_one();
    }

    /// Deletes what is under the key, here and at the servers. Never waits and never fails.
    pub fn delete(&self, key: &Key) {
        self.inner.change(|store| store.delete(key));
        self.inner.wake.notify.notify_one();
    }

    /// Tells `to` about the keys of `prefix`: a snapshot at once, then changes. The watch ends with [`Self::unwatch`] or with the actor.
    pub fn watch(&self, prefix: Prefix, to: Recipient<Change>) -> WatchId {
        let mut state = self.inner.lock();
        let State { store, watchers } = &mut *state;
        let id = watchers.add(
            prefix,
            to,
            self.inner.connected.load(Ordering::Acquire),
            store,
        );
        drop(state);
        self.inner.catch_up_soon();
        id
    }

    /// Ends a watch.
    pub fn unwatch(&self, id: WatchId) {
        self.inner.lock().watchers.remove(id);
    }

    /// The record under a key, as known here.
    pub fn get(&self, key: &Key) -> Option<Record> {
        self.inner.lock().store.get(key).cloned()
    }

    /// Whether what is under a key was put by this process.
    pub fn is_own(&self, key: &Key) -> bool {
        self.inner.lock().store.is_own(key)
    }

    /// How the bus fares.
    pub fn status(&self) -> BusStatus {
        let state = self.inner.lock();
        BusStatus {
            transport: self.inner.transport,
            connected: self.inner.connected.load(Ordering::Acquire),
            keys: state.store.len(),
            watchers: state.watchers.len(),
            pending: state.store.under_way(),
            ignored: self.inner.ignored.load(Ordering::Relaxed),
        }
    }

    /// Waits until the servers acknowledged every change made here, `within` at most; whether they did. For a clean exit.
    pub async fn flush(&self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        while self.inner.lock().store.under_way() > 0 {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Inner {
    /// A panic of another thread under the lock can't leave the store half changed: no call in there can unwind midway but an allocation.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store and tells the watchers, in one step so that they hear of changes in their order. Whether there was a change.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Store) -> Option<Event>) -> bool {
        let mut state = self.lock();
        let State { store, watchers } = &mut *state;
        let Some(event) = change(store) else {
            return false;
        };
        let all_told = watchers.tell(&event, store);
        metrics::gauge!("weir_bus_keys").set(store.len() as f64);
        drop(state);
        if !all_told {
            self.catch_up_soon();
        }
        true
    }

    /// The servers tell of a change.
    fn incoming(self: &Arc<Self>, key: &Key, revision: u64, record: Option<Record>) {
        let mut full = false;
        self.change(|store| {
            full = record.is_some() && store.is_full_for(key);
            if full {
                None
            } else {
                store.incoming(key, revision, record)
            }
        });
        if full {
            self.ignore(&key.to_string(), Invalid::Full);
        }
    }

    /// The servers took a change made here.
    fn acknowledged(self: &Arc<Self>, change: &Unsent, revision: u64) {
        self.change(|store| store.acknowledged(&change.key, change.generation, revision));
    }

    fn session_started(&self) {
        self.lock().store.session_started();
    }

    /// The servers' state has been read. Returns how many keys they had lost.
    fn session_ready(&self) -> usize {
        self.lock().store.session_ready()
    }

    /// The servers are in reach, or no longer.
    fn connected(self: &Arc<Self>, connected: bool) {
        let mut state = self.lock();
        if self.connected.swap(connected, Ordering::AcqRel) == connected {
            return;
        }
        metrics::gauge!("weir_bus_connected").set(if connected { 1.0 } else { 0.0 });
        let State { store, watchers } = &mut *state;
        let all_told = watchers.tell_connected(connected, store);
        drop(state);
        if !all_told {
            self.catch_up_soon();
        }
    }

    /// Counts a record that is not acted on, and says so in the log now and then.
    fn ignore(&self, key: &str, why: Invalid) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("weir_bus_ignored_total", "reason" => why.label()).increment(1);
        crate::log_at_most_every!(
            Duration::from_secs(10),
            tracing::Level::WARN,
            key,
            "bus record ignored: it is {why}"
        );
    }

    /// Delivers to watchers whose mailbox was full, from a thread of its own that ends when all have caught up.
    fn catch_up_soon(self: &Arc<Self>) {
        let State { store, watchers } = &mut *self.lock();
        if watchers.catch_up(store) || self.catching_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        let spawned = std::thread::Builder::new()
            .name("bus-catch-up".to_owned())
            .spawn(move || catch_up(&weak));
        if spawned.is_err() {
            self.catching_up.store(false, Ordering::Release);
        }
    }
}

fn catch_up(bus: &Weak<Inner>) {
    let mut pause = Duration::from_millis(1);
    loop {
        std::thread::sleep(pause);
        let Some(inner) = bus.upgrade() else {
            return;
        };
        let State { store, watchers } = &mut *inner.lock();
        if watchers.catch_up(store) {
            // Under the lock: whoever falls behind next finds the flag down and starts a new thread.
            inner.catching_up.store(false, Ordering::Release);
            return;
        }
        pause = watchers.pause();
    }
}

#[cfg(test)]
mod tests;
