//! Initial sequence numbers towards targets: above those of the port's past.
//!
//! A target that closed first keeps (LocalIP, port) in TIME_WAIT and takes a SYN there only if its sequence number is above
//! where the last connection ended (RFC 9293 3.6.1; timestamps, the other proof of newness of RFC 6191, are taken out). The
//! numbers of two clients have nothing to do with each other, so the node gives its own and shifts what follows.
//!
//! The memory is a fixed table by the hash of (target, LocalIP, port): ports that share a slot only rise a little faster. Not
//! covered is a connection that carried more than 2 GiB from the client when its port is reused within the target's TIME_WAIT:
//! its target answers the SYN with an ACK, the client resets, and its next SYN, a second later, is taken.

use crate::flow::prefetch;
use crate::limits::SEQUENCE_SLOTS;
use crate::secret::Secret;

/// Where the connections of each slot ended, or began, last.
pub(crate) struct Sequences {
    slots: Box<[u32]>,
}

impl Sequences {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self {
            slots: (0..SEQUENCE_SLOTS as u64)
                .map(|slot| secret.hash(slot, 0) as u32)
                .collect(),
        }
    }

    /// The number a connection begins with, by a step that nobody outside can guess. `key`: hash of the target side key.
    pub(crate) fn initial(&mut self, key: u64, random: u64) -> u32 {
        let slot = self.slot(key);
        *slot = slot.wrapping_add((random & 0xffff) as u32 + 1);
        *slot
    }

    /// Starts loading the slot of a key.
    #[inline]
    pub(crate) fn prefetch(&self, key: u64) {
        prefetch(&self.slots[key as usize % SEQUENCE_SLOTS]);
    }

    /// A connection ended with this number.
    pub(crate) fn ended(&mut self, key: u64, sequence: u32) {
        let slot = self.slot(key);
        // Greater in sequence space (RFC 9293 3.4).
        if (sequence.wrapping_sub(*slot) as i32) > 0 {
            *slot = sequence;
        }
    }

    fn slot(&mut self, key: u64) -> &mut u32 {
        &mut self.slots[key as usize % SEQUENCE_SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_above_what_ended() {
        let mut sequences = Sequences::new(&Secret::new([5; 32]));
        let mut last = sequences.initial(7, 0);
        for n in 0..1000u32 {
            let next = sequences.initial(7, u64::from(n) * 7919);
            assert!((next.wrapping_sub(last) as i32) > 0);
            // Connections end further on, even past the wrap; one that ended behind another changes nothing.
            let end = next.wrapping_add(n * 1_000_000);
            sequences.ended(7, end);
            sequences.ended(7, next);
            last = end;
        }
    }
}
