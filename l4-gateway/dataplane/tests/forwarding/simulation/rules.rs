//! What must hold after each step, whatever happened.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use dataplane::{
    DropReason, DropReason as Drop, FlowState, FlowView, LocalIpId, PortIndex, Protocol, ServiceId,
    TargetId, Verdict, Worker,
};

use super::hosts::is_discovery;
use super::node::Node;
use super::packet::{Packet, TCP, UDP};
use crate::frame::{ACK, RST, SYN};
use crate::rig::{INSIDE, OUTSIDE};

/// What no frame of an honest host is dropped for.
const NEVER: &[DropReason] = &[
    Drop::Truncated,
    Drop::BadSource,
    Drop::OtherMac,
    Drop::BadArp,
    Drop::BadIpHeader,
    Drop::BadIpChecksum,
    Drop::BadIpOptions,
    Drop::BadExtensionHeader,
    Drop::BadNdp,
    Drop::MartianSource,
    Drop::WrongPort,
    Drop::Fragment,
    Drop::BadFragment,
    Drop::BadTcp,
    Drop::BadTcpFlags,
    Drop::BadUdp,
    Drop::UdpUnchecked,
    Drop::BadIcmp,
    Drop::TtlExpired,
    Drop::NoRoute,
];

pub fn hold_for_verdict(verdict: Verdict) {
    if let Verdict::Drop(reason) = verdict {
        assert!(!NEVER.contains(&reason), "dropped for {reason:?}");
    }
}

/// What must hold of the node after each step of a worker.
#[derive(Default)]
pub struct Rules {
    /// Flows that were made, and that live, when all was last looked at.
    flows: (u64, u64),
}

impl Rules {
    /// The worker's own parts agree; and if flows have come or gone, so does what all workers have together. Whether
    /// any was made.
    pub fn hold(&mut self, node: &Node, touched: usize) -> bool {
        node.lanes[touched].worker.check_invariants();
        let workers = 0..node.lanes.len() as u16;
        let flows = workers.fold((0, 0), |(made, living), worker| {
            let counts = node.counters.worker(worker);
            (made + counts.flows_created, living + counts.flows_active)
        });
        let before = std::mem::replace(&mut self.flows, flows);
        if before != flows {
            hold_together(node);
        }
        before.0 != flows.0
    }
}

/// No port and no client's key is used twice, and each count of living flows is what lives.
fn hold_together(node: &Node) {
    Worker::check_together(node.lanes.iter().map(|lane| &lane.worker));
    let mut of_services: HashMap<ServiceId, u64> = HashMap::new();
    let mut of_targets: HashMap<TargetId, u64> = HashMap::new();
    let mut of_local_ips: HashMap<_, u64> = HashMap::new();
    let mut by_client = HashSet::new();
    let mut by_target = HashSet::new();
    for (worker, flow) in node.flows() {
        *of_services.entry(flow.service).or_default() += 1;
        *of_targets.entry(flow.target_id).or_default() += 1;
        // Flows of one packet each are told apart by their target, and an ordinary one may stand beside them.
        assert!(
            flow.protocol == Protocol::Udp || by_client.insert((flow.client, flow.vip)),
            "worker {worker} has {flow:?}, and somebody else"
        );
        if let Some(local) = flow.local {
            *of_local_ips.entry(local.ip()).or_default() += 1;
            assert!(
                by_target.insert((flow.target, local, flow.protocol)),
                "a port is used twice: worker {worker} has {flow:?}"
            );
        }
    }
    let counters = &node.counters;
    for id in (0..node.limits.services).map(ServiceId) {
        let living = of_services.get(&id).copied().unwrap_or(0);
        assert_eq!(counters.service(id).flows_active, living, "flows of {id:?}");
    }
    for id in (0..node.limits.targets).map(TargetId) {
        let living = of_targets.get(&id).copied().unwrap_or(0);
        assert_eq!(counters.target(id).flows_active, living, "flows of {id:?}");
    }
    let gauges = (0..node.limits.local_ips).map(|id| counters.local_ip_flows(LocalIpId(id as u8)));
    let mut gauges: Vec<u64> = gauges.filter(|flows| *flows > 0).collect();
    let mut living: Vec<u64> = of_local_ips.into_values().collect();
    gauges.sort_unstable();
    living.sort_unstable();
    assert_eq!(gauges, living, "flows of the LocalIPs");
}

