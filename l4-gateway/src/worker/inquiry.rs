//! Questions that only a worker can answer, as nobody else sees its tables.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane::{FlowState, FlowView, Now, Worker};
use tokio::sync::oneshot;

/// A question about a worker's flows.
#[derive(Debug)]
pub struct Inquiry {
    /// Which flows.
    pub filter: FlowFilter,
    /// At most so many; the worker forwards nothing while it collects them.
    pub limit: usize,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Vec<FlowView>>,
}

/// Picks flows; each part that is given must match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// The client's address.
    pub client: Option<Ipv4Addr>,
    /// The target.
    pub target: Option<SocketAddrV4>,
    /// The LocalIP and port that the target sees.
    pub local: Option<SocketAddrV4>,
    /// Only flows on which something may still be sent.
    pub open: bool,
}

impl FlowFilter {
    /// Whether a flow is wanted.
    pub fn matches(&self, flow: &FlowView) -> bool {
        self.client.is_none_or(|client| *flow.client.ip() == client)
            && self.target.is_none_or(|target| flow.target == target)
            && self.local.is_none_or(|local| flow.local == local)
            && !(self.open && matches!(flow.state, FlowState::TimeWait | FlowState::Closed))
    }
}

impl Inquiry {
    pub(super) fn answer(self, worker: &Worker, now: Now) {
        let flows = worker
            .flows(now)
            .filter(|flow| self.filter.matches(flow))
            .take(self.limit)
            .collect();
        // Who asked may have given up; that is theirs to know.
        let _ = self.reply.send(flows);
    }
}
