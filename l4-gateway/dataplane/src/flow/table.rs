//! All flows of a worker: the entries, and an index by their keys. Memory is fixed at the start.

use std::net::IpAddr;

use super::entry::{Addresses, Flow, HOP_UNKNOWN, Side};
use super::index::{Index, NONE, Resize};
use super::prefetch::prefetch;
use super::tuple::Tuple;
use super::wide::Wide;
use crate::family::{Family, V4, V6};
use crate::ids::{ServiceId, TargetId};
use crate::secret::Secret;
use crate::service::Protocol;

/// The flows of one worker, of both families.
pub(crate) struct FlowTable {
    entries: Box<[Flow]>,
    wide: Wide,
    index: Index,
    secret: Secret,
    free: u32,
    alive: u32,
    /// Entries of the index that move; empty but for that moment.
    moving: Vec<(u64, u32)>,
}

/// Room for what moves in one step of the index: some five entries, or twice as many. Beyond it the vector grows, once.
const MOVING: usize = 64;

/// Steps of a shrinking index for each flow that goes: as many as it may have keys, so that it is done with one halving before the next is due.
const MERGES: usize = 2;

impl FlowTable {
    pub(crate) fn new(flows: u32, secret: Secret) -> Self {
        let mut entries = vec![Flow::FREE; flows as usize].into_boxed_slice();
        for (next, entry) in (1u32..).zip(&mut entries) {
            entry.next = if next == flows { NONE } else { next };
        }
        Self {
            entries,
            wide: Wide::new(flows as usize),
            index: Index::resizable(2 * flows as usize),
            secret,
            free: if flows == 0 { NONE } else { 0 },
            alive: 0,
            moving: Vec::with_capacity(MOVING),
        }
    }

    #[inline]
    pub(crate) fn hash<V: Family>(&self, tuple: &Tuple<V>) -> u64 {
        tuple.hash(&self.secret)
    }

    /// As [`FlowTable::hash`] of an IPv4 packet, by source and destination and by both ports, as they lie in the packet.
    #[inline]
    pub(crate) fn hash_plain(&self, addresses: u64, ports: u32, protocol: Protocol) -> u64 {
        let ports = u64::from(ports) << 16 | protocol as u64;
        self.secret.hash(addresses, ports)
    }

