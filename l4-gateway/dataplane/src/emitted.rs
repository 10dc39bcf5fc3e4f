//! What a worker has to say beside verdicts: frames of its own and events for the control thread and the other workers.

use std::net::IpAddr;

use crate::ids::{ServiceId, TargetId};
use crate::limits::{MAX_EMITTED_BYTES, MAX_EVENTS};
use crate::{MacAddr, PortIndex};

/// Frames and events collected over some calls. The caller sends and passes them on, then clears; the memory is reused.
#[derive(Debug, Default)]
pub struct Emitted {
    bytes: Vec<u8>,
    frames: Vec<(PortIndex, usize)>,
    /// Of frames for other workers.
    handed_bytes: Vec<u8>,
    handovers: Vec<(u16, PortIndex, usize)>,
    events: Vec<Event>,
}

/// Something others should know. Events that repeat are limited: [`Event::Learned`] to some thousand a second, [`Event::Unresolved`]
/// to ten, the others to about one a second each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What a next hop says of itself may be news to others: give it to all other workers by [`crate::Worker::learn`].
    Learned(Learned),
    /// A next hop doesn't answer ARP or neighbour solicitations. Once, until it does.
    Unresolved {
        /// The port it was looked for on.
        port: PortIndex,
        /// Its address.
        address: IpAddr,
    },
    /// A next hop that was [`Event::Unresolved`] answers.
    Resolved {
        /// The port it is on.
        port: PortIndex,
        /// Its address.
        address: IpAddr,
    },
    /// Another host says that it has an address this node answers for (RFC 5227 2.4).
    AddressConflict {
        /// The port it was heard on.
        port: PortIndex,
        /// The VIP, LocalIP or port's own address.
        address: IpAddr,
        /// The other host's MAC.
        mac: MacAddr,
    },
    /// A next hop that the snapshot names (a router, a target) is at another MAC than the one in use, which no longer answers: it failed over.
    NextHopMoved {
        /// The port it is on.
        port: PortIndex,
        /// Its address.
        address: IpAddr,
        /// The MAC in use until now.
        from: MacAddr,
        /// The MAC from now on.
        to: MacAddr,
    },
    /// Another host claims the address of a next hop that the snapshot names, whose MAC in use still answers and stays.
    NextHopContested {
        /// The port it is on.
        port: PortIndex,
        /// Its address.
        address: IpAddr,
        /// The MAC in use.
        mac: MacAddr,
        /// The other's.
        other: MacAddr,
    },
    /// All local ports towards a target are in use: new flows to it are refused. More LocalIPs would help.
    PortsExhausted {
        /// The service concerned.
        service: ServiceId,
        /// The target concerned.
        target: TargetId,
    },
    /// The flow table is full: new flows are refused.
    FlowTableFull,
    /// No target of the service takes new flows.
    NoTarget {
        /// The service concerned.
        service: ServiceId,
    },
    /// Packets come with wrong TCP or UDP checksums, as senders do that leave them to a NIC which is none.
    WrongChecksums {
        /// The port that the last of them came in by.
        port: PortIndex,
    },
}

/// What a next hop says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The port it is on.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC.
    pub mac: MacAddr,
    /// How much it counts against another MAC that is known and in use.
    pub weight: Weight,
}

/// How much what a next hop says of its MAC counts against another one that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing: an advertisement without the override flag (RFC 4861 7.2.5).
    Hint,
    /// The MAC in use is asked, and stays if it answers.
    Claim,
    /// Everything: the MAC in use was asked, and does not answer.
    Settled,
}

impl Emitted {
    /// An empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frames to send, in order, each with its port.
    pub fn frames(&self) -> impl Iterator<Item = (PortIndex, &[u8])> {
        let mut start = 0;
        self.frames.iter().map(move |(port, end)| {
            let frame = &self.bytes[start..*end];
            start = *end;
            (*port, frame)
        })
    }

    /// The frames for other workers, in order, each with the worker and the port it came in on: they follow those redirected to that
    /// worker by [`crate::Verdict::Redirect`] so far.
    pub fn handovers(&self) -> impl Iterator<Item = (u16, PortIndex, &[u8])> {
        let mut start = 0;
        self.handovers.iter().map(move |(worker, port, end)| {
            let frame = &self.handed_bytes[start..*end];
            start = *end;
            (*worker, *port, frame)
        })
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// True if there is nothing to send and nothing to pass on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.handovers.is_empty() && self.events.is_empty()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.handed_bytes.clear();
        self.handovers.clear();
        self.events.clear();
    }

    /// Adds a frame; false without room.
    pub(crate) fn frame(&mut self, port: PortIndex, frame: &[u8]) -> bool {
        if self.bytes.len() + frame.len() > MAX_EMITTED_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(frame);
        self.frames.push((port, self.bytes.len()));
        true
    }

    /// Adds a frame for another worker; false without room.
    pub(crate) fn handover(&mut self, worker: u16, port: PortIndex, frame: &[u8]) -> bool {
        if self.handed_bytes.len() + frame.len() > MAX_EMITTED_BYTES {
            return false;
        }
        self.handed_bytes.extend_from_slice(frame);
        self.handovers.push((worker, port, self.handed_bytes.len()));
        true
    }

    /// Adds an event; false without room.
    pub(crate) fn event(&mut self, event: Event) -> bool {
        if self.events.len() >= MAX_EVENTS {
            return false;
        }
        self.events.push(event);
        true
    }
}
