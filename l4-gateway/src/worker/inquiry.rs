//! Questions that only a worker can answer, as nobody else sees its tables.

use dataplane::{FlowView, Now, Worker};
use tokio::sync::oneshot;

use crate::capture::Tap;
use crate::filter::FlowFilter;

/// What a worker can be asked.
#[derive(Debug)]
pub enum Question {
    /// Which flows it has.
    Flows(Inquiry),
    /// To let its frames be seen.
    Capture(Box<Tap>),
}

/// A question about a worker's flows.
#[derive(Debug)]
pub struct Inquiry {
    /// Which flows.
    pub filter: FlowFilter,
    /// At most so many; the worker forwards nothing while it collects them.
    pub limit: usize,
    /// Whether those beyond the limit are to be counted.
    pub count: bool,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Found>,
}

/// Flows that were asked for.
#[derive(Debug, Default)]
pub struct Found {
    /// Up to the limit.
    pub flows: Vec<FlowView>,
    /// How many more there are, if they were to be counted.
    pub left_out: u64,
}

impl Inquiry {
    pub(super) fn answer(self, worker: &Worker, now: Now) {
        let mut matching = worker.flows(now).filter(|flow| self.filter.matches(flow));
        let flows = matching.by_ref().take(self.limit).collect();
        let left_out = match self.count {
            true => matching.count() as u64,
            false => 0,
        };
        // Who asked may have given up; that is theirs to know.
        let _ = self.reply.send(Found { flows, left_out });
    }
}
