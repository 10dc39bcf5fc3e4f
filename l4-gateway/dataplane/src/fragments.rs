//! IP fragments. Only the first says which ports its packet is for, or that it is an echo request; the tracker remembers that for the others,
//! which then go the way of any packet with these ports, or back. Those that come before their first wait for it a moment.
//!
//! Nothing is put together: each fragment is forwarded as it is, and those of one packet must not overlap (RFC 1858, RFC 5722), so
//! that what was decided on the first holds for what the receiver puts together.
//!
//! Which worker's? Fragments without ports don't say. So all fragments of a packet go to the worker that a hash of source,
//! destination, protocol and identification names, its *director*: in `burst` whoever isn't redirects to it. The director learns
//! the ports from the first fragment, and with them which worker owns the flow: itself, or the one it redirects to in turn. There
//! every fragment comes from the director, first of them the first, and is tracked the same way.

mod cut;
mod part;
mod seen;

use std::net::IpAddr;

pub(crate) use cut::cut;
pub(crate) use part::{Datagram, Part};
use seen::Seen;

use crate::counters::{Cells, WorkerCount};
use crate::flow::Index;
use crate::held::{Held, Room};
use crate::limits::{FRAGMENT_BUDGET, FRAGMENT_HOLD, FRAGMENT_LIFETIME, Limits};
use crate::secret::Secret;
use crate::service::Protocol;
use crate::{DropReason, Now, PortIndex};

/// The packets of a worker that come in fragments. Memory is fixed at the start; when it is full, the packet known longest gives
/// way.
pub(crate) struct Fragments {
    entries: Box<[Entry]>,
    index: Index,
    held: Held,
    secret: Secret,
    /// The entry made next.
    next: usize,
    /// Where the timer goes on.
    cursor: usize,
    alive: usize,
    numbers: Numbers,
}

/// One packet.
#[derive(Clone, Copy)]
struct Entry {
    datagram: Datagram,
    seen: Seen,
    head: Option<Head>,
    /// The flow of the first fragment, as far as is known here.
    flow: Option<u32>,
    /// What fragments of it are called behind the NAT.
    number: u32,
    /// When it was made, or a fragment last followed the first; milliseconds.
    since: u64,
    alive: bool,
}

/// What the first fragment says, and the others don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// To which flow its packet belongs.
    Ports(Ports),
    /// That its packet is an echo request.
    Echo,
    /// That its packet is another ICMP message to a port's own address: the kernel's, which may have asked.
    Message,
}

/// What a segment or datagram begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    pub(crate) protocol: Protocol,
}

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the first: forward it, then those that wait in this place ([`Fragments::pop`]).
    First { head: Head, number: u32, place: u16 },
    /// The first said this, and was of this flow.
    Follows {
        head: Head,
        number: u32,
        flow: Option<u32>,
    },
    /// The first is still to come: [`Fragments::hold`] it here.
    Early { place: u16 },
}

const FREE: Entry = Entry {
    datagram: Datagram {
        source: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        identification: 0,
        protocol: 0,
    },
    seen: Seen::NOTHING,
    head: None,
    flow: None,
    number: 0,
    since: 0,
    alive: false,
};

impl Fragments {
    pub(crate) fn new(limits: &Limits, index: u16, workers: u16, secret: &Secret) -> Self {
        let count = limits.fragmented_packets.clamp(1, u16::MAX - 1);
        Self {
            entries: vec![FREE; usize::from(count)].into_boxed_slice(),
            index: Index::new(usize::from(count)),
            held: Held::new(Room {
                frames: limits.early_fragments,
                bytes: limits.held_bytes,
                queues: count,
                per_queue: limits.early_fragments_per_packet,
            }),
            numbers: Numbers::new(index, workers, secret),
            secret: secret.clone(),
            next: 0,
            cursor: 0,
            alive: 0,
        }
    }

    /// The worker that tracks a packet.
    pub(crate) fn director(&self, datagram: &Datagram, workers: u16) -> u16 {
        let bits = self.hash(datagram) >> 32 & 0xffff;
        ((bits * u64::from(workers)) >> 16) as u16
    }

    /// An identification for a packet that leaves under an address it shares with others: the sender's may be in use there by
    /// another's packet, and the receiver would put pieces of both together. IPv4 takes the low 16 bits.
    pub(crate) fn number(&mut self) -> u32 {
        self.numbers.next()
    }

    /// Takes a fragment in; `head` if it is the first.
    pub(crate) fn take(
        &mut self,
        now: Now,
        part: &Part,
        head: Option<Head>,
        cells: &Cells,
    ) -> Result<Turn, DropReason> {
        debug_assert_eq!(head.is_some(), part.start == 0);
        let hash = self.hash(&part.datagram);
        let place = match self.find(hash, &part.datagram, now, cells) {
            Some(place) => place,
            None => self.add(hash, part.datagram, now, cells),
        };
        let entry = &mut self.entries[usize::from(place)];
        let turn = match (head, entry.head) {
            (Some(head), None) => Turn::First {
                head,
                number: entry.number,
                place,
            },
            (None, Some(head)) => Turn::Follows {
                head,
                number: entry.number,
                flow: entry.flow,
            },
            (None, None) => Turn::Early { place },
            (Some(_), Some(_)) => return Err(DropReason::FragmentOverlap),
        };
        entry.seen.add(part.start, part.end, part.last)?;
        if head.is_some() {
            entry.head = head;
        }
        if entry.head.is_some() {
            entry.since = now.millis();
        }
        // Those that wait are released by the caller, who has their place.
        if entry.head.is_some() && entry.seen.is_whole() {
            self.retire(place);
        }
        Ok(turn)
    }

