//! The node's own copy of the bus and the rules by which it is kept in step with the servers. Pure: no clock, no sockets.
//!
//! The store is the truth for the watchers of this process. A transport, where there is one, is told what changed here ([`Store::take_unsent`])
//! and tells what changed elsewhere ([`Store::incoming`]). Losing the transport changes nothing. When it is back, a session begins:
//! the servers' state is read again, and what this process put is put again where the servers lost it.
//!
//! Revisions are the servers' count of changes. Which of two values of a key is newer is decided by them, except that a change made here
//! and not yet acknowledged always wins: it will be given the next revision.

use std::collections::{BTreeMap, VecDeque};

use super::key::{Key, Prefix};
use super::record::Record;

/// Most keys a node keeps: the targets of 1,000 services of 100 each, and as many registrations. A record of a target takes some 300 bytes.
pub(super) const MAX_KEYS: usize = 1 << 18;

/// What watchers are to be told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Put(Key),
    Deleted(Key),
}

impl Event {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Put(key) | Self::Deleted(key) => key,
        }
    }
}

/// A change to be carried to the servers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsent {
    pub(super) key: Key,
    /// The record to put; none deletes.
    pub(super) record: Option<Record>,
    /// To be handed back with the acknowledgement.
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Entry {
    /// None: deleted here, and the servers have not heard of it yet.
    record: Option<Record>,
    /// Whether this process made the last change.
    own: bool,
    /// Revision the servers gave this value in this session; 0 is none.
    revision: u64,
    /// Revision in the session before.
    before: u64,
    /// Counts changes made here.
    generation: u64,
    /// The generation the servers acknowledged last.
    acknowledged: u64,
    /// Waiting in `unsent`.
    queued: bool,
    /// Latest change from elsewhere that arrived while one of ours was under way.
    held: Option<(u64, Option<Record>)>,
}

impl Entry {
    fn new(record: Option<Record>) -> Self {
        Self {
            record,
            own: false,
            revision: 0,
            before: 0,
            generation: 0,
            acknowledged: 0,
            queued: false,
            held: None,
        }
    }

    fn is_under_way(&self) -> bool {
        self.generation != self.acknowledged
    }
}

/// The node's own copy of the bus.
#[derive(Debug)]
pub(super) struct Store {
    entries: BTreeMap<Key, Entry>,
    unsent: VecDeque<Key>,
    /// Whether a transport wants to hear of changes made here.
    replicated: bool,
    /// Between the start of a session and the end of its snapshot.
    reading_snapshot: bool,
    /// Changes made here that the servers have not acknowledged.
    under_way: usize,
}

impl Store {
    pub(super) fn new(replicated: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            unsent: VecDeque::new(),
            replicated,
            reading_snapshot: false,
            under_way: 0,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.entries.get(key)?.record.as_ref()
    }

