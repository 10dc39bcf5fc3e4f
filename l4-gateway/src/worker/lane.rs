//! A worker's share of one port.

use std::sync::{Arc, Mutex, TryLockError};

use dataplane::PortIndex;

use super::vlan::Vlan;
use crate::dpdk::{Mbuf, RxQueue, TxQueue};

/// How often a full device is offered the rest again. Its ring empties in microseconds or not at all.
const RETRIES: u32 = 16;

/// Most frames that wait for the end of a round.
pub(crate) const WAITING: usize = 512;

/// A worker's queues of one port.
pub struct Lane {
    /// The port in the data plane's numbers.
    pub port: PortIndex,
    /// The port in DPDK's numbers, as frames carry it.
    pub dpdk_port: u16,
    /// What the worker receives from; none on ports with fewer queues than there are workers.
    pub receive: Option<RxQueue>,
    /// Where it sends to.
    pub transmit: Transmit,
    /// The tag that its frames have on the wire.
    pub vlan: Option<Vlan>,
    /// The kernel behind the port.
    pub exception: Option<Exception>,
}

/// The kernel behind a port: a tap or virtio-user device.
pub struct Exception {
    /// What it sends; only one worker has this.
    pub receive: Option<RxQueue>,
    /// What it is given.
    pub transmit: Transmit,
}

/// A way out of the worker, with the frames that wait for the end of the round.
pub struct Transmit {
    queue: Queue,
    waiting: Vec<Mbuf>,
    vlan: Option<Vlan>,
}

enum Queue {
    Own(TxQueue),
    Shared(Arc<Mutex<TxQueue>>),
}

impl Transmit {
    /// Over a queue of the worker's own.
    pub fn own(queue: TxQueue) -> Transmit {
        Transmit {
            queue: Queue::Own(queue),
            waiting: Vec::with_capacity(WAITING),
            vlan: None,
        }
    }

    /// Over a queue that workers take turns at, where the device has fewer queues than there are workers.
    pub fn shared(queue: Arc<Mutex<TxQueue>>) -> Transmit {
        Transmit {
            queue: Queue::Shared(queue),
            waiting: Vec::with_capacity(WAITING),
            vlan: None,
        }
    }

    /// With frames tagged as they leave.
    #[must_use]
    pub fn tagged(self, vlan: Option<Vlan>) -> Transmit {
        Transmit { vlan, ..self }
    }

    /// Adds a frame to the round's; false, and the frame is freed, when too many wait.
    #[inline]
    pub(super) fn push(&mut self, frame: Mbuf) -> bool {
        let room = self.waiting.len() < WAITING;
        if room {
            self.waiting.push(frame);
        }
        room
    }

    /// Moves all of `frames` to the round's; false, and nothing has moved, when there is not room for all.
    #[inline]
    pub(super) fn push_all(&mut self, frames: &mut Vec<Mbuf>) -> bool {
        let room = self.waiting.len() + frames.len() <= WAITING;
        if room {
            self.waiting.append(frames);
        }
        room
    }

    /// Sends what waits; returns how many frames went and how many had to be dropped. While another worker is at a shared queue, they
    /// wait for the next round.
    #[inline]
    pub(super) fn flush(&mut self) -> (u64, u64) {
        if self.waiting.is_empty() {
            return (0, 0);
        }
        let (waiting, vlan) = (&mut self.waiting, self.vlan);
        match &mut self.queue {
            Queue::Own(queue) => send(queue, waiting, vlan),
            Queue::Shared(queue) => match queue.try_lock() {
                Ok(mut queue) => send(&mut queue, waiting, vlan),
                Err(TryLockError::Poisoned(queue)) => send(&mut queue.into_inner(), waiting, vlan),
                Err(TryLockError::WouldBlock) => (0, 0),
            },
        }
    }
}

/// Sends all frames or frees them: how many of each.
#[inline]
fn send(queue: &mut TxQueue, frames: &mut Vec<Mbuf>, vlan: Option<Vlan>) -> (u64, u64) {
    let untagged = vlan.map_or(0, |vlan| vlan.put_on(frames));
    let mut sent = queue.transmit(frames);
    let mut tries = 0;
    while !frames.is_empty() && tries < RETRIES {
        std::hint::spin_loop();
        sent += queue.transmit(frames);
        tries += 1;
    }
    let dropped = frames.len() as u64 + untagged;
    frames.clear();
    (sent as u64, dropped)
}
