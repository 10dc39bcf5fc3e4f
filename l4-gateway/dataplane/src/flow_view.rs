//! What others see of a flow.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::flow::{Addresses, Flow, FlowState};
use crate::ids::{ServiceId, TargetId};
use crate::limits::TICK_NANOSECONDS;
use crate::service::Protocol;

/// One flow, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The client.
    pub client: SocketAddr,
    /// What the client talks to.
    pub vip: SocketAddr,
    /// Who the target sees: the LocalIP, or none where it sees the client (DR and tunnel).
    pub local: Option<SocketAddr>,
    /// The target.
    pub target: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How far it is.
    pub state: FlowState,
    /// The state whose timeout holds.
    pub timed_as: FlowState,
    /// Its service.
    pub service: ServiceId,
    /// Its target.
    pub target_id: TargetId,
    /// Until it expires without another packet.
    pub expires_in: Duration,
}

impl FlowView {
    /// `now`: the present tick.
    pub(crate) fn new(flow: &Flow, addresses: Addresses<IpAddr>, now: u32) -> Self {
        Self {
            client: SocketAddr::new(addresses.client, flow.client_port),
            vip: SocketAddr::new(addresses.vip, flow.vip_port),
            local: flow
                .is_two_sided()
                .then(|| SocketAddr::new(addresses.local, flow.local_port)),
            target: SocketAddr::new(addresses.target, flow.target_port),
            protocol: flow.protocol(),
            state: flow.progress.state(),
            timed_as: flow.progress.timed_as(),
            service: flow.service(),
            target_id: flow.target_id,
            expires_in: Duration::from_nanos(
                u64::from(flow.deadline.saturating_sub(now)) * TICK_NANOSECONDS,
            ),
        }
    }
}
