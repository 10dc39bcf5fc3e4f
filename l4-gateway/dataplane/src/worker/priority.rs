//! Frames with a priority tag: they are in no VLAN, and say how urgent they are (IEEE 802.1Q-2022 6.13, table 9-2). The tag comes off and they
//! are as any other; answers have none.
//!
//! On a port in a VLAN such a frame is of another network, the one that has no tags: it is dropped with those that have none before it gets
//! here (`l4-gateway/src/worker/vlan.rs`).

use super::classify::{Kind, Stage};
use super::{Context, Worker};
use crate::wire::ethernet;
use crate::{DropReason, Frame, Verdict};

impl Worker {
    /// All stages of one frame, once its tag is off.
    pub(super) fn priority_tagged<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
    ) -> Verdict {
        let (at, length) = ethernet::TAG;
        if !frame.cut(at, length) {
            return Verdict::Drop(DropReason::Truncated);
        }
        let mut stage = Stage::NOTHING;
        self.classify(context, frame.bytes(), &mut stage);
        stage.candidate = self.flows.prefetch_entry(stage.hash, stage.is_v6);
        match stage.kind {
            // No sender puts on two.
            Kind::PriorityTagged => Verdict::Kernel,
            _ => self.carry_out(context, frame, &stage),
        }
    }
}
