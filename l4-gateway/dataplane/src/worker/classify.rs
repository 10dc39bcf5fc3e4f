//! The first stage: what a frame is, and for a transport packet whose.

use super::{Context, NONE, Worker};
use crate::family::{Family, V4, V6};
use crate::flow::Tuple;
use crate::limits::{ETHERNET_HEADER, SHORTEST_FRAME};
use crate::service::Protocol;
use crate::steer;
use crate::tables::Owned;
use crate::wire::ip::{self, Ip};
use crate::wire::{ethernet, tcp, u16_at, udp};
use crate::{DropReason, Frame, Verdict};

/// What the first stage found out. Short, since it is written and read for each packet: the addresses stay in the frame.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    pub(super) kind: Kind,
    /// The packet is IPv6, not IPv4.
    pub(super) is_v6: bool,
    flags: u8,
    ttl: u8,
    protocol: Protocol,
    dont_fragment: bool,
    header: u16,
    total: u16,
    source_port: u16,
    destination_port: u16,
    /// Filled in by the second stage.
    pub(super) candidate: u32,
    pub(super) hash: u64,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP or UDP, well-formed.
    Transport,
    Icmp,
    Arp,
    /// A neighbour solicitation or advertisement, to our MAC.
    Neighbour,
    /// IPv6 to a multicast MAC: it may be a question about an address of ours.
    Multicast,
    /// Nothing further to do.
    Settled(Verdict),
}

/// A packet to be worked on.
#[derive(Clone, Copy)]
pub(super) struct Staged<V: Family> {
    /// Of TCP: the flags that matter; 0 for UDP.
    pub(super) flags: u8,
    pub(super) ip: Ip<V>,
    /// Of a transport packet.
    pub(super) tuple: Tuple<V>,
    pub(super) hash: u64,
}

impl Stage {
    pub(super) const NOTHING: Stage = Stage::only(Kind::Settled(Verdict::Kernel));

    const fn only(kind: Kind) -> Self {
        Self {
            kind,
            is_v6: false,
            flags: 0,
            ttl: 0,
            protocol: Protocol::Udp,
            dont_fragment: false,
            header: 0,
            total: 0,
            source_port: 0,
            destination_port: 0,
            candidate: NONE,
            hash: 0,
        }
    }

    #[inline]
    fn new<V: Family>(kind: Kind, ip: &Ip<V>) -> Self {
        Self {
            kind,
            is_v6: V::IS_V6,
            ttl: ip.ttl,
            dont_fragment: ip.dont_fragment,
            header: ip.header,
            total: ip.total,
            ..Self::NOTHING
        }
    }

    /// With what is in the frame.
    #[inline]
    pub(super) fn of<V: Family>(&self, frame: &[u8]) -> Staged<V> {
        let (source, destination) = V::ends(frame.get(ETHERNET_HEADER..).unwrap_or(&[]));
        Staged {
            flags: self.flags,
            ip: Ip {
                header: self.header,
                total: self.total,
                ttl: self.ttl,
                protocol: self.protocol as u8,
                dont_fragment: self.dont_fragment,
                fragment: false,
                first: true,
                source,
                destination,
            },
            tuple: Tuple {
                source,
                destination,
                source_port: self.source_port,
                destination_port: self.destination_port,
                protocol: self.protocol,
            },
            hash: self.hash,
        }
    }
}

impl<V: Family> Staged<V> {
    /// A packet found in a frame that no flow is looked up for.
    pub(super) fn apart(ip: &Ip<V>, frame: &[u8]) -> Self {
        Stage::new(Kind::Icmp, ip).of(frame)
    }

    /// Cuts off what stands behind the packet: nobody checked it, and the next link may be smaller than the last. Padding up
    /// to the shortest frame stays, for links that want it.
    #[inline]
    pub(super) fn trim<F: Frame>(&self, frame: &mut F) {
        let end = SHORTEST_FRAME.max(ETHERNET_HEADER + usize::from(self.ip.total));
        if frame.bytes().len() > end {
            frame.trim(end);
        }
    }

