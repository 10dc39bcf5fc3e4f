//! Ends the flows to targets that are to be left for good ([`crate::TargetConfig::cut`]), some at a time.

use super::{NONE, Worker};
use crate::Emitted;
use crate::counters::ServiceCount;
use crate::limits::{CUT_BUDGET, RESETS_PER_TICK};
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
    /// Sees whether a new snapshot names targets to be cut to which this worker has flows.
    pub(super) fn follow_cuts(&mut self, tables: &Tables) {
        let has_flows = |target| self.cells.target_flows(target) > 0;
        if tables.cuts().iter().copied().any(has_flows) {
            match self.cuts.next {
                NONE => self.cuts.next = 0,
                _ => self.cuts.again = true,
            }
        }
    }

    /// Goes on with the walk: the flows of targets that are cut end, and both ends of those that are open hear of it.
    pub(super) fn cut(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        if self.cuts.next == NONE {
            return;
        }
        let flows = self.flows.capacity() as u32;
        let end = self.cuts.next.saturating_add(CUT_BUDGET).min(flows);
        let mut resets = RESETS_PER_TICK;
        while self.cuts.next < end && resets > 0 {
            let number = self.cuts.next;
            self.cuts.next += 1;
            let flow = self.flows.get(number);
            let target = tables.target(flow.target_id);
            if !flow.is_alive() || !target.is_some_and(|target| target.config.cut) {
                continue;
            }
            let service = flow.service();
            if flow.progress.state().is_open() {
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
