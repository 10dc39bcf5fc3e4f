//! The first stage: what a frame is, and for a transport packet whose.

use std::net::Ipv4Addr;

use super::{Context, NONE, Worker};
use crate::flow::Tuple;
use crate::limits::{ETHERNET_HEADER, SHORTEST_FRAME};
use crate::service::Protocol;
use crate::steer;
use crate::tables::Owned;
use crate::wire::ipv4::Ipv4;
use crate::wire::{ethernet, ipv4, tcp, u16_at, udp};
use crate::{DropReason, Frame, Verdict};

/// What the first stage found out.
#[derive(Clone, Copy)]
pub(super) struct Staged {
    pub(super) kind: Kind,
    /// Of TCP: the flags that matter; 0 for UDP.
    pub(super) flags: u8,
    pub(super) ip: Ipv4,
    pub(super) tuple: Tuple,
    pub(super) hash: u64,
    /// Filled in by the second stage.
    pub(super) candidate: u32,
}

/// What a frame is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// TCP or UDP over IPv4, well-formed.
    Transport,
    Icmp,
    Arp,
    /// Nothing further to do.
    Settled(Verdict),
}

impl Staged {
    pub(super) const NOTHING: Staged = Staged {
        kind: Kind::Settled(Verdict::Kernel),
        flags: 0,
        ip: Ipv4 {
            header: 0,
            total: 0,
            ttl: 0,
            protocol: 0,
            dont_fragment: false,
            fragment: false,
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::UNSPECIFIED,
        },
        tuple: Tuple {
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::UNSPECIFIED,
            source_port: 0,
            destination_port: 0,
            protocol: Protocol::Udp,
        },
        hash: 0,
        candidate: NONE,
    };

    fn settled(verdict: Verdict) -> Self {
        Self {
            kind: Kind::Settled(verdict),
            ..Self::NOTHING
        }
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
    pub(super) fn classify(&self, context: &Context<'_>, frame: &[u8]) -> Staged {
        match self.parse(context, frame) {
            Ok(staged) => staged,
            Err(verdict) => Staged::settled(verdict),
        }
    }

    #[inline]
    fn parse(&self, context: &Context<'_>, frame: &[u8]) -> Result<Staged, Verdict> {
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
            ethernet::IPV4 if destination == mac => self.parse_ipv4(context, packet),
            ethernet::ARP => Ok(Staged {
                kind: Kind::Arp,
                ..Staged::NOTHING
            }),
            _ => Err(Verdict::Kernel),
        }
    }

    #[inline]
    fn parse_ipv4(&self, context: &Context<'_>, packet: &[u8]) -> Result<Staged, Verdict> {
        let ip = Ipv4::parse(packet).map_err(Verdict::Drop)?;
        let payload = &packet[usize::from(ip.header)..usize::from(ip.total)];
        if ip.fragment {
            return Err(unless_ours(context, ip.destination, DropReason::Fragment));
        }
        let (protocol, flags) = match ip.protocol {
            ipv4::TCP => (Protocol::Tcp, tcp::parse(payload).map_err(Verdict::Drop)?),
            ipv4::UDP => {
                udp::parse(payload).map_err(Verdict::Drop)?;
                (Protocol::Udp, 0)
            }
            ipv4::ICMP => {
                return Ok(Staged {
                    kind: Kind::Icmp,
                    ip,
                    ..Staged::NOTHING
                });
            }
            _ => return Err(unless_ours(context, ip.destination, DropReason::NoService)),
        };
        let tuple = Tuple {
            source: ip.source,
            destination: ip.destination,
            source_port: u16_at(payload, 0),
            destination_port: u16_at(payload, 2),
            protocol,
        };
        let hash = self.flows.hash(&tuple);
        if context.steer {
            let owner = steer::owner(context.tables, &tuple, hash, self.workers);
            if owner != self.index && is_forwarded(context, ip.destination) {
                return Err(Verdict::Redirect(owner));
            }
        }
        Ok(Staged {
            kind: Kind::Transport,
            flags,
            ip,
            tuple,
            hash,
            candidate: NONE,
        })
    }
}

/// What can't be forwarded is dropped if it was for us to forward, and the kernel's otherwise.
fn unless_ours(context: &Context<'_>, destination: Ipv4Addr, reason: DropReason) -> Verdict {
    if is_forwarded(context, destination) {
        Verdict::Drop(reason)
    } else {
        Verdict::Kernel
    }
}

/// Whether packets to this address are the forwarder's.
pub(super) fn is_forwarded(context: &Context<'_>, destination: Ipv4Addr) -> bool {
    matches!(
        context.tables.owned(destination),
        Some(Owned::Vip { .. } | Owned::LocalIp(_))
    )
}