    /// The bytes of the IP payload.
    pub(super) fn payload(&self) -> std::ops::Range<usize> {
        ETHERNET_HEADER + usize::from(self.ip.header)..ETHERNET_HEADER + usize::from(self.ip.total)
    }
}

impl Worker {
    #[inline]
    pub(super) fn classify(&self, context: &Context<'_>, frame: &[u8]) -> Stage {
        match self.parse(context, frame) {
            Ok(stage) => stage,
            Err(verdict) => Stage::only(Kind::Settled(verdict)),
        }
    }

    #[inline]
    fn parse(&self, context: &Context<'_>, frame: &[u8]) -> Result<Stage, Verdict> {
        let (header, packet) = frame
            .split_first_chunk()
            .ok_or(Verdict::Drop(DropReason::Truncated))?;
        let (destination, source) = (ethernet::destination(header), ethernet::source(header));
        let mac = context.port.mac;
        if source.is_group() || source == mac {
            return Err(Verdict::Drop(DropReason::BadSource));
        }
        if destination != mac && !destination.is_group() {
            return Err(Verdict::Drop(DropReason::OtherMac));
        }
        match ethernet::ether_type(header) {
            ethernet::IPV4 if destination == mac => self.parse_ip::<V4>(context, packet),
            ethernet::IPV6 if destination == mac => self.parse_ip::<V6>(context, packet),
            ethernet::IPV6 => Ok(Stage::only(Kind::Multicast)),
            ethernet::ARP => Ok(Stage::only(Kind::Arp)),
            _ => Err(Verdict::Kernel),
        }
    }

    #[inline]
    fn parse_ip<V: Family>(&self, context: &Context<'_>, packet: &[u8]) -> Result<Stage, Verdict> {
        let ip = V::parse(packet).map_err(Verdict::Drop)?;
        let payload = &packet[usize::from(ip.header)..usize::from(ip.total)];
        if ip.fragment {
            return Err(unless_ours::<V>(
                context,
                ip.destination,
                DropReason::Fragment,
            ));
        }
        let (protocol, flags) = match ip.protocol {
            ip::TCP => (Protocol::Tcp, tcp::parse(payload).map_err(Verdict::Drop)?),
            ip::UDP => {
                udp::parse::<V>(payload).map_err(Verdict::Drop)?;
                (Protocol::Udp, 0)
            }
            protocol if protocol == V::ICMP => {
                let discovers = payload
                    .first()
                    .is_some_and(|kind| V::KINDS.is_neighbour_discovery(*kind));
                let kind = if discovers {
                    Kind::Neighbour
                } else {
                    Kind::Icmp
                };
                return Ok(Stage::new(kind, &ip));
            }
            _ => {
                return Err(unless_ours::<V>(
                    context,
                    ip.destination,
                    DropReason::NoService,
                ));
            }
        };
        let tuple = Tuple::<V> {
            source: ip.source,
            destination: ip.destination,
            source_port: u16_at(payload, 0),
            destination_port: u16_at(payload, 2),
            protocol,
        };
        let hash = self.flows.hash(&tuple);
        if context.steer {
            let owner = steer::owner_at_once(context.tables, &tuple, hash, self.workers);
            if let Some(owner) = owner.filter(|owner| *owner != self.index)
                && is_forwarded::<V>(context, ip.destination)
            {
                return Err(Verdict::Redirect(owner));
            }
        }
        Ok(Stage {
            flags,
            protocol,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            hash,
            ..Stage::new(Kind::Transport, &ip)
        })
    }
}

/// What can't be forwarded is dropped if it was for us to forward, and the kernel's otherwise.
fn unless_ours<V: Family>(
    context: &Context<'_>,
    destination: V::Address,
    reason: DropReason,
) -> Verdict {
    if is_forwarded::<V>(context, destination) {
        Verdict::Drop(reason)
    } else {
        Verdict::Kernel
    }
}

/// Whether packets to this address are the forwarder's.
pub(super) fn is_forwarded<V: Family>(context: &Context<'_>, destination: V::Address) -> bool {
    matches!(
        context.tables.net::<V>().owned(destination),
        Some(Owned::Vip { .. } | Owned::LocalIp(_))
    )
}