    pub(super) fn is_own(&self, key: &Key) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.own && entry.record.is_some())
    }

    pub(super) fn matching(&self, prefix: &Prefix) -> Vec<Record> {
        let wanted = self.entries.iter().filter(|(key, _)| prefix.matches(key));
        wanted
            .filter_map(|(_, entry)| entry.record.clone())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes made here that the servers have not acknowledged.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// A put made here. None if the store is full.
    pub(super) fn put(&mut self, record: Record) -> Option<Event> {
        let key = record.key();
        if !self.entries.contains_key(&key) && self.entries.len() >= MAX_KEYS {
            return None;
        }
        self.change(&key, Some(record));
        Some(Event::Put(key))
    }

    /// A delete made here. None if there was nothing to delete.
    pub(super) fn delete(&mut self, key: &Key) -> Option<Event> {
        self.get(key)?;
        if self.replicated {
            self.change(key, None);
        } else {
            self.entries.remove(key);
        }
        Some(Event::Deleted(key.clone()))
    }

    fn change(&mut self, key: &Key, record: Option<Record>) {
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(None));
        entry.record = record;
        entry.own = true;
        if self.replicated {
            if !entry.is_under_way() {
                self.under_way += 1;
            }
            entry.generation += 1;
            queue(&mut self.unsent, key, entry);
        }
    }

    /// The next changes to carry to the servers, `most` at most. Each must be handed back by [`Self::acknowledged`] or [`Self::failed`].
    pub(super) fn take_unsent(&mut self, most: usize) -> Vec<Unsent> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(key) = self.unsent.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.queued = false;
                taken.push(Unsent {
                    key,
                    record: entry.record.clone(),
                    generation: entry.generation,
                });
            }
        }
        taken
    }

    /// The servers took a change and gave it `revision`.
    pub(super) fn acknowledged(
        &mut self,
        key: &Key,
        generation: u64,
        revision: u64,
    ) -> Option<Event> {
        let entry = self.entries.get_mut(key)?;
        if entry.generation != generation {
            return None; // A later change is queued; its acknowledgement will settle the key.
        }
        if entry.is_under_way() {
            entry.acknowledged = generation;
            self.under_way -= 1;
        }
        entry.revision = entry.revision.max(revision);
        match entry.held.take() {
            Some((held, record)) if held > revision => self.apply(key, held, record),
            _ => {
                if entry.record.is_none() {
                    self.entries.remove(key);
                }
                None
            }
        }
    }

    /// A change did not reach the servers: it stays to be carried.
    pub(super) fn failed(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.is_under_way()
        {
            queue(&mut self.unsent, key, entry);
        }
    }

    /// Whether a change from elsewhere would add a key beyond what a node keeps.
    pub(super) fn is_full_for(&self, key: &Key) -> bool {
        self.entries.len() >= MAX_KEYS && !self.entries.contains_key(key)
    }

    /// The servers tell of a change, made here or elsewhere; no record is a delete.
    pub(super) fn incoming(
        &mut self,
        key: &Key,
        revision: u64,
        record: Option<Record>,
    ) -> Option<Event> {
        let Some(entry) = self.entries.get_mut(key) else {
            return self.apply(key, revision, record);
        };
        if entry.is_under_way() {
            if entry.held.as_ref().is_none_or(|(held, _)| *held < revision) {
                entry.held = Some((revision, record));
            }
            return None;
        }
        if revision <= entry.revision {
            return None; // The echo of our own change, or one seen already.
        }
        if self.reading_snapshot {
            if entry.record == record {
                entry.revision = revision;
                return None;
            }
            if entry.own && revision <= entry.before {
                return None; // The servers came back with an older state; the end of the snapshot puts ours again.
            }
        }
        self.apply(key, revision, record)
    }

    /// Takes over a change made elsewhere.
    fn apply(&mut self, key: &Key, revision: u64, record: Option<Record>) -> Option<Event> {
        match record {
            Some(record) => {
                let entry = self
                    .entries
                    .entry(key.clone())
                    .or_insert_with(|| Entry::new(None));
                entry.record = Some(record);
                entry.own = false;
                entry.revision = revision;
                Some(Event::Put(key.clone()))
            }
            None => {
                let known = self.entries.remove(key)?.record.is_some();
                known.then(|| Event::Deleted(key.clone()))
            }
        }
    }

    /// The transport is connected and about to read the servers' state. Nothing known is forgotten.
    pub(super) fn session_started(&mut self) {
        self.reading_snapshot = true;
        for (key, entry) in &mut self.entries {
            if entry.revision > 0 {
                entry.before = entry.revision;
            }
            entry.revision = 0;
            entry.held = None;
            if entry.is_under_way() {
                queue(&mut self.unsent, key, entry);
            }
        }
    }

    /// The servers' state has been read: what this process put and they don't have is to be put again. Returns how many keys that is.
    pub(super) fn session_ready(&mut self) -> usize {
        self.reading_snapshot = false;
        let mut lost = 0;
        for (key, entry) in &mut self.entries {
            if entry.own && entry.revision == 0 && !entry.is_under_way() {
                entry.generation += 1;
                self.under_way += 1;
                queue(&mut self.unsent, key, entry);
                lost += 1;
            }
        }
        lost
    }
}

fn queue(unsent: &mut VecDeque<Key>, key: &Key, entry: &mut Entry) {
    if !entry.queued {
        entry.queued = true;
        unsent.push_back(key.clone());
    }
}

#[cfg(test)]
mod tests;
