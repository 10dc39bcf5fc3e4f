//! Which TCP segments may move the state of their flow: those whose numbers a sender outside the connection would have to guess.
//!
//! The ends take an RST by its exact number and a FIN or SYN in their window (RFC 5961 3 and 4, RFC 9293 3.10.7.4). Windows are not
//! known here, but where each end is, by what the client last sent and acknowledged. A segment farther from that than [`NEAR`] is
//! passed on, so that its receiver may judge by all it knows, and believed in nothing. Within it one forged blindly falls once in 512
//! times by one number, and once in 262,144 where both count. Where that leaves the flow behind the connection, because more than
//! [`NEAR`] was acknowledged in segments that were lost before they came here, the target's own numbers bring it up to date.

use super::entry::{Flow, Side};
use super::state::{FlowState, Progress};
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
        if flags & SYN != 0 {
            return self.hears_syn(segment, next);
        }
        if !is_near(sequence, self.client_next) {
            return false;
        }
        // An RST is judged by its sequence number alone (RFC 9293 3.10.7.4, first check).
        if flags & RST != 0 {
            return true;
        }
        // Nothing else counts without acknowledgment (RFC 9293 3.10.7.4, fifth check).
        if flags & ACK == 0 {
            return false;
        }
        if !self.may_acknowledge(acknowledgment) {
            // Acknowledgments of more than that may have been lost before they came here. The target will tell.
            if self.is_two_sided() && is_ahead(acknowledgment, self.client_acked) {
                self.progress = self.progress.unsure();
            }
            return false;
        }
        let phase = self.progress.phase();
        // Before the target's answer has passed there is nothing to end, so a forged pair of SYN and FIN lives no longer than a SYN.
        if flags & FIN != 0 && phase == FlowState::SynReceived && self.is_two_sided() {
            return false;
        }
        self.client_acked = match phase {
            FlowState::SynReceived => acknowledgment,
            _ => further(self.client_acked, acknowledgment),
        };
        self.client_next = further(self.client_next, next);
        true
    }

    /// As [`Flow::hears_client`] of a SYN.
    fn hears_syn(&mut self, segment: Numbers, next: u32) -> bool {
        match self.progress.phase() {
            // Only targets answer SYNs.
            _ if segment.flags & ACK != 0 => false,
            // Nobody has answered yet: a client may begin anew.
            FlowState::SynReceived => {
                self.origin = segment.sequence.wrapping_add(1);
                self.client_next = next;
                true
            }
            FlowState::SynAnswered if segment.sequence.wrapping_add(1) == self.origin => true,
            // While the answer is on its way as well: the client's RST for it and the target's answer to this one tell what became of it.
            _ => {
                // While something is put into the client's segments, the origin says where.
                if self.is_two_sided() && !self.inserts() {
                    self.knock(segment.sequence);
                }
                false
            }
        }
    }

    /// Whether the target may have sent a segment with this number to the client not long ago.
    pub(crate) fn may_have_sent(&self, sequence: u32) -> bool {
        matches!(
            self.progress.phase(),
            FlowState::SynReceived | FlowState::SynAnswered
        ) || is_near(sequence, self.client_acked)
    }

    /// Whether the client may have sent a segment with this number, as the target counts, not long ago.
    pub(crate) fn may_have_passed_on(&self, sequence: u32) -> bool {
        is_near(self.as_client_counts(sequence), self.client_next)
    }

    /// Whether a SYN from the client makes another connection of the flow, instead of being passed on for the target to judge.
    ///
    /// Where the target isn't heard the client's word has to do. Else both ends must have closed the connection, or an RST reset it
    /// that nobody outside can have made up. In other cases the true state comes out when the target gets the SYN: where it still
    /// has the connection, it answers by an ACK, which a client that has not answers by the exact RST (RFC 5961 4.2); where it has
    /// none, by a SYN-ACK, with which the flow begins anew.
    pub(crate) fn is_over(&self) -> bool {
        match self.progress.state() {
            FlowState::TimeWait => true,
            FlowState::FinClient => !self.is_two_sided(),
            // The last: a SYN passed on would not begin the PROXY header's stream anew.
            FlowState::Closed => {
                self.progress.is_reset_exactly()
                    || self.progress.phase() == FlowState::TimeWait
                    || !self.is_two_sided()
                    || self.inserts()
            }
            _ => false,
        }
    }

    /// Whether this is the number of the client's last SYN, of a flow that [`Flow::is_unanswered`].
    pub(crate) fn began_with(&self, sequence: u32) -> bool {
        sequence.wrapping_add(1) == self.origin
    }

    /// Whether the target has answered no SYN of the client, but by an RST. Where targets aren't heard, whether the client has
    /// acknowledged no answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.progress.phase() == FlowState::SynReceived
    }

    /// Follows a segment that was believed. An RST that has at least one number exactly, out of the 2^32 there are, is a sure one.
    pub(crate) fn follow(&mut self, side: Side, segment: Numbers) {
        self.progress = self.progress.after(side, segment.flags);
        if segment.flags & RST != 0 && self.is_exact(side, segment) {
            self.progress = self.progress.reset_exactly();
        }
    }

    fn is_exact(&self, side: Side, segment: Numbers) -> bool {
        let acknowledges = segment.flags & ACK != 0;
        match side {
            Side::Client => {
                segment.sequence == self.client_next
                    || acknowledges && segment.acknowledgment == self.client_acked
            }
            Side::Target => {
                let acknowledged = segment.acknowledgment.wrapping_sub(self.shift);
                segment.sequence == self.client_acked
                    || acknowledges && acknowledged == self.client_next
            }
        }
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
        let acknowledged = acknowledgment.wrapping_sub(self.shift);
        if flags & (SYN | ACK) == SYN | ACK && self.begins_anew(acknowledged) {
            self.client_next = acknowledged;
            self.client_acked = sequence.wrapping_add(1);
            self.progress = Progress::new(FlowState::SynAnswered);
            return true;
        }
        if self.progress.is_unsure() && flags & (SYN | RST | ACK) == ACK {
            self.catch_up(sequence, acknowledged);
        }
        match self.progress.phase() {
            // Before the answer to the SYN only an older connection over the port can end.
            FlowState::SynReceived if flags & FIN != 0 => false,
            // What answers the SYN must acknowledge it (RFC 9293 3.10.7.3). The target may answer again with another number of its own, as SYN
            // cookies do.
            FlowState::SynReceived | FlowState::SynAnswered
                if flags & ACK != 0 && self.acknowledges_syn(acknowledged) =>
            {
                if flags & SYN != 0 {
                    self.client_acked = sequence.wrapping_add(1);
                    // Of several SYNs the client goes on from the one that is answered.
                    self.client_next = acknowledged;
                }
                true
            }
            FlowState::SynReceived => false,
            _ if flags & FIN != 0 => {
                flags & ACK != 0
                    && is_near(sequence, self.client_acked)
                    && is_near(acknowledged, self.client_next)
            }
            _ => is_near(sequence, self.client_acked),
        }
    }

    /// Takes from the target how far it is, where that is farther than the client is known to have acknowledged: it sends nothing beyond a
    /// window that was not. Nobody outside can have sent this ([`crate::DropReason::WrongPort`]); whoever made up the segment that led
    /// here has had no part in the number.
    #[cold]
    fn catch_up(&mut self, sequence: u32, acknowledged: u32) {
        let beyond = !is_near(sequence, self.client_acked) && is_ahead(sequence, self.client_acked);
        if beyond && is_near(acknowledged, self.client_next) {
            self.client_acked = sequence;
        }
    }

    /// Whether a SYN-ACK shows that the target has forgotten a connection that seemed to end, and takes a SYN of the client for another.
    fn begins_anew(&mut self, acknowledged: u32) -> bool {
        let lives = self.progress.is_established() || self.progress.is_unsure();
        let anew = !lives && self.answers_knock(acknowledged);
        if anew {
            self.forget_knock();
        }
        anew
    }

    /// Whether what the target acknowledges, as the client counts, is the client's SYN, or more that it sent.
    fn acknowledges_syn(&self, acknowledged: u32) -> bool {
        let beyond = acknowledged.wrapping_sub(self.origin);
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
    if is_ahead(b, a) { b } else { a }
}

#[inline]
fn is_ahead(number: u32, of: u32) -> bool {
    (number.wrapping_sub(of) as i32) > 0
}
