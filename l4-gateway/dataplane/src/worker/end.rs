//! Ends flows that are picked one by one: what an operator cuts, and one flow of what is cut as a whole (`cut.rs`).

use std::ops::Range;

use super::Worker;
use crate::Emitted;
use crate::counters::ServiceCount;
use crate::flow_view::FlowView;
use crate::limits::RESETS_PER_TICK;
use crate::tables::Tables;
use crate::time::Now;

/// How far [`Worker::end_flows`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Where to go on.
    pub next: u32,
    /// How many flows were ended.
    pub flows: u64,
}

impl Worker {
    /// Ends those flows in these places of the table ([`Worker::flow_places`]) that are `wanted`: both ends of open connections hear of it by
    /// an RST. Some hundred RSTs a call, so it may stop before the last place.
    pub fn end_flows(
        &mut self,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
        places: Range<u32>,
        wanted: impl Fn(&FlowView) -> bool,
    ) -> Ended {
        let end = places.end.min(self.flows.capacity() as u32);
        let mut ended = Ended {
            next: places.start,
            flows: 0,
        };
        let mut resets = RESETS_PER_TICK;
        while ended.next < end && resets > 0 {
            let number = ended.next;
            ended.next += 1;
            let flow = self.flows.get(number);
            if !flow.is_alive() {
                continue;
            }
            let view = FlowView::new(flow, self.flows.addresses(number), now.tick());
            if wanted(&view) {
                resets -= u32::from(self.cut_flow(tables, now, out, number));
                ended.flows += 1;
            }
        }
        ended
    }

    /// Ends a flow that is alive before its time; what persistence knows of its source is left as it is. Whether its ends are told.
    pub(super) fn cut_flow(
        &mut self,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
        number: u32,
    ) -> bool {
        let flow = self.flows.get(number);
        let (service, is_open) = (flow.service(), flow.is_open());
        if is_open {
            self.reset_both_ends(tables, now, out, number);
        }
        self.cells.service(service, ServiceCount::FlowsCut, 1);
        // Off the index; the wheel frees its entry.
        self.forget_flow(number);
        is_open
    }
}
