//! Next hops: which MAC is behind an address on a port (ARP, RFC 826; neighbour discovery, RFC 4861), asked for when first needed,
//! refreshed before it is stale.
//!
//! ```text
//!             request            reply                  30 s, in use
//!   (unknown) ------> Incomplete ------> Reachable <---------------- Probing
//!                        | 3 requests        |   ^        reply         |
//!                        v                   |   +----------------------+
//!                      Failed <--------------+------- 6 requests -------+
//! ```
//! Another MAC than the one in use is believed once the one in use no longer answers (`contest.rs`).
//!
//! What a snapshot names (gateways, targets that take flows) is asked for at once and kept refreshed, so that no packet has to
//! wait; any other neighbour is left alone while nothing is sent to it, and forgotten after a minute.
//! Replies and gratuitous announcements count for known entries only, so that nobody on the segment can fill the table.
//!
//! Flows remember the slots of their next hops for as long as the epoch lasts. Hosts on the segments come and go, and somebody may make
//! any number of them up, so that a neighbour which is given up ends no epoch: its slot rests (`slots.rs`), and a packet that comes to it
//! wakes it.

mod contest;
mod entry;
mod question;
mod slots;
mod view;

use std::net::IpAddr;

pub(crate) use contest::Settled;
pub(crate) use entry::{Neighbour, State};
pub(crate) use question::{ask_for, emit};
use slots::Slots;
use view::Times;
pub use view::{NeighbourView, Resolution};

use crate::counters::{Cells, WorkerCount};
use crate::emitted::{Emitted, Event, Learned};
use crate::flow::{Index, NONE};
use crate::held::{Held, Room};
use crate::limits::{
    CONTEST_RETRANSMIT, Limits, NEIGHBOUR_BUDGET, NEIGHBOUR_FAILED, NEIGHBOUR_HOLD, NEIGHBOUR_IDLE,
    NEIGHBOUR_PROBES, NEIGHBOUR_REACHABLE, NEIGHBOUR_REQUESTS, NEIGHBOUR_RETRANSMIT,
    NEIGHBOUR_UNICAST_PROBES, SLOTS_PER_NEIGHBOUR, UNRESOLVED_PER_SECOND,
};
use crate::next_hops::NextHop;
use crate::rate::TokenBucket;
use crate::secret::Secret;
use crate::{MacAddr, Now, Port, PortIndex, Tables};

/// All next hops of a worker. Memory is fixed at the start.
pub(crate) struct Neighbours {
    entries: Box<[Neighbour]>,
    /// In the same order.
    times: Box<[Times]>,
    index: Index,
    slots: Slots,
    /// How many may be known at once.
    most: usize,
    held: Held,
    secret: Secret,
    /// Where the timer goes on among those in use.
    cursor: usize,
    /// Contests that the MAC in use has lost, to be reported after the tick.
    settled: Vec<Settled>,
    /// From 1: 0 is no epoch.
    epoch: u16,
    /// How many [`Event::Unresolved`] may still go.
    reports: TokenBucket,
}

/// What became of a frame that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Held,
    NoRoom,
}

/// What [`Neighbours::learn`] made of an address and its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// No neighbour of ours.
    Unknown,
    /// A neighbour whose MAC in use stays another.
    Disbelieved,
    /// The MAC is in use from now on.
    Believed {
        /// The snapshot names the neighbour.
        named: bool,
        /// The MAC was unknown, or another.
        news: bool,
        /// The MAC that was in use until now.
        moved: Option<MacAddr>,
        /// The MAC that claimed the address, until this one answered.
        kept_against: Option<MacAddr>,
    },
}

