//! Ends the flows of targets, services and LocalIPs that are to be left for good ([`crate::TargetConfig::cut`], [`crate::Cut`]), some at
//! a time.

use super::{NONE, Worker};
use crate::Emitted;
use crate::counters::ServiceCount;
use crate::limits::{RESETS_PER_TICK, visits_per_tick};
use crate::tables::Tables;
use crate::time::Now;

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

    /// Goes on with the walk: the flows of what is cut end, and both ends of those that are open hear of it.
    pub(super) fn cut(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        if self.cuts.next == NONE {
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
            let service = flow.service();
            if flow.is_open() {
                resets -= 1;
                self.reset_both_ends(tables, now, out, number);
            }
            self.cells.service(service, ServiceCount::FlowsCut, 1);
            // Off the index; the wheel frees its entry.
            self.end_flow(tables, now, number);
        }
        if self.cuts.next >= flows {
            self.cuts.next = if self.cuts.again { 0 } else { NONE };
            self.cuts.again = false;
        }
    }
}
