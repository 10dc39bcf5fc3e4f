//! The state bus: the latest record per key, watched by prefix.
//!
//! The bus carries state, not events. Every process keeps its own copy; a put is seen by the watchers of the same process at once, whether or
//! not a server is in reach, and travels to the other nodes when one is. A watcher gets a [`Change::Snapshot`] of what is known, then changes, in
//! order per key; a slow watcher misses intermediate values, never the last one. [`Change::Connected`] with `true` follows when everything the
//! servers know has been told; on the in-process transport right after the snapshot.
//!
//! **Fail static**: losing the servers deletes nothing. Records that are to be trusted only for a while ([`Record::ttl`]) are expired by their
//! receivers with [`Expiry`], which counts only time in which it is proven that everything put was heard ([`Heard`]).
//!
//! ```text
//!   put, delete ──> Store (own copy) ──> Watchers ──> actix mailboxes
//!                     │        ^
//!              unsent v        │ incoming, by revision
//!                    nats (own thread) <──> servers
//! ```

mod expiry;
mod hearing;
mod key;
mod life;
mod marks;
mod memory;
pub(crate) mod nats;
mod ownership;
mod record;
mod silence;
mod store;
mod watchers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix::{Message, Recipient};
use serde::{Serialize, Serializer};
use tokio::sync::Notify;

use crate::config::sections::{BusSection, Transport};
use crate::telemetry::monotonic;
use memory::{Memory, Remembered};
use store::{Event, Store, Told, Unsent};
use watchers::Watchers;

pub use expiry::Expiry;
pub use hearing::Heard;
pub use key::{Key, MAX_NAME, Prefix, Tier, is_name};
pub use life::{Life, LifeId, SUCCEEDS};
pub use record::{
    DrainRecord, Invalid, MAX_ADDRESSES, MAX_RECORD, MAX_REGISTERED, MAX_SERVICES, MAX_TEXT,
    NodeRecord, Record, RegistrationRecord, ServiceState, TargetRecord, VERSION, VipRecord,
    VipState, unix_ms,
};
pub use silence::{Silence, SilentBecause};

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "()")]
pub enum Change {
    /// All records known under a watched prefix; replaces whatever the watcher held of it, and says nothing about others. First of all, and
    /// again after falling far behind.
    Snapshot {
        /// What was watched: a watcher of several prefixes gets a snapshot of each.
        prefix: Prefix,
        /// The records under it.
        records: Vec<Record>,
    },
    /// A record was put. It may equal the last one: the putter is still there.
    Put(Record),
    /// A record was deleted by a node.
    Deleted(Key),
    /// The servers were reached and all they know was told, or they were lost. Nothing else changes with it.
    Connected(bool),
    /// Everything put until then was provably heard, and has been told before this. In its absence nobody is silent ([`Expiry`]).
    Heard(Heard),
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
    /// Whether it is proven that what others put is heard here: own puts come back. Without it no record expires. Always true in-process.
    pub hearing: bool,
    /// Keys kept here.
    pub keys: usize,
    /// Those of them that are known from an earlier life of this node alone: the servers have not spoken of them yet.
    pub remembered: usize,
    /// Watchers in this process.
    pub watchers: usize,
    /// Changes made here that the servers have not acknowledged.
    pub pending: usize,
    /// Records ignored since the start: garbage, other versions, too many.
    pub ignored: u64,
    /// Why others don't hear this process; none while they do. Always none in-process.
    pub silent: Option<Silence>,
    /// Another living process that uses this node's name or address; none if there is no such.
    pub duplicate: Option<Duplicate>,
}

/// Two processes write under one key that is one process's own: they share a `node.id`, or an address they register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// The key; serialises as a path.
    #[serde(serialize_with = "as_path")]
    pub key: Key,
    /// The other's life; none if it doesn't say: an earlier build, or no process of ours.
    pub life: Option<LifeId>,
    /// When the other began, in milliseconds of Unix time by its clock; 0 if it doesn't say.
    pub started_unix_ms: u64,
    /// The other was there first: this process says nothing under the key until it is gone, and nothing at all if the key is its name.
    pub yields: bool,
}

