//! All flows of a worker: the entries, and an index by both their keys. Memory is fixed at the start.

use super::entry::{Flow, Side};
use super::index::{Index, NONE};
use super::prefetch::prefetch;
use super::tuple::Tuple;
use crate::secret::Secret;

/// The flows of one worker.
pub(crate) struct FlowTable {
    entries: Box<[Flow]>,
    index: Index,
    secret: Secret,
    free: u32,
    alive: u32,
}

impl FlowTable {
    pub(crate) fn new(flows: u32, secret: Secret) -> Self {
        let mut entries = vec![Flow::FREE; flows as usize].into_boxed_slice();
        for (next, entry) in (1u32..).zip(&mut entries) {
            entry.next = if next == flows { NONE } else { next };
        }
        Self {
            entries,
            index: Index::new(2 * flows as usize),
            secret,
            free: if flows == 0 { NONE } else { 0 },
            alive: 0,
        }
    }

    #[inline]
    pub(crate) fn hash(&self, tuple: &Tuple) -> u64 {
        tuple.hash(&self.secret)
    }

    /// First stage: starts loading the bucket.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: reads the bucket, starts loading the likely entry, returns its number (or [`NONE`]).
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u64) -> u32 {
        let candidate = self.index.candidate(hash);
        if let Some(entry) = self.entries.get(candidate as usize) {
            prefetch(entry);
        }
        candidate
    }

    /// Third stage: the flow of a packet. `candidate` is what the second stage returned; it may be stale by now.
    #[inline]
    pub(crate) fn find(&self, hash: u64, candidate: u32, packet: &Tuple) -> Option<(u32, Side)> {
        if let Some(side) = self
            .entries
            .get(candidate as usize)
            .and_then(|entry| entry.side(packet))
        {
            return Some((candidate, side));
        }
        let mut found = None;
        self.index.find(hash, |number| {
            found = self.entries[number as usize]
                .side(packet)
                .map(|side| (number, side));
            found.is_some()
        });
        found
    }

    /// Whether a flow has this key.
    pub(crate) fn contains(&self, key: &Tuple) -> bool {
        self.find(self.hash(key), NONE, key).is_some()
    }

    /// Adds a flow neither of whose keys is in the table; none if the table is full. The caller puts it on the wheel.
    pub(crate) fn insert(&mut self, flow: Flow) -> Option<u32> {
        let number = self.free;
        let entry = self.entries.get_mut(number as usize)?;
        self.free = entry.next;
        entry.next = NONE;
        self.place(number, flow);
        Some(number)
    }

    /// Puts a flow into an entry whose flow was removed and which the wheel hasn't passed yet.
    pub(crate) fn replace(&mut self, number: u32, flow: Flow) {
        debug_assert!(
            !self.entries[number as usize].alive,
            "a living flow is replaced"
        );
        self.place(number, flow);
    }

    fn place(&mut self, number: u32, flow: Flow) {
        debug_assert!(
            !self.contains(&flow.client_key()) && !self.contains(&flow.target_key()),
            "a key is used twice"
        );
        let next = self.entries[number as usize].next;
        self.entries[number as usize] = Flow {
            next,
            alive: true,
            ..flow
        };
        let placed = self
            .index
            .insert(flow.client_key().hash(&self.secret), number)
            && self
                .index
                .insert(flow.target_key().hash(&self.secret), number);
        debug_assert!(placed, "the index is made for two keys a flow");
        self.alive += 1;
    }

    /// Takes a flow out of the index. Its entry stays until the wheel passes it and calls [`FlowTable::free`].
    pub(crate) fn remove(&mut self, number: u32) {
        let flow = self.entries[number as usize];
        debug_assert!(flow.alive, "a flow is removed twice");
        let removed = self
            .index
            .remove(flow.client_key().hash(&self.secret), number)
            & self
                .index
                .remove(flow.target_key().hash(&self.secret), number);
        debug_assert!(removed, "a living flow has both its keys in the index");
        self.entries[number as usize].alive = false;
        self.alive -= 1;
    }

    /// Returns the entry of a removed flow, off the wheel, to the free ones.
    pub(crate) fn free(&mut self, number: u32) {
        debug_assert!(
            !self.entries[number as usize].alive,
            "a living flow is freed"
        );
        self.entries[number as usize].next = self.free;
        self.free = number;
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Flow {
        &self.entries[number as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Flow {
        &mut self.entries[number as usize]
    }

    /// All living flows with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        (0u32..).zip(&self.entries).filter(|(_, flow)| flow.alive)
    }

    /// Living flows.
    pub(crate) fn len(&self) -> u32 {
        self.alive
    }

    /// Whether another flow finds room.
    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Bytes of memory, entries and index.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.index.bytes()
    }

    /// Panics unless the index holds each living flow under both keys and nothing else; the free entries' count.
    pub(crate) fn check_invariants(&self) -> usize {
        for (number, flow) in self.iter() {
            for (key, side) in [
                (flow.client_key(), Side::Client),
                (flow.target_key(), Side::Target),
            ] {
                assert_eq!(
                    self.find(self.hash(&key), NONE, &key),
                    Some((number, side)),
                    "flow {number} under {key:?}"
                );
            }
        }
        assert_eq!(self.iter().count(), self.alive as usize, "living flows");
        assert_eq!(
            self.index.count(),
            2 * self.alive as usize,
            "keys in the index"
        );
        let mut free = 0;
        let mut at = self.free;
        while at != NONE {
            assert!(!self.entries[at as usize].alive, "a free entry lives");
            free += 1;
            assert!(free <= self.entries.len(), "the free list is a ring");
            at = self.entries[at as usize].next;
        }
        free
    }

    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }
}
