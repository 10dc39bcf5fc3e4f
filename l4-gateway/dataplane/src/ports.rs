//! The local ports a worker may use: every `workers`-th of the range, so that the owner of a return packet can be told from
//! its port.
//!
//! What is in use is known by the flow table alone: a port is taken if a flow has the key (target, LocalIP:port), which is
//! the uniqueness that matters. The pool keeps, for each pair of LocalIP and target, a cursor that goes round (the port that has
//! rested longest is tried first; runs of taken ones are leapt over) and how many are out.

use crate::ids::{LocalIpId, TargetId};
use crate::limits::{Limits, PORT_PROBES, PORT_PROBES_IN_A_ROW};
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

impl Pair {
    /// Goes on to the next port, or by the golden section of the range: the places such leaps meet lie evenly in it however many
    /// they are, so that a run of free ports is found soon however long the run of taken ones before it.
    fn pass(&mut self, capacity: u16, leap: bool) {
        let step = if leap {
            (u32::from(capacity) * 40_503) >> 16
        } else {
            1
        };
        self.cursor = ((u32::from(self.cursor) + step) % u32::from(capacity)) as u16;
    }
}

/// Something asked about a port of a LocalIP.
type Asked<'a, A> = dyn Fn(&LocalIp<A>, u16) -> bool + 'a;

/// Whether a search leaps after a taken port, so many rounds having met one before. Not where the rounds reach every port anyway.
fn leaps(rounds_taken: u32, capacity: u16) -> bool {
    rounds_taken + 1 >= PORT_PROBES_IN_A_ROW && u32::from(capacity) > PORT_PROBES
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
    /// has it, `comes_here` whether the NIC gives answers to it to this worker, where somebody knows: such ports are preferred,
    /// but none is refused for it. None if all are taken, or [`PORT_PROBES`] were.
    pub(crate) fn claim<'l, A: 'l>(
        &mut self,
        target: TargetId,
        local_ips: impl Iterator<Item = &'l LocalIp<A>> + Clone,
        comes_here: Option<&Asked<'_, A>>,
        taken: impl Fn(&LocalIp<A>, u16) -> bool,
    ) -> Option<(&'l LocalIp<A>, u16)> {
        let turn = self.turns.get_mut(target.0 as usize)?;
        let choices = local_ips.clone().count();
        let first = usize::from(*turn).checked_rem(choices)?;
        *turn = ((first + 1) % choices) as u8;
        let in_turn = local_ips.clone().skip(first).chain(local_ips.take(first));
        if let Some(comes_here) = comes_here {
            // Answers to one port in `stride` come here. When as many ports as that makes are out, few of those left are preferred ones.
            let most = (self.capacity / self.stride).max(1);
            let preferred = self.search(target, in_turn.clone(), most, comes_here, &taken);
            if preferred.is_some() {
                return preferred;
            }
        }
        self.search(target, in_turn, self.capacity, |_, _| true, taken)
    }

    /// Takes the first port that is `wanted` and not taken, on a LocalIP with less than `most` ports out.
    fn search<'l, A: 'l>(
        &mut self,
        target: TargetId,
        in_turn: impl Iterator<Item = &'l LocalIp<A>> + Clone,
        most: u16,
        wanted: impl Fn(&LocalIp<A>, u16) -> bool,
        taken: impl Fn(&LocalIp<A>, u16) -> bool,
    ) -> Option<(&'l LocalIp<A>, u16)> {
        let (base, stride, capacity) = (self.base, self.stride, self.capacity);
        let (mut probes, mut rounds_taken) = (0, 0);
        for _ in 0..capacity {
            let probes_before = probes;
            let mut was_taken = false;
            for local in in_turn.clone() {
                let Some(pair) = self.pair(target, local.id).filter(|pair| pair.used < most) else {
                    continue;
                };
                if probes == PORT_PROBES {
                    return None;
                }
                probes += 1;
                let port = base + pair.cursor * stride;
                let is_wanted = wanted(local, port);
                let free = is_wanted && !taken(local, port);
                was_taken |= is_wanted && !free;
                pair.pass(
                    capacity,
                    is_wanted && !free && leaps(rounds_taken, capacity),
                );
                if free {
                    pair.used += 1;
                    return Some((local, port));
                }
            }
            if probes == probes_before {
                return None;
            }
            rounds_taken += u32::from(was_taken);
        }
        None
    }

    /// The port towards a target that is tried next.
    pub(crate) fn next<'l, A: 'l>(
        &self,
        target: TargetId,
        mut local_ips: impl Iterator<Item = &'l LocalIp<A>>,
    ) -> Option<(&'l LocalIp<A>, u16)> {
        let turn = *self.turns.get(target.0 as usize)?;
        let local = local_ips.nth(usize::from(turn))?;
        let pair = self.pairs.get(self.place(target, local.id))?;
        Some((local, self.base + pair.cursor * self.stride))
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