/// Who has flows that a worker's turn will cut; `follows`: it goes over to the newest snapshot first.
pub fn about_to_be_cut(node: &Node, lane: usize, follows: bool) -> Vec<(SocketAddr, SocketAddr)> {
    let lane = &node.lanes[lane];
    let snapshot = if follows {
        &node.newest
    } else {
        &lane.snapshot
    };
    let flows = lane.worker.flows(node.now);
    flows
        .filter(|flow| snapshot.is_cut(flow))
        .map(|flow| (flow.client, flow.vip))
        .collect()
}

/// After a worker's turn on a snapshot no flow of it goes to a target whose drain is over there, or is of a service or
/// LocalIP that had its time. One turn goes through tables of up to
/// 1024 flows, no more than 128 of them open.
pub fn hold_for_cuts(node: &Node, lane: usize) {
    let lane = &node.lanes[lane];
    for flow in lane.worker.flows(node.now) {
        assert!(
            !lane.snapshot.is_cut(&flow),
            "left is {flow:?}, which was to be cut"
        );
    }
}

/// After a worker has passed on what a client sent: a datagram has left a target whose flows are cut, and an unanswered SYN one that takes
/// no flows while another does. Only where answers are seen: elsewhere this SYN may be a copy of one that was answered.
pub fn hold_for_sent(node: &Node, lane: usize, port: PortIndex, frame: &[u8], verdict: Verdict) {
    let went = matches!(verdict, Verdict::Held) || verdict == Verdict::Transmit(INSIDE);
    if port != OUTSIDE || !went || is_discovery(frame) {
        return;
    }
    let packet = Packet::read(&frame[14..]);
    if packet.is_part() || ![TCP, UDP].contains(&packet.protocol) {
        return;
    }
    let lane = &node.lanes[lane];
    let tables = &lane.snapshot.tables;
    let is_udp = packet.protocol == UDP;
    let is_of_it = |flow: &FlowView| {
        (flow.client, flow.vip) == (packet.from(), packet.to())
            && (flow.protocol == Protocol::Udp) == is_udp
    };
    let flows: Vec<FlowView> = lane.worker.flows(node.now).filter(is_of_it).collect();
    // Flows of one packet each stand beside one another, and the walk is yet to come to some.
    let [flow] = &flows[..] else {
        return;
    };
    if is_udp {
        assert!(
            !lane.snapshot.is_cut(flow),
            "a datagram goes by {flow:?}, which is to be cut"
        );
        return;
    }
    let is_syn = packet.segment().flags & (SYN | ACK | RST) == SYN;
    let is_unanswered = flow.state == FlowState::SynReceived && flow.local.is_some();
    let Some(service) = tables.service(flow.service) else {
        return;
    };
    if is_syn && is_unanswered && !service.eligible.is_empty() {
        assert!(
            service.eligible.contains(&flow.target_id),
            "a SYN goes by {flow:?}, whose target takes no flows"
        );
    }
}

/// When everything has ended, nothing may be left of it.
pub fn hold_for_the_end(node: &Node) {
    assert_eq!(node.flows().count(), 0, "flows after an hour of silence");
    hold_together(node);
    for (worker, lane) in node.lanes.iter().enumerate() {
        lane.worker.check_invariants();
        let counts = node.counters.worker(worker as u16);
        assert_eq!(counts.flows_active, 0, "{counts:?}");
        assert_eq!(counts.emitted_overflow, 0, "{counts:?}");
    }
}
