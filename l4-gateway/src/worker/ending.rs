//! Flows that an operator ends: a worker goes through its table, a step each tick.

use dataplane::{Emitted, Ended, Now, Tables, Worker};
use tokio::sync::oneshot;

use super::inquiry::{STEP, STEPS};
use crate::filter::FlowFilter;

/// What is to be ended.
#[derive(Debug)]
pub struct Ending {
    /// Which flows.
    pub filter: FlowFilter,
    /// Where the number of those that were ended goes. When nobody waits for it any more, the walk stops; flows not yet ended stay.
    pub reply: oneshot::Sender<u64>,
}

/// A walk through the flows that has not come to its end.
#[derive(Debug)]
pub(super) struct FlowEnd {
    ending: Ending,
    ended: Ended,
}

impl FlowEnd {
    pub(super) fn new(ending: Ending) -> FlowEnd {
        FlowEnd {
            ending,
            ended: Ended { next: 0, flows: 0 },
        }
    }

    /// Goes on; none at the end.
    pub(super) fn step(
        mut self,
        worker: &mut Worker,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
    ) -> Option<FlowEnd> {
        let Ending { filter, reply } = &self.ending;
        if reply.is_closed() {
            return None;
        }
        let places = worker.flow_places();
        let step = STEP.max(places / STEPS) as u32;
        let Ended { next, flows } = self.ended;
        let range = next..next.saturating_add(step);
        let ended = worker.end_flows(tables, now, out, range, |flow| filter.matches(flow));
        self.ended = Ended {
            flows: flows + ended.flows,
            ..ended
        };
        if self.ended.next as usize >= places {
            // Who asked may have given up this moment; that is theirs to know.
            let _ = self.ending.reply.send(self.ended.flows);
            return None;
        }
        Some(self)
    }
}