    /// First stage: starts loading the bucket.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: reads the bucket, starts loading the likely entry, returns its number (or [`NONE`]).
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u64, is_v6: bool) -> u32 {
        let candidate = self.index.candidate(hash);
        if let Some(entry) = self.entries.get(candidate as usize) {
            prefetch(entry);
            if is_v6 {
                self.wide.prefetch(candidate);
            }
        }
        candidate
    }

    /// Third stage: the flow of a packet. `candidate` is what the second stage returned; it may be stale by now.
    #[inline(always)]
    pub(crate) fn find<V: Family>(
        &self,
        hash: u64,
        candidate: u32,
        packet: &Tuple<V>,
    ) -> Option<(u32, Side)> {
        if let Some(side) = self.side(candidate, packet) {
            return Some((candidate, side));
        }
        self.search(hash, packet)
    }

    #[inline(never)]
    fn search<V: Family>(&self, hash: u64, packet: &Tuple<V>) -> Option<(u32, Side)> {
        let mut found = None;
        self.index.find(hash, |number| {
            found = self.side(number, packet).map(|side| (number, side));
            found.is_some()
        });
        found
    }

    #[inline(always)]
    fn side<V: Family>(&self, number: u32, packet: &Tuple<V>) -> Option<Side> {
        self.entries
            .get(number as usize)?
            .side(|| V::addresses(self, number), packet)
    }

    /// Whose service and target the flow is that the second stage found likely.
    #[inline]
    pub(crate) fn ends(&self, candidate: u32) -> Option<(ServiceId, TargetId)> {
        let flow = self.entries.get(candidate as usize)?;
        Some((flow.service(), flow.target_id))
    }

    /// The hash of packets from the target of the flow that the second stage found likely.
    #[cold]
    pub(crate) fn hash_of_answers(&self, candidate: u32) -> Option<u64> {
        let flow = self.entries.get(candidate as usize)?;
        Some(if flow.is_v6() {
            self.hash(&flow.target_key::<V6>(&V6::addresses(self, candidate)))
        } else {
            self.hash(&flow.target_key::<V4>(&V4::addresses(self, candidate)))
        })
    }

    /// Starts loading an entry.
    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        if let Some(entry) = self.entries.get(number as usize) {
            prefetch(entry);
        }
    }

    /// The flow that the second stage found likely; if it is one, the caller compares.
    #[inline]
    pub(crate) fn likely(&mut self, candidate: u32) -> Option<&mut Flow> {
        self.entries.get_mut(candidate as usize)
    }

    /// The flow of this packet's client to a target, where each packet is scheduled anew.
    pub(crate) fn find_one_packet<V: Family>(
        &self,
        hash: u64,
        packet: &Tuple<V>,
        target: TargetId,
    ) -> Option<u32> {
        self.index.find(one_packet_hash(hash, target), |number| {
            let flow = self.get(number);
            flow.is_one_packet()
                && flow.target_id == target
                && self.side(number, packet) == Some(Side::Client)
        })
    }

    /// Whether a flow has this key.
    pub(crate) fn contains<V: Family>(&self, key: &Tuple<V>) -> bool {
        self.find(self.hash(key), NONE, key).is_some()
    }

    /// Adds a flow none of whose keys is in the table; none if the table is full. The caller puts it on the wheel. It is indexed by
    /// its client's key, and by its target's unless it is one-sided.
    pub(crate) fn insert<V: Family>(
        &mut self,
        flow: Flow,
        addresses: &Addresses<V::Address>,
    ) -> Option<u32> {
        let number = self.free;
        let entry = self.entries.get_mut(number as usize)?;
        self.free = entry.next;
        entry.next = NONE;
        // The next flow's: by then it is here.
        self.prefetch(self.free);
        self.place::<V>(number, flow, addresses);
        Some(number)
    }

    /// Puts a flow into an entry whose flow was removed and which the wheel hasn't passed yet.
    pub(crate) fn replace<V: Family>(
        &mut self,
        number: u32,
        flow: Flow,
        addresses: &Addresses<V::Address>,
    ) {
        debug_assert!(
            !self.entries[number as usize].is_alive(),
            "a living flow is replaced"
        );
        self.place::<V>(number, flow, addresses);
    }

    fn place<V: Family>(&mut self, number: u32, flow: Flow, addresses: &Addresses<V::Address>) {
        let entry = &mut self.entries[number as usize];
        let next = entry.next;
        *entry = flow;
        entry.next = next;
        entry.set_alive(false);
        V::store(self, number, addresses);
        for (key, hash) in self.keys::<V>(number) {
            debug_assert!(self.search(hash, &key).is_none(), "a key is used twice");
            let placed = self.index.insert(hash, number);
            debug_assert!(placed, "the index is made for two keys a flow");
        }
        if let Some(step) = self.index.crowded() {
            self.resize(step);
        }
        self.entries[number as usize].set_alive(true);
        self.alive += 1;
    }

    /// Takes a flow out of the index. Its entry stays until the wheel passes it and calls [`FlowTable::free`].
    pub(crate) fn remove(&mut self, number: u32) {
        debug_assert!(
            self.entries[number as usize].is_alive(),
            "a flow is removed twice"
        );
        if self.entries[number as usize].is_v6() {
            self.unindex::<V6>(number);
        } else {
            self.unindex::<V4>(number);
        }
        self.entries[number as usize].set_alive(false);
        self.alive -= 1;
    }

    fn unindex<V: Family>(&mut self, number: u32) {
        for (_, hash) in self.keys::<V>(number) {
            let removed = self.index.remove(hash, number);
            debug_assert!(removed, "a living flow has its keys in the index");
        }
        for _ in 0..MERGES {
            let Some(step) = self.index.sparse() else {
                break;
            };
            self.resize(step);
        }
    }

    /// Moves what the index holds at a home or two; of each flow it must hold all keys or none. What is asked for next is loaded
    /// meanwhile: a growing index goes from its last home to the first, a shrinking one from the first to the last.
    #[inline(never)]
    fn resize(&mut self, step: Resize) {
        let mut moving = std::mem::take(&mut self.moving);
        for home in step.homes() {
            self.index
                .at_home(home, |number| self.hashes(number), &mut moving);
        }
        self.index.resize(step, &moving);
        let has_v6 = moving.iter().any(|(_, number)| self.get(*number).is_v6());
        moving.clear();
        self.moving = moving;
        for home in step.next().homes() {
            for number in self.index.numbers(home) {
                self.prefetch(number);
                if has_v6 {
                    self.wide.prefetch(number);
                }
            }
        }
        for home in step.next().next().homes() {
            self.index.prefetch_home(home);
        }
    }

    /// The hashes an indexed flow is found by.
    fn hashes(&self, number: u32) -> [Option<u64>; 2] {
        fn of<V: Family>(table: &FlowTable, number: u32) -> [Option<u64>; 2] {
            let mut keys = table.keys::<V>(number).map(|(_, hash)| hash);
            [keys.next(), keys.next()]
        }
        if self.get(number).is_v6() {
            of::<V6>(self, number)
        } else {
            of::<V4>(self, number)
        }
    }

    /// The keys a flow is in the index under, with their hashes.
    fn keys<V: Family>(&self, number: u32) -> impl Iterator<Item = (Tuple<V>, u64)> + use<V> {
        let (flow, addresses) = (self.get(number), V::addresses(self, number));
        let hashed = |key: Tuple<V>| (key, key.hash(&self.secret));
        let mut client = hashed(flow.client_key(&addresses));
        if flow.is_one_packet() {
            client.1 = one_packet_hash(client.1, flow.target_id);
        }
        let target = flow
            .is_two_sided()
            .then(|| hashed(flow.target_key(&addresses)));
        [client].into_iter().chain(target)
    }

    /// Returns the entry of a removed flow, off the wheel, to the free ones.
    pub(crate) fn free(&mut self, number: u32) {
        debug_assert!(
            !self.entries[number as usize].is_alive(),
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

    /// The addresses of a flow of either family.
    pub(crate) fn addresses(&self, number: u32) -> Addresses<IpAddr> {
        if self.get(number).is_v6() {
            V6::addresses(self, number).widened()
        } else {
            V4::addresses(self, number).widened()
        }
    }

    #[inline]
    pub(crate) fn wide(&self) -> &Wide {
        &self.wide
    }

    #[inline]
    pub(crate) fn wide_mut(&mut self) -> &mut Wide {
        &mut self.wide
    }

    /// Makes `count` flows from number `first` on look up their next hops anew; false if there are no more.
    #[cold]
    pub(crate) fn forget_hops(&mut self, first: usize, count: usize) -> bool {
        let flows = self.entries.iter_mut().skip(first).take(count);
        for flow in flows {
            (flow.hop_to_client, flow.hop_to_target) = (HOP_UNKNOWN, HOP_UNKNOWN);
            flow.hop_epoch = 0;
        }
        first + count < self.entries.len()
    }

    /// All living flows with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        self.range(0, self.entries.len())
    }

    /// The living flows among `count` entries from number `first` on.
    pub(crate) fn range(&self, first: u32, count: usize) -> impl Iterator<Item = (u32, &Flow)> {
        let entries = self.entries.iter().skip(first as usize).take(count);
        (first..).zip(entries).filter(|(_, flow)| flow.is_alive())
    }

    /// Living flows.
    pub(crate) fn len(&self) -> u32 {
        self.alive
    }

    /// Whether another flow finds room.
    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Bytes of memory, entries and index; without and with the addresses of IPv6.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let narrow = size_of_val(&*self.entries) + self.index.bytes();
        (narrow, narrow + self.wide.bytes())
    }

    /// Buckets of the index that keys are spread over, and all it has.
    #[cfg(test)]
    pub(crate) fn index_spread(&self) -> (usize, usize) {
        self.index.spread()
    }

    /// Panics unless the index holds each living flow under its keys and nothing else; the free entries' count.
    pub(crate) fn check_invariants(&self) -> usize {
        let mut keys = 0;
        for (number, flow) in self.iter() {
            keys += if flow.is_v6() {
                self.check_keys::<V6>(number)
            } else {
                self.check_keys::<V4>(number)
            };
        }
        assert_eq!(self.iter().count(), self.alive as usize, "living flows");
        assert_eq!(self.index.count(), keys, "keys in the index");
        let mut free = 0;
        let mut at = self.free;
        while at != NONE {
            assert!(!self.entries[at as usize].is_alive(), "a free entry lives");
            free += 1;
            assert!(free <= self.entries.len(), "the free list is a ring");
            at = self.entries[at as usize].next;
        }
        free
    }

    fn check_keys<V: Family>(&self, number: u32) -> usize {
        let sides = [Side::Client, Side::Target];
        let found = self
            .keys::<V>(number)
            .zip(sides)
            .map(|((key, hash), side)| {
                assert_eq!(
                    self.find(hash, NONE, &key),
                    Some((number, side)),
                    "flow {number} under {key:?}"
                );
            });
        found.count()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }
}

/// Where the flow of a client to one of the targets is, if the client has flows to several: elsewhere than its packets look (but for
/// one in 65,536, which goes by the flow it happens on). A client's flows lie apart, or a bucket would be full of them.
fn one_packet_hash(client: u64, target: TargetId) -> u64 {
    client ^ u64::from(target.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
