//! The node's own copy of the bus and the rules by which it is kept in step with the servers. Pure: no clock, no sockets.
//!
//! The store is the truth for the watchers of this process. A transport, where there is one, is told what changed here ([`Store::take_unsent`])
//! and tells what changed elsewhere ([`Store::incoming`]). Losing the transport changes nothing. When it is back, a session begins:
//! the servers' state is read again, and what this process put is put again where the servers lost it.
//!
//! Revisions are the servers' count of changes. Which of two values of a key is newer is decided by them, except that a change made here
//! and not yet acknowledged always wins: it will be given the next revision.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::hearing::Heard;
use super::key::{Key, Prefix};
use super::life::{Life, LifeId, Signature};
use super::memory::is_memorable;
use super::ownership::{Claim, Foreign, Rival, follows, is_owned};
use super::record::Record;
use super::silence::SilentBecause;

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
    /// Who says so.
    pub(super) by: Option<Signature>,
}

/// A change as the servers told of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) revision: u64,
    /// When the servers took it, in nanoseconds of Unix time by their clock.
    pub(super) published: i64,
    /// None: it was deleted.
    pub(super) record: Option<Record>,
    /// The life that wrote it, if it says.
    pub(super) by: Option<Signature>,
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
    /// When the servers took it, in nanoseconds of Unix time by their clock; 0 if they didn't say.
    published: i64,
    /// Counts changes made here.
    generation: u64,
    /// The generation the servers acknowledged last.
    acknowledged: u64,
    /// Waiting in `unsent`.
    queued: bool,
    /// Latest change from elsewhere that arrived while one of ours was under way.
    held: Option<Told>,
    /// The life that wrote it, of a record that one process owns; and when it was heard last.
    writer: Option<LifeId>,
    heard_at: Duration,
    /// Who else writes under a key of ours.
    claim: Claim,
    /// Known from an earlier life of this node alone.
    remembered: bool,
}

impl Entry {
    fn new(record: Option<Record>) -> Self {
        Self {
            record,
            own: false,
            revision: 0,
            before: 0,
            published: 0,
            generation: 0,
            acknowledged: 0,
            queued: false,
            held: None,
            writer: None,
            heard_at: Duration::ZERO,
            claim: Claim::default(),
            remembered: false,
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
    /// This process.
    us: Life,
    /// When the servers' state had been read in this session.
    read_at: Option<Duration>,
    /// Keys of ours that may be another's: nothing is said under them yet.
    waiting: BTreeSet<Key>,
    /// Keys of ours under which others write.
    disputed: BTreeSet<Key>,
    /// Keys of this node's own records.
    named: BTreeSet<Key>,
    heard: Option<Heard>,
    /// Counts changes of what is to be kept on disk.
    memorable_version: u64,
}

impl Store {
    pub(super) fn new(replicated: bool, us: Life) -> Self {
        Self {
            us,
            read_at: None,
            waiting: BTreeSet::new(),
            disputed: BTreeSet::new(),
            named: BTreeSet::new(),
            heard: None,
            memorable_version: 0,
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
        let before = std::mem::replace(&mut entry.record, record);
        let (was, is) = (before.as_ref(), entry.record.as_ref());
        let changes = was != is && [was, is].into_iter().flatten().any(is_memorable);
        self.memorable_version += u64::from(changes);
        if !entry.own && !entry.remembered && is_owned(key) {
            // Somebody else's is there: an earlier life's perhaps, perhaps a living one's.
            let by = entry.writer.map(|id| Signature {
                id,
                started_unix_ms: 0,
                replaces: None,
            });
            let now = entry.heard_at;
            if let Some(before) = &before {
                entry.claim.foreign(now, &self.us, by, Some(before), true);
            }
        }
        entry.own = true;
        entry.remembered = false;
        if matches!(key, Key::Node { .. }) && self.replicated {
            self.named.insert(key.clone());
        }
        entry.published = 0;
        if self.replicated {
            if !entry.is_under_way() {
                self.under_way += 1;
            }
            entry.generation += 1;
            queue(&mut self.unsent, key, entry);
        }
    }

    /// The next changes to carry to the servers at `now`, `most` at most. Each must be handed back by [`Self::acknowledged`] or
    /// [`Self::failed`].
    pub(super) fn take_unsent(&mut self, most: usize, now: Duration) -> Vec<Unsent> {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(entry) = self.entries.get_mut(&key) {
                queue(&mut self.unsent, &key, entry);
            }
        }
        // Until it is sure of its name, a node says nothing at all.
        let mut named = true;
        for key in &self.named {
            if let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.own) {
                named &= entry.record.is_none()
                    || entry.claim.is_held()
                    || entry.claim.may_take(now, &self.us, self.read_at);
            }
        }
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(key) = self.unsent.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.queued = false;
            if is_owned(&key) && entry.record.is_none() && !entry.claim.is_held() {
                // Nothing of ours is there, and what is there is not ours to delete.
                self.entries.remove(&key);
                self.under_way -= 1;
                continue;
            }
            let claimed = match named {
                true if is_owned(&key) => entry.claim.take(now, &self.us, self.read_at),
                true => Some(None),
                false => None,
            };
            let Some(replaces) = claimed else {
                self.waiting.insert(key);
                continue;
            };
            taken.push(Unsent {
                key,
                record: entry.record.clone(),
                generation: entry.generation,
                by: Some(Signature {
                    id: self.us.id,
                    started_unix_ms: self.us.started_unix_ms,
                    replaces,
                }),
            });
        }
        taken
    }