impl Neighbours {
    pub(crate) fn new(limits: &Limits, secret: Secret) -> Self {
        let most = limits.neighbours.min(u16::MAX / 2);
        let count = most.saturating_mul(SLOTS_PER_NEIGHBOUR).min(u16::MAX - 1);
        Self {
            entries: vec![Neighbour::FREE; usize::from(count)].into_boxed_slice(),
            times: vec![Times::default(); usize::from(count)].into_boxed_slice(),
            index: Index::new(usize::from(most)),
            slots: Slots::new(count),
            most: usize::from(most),
            held: Held::new(Room {
                frames: limits.held_frames,
                bytes: limits.held_bytes,
                queues: count,
                per_queue: limits.held_per_neighbour,
            }),
            secret,
            cursor: 0,
            settled: Vec::with_capacity(NEIGHBOUR_BUDGET),
            epoch: 1,
            reports: TokenBucket::new(UNRESOLVED_PER_SECOND),
        }
    }

    /// Changes whenever a slot's number may stand for another neighbour than before, or routes may have changed. 0 while nobody is to
    /// remember anything: see [`Neighbours::is_between_epochs`].
    #[inline]
    pub(crate) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Whether the numbers of epochs have run out. Before they can begin anew all flows must forget those that they remember, or old and
    /// new would look alike; that takes a while.
    #[inline]
    pub(crate) fn is_between_epochs(&self) -> bool {
        self.epoch == 0
    }

    /// All flows have forgotten all epochs.
    pub(crate) fn begin_epochs(&mut self) {
        self.epoch = 1;
    }

    #[cfg(test)]
    pub(crate) fn use_epochs_up(&mut self) {
        self.epoch = u16::MAX - 2;
    }

    /// Makes flows look up their next hops anew.
    pub(crate) fn next_epoch(&mut self) {
        if self.epoch != 0 {
            self.epoch = self.epoch.checked_add(1).unwrap_or(0);
        }
        self.slots.forgotten();
    }

    /// The slot of a next hop, made if it is new; none without room.
    pub(crate) fn slot(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        address: IpAddr,
    ) -> Option<u16> {
        if let Some(slot) = self.find(port, address) {
            return Some(slot);
        }
        let egress = tables.port(port)?;
        // Before another is given up: its slot may be remembered by the packet at hand.
        if !self.slots.has_free() {
            self.next_epoch();
        }
        self.make_room(now)?;
        let slot = self.slots.take()?;
        self.begin(slot, address, egress, now);
        Some(slot)
    }

    /// The slot to send to in place of one that rests: the same if its neighbour isn't known by another.
    pub(crate) fn wake(&mut self, tables: &Tables, now: Now, slot: u16) -> Option<u16> {
        let Neighbour { port, address, .. } = *self.get(slot);
        if !self.slots.rests(slot) {
            return self.slot(tables, now, port, address);
        }
        if let Some(slot) = self.find(port, address) {
            return Some(slot);
        }
        let egress = tables.port(port)?;
        self.make_room(now)?;
        self.slots.revive(slot);
        self.begin(slot, address, egress, now);
        Some(slot)
    }

    /// Gives a neighbour up if there are as many as there may be.
    fn make_room(&mut self, now: Now) -> Option<()> {
        if self.slots.live().len() < self.most {
            return Some(());
        }
        self.evict(now)
    }

    fn begin(&mut self, slot: u16, address: IpAddr, egress: &Port, now: Now) {
        let mut header = [0; 12];
        header[6..].copy_from_slice(&egress.mac.0);
        self.entries[usize::from(slot)] = Neighbour {
            address,
            port: egress.index,
            header,
            mtu: egress.mtu,
            state: State::Incomplete,
            due: now.millis(),
            last_used: now.millis(),
            ..Neighbour::FREE
        };
        self.times[usize::from(slot)] = Times {
            since: now.millis(),
            heard: None,
        };
        let hash = self.hash(egress.index, address);
        self.index.insert(hash, u32::from(slot));
    }

    /// A neighbour that `slot` named under the present epoch.
    #[inline]
    pub(crate) fn get(&self, slot: u16) -> &Neighbour {
        &self.entries[usize::from(slot)]
    }

