//! Questions that only a worker can answer, as nobody else sees its tables.

use std::net::IpAddr;

use dataplane::{FlowView, MacAddr, NeighbourView, Now, PortIndex, Tables, Worker};
use tokio::sync::oneshot;

use crate::capture::Tap;
use crate::filter::FlowFilter;
use crate::worker::ending::Ending;

/// Places of the flow table looked at in a tick: 256 KiB, some 50 us.
pub(super) const STEP: usize = 4096;
/// Places of the neighbour table looked at in a tick.
const NEIGHBOURS: usize = 256;
/// Ticks that a walk takes at most, about a second: larger tables take larger steps.
pub(super) const STEPS: usize = 1024;

/// What a worker can be asked.
#[derive(Debug)]
pub enum Question {
    /// Which flows it has.
    Flows(Inquiry),
    /// To end flows.
    End(Ending),
    /// Which next hops it knows.
    Neighbours(oneshot::Sender<Vec<NeighbourView>>),
    /// To announce addresses of this node again, or all; of the first worker.
    Announce(Option<Vec<IpAddr>>, oneshot::Sender<Announced>),
    /// To let its frames be seen.
    Capture(Box<Tap>),
}

/// Where addresses are announced, by which MAC; or those that are not.
pub type Announced = Result<Vec<(PortIndex, IpAddr, MacAddr)>, Vec<IpAddr>>;

/// A question about a worker's flows.
#[derive(Debug)]
pub struct Inquiry {
    /// Which flows.
    pub filter: FlowFilter,
    /// At most so many.
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

/// An inquiry that is being answered, a step each tick: a walk over a whole table would keep frames waiting for tens of milliseconds.
#[derive(Debug)]
pub(super) struct FlowSearch {
    inquiry: Inquiry,
    found: Found,
    next: u32,
}

impl FlowSearch {
    pub(super) fn new(inquiry: Inquiry) -> FlowSearch {
        FlowSearch {
            inquiry,
            found: Found::default(),
            next: 0,
        }
    }

    /// Goes on; none when it is answered, or nobody waits for the answer.
    pub(super) fn step(mut self, worker: &Worker, now: Now) -> Option<FlowSearch> {
        let Inquiry {
            filter,
            limit,
            count,
            reply,
        } = &self.inquiry;
        let places = worker.flow_places();
        let step = STEP.max(places / STEPS);
        for flow in worker.flows_in(now, self.next, step) {
            if !filter.matches(&flow) {
                continue;
            }
            if self.found.flows.len() < *limit {
                self.found.flows.push(flow);
            } else {
                self.found.left_out += 1;
            }
        }
        let full = !count && self.found.flows.len() >= *limit;
        self.next = self.next.saturating_add(step as u32);
        if reply.is_closed() {
            return None;
        }
        if self.next as usize >= places || full {
            if !count {
                self.found.left_out = 0;
            }
            // Who asked may have given up this moment; that is theirs to know.
            let _ = self.inquiry.reply.send(self.found);
            return None;
        }
        Some(self)
    }
}

/// Next hops that are being listed, a step each tick as well.
#[derive(Debug)]
pub(super) struct NeighbourSearch {
    reply: oneshot::Sender<Vec<NeighbourView>>,
    found: Vec<NeighbourView>,
    next: usize,
}

impl NeighbourSearch {
    pub(super) fn new(reply: oneshot::Sender<Vec<NeighbourView>>) -> NeighbourSearch {
        NeighbourSearch {
            reply,
            found: Vec::new(),
            next: 0,
        }
    }

    /// Goes on; none when they are listed, or nobody waits for them.
    pub(super) fn step(
        mut self,
        worker: &Worker,
        tables: &Tables,
        now: Now,
    ) -> Option<NeighbourSearch> {
        let found = worker.neighbours_in(tables, now, self.next, NEIGHBOURS);
        self.found.extend(found);
        self.next += NEIGHBOURS;
        if self.reply.is_closed() {
            return None;
        }
        if self.next >= worker.neighbour_places() {
            // Who asked may have given up this moment; that is theirs to know.
            let _ = self.reply.send(self.found);
            return None;
        }
        Some(self)
    }
}
