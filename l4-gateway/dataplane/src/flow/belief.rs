//! Which TCP segments may move the state of their flow: those whose numbers a sender outside the connection would have to guess.
//!
//! The ends take an RST by its exact number and a FIN or SYN in their window (RFC 5961 3 and 4, RFC 9293 3.10.7.4). Windows are not
//! known here, but where each end is, by what the client last sent and acknowledged. A segment farther from that than [`NEAR`] is
//! passed on, so that its receiver may judge by all it knows, and believed in nothing. Within it one forged blindly falls once in 512
//! times by one number, and once in 262,144 where both count.

use super::entry::Flow;
use super::state::FlowState;
use crate::limits::{NEAR, UNSCALED_WINDOW};
use crate::wire::tcp::{ACK, FIN, RST, SYN};

/// The numbers of a segment, as its receiver outside the node sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    /// Of use with ACK only.
    pub(crate) acknowledgment: u32,
}

impl Flow {
    /// Remembers the numbers of a client's segment on an established connection, if it may have sent it: as [`Flow::hears_client`] of
    /// one with ACK alone, which moves no state then.
    #[inline]
    pub(crate) fn hears_on(&mut self, segment: Numbers, next: u32) -> bool {
        let fits = is_near(segment.sequence, self.client_next)
            && is_near(segment.acknowledgment, self.client_acked);
        if fits {
            self.client_next = further(self.client_next, next);
            self.client_acked = further(self.client_acked, segment.acknowledgment);
        }
        fits
    }

    /// Whether the client may have sent a segment, numbered as the client counts. If so, its numbers are remembered; `next`: the
    /// sequence number behind it.
    pub(crate) fn hears_client(&mut self, segment: Numbers, next: u32) -> bool {
        let Numbers {
            flags,
            sequence,
            acknowledgment,
        } = segment;
        if flags & SYN != 0 && self.progress.phase() == FlowState::SynReceived {
            // Nobody has answered yet: a client may begin anew.
            self.origin = sequence.wrapping_add(1);
            self.client_next = next;
            return true;
        }
        if !is_near(sequence, self.client_next) {
            return false;
        }
        // An RST is judged by its sequence number alone (RFC 9293 3.10.7.4, first check).
        if flags & RST != 0 {
            return true;
        }
        if flags & ACK != 0 {
            if !self.may_acknowledge(acknowledgment) {
                return false;
            }
            self.client_acked = match self.progress.phase() {
                FlowState::SynReceived => acknowledgment,
                _ => further(self.client_acked, acknowledgment),
            };
        }
        self.client_next = further(self.client_next, next);
        true
    }

    fn may_acknowledge(&self, acknowledgment: u32) -> bool {
        match self.progress.phase() {
            // What the target chose is not known: its answer didn't pass, or will not (it answers the client itself).
            FlowState::SynReceived => true,
            // No more than the target may have sent to the window of the SYN, which is never scaled (RFC 7323 2.2). Who sent the SYN under
            // a forged address has not seen the number to acknowledge.
            FlowState::SynAnswered => {
                acknowledgment.wrapping_sub(self.client_acked) <= UNSCALED_WINDOW
            }
            _ => is_near(acknowledgment, self.client_acked),
        }
    }

    /// Whether the target may have sent a segment that moves the state (with SYN, FIN or RST), numbered as the target counts.
    pub(crate) fn hears_target(&mut self, segment: Numbers) -> bool {
        let Numbers {
            flags,
            sequence,
            acknowledgment,
        } = segment;
        match self.progress.phase() {
            // Before the answer to the SYN only an older connection over the port can end.
            FlowState::SynReceived if flags & FIN != 0 => false,
            // What answers the SYN must acknowledge it (RFC 9293 3.10.7.3). The target may answer again with another number of its own, as SYN
            // cookies do.
            FlowState::SynReceived | FlowState::SynAnswered
                if flags & ACK != 0 && self.acknowledges_syn(acknowledgment) =>
            {
                if flags & SYN != 0 {
                    self.client_acked = sequence.wrapping_add(1);
                }
                true
            }
            FlowState::SynReceived => false,
            _ => is_near(sequence, self.client_acked),
        }
    }

    /// Whether what the target acknowledges is the client's SYN, or more that it sent.
    fn acknowledges_syn(&self, acknowledgment: u32) -> bool {
        let beyond = acknowledgment
            .wrapping_sub(self.shift)
            .wrapping_sub(self.origin);
        beyond <= self.client_next.wrapping_sub(self.origin)
    }
}

/// Whether two numbers are no farther apart than those of one connection at a time.
#[inline]
fn is_near(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).wrapping_add(NEAR) <= 2 * NEAR
}

/// The greater in sequence space (RFC 9293 3.4).
#[inline]
fn further(a: u32, b: u32) -> u32 {
    if (b.wrapping_sub(a) as i32) > 0 { b } else { a }
}