    /// A neighbour that `slot` named under the present epoch; none of an unknown slot.
    #[inline]
    pub(crate) fn known(&self, slot: u16) -> Option<&Neighbour> {
        self.entries.get(usize::from(slot))
    }

    /// As [`Neighbours::sending`], of a neighbour whose MAC is known and whose link takes packets of this many bytes.
    #[inline]
    pub(crate) fn reached(&mut self, slot: u16, bytes: u16) -> Option<&Neighbour> {
        let entry = self.entries.get_mut(usize::from(slot))?;
        if !entry.state.is_usable() || bytes > entry.mtu {
            return None;
        }
        entry.used = true;
        Some(entry)
    }

    /// A neighbour that `slot` named under the present epoch, to which something is sent: that is noted.
    #[inline]
    pub(crate) fn sending(&mut self, slot: u16) -> &Neighbour {
        let entry = &mut self.entries[usize::from(slot)];
        if !entry.used {
            entry.used = true;
        }
        entry
    }

    /// Keeps a copy of a frame until the neighbour answers, and asks for it if that is due. The frame is complete but for its
    /// MACs.
    pub(crate) fn hold(
        &mut self,
        tables: &Tables,
        now: Now,
        slot: u16,
        frame: &[u8],
        out: &mut Emitted,
        cells: &Cells,
    ) -> Waiting {
        if self.entries[usize::from(slot)].requests == 0 {
            self.ask(tables, now, usize::from(slot), out, cells);
        }
        let port = self.entries[usize::from(slot)].port;
        if self.held.push(slot, frame, port, now.millis()) {
            Waiting::Held
        } else {
            Waiting::NoRoom
        }
    }

    /// Takes in what an address says its MAC is. Only neighbours already known are changed, and another MAC than one in use must have more
    /// weight than that (`contest.rs`).
    pub(crate) fn learn(
        &mut self,
        now: Now,
        learned: Learned,
        out: &mut Emitted,
        cells: &Cells,
    ) -> Lesson {
        let Some(slot) = self.find(learned.port, learned.address) else {
            return Lesson::Unknown;
        };
        let entry = &mut self.entries[usize::from(slot)];
        let usable = entry.state.is_usable();
        let is_another = usable && entry.mac() != learned.mac;
        if is_another && !entry.gives_way(learned, now) {
            return Lesson::Disbelieved;
        }
        let lesson = Lesson::Believed {
            named: entry.named,
            news: is_another || !usable,
            moved: is_another.then(|| entry.mac()),
            kept_against: entry.claimant.take().filter(|_| !is_another),
        };
        if std::mem::take(&mut entry.told_silent) {
            let event = Event::Resolved {
                port: entry.port,
                address: entry.address,
            };
            if !out.event(event) {
                cells.worker(WorkerCount::EmittedOverflow, 1);
            }
        }
        let times = &mut self.times[usize::from(slot)];
        times.heard = Some(now.millis());
        if is_another || !usable {
            times.since = now.millis();
        }
        let was_asked_for = entry.is_anyone_asked();
        entry.header[..6].copy_from_slice(&learned.mac.0);
        if (is_another || !usable) && !was_asked_for {
            entry.has_only_spoken(now);
        } else {
            entry.requests = 0;
            // A contest lasts until its next question is due: who says the same again and again has none asked in between.
            if entry.state != State::Contested {
                entry.state = State::Reachable;
                entry.due = now.millis() + NEIGHBOUR_REACHABLE;
            }
        }
        let (header, port) = (entry.header, entry.port);
        self.held.release(slot, |frame, since| {
            // Its flow may be gone and its port another's by now (the clock leapt, or nobody ran the timers).
            if now.millis().saturating_sub(since) > NEIGHBOUR_HOLD {
                cells.worker(WorkerCount::HeldDropped, 1);
                return;
            }
            if let Some(place) = frame.get_mut(..12) {
                place.copy_from_slice(&header);
            }
            emit(out, cells, port, frame);
        });
        lesson
    }

