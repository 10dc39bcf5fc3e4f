//! A worker's flows, for whoever looks at them.

use super::Worker;
use crate::Now;
use crate::flow_view::FlowView;

impl Worker {
    /// The flows of this worker, in no order. Walks the table: for tests, and tables that are known to be small.
    pub fn flows(&self, now: Now) -> impl Iterator<Item = FlowView> + '_ {
        self.flows_in(now, 0, self.flows.capacity())
    }

    /// Places of the flow table, for [`Worker::flows_in`].
    pub fn flow_places(&self) -> usize {
        self.flows.capacity()
    }

    /// The flows in `count` places of the table from `first` on, so that a long walk can be cut into steps. A flow keeps its place.
    pub fn flows_in(
        &self,
        now: Now,
        first: u32,
        count: usize,
    ) -> impl Iterator<Item = FlowView> + '_ {
        let now = now.tick();
        self.flows
            .range(first, count)
            .map(move |(number, flow)| FlowView::new(flow, self.flows.addresses(number), now))
    }
}
