//! Ends the flows of targets, services and LocalIPs that are to be left for good ([`crate::TargetConfig::cut`], [`crate::Cut`]), some at
//! a time. A client's datagram doesn't wait until the walk comes to its flow: it is what the next one goes elsewhere by.

use super::classify::Stage;
use super::{Context, NONE, Worker};
use crate::family::Family;
use crate::flow::Side;
use crate::limits::{RESETS_PER_TICK, visits_per_tick};
use crate::service::Protocol;
use crate::tables::Tables;
use crate::time::Now;
use crate::{Emitted, Frame, Verdict};

/// How far the walk through all flows is.
pub(super) struct Walk {
    /// The flow to look at next; [`NONE`] between walks.
    next: u32,
    /// The snapshot has changed since it began, so another walk follows.
    again: bool,
}

impl Walk {
    pub(super) const NONE: Walk = Walk {
        next: NONE,
        again: false,
    };

    /// Whether there may be flows to be cut that it has not come to yet.
    #[inline(always)]
    pub(super) fn is_under_way(&self) -> bool {
        self.next != NONE
    }
}

impl Worker {
    /// Sees whether a new snapshot names something to be cut of which this worker has flows.
    pub(super) fn follow_cuts(&mut self, tables: &Tables) {
        let (cuts, cells) = (tables.cuts(), &self.cells);
        let mut targets = cuts.targets.iter();
        let mut services = cuts.services.iter();
        let mut local_ips = cuts.local_ips.iter();
        if targets.any(|id| cells.target_flows(*id) > 0)
            || services.any(|id| cells.service_flows(*id) > 0)
            || local_ips.any(|id| cells.local_ip_flows(*id) > 0)
        {
            match self.cuts.next {
                NONE => self.cuts.next = 0,
                _ => self.cuts.again = true,
            }
        }
    }

    /// Whether a packet is a client's datagram whose flow the walk is about to end.
    #[cold]
    pub(super) fn leaves(
        &self,
        context: &Context<'_>,
        stage: &Stage,
        number: u32,
        side: Side,
    ) -> bool {
        side == Side::Client
            && stage.protocol == Protocol::Udp
            && stage.ttl > 1
            && context.tables.cuts_flow(self.flows.get(number))
    }

    /// Ends the flow of a client's datagram, which is scheduled anew.
    #[cold]
    pub(super) fn leave<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
    ) -> Verdict {
        let staged = &stage.of::<V>(frame.bytes());
        if let Err(reason) = self.hold_sound(context, frame.bytes(), staged) {
            return Verdict::Drop(reason);
        }
        self.cut_flow(context.tables, context.now, context.out, number);
        self.admit::<V, F>(context, frame, stage, Some(number))
    }

    /// Goes on with the walk: the flows of what is cut end, and both ends of those that are open hear of it.
    pub(super) fn cut(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        if !self.cuts.is_under_way() {
            return;
        }
        let flows = self.flows.capacity() as u32;
        let end = self
            .cuts
            .next
            .saturating_add(visits_per_tick(flows))
            .min(flows);
        let mut resets = RESETS_PER_TICK;
        while self.cuts.next < end && resets > 0 {
            let number = self.cuts.next;
            self.cuts.next += 1;
            let flow = self.flows.get(number);
            if !flow.is_alive() || !tables.cuts_flow(flow) {
                continue;
            }
            resets -= u32::from(self.cut_flow(tables, now, out, number));
        }
        if self.cuts.next >= flows {
            self.cuts.next = if self.cuts.again { 0 } else { NONE };
            self.cuts.again = false;
        }
    }
}