    /// Runs the timers of some neighbours.
    pub(crate) fn tick(&mut self, tables: &Tables, now: Now, out: &mut Emitted, cells: &Cells) {
        for _ in 0..NEIGHBOUR_BUDGET.min(self.slots.live().len()) {
            let live = self.slots.live();
            let Some(slot) = live.get(self.cursor).or(live.first()) else {
                break;
            };
            let at = usize::from(*slot);
            self.cursor = (self.cursor + 1) % live.len();
            let entry = &mut self.entries[at];
            if now.millis() < entry.due {
                continue;
            }
            let used = std::mem::replace(&mut entry.used, false) || entry.named;
            if used {
                entry.last_used = now.millis();
            }
            let unused_for = now.millis().saturating_sub(entry.last_used);
            match entry.state {
                State::Free => {}
                State::Incomplete if entry.requests >= NEIGHBOUR_REQUESTS => {
                    self.fail(now, at, out, cells)
                }
                State::Probing if entry.requests >= NEIGHBOUR_PROBES => {
                    self.fail(now, at, out, cells)
                }
                State::Incomplete if used || entry.requests > 0 => {
                    self.ask(tables, now, at, out, cells)
                }
                State::Probing => self.ask(tables, now, at, out, cells),
                State::Contested => self.contest(tables, now, at, out, cells),
                _ if unused_for >= NEIGHBOUR_IDLE => self.forget(at, cells),
                State::Reachable if unused_for < NEIGHBOUR_REACHABLE => {
                    entry.state = State::Probing;
                    self.ask(tables, now, at, out, cells);
                }
                State::Incomplete | State::Reachable => {
                    entry.due = now.millis() + NEIGHBOUR_RETRANSMIT
                }
                State::Failed => {
                    entry.state = State::Incomplete;
                    entry.due = now.millis();
                }
            }
        }
        cells.set_worker(WorkerCount::Neighbours, self.slots.live().len() as u64);
    }

    /// Takes over a new snapshot: MACs and MTUs of the ports may differ, ports may be gone, others are named.
    pub(crate) fn follow(&mut self, tables: &Tables, now: Now, cells: &Cells) {
        self.next_epoch();
        let mut seen = 0;
        while let Some(slot) = self.slots.live().get(seen) {
            let at = usize::from(*slot);
            let entry = &mut self.entries[at];
            entry.named = false;
            match tables.port(entry.port) {
                Some(port) => {
                    entry.header[6..].copy_from_slice(&port.mac.0);
                    entry.mtu = port.mtu;
                    seen += 1;
                }
                // Another takes its place among those in use.
                None => self.forget(at, cells),
            }
        }
        // At most half of the room: clients on our segments need some too.
        for (port, address) in tables.next_hops().iter().take(self.most.div_ceil(2)) {
            if let Some(slot) = self.slot(tables, now, *port, *address) {
                self.entries[usize::from(slot)].named = true;
            }
        }
    }

    /// Asks for a neighbour's MAC: who has it already confirmed is asked directly at first.
    fn ask(&mut self, tables: &Tables, now: Now, at: usize, out: &mut Emitted, cells: &Cells) {
        let entry = &mut self.entries[at];
        entry.requests += 1;
        let (directly, wait) = match entry.state {
            State::Contested => (true, CONTEST_RETRANSMIT),
            State::Probing => (
                entry.requests <= NEIGHBOUR_UNICAST_PROBES,
                NEIGHBOUR_RETRANSMIT,
            ),
            _ => (false, NEIGHBOUR_RETRANSMIT),
        };
        entry.due = now.millis() + wait;
        let known = directly.then(|| entry.mac());
        let hop = NextHop {
            port: entry.port,
            address: entry.address,
        };
        ask_for(tables, hop, known, out, cells);
    }

