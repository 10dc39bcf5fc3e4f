//! Telling watchers what changed, without ever waiting for one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::Recipient;
use actix::prelude::SendError;

use super::hearing::Heard;
use super::key::{Key, Prefix};
use super::store::{Event, Store};
use super::{Change, WatchId};

/// A watcher that has fallen this many keys behind is given a new snapshot instead.
const MAX_BEHIND: usize = 4096;

/// The watchers of a bus.
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
    next: u64,
    /// Up to when everything put was heard, as told last.
    heard: Option<Heard>,
}

struct Watcher {
    id: WatchId,
    prefix: Prefix,
    to: Recipient<Change>,
    /// What could not be delivered because the mailbox was full. Only keys are kept: their latest state is told when there is room.
    behind: BTreeSet<Key>,
    snapshot_due: bool,
    connected_due: Option<bool>,
    heard_due: Option<Heard>,
}

impl Watchers {
    /// None, who are told `heard` when they come.
    pub(super) fn new(heard: Option<Heard>) -> Self {
        Self {
            watchers: Vec::new(),
            next: 0,
            heard,
        }
    }

    /// Adds a watcher and gives it the snapshot.
    pub(super) fn add(
        &mut self,
        prefix: Prefix,
        to: Recipient<Change>,
        connected: bool,
        store: &Store,
    ) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        let mut watcher = Watcher {
            id,
            prefix,
            to,
            behind: BTreeSet::new(),
            snapshot_due: true,
            connected_due: connected.then_some(true),
            heard_due: self.heard,
        };
        watcher.catch_up(store);
        self.watchers.push(watcher);
        id
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        self.watchers.retain(|watcher| watcher.id != id);
    }

    pub(super) fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Tells those who want to know. Returns whether all have room for more.
    pub(super) fn tell(&mut self, event: &Event, store: &Store) -> bool {
        self.each(|watcher| {
            if !watcher.prefix.matches(event.key()) {
                return true;
            }
            // One that is behind already is left to whoever makes it catch up: trying at every change would cost a look at its mailbox,
            // or a whole snapshot, each time.
            let was_behind = watcher.is_behind();
            watcher.note(event.key());
            !was_behind && watcher.catch_up(store)
        })
    }

    /// Tells everybody whether the bus is connected.
    pub(super) fn tell_connected(&mut self, connected: bool, store: &Store) -> bool {
        self.each(|watcher| {
            watcher.connected_due = Some(connected);
            watcher.catch_up(store)
        })
    }

    /// Tells everybody up to when all was heard, after all that was.
    pub(super) fn tell_heard(&mut self, heard: Heard, store: &Store) -> bool {
        self.heard = Some(heard);
        self.each(|watcher| {
            let was_behind = watcher.is_behind();
            watcher.heard_due = Some(heard);
            !was_behind && watcher.catch_up(store)
        })
    }

    /// How long to wait before trying again. A snapshot is costly to make, so its mailbox is given time.
    pub(super) fn pause(&self) -> Duration {
        let snapshot_due = self.watchers.iter().any(|watcher| watcher.snapshot_due);
        Duration::from_millis(if snapshot_due { 100 } else { 1 })
    }

    /// Delivers what is due where there is room now. Returns whether nothing is due any more.
    pub(super) fn catch_up(&mut self, store: &Store) -> bool {
        self.each(|watcher| watcher.catch_up(store))
    }

    fn each(&mut self, mut deliver: impl FnMut(&mut Watcher) -> bool) -> bool {
        let mut all = true;
        for watcher in &mut self.watchers {
            all &= deliver(watcher);
        }
        self.watchers.retain(|watcher| watcher.to.connected());
        all
    }
}

impl Watcher {
    fn is_behind(&self) -> bool {
        self.snapshot_due
            || !self.behind.is_empty()
            || self.connected_due.is_some()
            || self.heard_due.is_some()
    }

    fn note(&mut self, key: &Key) {
        if !self.snapshot_due {
            self.behind.insert(key.clone());
        }
        if self.behind.len() > MAX_BEHIND {
            self.behind.clear();
            self.snapshot_due = true;
        }
    }

    fn catch_up(&mut self, store: &Store) -> bool {
        if self.snapshot_due {
            let snapshot = Change::Snapshot {
                prefix: self.prefix.clone(),
                records: store.matching(&self.prefix),
            };
            if !self.send(snapshot) {
                return false;
            }
            self.snapshot_due = false;
        }
        while let Some(key) = self.behind.pop_first() {
            let change = store.get(&key).map_or_else(
                || Change::Deleted(key.clone()),
                |record| Change::Put(record.clone()),
            );
            if !self.send(change) {
                self.behind.insert(key);
                return false;
            }
        }
        if let Some(connected) = self.connected_due {
            if !self.send(Change::Connected(connected)) {
                return false;
            }
            self.connected_due = None;
        }
        if let Some(heard) = self.heard_due {
            if !self.send(Change::Heard(heard)) {
                return false;
            }
            self.heard_due = None;
        }
        true
    }

    /// Whether the change was delivered, or can never be: a closed mailbox needs nothing more.
    fn send(&self, change: Change) -> bool {
        !matches!(self.to.try_send(change), Err(SendError::Full(_)))
    }
}
