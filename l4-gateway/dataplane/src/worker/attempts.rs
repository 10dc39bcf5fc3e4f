//! Connect attempts: what they tell of their target, and when one is made anew with another.
//!
//! They are counted where answers pass here: under DR and through tunnels a target that answers can't be told from one that doesn't, and
//! SYNs from forged addresses would make any look dead. Here the target answers those too.
//!
//! An unanswered SYN has no connection to protect, so a target that takes no new flows, for whatever reason, doesn't keep it: the next SYN
//! of its client goes where a first one would. What the target has answered stays with a target that is only being left (its weight is 0,
//! it drains, it was removed), and leaves one that is down unless the connection is established. Where the target may have answered all the
//! same, since answers aren't seen or this one is on its way, a SYN that comes too soon may be a copy of the one before: it stays.

use super::classify::Stage;
use super::forward::numbers;
use super::policy::takes_flows;
use super::{Context, Worker};
use crate::counters::TargetCount;
use crate::family::Family;
use crate::flow::{FlowState, Side};
use crate::limits::SYN_PATIENCE;
use crate::service::Protocol;
use crate::wire::icmp::Quote;
use crate::wire::tcp;

impl Worker {
    /// Whether a packet is a SYN from a client whose flow makes room for another: its connection is over, or can't come about. The SYN before
    /// it counts as unanswered if it was.
    #[cold]
    pub(super) fn begins_anew(
        &self,
        context: &Context<'_>,
        frame: &[u8],
        stage: &Stage,
        (number, side): (u32, Side),
    ) -> bool {
        let is_syn = stage.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if side == Side::Target || !is_syn || stage.ttl <= 1 {
            return false;
        }
        let has_waited = self.has_waited(context, number);
        if has_waited {
            self.note_unanswered(number);
        }
        let flow = self.flows.get(number);
        flow.is_over()
            || self.is_in_vain(context, number)
                && (has_waited
                    || flow.is_unanswered()
                        && (flow.is_two_sided()
                            || numbers(frame, stage)
                                .is_none_or(|(syn, _)| !flow.began_with(syn.sequence))))
    }

    /// Whether nothing has been heard of a flow for as long as clients wait for the answer to a SYN at least.
    fn has_waited(&self, context: &Context<'_>, number: u32) -> bool {
        let flow = self.flows.get(number);
        let state = flow.progress.timed_as();
        let kept = context.tables.timeout(flow.service(), state);
        let heard = flow.deadline.saturating_sub(kept);
        context.tick.saturating_sub(heard) >= SYN_PATIENCE
    }

    /// Counts the last SYN of a flow, if its target has neither answered nor refused it, and its client not given up.
    pub(super) fn note_unanswered(&self, number: u32) {
        let flow = self.flows.get(number);
        if flow.progress.state() == FlowState::SynReceived && flow.is_two_sided() {
            self.cells
                .target(flow.target_id, TargetCount::SynsUnanswered, 1);
        }
    }

    /// Counts an ICMP error from a target's side, if it says that the target can't be reached, or that nobody listens there, and quotes what
    /// may have been sent to it.
    pub(super) fn note_unreachable<V: Family>(
        &self,
        message: &[u8],
        quote: &Quote<V>,
        number: u32,
    ) {
        let flow = self.flows.get(number);
        let Some([kind, code]) = message.first_chunk().copied() else {
            return;
        };
        let sent = || match flow.protocol() {
            Protocol::Udp => true,
            Protocol::Tcp => quote
                .sequence(message)
                .is_some_and(|sequence| flow.may_have_passed_on(sequence)),
        };
        if V::KINDS.is_unreachable(kind, code) && sent() {
            self.cells
                .target(flow.target_id, TargetCount::Unreachable, 1);
        }
    }

    /// Whether a connect attempt would better be made with another target. Where none takes flows nothing is gained.
    fn is_in_vain(&self, context: &Context<'_>, number: u32) -> bool {
        let (tables, flow) = (context.tables, self.flows.get(number));
        let Some(service) = tables.service(flow.service()) else {
            return false;
        };
        if service.eligible.is_empty() || takes_flows(tables, service, flow.target_id) {
            return false;
        }
        let target = tables.target(flow.target_id);
        flow.is_unanswered()
            || flow.progress.state() != FlowState::Established
                && target.is_some_and(|target| !target.config.up)
    }
}