    /// The MAC of a neighbour, if it is known.
    pub(crate) fn mac_of(&self, port: PortIndex, address: IpAddr) -> Option<MacAddr> {
        let entry = self.known(self.find(port, address)?)?;
        entry.state.is_usable().then(|| entry.mac())
    }

    fn fail(&mut self, now: Now, at: usize, out: &mut Emitted, cells: &Cells) {
        let entry = &mut self.entries[at];
        if entry.state == State::Probing {
            self.times[at].since = now.millis();
        }
        entry.state = State::Failed;
        entry.requests = 0;
        entry.due = now.millis() + NEIGHBOUR_FAILED;
        let event = Event::Unresolved {
            port: entry.port,
            address: entry.address,
        };
        // Once, until it answers.
        if !entry.told_silent {
            let not_told = if !self.reports.take(now) {
                Some(WorkerCount::EventsSuppressed)
            } else if !out.event(event) {
                Some(WorkerCount::EmittedOverflow)
            } else {
                None
            };
            entry.told_silent = not_told.is_none();
            if let Some(count) = not_told {
                cells.worker(count, 1);
            }
        }
        self.drop_held(at, cells);
    }

    fn forget(&mut self, at: usize, cells: &Cells) {
        self.drop_held(at, cells);
        self.give_up(at);
    }

    /// Who a slot's neighbour was stays there, with its port and the port's MTU, for packets of flows that remember it.
    fn give_up(&mut self, at: usize) {
        let Neighbour { port, address, .. } = self.entries[at];
        let hash = self.hash(port, address);
        self.index.remove(hash, at as u32);
        self.entries[at].state = State::Free;
        self.slots.rest(at as u16);
    }

    fn drop_held(&mut self, at: usize, cells: &Cells) {
        self.held
            .release(at as u16, |_, _| cells.worker(WorkerCount::HeldDropped, 1));
    }

    /// Gives up the neighbour used longest ago among a few, if nothing waits for it.
    fn evict(&mut self, now: Now) -> Option<()> {
        const LOOKED_AT: usize = 32;
        let live = self.slots.live();
        let candidates = (0..LOOKED_AT.min(live.len()))
            .map(|step| usize::from(live[(self.cursor + step) % live.len()]));
        let at = candidates
            .filter(|at| {
                let entry = &self.entries[*at];
                !entry.used
                    && !entry.named
                    && entry.last_used + NEIGHBOUR_RETRANSMIT < now.millis()
                    && self.held.count(*at as u16) == 0
            })
            .min_by_key(|at| self.entries[*at].last_used);
        self.cursor = (self.cursor + LOOKED_AT) % live.len().max(1);
        self.give_up(at?);
        Some(())
    }

    fn find(&self, port: PortIndex, address: IpAddr) -> Option<u16> {
        let is = |number: u32| {
            let entry = &self.entries[number as usize];
            entry.address == address && entry.port == port
        };
        self.index
            .find(self.hash(port, address), is)
            .filter(|number| *number != NONE)
            .map(|number| number as u16)
    }

    fn hash(&self, port: PortIndex, address: IpAddr) -> u64 {
        self.secret.hash_address(address, u64::from(port.0))
    }

    /// Panics if the parts contradict each other.
    pub(crate) fn check_invariants(&self) {
        let used = self
            .entries
            .iter()
            .filter(|entry| entry.state != State::Free)
            .count();
        self.slots.check_invariants();
        assert_eq!(used, self.slots.live().len(), "neighbours in use");
        assert_eq!(self.index.count(), used, "neighbours in the index");
        for (slot, entry) in (0u16..).zip(&self.entries) {
            match entry.state {
                State::Free => assert_eq!(self.held.count(slot), 0, "frames wait for nobody"),
                _ => assert_eq!(
                    self.find(entry.port, entry.address),
                    Some(slot),
                    "neighbour {}",
                    entry.address
                ),
            }
        }
        self.held.check_invariants();
    }
}

#[cfg(test)]
mod tests;