    /// An earlier life of this node knew of a record.
    pub(super) fn remember(&mut self, record: Record, now: Duration) {
        let key = record.key();
        if self.entries.len() < MAX_KEYS && !self.entries.contains_key(&key) {
            let mut entry = Entry::new(Some(record));
            entry.remembered = true;
            entry.heard_at = now;
            self.entries.insert(key, entry);
        }
    }

    /// How many keys are known from an earlier life alone.
    pub(super) fn remembered(&self) -> usize {
        let entries = self.entries.values();
        entries.filter(|entry| entry.remembered).count()
    }

    /// What is to be kept on disk, and a number that changes with it.
    pub(super) fn memorable(&self) -> Vec<Record> {
        let records = self
            .entries
            .values()
            .filter_map(|entry| entry.record.as_ref());
        records
            .filter(|record| is_memorable(record))
            .cloned()
            .collect()
    }

    pub(super) fn memorable_version(&self) -> u64 {
        self.memorable_version
    }

    /// Everything put until then was heard.
    pub(super) fn heard(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// The keys of ours under which another life writes that lives, and whether this process keeps silent for it.
    pub(super) fn duplicates(&mut self, now: Duration) -> Vec<(Key, Rival, bool)> {
        let entries = &self.entries;
        let disputed = |key: &Key| {
            let entry = entries.get(key).filter(|entry| entry.own);
            entry.is_some_and(|entry| !entry.claim.is_undisputed())
        };
        self.disputed.retain(disputed);
        let duplicates = self.disputed.iter().filter_map(|key| {
            let claim = &self.entries.get(key)?.claim;
            Some((key.clone(), claim.duplicate(now)?, claim.yields()))
        });
        duplicates.collect()
    }

    /// Why and until when this process says nothing under its name, or under an address that it registers; none if it speaks. An address that another
    /// living process registers is that one's, and not waited for.
    pub(super) fn silence(&self) -> Option<(SilentBecause, Option<Duration>)> {
        if !self.replicated {
            return None;
        }
        if self.named.is_empty() {
            return Some((SilentBecause::Starting, None));
        }
        // What has not been said yet waits in one of these two: no need to look at all keys.
        let unsaid = self.waiting.iter().chain(&self.unsent);
        let waiting = unsaid.filter_map(|key| {
            let entry = self.entries.get(key).filter(|_| is_owned(key))?;
            let is_silent = entry.own && entry.record.is_some() && !entry.claim.is_held();
            is_silent.then_some((key, entry))
        });
        let mut until = None;
        for (key, entry) in waiting {
            let Some(read_at) = self.read_at else {
                return Some((SilentBecause::Disconnected, None));
            };
            match entry.claim.yields() {
                true if self.named.contains(key) => return Some((SilentBecause::Duplicate, None)),
                true => {}
                false => until = until.max(Some(entry.claim.free_at(&self.us, read_at))),
            }
        }
        until.map(|until| (SilentBecause::Listening, Some(until)))
    }

    /// The servers took a change and gave it `revision`.
    pub(super) fn acknowledged(
        &mut self,
        key: &Key,
        generation: u64,
        revision: u64,
        now: Duration,
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
            Some(held) if held.revision > revision => self.apply(key, held, now),
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
    pub(super) fn incoming(&mut self, key: &Key, told: Told, now: Duration) -> Option<Event> {
        let Told {
            revision,
            published,
            ..
        } = told;
        let Some(entry) = self.entries.get_mut(key) else {
            return self.apply(key, told, now);
        };
        if is_owned(key) && entry.record.is_some() {
            let is_ours = told.by.is_some_and(|by| by.id == self.us.id);
            if entry.own && !is_ours {
                let found = self.reading_snapshot;
                let record = told.record.as_ref();
                let follows = entry.claim.foreign(now, &self.us, told.by, record, found);
                self.disputed.insert(key.clone());
                if follows == Foreign::WriteAgain && !entry.is_under_way() {
                    entry.generation += 1;
                    self.under_way += 1;
                    queue(&mut self.unsent, key, entry);
                }
                return None;
            }
            let ttl = entry.record.as_ref().and_then(Record::ttl);
            if !entry.own && !follows(entry.writer, told.by, entry.heard_at, ttl, self.heard) {
                return None;
            }
        }
        if entry.is_under_way() {
            if entry
                .held
                .as_ref()
                .is_none_or(|held| held.revision < revision)
            {
                entry.held = Some(told);
            }
            return None;
        }
        if revision <= entry.revision {
            if revision == entry.revision {
                entry.published = published;
            }
            return None; // The echo of our own change, or one seen already.
        }
        if self.reading_snapshot {
            if entry.record == told.record {
                entry.revision = revision;
                entry.published = published;
                entry.remembered = false;
                entry.writer = entry.writer.or(told.by.map(|by| by.id));
                return None;
            }
            // The servers came back with an older state of the bucket, or with another one that counts anew: there their clock tells what is older.
            // Ours is put again at the end of the snapshot, others put theirs.
            let is_older = published <= entry.published || (entry.own && entry.published == 0);
            if entry.revision == 0 && revision <= entry.before && is_older {
                return None;
            }
        }
        self.apply(key, told, now)
    }

    /// Takes over a change made elsewhere.
    fn apply(&mut self, key: &Key, told: Told, now: Duration) -> Option<Event> {
        let (before, after) = (self.get(key), told.record.as_ref());
        let changes = before != after && [before, after].into_iter().flatten().any(is_memorable);
        self.memorable_version += u64::from(changes);
        match told.record {
            Some(record) => {
                let entry = self
                    .entries
                    .entry(key.clone())
                    .or_insert_with(|| Entry::new(None));
                entry.record = Some(record);
                entry.own = false;
                entry.revision = told.revision;
                entry.published = told.published;
                entry.remembered = false;
                entry.writer = told.by.map(|by| by.id);
                entry.heard_at = now;
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
        self.reading_anew();
        // Nobody will say any more what became of these.
        for (key, entry) in &mut self.entries {
            if entry.is_under_way() {
                queue(&mut self.unsent, key, entry);
            }
        }
    }

    /// The servers' state is about to be read, once more perhaps; acknowledgements go on coming. Nothing known is forgotten.
    pub(super) fn reading_anew(&mut self) {
        self.reading_snapshot = true;
        self.read_at = None;
        for entry in self.entries.values_mut() {
            if entry.revision > 0 {
                entry.before = entry.revision;
            }
            entry.revision = 0;
            entry.held = None;
        }
    }

    /// The servers' state has been read: what this process put and they don't have is to be put again. Returns how many keys that is.
    pub(super) fn session_ready(&mut self, now: Duration) -> usize {
        self.reading_snapshot = false;
        self.read_at = Some(now);
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
