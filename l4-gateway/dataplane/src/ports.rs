//! The local ports a worker may use: every `workers`-th of the range, so that the owner of a return packet can be told from
//! its port.
//!
//! What is in use is known by the flow table alone: a port is taken if a flow has the key (target, LocalIP:port), which is
//! the uniqueness that matters. The pool keeps, for each pair of LocalIP and target, a cursor that goes round (the port that has
//! rested longest is tried first) and how many are out.

use crate::ids::{LocalIpId, TargetId};
use crate::limits::{Limits, PORT_PROBES};
use crate::secret::Secret;
use crate::tables::LocalIp;

/// The ports of one worker.
pub(crate) struct PortPool {
    /// The lowest port of this worker.
    base: u16,
    stride: u16,
    /// Ports of this worker for each pair.
    capacity: u16,
    /// By target, then LocalIP.
    pairs: Box<[Pair]>,
    /// By target: which LocalIP is next. Per target, so that no scheduler's turn is in step with it.
    turns: Box<[u8]>,
    local_ips: usize,
}

#[derive(Clone, Copy)]
struct Pair {
    /// Place of the next port to try, below `capacity`.
    cursor: u16,
    /// Ports out.
    used: u16,
}

impl PortPool {
    pub(crate) fn new(index: u16, workers: u16, limits: &Limits, secret: &Secret) -> Self {
        let (first, last, stride) = (
            u32::from(limits.first_port.max(1)),
            u32::from(limits.last_port),
            u32::from(workers),
        );
        // The first port of the range that this worker owns.
        let base = first + (u32::from(index) + stride - first % stride) % stride;
        let capacity = if base > last {
            0
        } else {
            ((last - base) / stride + 1) as u16
        };
        let local_ips = usize::from(limits.local_ips.min(256));
        let pair = |number: usize| {
            // Anywhere in the range, so that a restarted node doesn't begin with the ports its last life used most.
            let start = secret.hash(number as u64, u64::from(index));
            Pair {
                cursor: (start % u64::from(capacity.max(1))) as u16,
                used: 0,
            }
        };
        Self {
            base: base.min(u32::from(u16::MAX)) as u16,
            stride: workers,
            capacity,
            pairs: (0..limits.targets as usize * local_ips).map(pair).collect(),
            turns: vec![0; limits.targets as usize].into_boxed_slice(),
            local_ips,
        }
    }

    /// The worker that owns a port, for any range.
    #[inline]
    pub(crate) fn owner(port: u16, workers: u16) -> u16 {
        port % workers
    }

    /// Takes a port towards a target on one of the LocalIPs, which take turns. `taken` tells whether a flow to the target
    /// has it. None if all are taken, or [`PORT_PROBES`] in a row were on each LocalIP.
    pub(crate) fn claim<'l>(
        &mut self,
        target: TargetId,
        local_ips: impl Iterator<Item = &'l LocalIp> + Clone,
        taken: impl Fn(&LocalIp, u16) -> bool,
    ) -> Option<(&'l LocalIp, u16)> {
        let turn = self.turns.get_mut(target.0 as usize)?;
        let choices = local_ips.clone().count();
        let first = usize::from(*turn).checked_rem(choices)?;
        *turn = ((first + 1) % choices) as u8;
        for local in local_ips.clone().skip(first).chain(local_ips.take(first)) {
            if let Some(port) = self.claim_on(target, local, &taken) {
                return Some((local, port));
            }
        }
        None
    }

    fn claim_on(
        &mut self,
        target: TargetId,
        local: &LocalIp,
        taken: impl Fn(&LocalIp, u16) -> bool,
    ) -> Option<u16> {
        let (base, stride, capacity) = (self.base, self.stride, self.capacity);
        let pair = self.pair(target, local.id)?;
        if pair.used >= capacity {
            return None;
        }
        for _ in 0..PORT_PROBES.min(u32::from(capacity)) {
            let port = base + pair.cursor * stride;
            pair.cursor = (pair.cursor + 1) % capacity;
            if !taken(local, port) {
                pair.used += 1;
                return Some(port);
            }
        }
        None
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, target: TargetId, local: LocalIpId) {
        if let Some(pair) = self.pair(target, local) {
            debug_assert!(pair.used > 0, "a port is given back twice");
            pair.used = pair.used.saturating_sub(1);
        }
    }

    /// Ports of a pair that are out.
    pub(crate) fn used(&self, target: TargetId, local: LocalIpId) -> u16 {
        self.pairs
            .get(self.place(target, local))
            .map_or(0, |pair| pair.used)
    }

    /// Ports of each pair.
    pub(crate) fn capacity(&self) -> u16 {
        self.capacity
    }

    /// Ports out, over all pairs.
    pub(crate) fn total_used(&self) -> u64 {
        self.pairs.iter().map(|pair| u64::from(pair.used)).sum()
    }

    fn pair(&mut self, target: TargetId, local: LocalIpId) -> Option<&mut Pair> {
        let place = self.place(target, local);
        self.pairs.get_mut(place)
    }

    fn place(&self, target: TargetId, local: LocalIpId) -> usize {
        target.0 as usize * self.local_ips + usize::from(local.0)
    }
}

#[cfg(test)]
mod tests;