impl Duplicate {
    /// Whether this process says nothing at all on the bus until the other is gone.
    pub fn silences(&self) -> bool {
        self.yields && matches!(self.key, Key::Node { .. })
    }
}

fn as_path<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

impl std::fmt::Display for Duplicate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "another living process writes {}", self.key)
    }
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
    hearing: AtomicBool,
    ignored: AtomicU64,
    duplicate: Mutex<Option<Duplicate>>,
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
        Self::new("local", true, Life::of_process())
    }

    /// The bus of the configuration. With NATS it connects in the background, for as long as it takes; `node` names the connection at the servers.
    pub fn start(section: &BusSection, node: &str) -> Self {
        match &section.transport {
            Transport::Local => Self::local(),
            Transport::Nats(_) => Self::start_as(section, node, Life::of_process()),
        }
    }

    /// The same for another life than that of this process: for tests, in which one process is several nodes.
    pub fn start_as(section: &BusSection, node: &str, life: Life) -> Self {
        match &section.transport {
            Transport::Local => Self::local(),
            Transport::Nats(nats) => {
                let bus = Self::new("nats", false, life);
                if let Some(memory) = Memory::of(nats.state_dir.as_deref(), node) {
                    bus.remember(memory.load());
                    memory.keep(&bus.inner);
                }
                nats::start(&bus.inner, (**nats).clone(), node);
                bus
            }
        }
    }

    /// Takes what an earlier life knew for known, until the servers say otherwise.
    fn remember(&self, remembered: Remembered) {
        let mut state = self.inner.lock();
        for record in remembered.records {
            state.store.remember(record, monotonic());
        }
        metrics::gauge!("weir_bus_keys").set(state.store.len() as f64);
        metrics::gauge!("weir_bus_remembered_age_seconds").set(remembered.age.as_secs_f64());
    }

    fn new(transport: &'static str, connected: bool, life: Life) -> Self {
        // From the start: a node that never reaches its servers is the one to be noticed.
        metrics::gauge!("weir_bus_connected").set(if connected { 1.0 } else { 0.0 });
        metrics::counter!("weir_bus_puts_total").increment(0);
        metrics::counter!("weir_bus_put_failures_total").increment(0);
        for reason in Invalid::LABELS {
            metrics::counter!("weir_bus_ignored_total", "reason" => reason).increment(0);
        }
        let state = State {
            store: Store::new(!connected, life),
            watchers: Watchers::new(connected.then_some(Heard::ALWAYS)),
        };
        metrics::gauge!("weir_bus_duplicate").set(0.0);
        metrics::gauge!("weir_bus_hearing").set(if connected { 1.0 } else { 0.0 });
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                transport,
                connected: AtomicBool::new(connected),
                hearing: AtomicBool::new(connected),
                ignored: AtomicU64::new(0),
                duplicate: Mutex::new(None),
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
        let silent = self.silence();
        let state = self.inner.lock();
        BusStatus {
            transport: self.inner.transport,
            connected: self.inner.connected.load(Ordering::Acquire),
            hearing: self.inner.hearing.load(Ordering::Relaxed),
            keys: state.store.len(),
            remembered: state.store.remembered(),
            watchers: state.watchers.len(),
            pending: state.store.under_way(),
            ignored: self.inner.ignored.load(Ordering::Relaxed),
            silent,
            duplicate: self.duplicate(),
        }
    }

    /// Why others don't hear what this process says; none while they do.
    pub fn silence(&self) -> Option<Silence> {
        let now = monotonic();
        let disconnected = || {
            let connected = self.inner.connected.load(Ordering::Acquire);
            (!connected).then_some((SilentBecause::Disconnected, None))
        };
        let (why, until) = disconnected().or_else(|| self.inner.lock().store.silence())?;
        let left = |until: Duration| until.saturating_sub(now).as_millis();
        Some(Silence {
            why,
            until_unix_ms: until
                .map(|until| unix_ms() + u64::try_from(left(until)).unwrap_or(u64::MAX)),
        })
    }

    /// Warns, where nobody hears yet what the process says on the bus: in the log, and to whoever asked for it.
    pub fn warn(&self) -> Vec<String> {
        let warnings: Vec<String> = self.silence().iter().map(ToString::to_string).collect();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        warnings
    }

    /// Another living process that uses this node's name, or an address it registers.
    pub fn duplicate(&self) -> Option<Duplicate> {
        let duplicate = self.inner.duplicate.lock();
        duplicate.unwrap_or_else(PoisonError::into_inner).clone()
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
    fn incoming(self: &Arc<Self>, key: &Key, told: Told) {
        let mut full = false;
        self.change(|store| {
            full = told.record.is_some() && store.is_full_for(key);
            if full {
                None
            } else {
                store.incoming(key, told, monotonic())
            }
        });
        if full {
            self.ignore(&key.to_string(), Invalid::Full);
        }
    }

    /// The servers took a change made here.
    fn acknowledged(self: &Arc<Self>, change: &Unsent, revision: u64) {
        self.change(|store| {
            store.acknowledged(&change.key, change.generation, revision, monotonic())
        });
    }

    fn session_started(&self) {
        self.lock().store.session_started();
    }

    /// Within the same session the servers' state is about to be read once more.
    fn reading_anew(&self) {
        self.lock().store.reading_anew();
    }

    /// The servers' state has been read. Returns how many keys they had lost.
    fn session_ready(&self) -> usize {
        self.lock().store.session_ready(monotonic())
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

    /// Everything put until then was heard.
    fn heard(self: &Arc<Self>, heard: Heard) {
        self.hearing(Some(heard));
        let mut state = self.lock();
        let State { store, watchers } = &mut *state;
        store.heard(heard);
        let all_told = watchers.tell_heard(heard, store);
        drop(state);
        if !all_told {
            self.catch_up_soon();
        }
    }

    /// Whether hearing is proven by now.
    fn hearing(&self, heard: Option<Heard>) {
        if self.hearing.swap(heard.is_some(), Ordering::Relaxed) != heard.is_some() {
            metrics::gauge!("weir_bus_hearing").set(if heard.is_some() { 1.0 } else { 0.0 });
        }
    }

    /// The next changes to send.
    fn take_unsent(&self, most: usize) -> Vec<Unsent> {
        self.lock().store.take_unsent(most, monotonic())
    }

    /// Looks whether another living process uses this one's name.
    fn look_for_duplicates(&self) {
        let found = self.lock().store.duplicates(monotonic());
        metrics::gauge!("weir_bus_duplicate").set(if found.is_empty() { 0.0 } else { 1.0 });
        let found = found.into_iter().map(|(key, rival, yields)| Duplicate {
            key,
            life: rival.id,
            started_unix_ms: rival.started_unix_ms,
            yields,
        });
        let duplicate = found.max_by_key(|found| (found.silences(), found.yields));
        if let Some(duplicate) = &duplicate {
            let consequence = match (duplicate.yields, duplicate.silences()) {
                (_, true) => {
                    "it was there first: this process says nothing on the bus until it is gone"
                }
                (true, false) => {
                    "it was there first: this process will not register that address until it is gone"
                }
                (false, false) => "each writes over what the other says",
            };
            crate::log_at_most_every!(
                Duration::from_secs(60),
                tracing::Level::ERROR,
                key = %duplicate.key,
                other = ?duplicate.life,
                other_started_unix_ms = duplicate.started_unix_ms,
                "{duplicate}; {consequence}. Give each node a node.id of its own, and each address to one node"
            );
        }
        *self
            .duplicate
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = duplicate;
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