    /// Notes the flow of a packet whose first fragment was just taken in, for the fragments still to come.
    pub(crate) fn note(&mut self, place: u16, flow: u32) {
        self.entries[usize::from(place)].flow = Some(flow);
    }

    /// Keeps a copy of a fragment that came in on `port`; false without room.
    pub(crate) fn hold(&mut self, place: u16, frame: &[u8], port: PortIndex, now: Now) -> bool {
        self.held.push(place, frame, port, now.millis())
    }

    /// Takes the fragment that has waited longest in a place out into `frame`; where it came in.
    pub(crate) fn pop(&mut self, place: u16, frame: &mut Vec<u8>) -> Option<PortIndex> {
        self.held.pop(place, frame)
    }

    /// Forgets some packets that are overdue.
    pub(crate) fn tick(&mut self, now: Now, cells: &Cells) {
        if self.alive == 0 {
            return;
        }
        for _ in 0..FRAGMENT_BUDGET.min(self.entries.len()) {
            let at = self.cursor;
            self.cursor = (at + 1) % self.entries.len();
            let entry = &self.entries[at];
            if entry.alive && entry.is_overdue(now) {
                self.forget(at as u16, cells);
            }
        }
    }

    fn find(&mut self, hash: u64, datagram: &Datagram, now: Now, cells: &Cells) -> Option<u16> {
        let entries = &self.entries;
        let is = |number: u32| entries[number as usize].datagram == *datagram;
        let place = self.index.find(hash, is)? as u16;
        if self.entries[usize::from(place)].is_overdue(now) {
            self.forget(place, cells);
            return None;
        }
        Some(place)
    }

    fn add(&mut self, hash: u64, datagram: Datagram, now: Now, cells: &Cells) -> u16 {
        let place = self.next as u16;
        self.next = (self.next + 1) % self.entries.len();
        if self.entries[usize::from(place)].alive {
            self.forget(place, cells);
        }
        debug_assert_eq!(self.held.count(place), 0, "frames wait for a past packet");
        self.entries[usize::from(place)] = Entry {
            datagram,
            number: self.numbers.next(),
            since: now.millis(),
            alive: true,
            ..FREE
        };
        self.index.insert(hash, u32::from(place));
        self.alive += 1;
        place
    }

    /// Forgets a packet and what waits for its first fragment.
    fn forget(&mut self, place: u16, cells: &Cells) {
        self.held.release(place, |_, _| {
            cells.worker(WorkerCount::EarlyFragmentsDropped, 1)
        });
        self.retire(place);
    }

    fn retire(&mut self, place: u16) {
        let entry = &mut self.entries[usize::from(place)];
        entry.alive = false;
        let hash = hash(&self.secret, &entry.datagram);
        self.index.remove(hash, u32::from(place));
        self.alive -= 1;
    }

    fn hash(&self, datagram: &Datagram) -> u64 {
        hash(&self.secret, datagram)
    }

    /// Panics if the parts contradict each other.
    pub(crate) fn check_invariants(&self) {
        self.held.check_invariants();
        let alive = self.entries.iter().filter(|entry| entry.alive).count();
        assert_eq!(alive, self.alive, "packets in fragments");
        assert_eq!(self.index.count(), alive, "packets in fragments, indexed");
        for (place, entry) in (0u16..).zip(&self.entries) {
            assert!(
                self.held.count(place) == 0 || entry.alive && entry.head.is_none(),
                "fragments wait for nothing"
            );
        }
    }
}

impl Entry {
    fn is_overdue(&self, now: Now) -> bool {
        let lifetime = match self.head {
            Some(_) => FRAGMENT_LIFETIME,
            None => FRAGMENT_HOLD,
        };
        now.millis().saturating_sub(self.since) > lifetime
    }
}

fn hash(secret: &Secret, datagram: &Datagram) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let rest = u64::from(datagram.identification) << 8 | u64::from(datagram.protocol);
    secret.hash_wide(octets(datagram.source), octets(datagram.destination), rest)
}

/// Identifications of one worker, no other's: they go up by the number of workers from somewhere.
struct Numbers {
    index: u32,
    workers: u32,
    turn: u32,
}

impl Numbers {
    fn new(index: u16, workers: u16, secret: &Secret) -> Self {
        Self {
            index: u32::from(index),
            workers: u32::from(workers.max(1)),
            // The same for all workers, as they would otherwise meet.
            turn: secret.hash(0, 0x1d) as u32,
        }
    }

    fn next(&mut self) -> u32 {
        self.turn = self.turn.wrapping_add(1);
        // In IPv4's 16 bits as many turns as all workers have room for, so that none runs into another's.
        let turns = (1 << 16) / self.workers;
        let high = self.turn / turns;
        (high << 16) | ((self.turn % turns) * self.workers + self.index)
    }
}

#[cfg(test)]
mod tests;
