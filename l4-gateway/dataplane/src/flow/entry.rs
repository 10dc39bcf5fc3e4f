//! What is known of one flow: one cache line.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::index::NONE;
use super::state::{FlowState, Progress};
use super::tuple::Tuple;
use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::service::Protocol;
use crate::wire::checksum::Delta;

/// A next hop that has to be looked up.
pub(crate) const HOP_UNKNOWN: u16 = u16::MAX;

/// From which side a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Target,
}

/// One flow, in all that forwarding touches.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Flow {
    pub(crate) client: Ipv4Addr,
    pub(crate) vip: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
    pub(crate) local: Ipv4Addr,
    pub(crate) client_port: u16,
    pub(crate) vip_port: u16,
    pub(crate) target_port: u16,
    pub(crate) local_port: u16,
    pub(crate) service: ServiceId,
    pub(crate) target_id: TargetId,
    /// The tick at which it expires without another packet.
    pub(crate) deadline: u32,
    /// Added to sequence numbers from the client, subtracted from acknowledgments to it.
    pub(crate) shift: u32,
    /// The worker's count of next hop changes when the hops below were looked up.
    pub(crate) hop_epoch: u32,
    pub(crate) hop_to_client: u16,
    pub(crate) hop_to_target: u16,
    /// What rewriting the addresses towards the target does to a sum.
    pub(crate) address_delta: Delta,
    /// What rewriting addresses and ports towards the target does to a sum.
    pub(crate) delta: Delta,
    /// The next in the list this entry is in: a slot of the expiry wheel, or the free entries.
    pub(crate) next: u32,
    pub(crate) protocol: Protocol,
    pub(crate) progress: Progress,
    /// In the index; false for a free entry, and for one that was replaced and waits for the wheel to pass.
    pub(crate) alive: bool,
    pub(crate) local_id: LocalIpId,
}

const _: () = assert!(size_of::<Flow>() == 64);

impl Flow {
    /// A free entry.
    pub(crate) const FREE: Flow = Flow {
        client: Ipv4Addr::UNSPECIFIED,
        vip: Ipv4Addr::UNSPECIFIED,
        target: Ipv4Addr::UNSPECIFIED,
        local: Ipv4Addr::UNSPECIFIED,
        client_port: 0,
        vip_port: 0,
        target_port: 0,
        local_port: 0,
        service: ServiceId(0),
        target_id: TargetId(0),
        deadline: 0,
        shift: 0,
        hop_epoch: 0,
        hop_to_client: HOP_UNKNOWN,
        hop_to_target: HOP_UNKNOWN,
        address_delta: Delta::NONE,
        delta: Delta::NONE,
        next: NONE,
        protocol: Protocol::Udp,
        progress: Progress::new(FlowState::Udp),
        alive: false,
        local_id: LocalIpId(0),
    };

    /// A flow between the sender of a packet (the client side key) and a target.
    pub(crate) fn new(packet: &Tuple, target: SocketAddrV4, local: SocketAddrV4) -> Self {
        let addresses = |from: Ipv4Addr, to: Ipv4Addr| Delta::double(from.to_bits(), to.to_bits());
        let address_delta =
            addresses(packet.source, *local.ip()).and(addresses(packet.destination, *target.ip()));
        let delta = address_delta
            .and(Delta::word(packet.source_port, local.port()))
            .and(Delta::word(packet.destination_port, target.port()));
        Self {
            client: packet.source,
            vip: packet.destination,
            target: *target.ip(),
            local: *local.ip(),
            client_port: packet.source_port,
            vip_port: packet.destination_port,
            target_port: target.port(),
            local_port: local.port(),
            address_delta,
            delta,
            protocol: packet.protocol,
            progress: Progress::new(match packet.protocol {
                Protocol::Tcp => FlowState::SynReceived,
                Protocol::Udp => FlowState::Udp,
            }),
            alive: true,
            ..Self::FREE
        }
    }

    /// The tuple of packets from the client.
    pub(crate) fn client_key(&self) -> Tuple {
        Tuple {
            source: self.client,
            destination: self.vip,
            source_port: self.client_port,
            destination_port: self.vip_port,
            protocol: self.protocol,
        }
    }

    /// The tuple of packets from the target.
    pub(crate) fn target_key(&self) -> Tuple {
        Tuple {
            source: self.target,
            destination: self.local,
            source_port: self.target_port,
            destination_port: self.local_port,
            protocol: self.protocol,
        }
    }

    /// From which side of this flow a packet comes, if from any.
    #[inline]
    pub(crate) fn side(&self, packet: &Tuple) -> Option<Side> {
        if !self.alive {
            None
        } else if self.client_key() == *packet {
            Some(Side::Client)
        } else if self.target_key() == *packet {
            Some(Side::Target)
        } else {
            None
        }
    }
}
