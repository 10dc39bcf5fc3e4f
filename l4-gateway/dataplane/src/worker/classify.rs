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
    /// A transport packet as plain as [`super::plain`] wants it.
    pub(super) is_plain: bool,
    /// Of TCP: the flags that matter; 0 for UDP.
    pub(super) flags: u8,
    pub(super) ttl: u8,
    pub(super) protocol: Protocol,
    pub(super) dont_fragment: bool,
    pub(super) header: u16,
    pub(super) total: u16,
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
    /// Part of a packet to one of our addresses.
    Fragment,
    Icmp,
    Arp,
    /// A neighbour solicitation or advertisement, to our MAC.
    Neighbour,
    /// IPv6 to a multicast MAC: it may be a question about an address of ours.
    Multicast,
    /// In no VLAN, but with a tag that says how urgent it is.
    PriorityTagged,
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
            is_plain: false,
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
    fn set<V: Family>(&mut self, kind: Kind, ip: &Ip<V>) {
        self.kind = kind;
        self.is_v6 = V::IS_V6;
        self.ttl = ip.ttl;
        self.dont_fragment = ip.dont_fragment;
        self.header = ip.header;
        self.total = ip.total;
    }

    /// Both ports, as the first bytes of a transport header.
    #[inline]
    pub(super) fn ports(&self) -> u32 {
        u32::from(self.source_port) << 16 | u32::from(self.destination_port)
    }

    #[inline]
    pub(super) fn set_ports(&mut self, ports: u32) {
        self.source_port = (ports >> 16) as u16;
        self.destination_port = ports as u16;
    }

    /// A transport packet, or the first fragment of one, found apart from the burst.
    pub(super) fn found<V: Family>(ip: &Ip<V>, tuple: &Tuple<V>, flags: u8, hash: u64) -> Self {
        let mut stage = Self::NOTHING;
        stage.set(Kind::Transport, ip);
        stage.flags = flags;
        stage.protocol = tuple.protocol;
        stage.source_port = tuple.source_port;
        stage.destination_port = tuple.destination_port;
        stage.hash = hash;
        stage
    }

    /// The tuple of a transport packet, which is this frame.
    #[inline]
    pub(super) fn tuple<V: Family>(&self, frame: &[u8]) -> Tuple<V> {
        let (source, destination) = V::ends(frame.get(ETHERNET_HEADER..).unwrap_or(&[]));
        Tuple {
            source,
            destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
        }
    }

    /// With all that is in the frame.
    pub(super) fn of<V: Family>(&self, frame: &[u8]) -> Staged<V> {
        let tuple = self.tuple::<V>(frame);
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
                source: tuple.source,
                destination: tuple.destination,
            },
            tuple,
            hash: self.hash,
        }
    }

    /// Cuts off what stands behind the packet: nobody checked it, and the next link may be smaller than the last. Padding up
    /// to the shortest frame stays, for links that want it.
    #[inline]
    pub(super) fn trim<F: Frame>(&self, frame: &mut F) {
        trim(frame, self.total);
    }

    /// The bytes of the IP payload.
    pub(super) fn payload(&self) -> std::ops::Range<usize> {
        ETHERNET_HEADER + usize::from(self.header)..ETHERNET_HEADER + usize::from(self.total)
    }
}

impl<V: Family> Staged<V> {
    /// A packet found in a frame that no flow is looked up for.
    pub(super) fn apart(ip: &Ip<V>, frame: &[u8]) -> Self {
        let mut stage = Stage::NOTHING;
        stage.set(Kind::Icmp, ip);
        stage.of(frame)
    }

    /// See [`Stage::trim`].
    pub(super) fn trim<F: Frame>(&self, frame: &mut F) {
        trim(frame, self.ip.total);
    }

    /// The bytes of the IP payload.
    pub(super) fn payload(&self) -> std::ops::Range<usize> {
        ETHERNET_HEADER + usize::from(self.ip.header)..ETHERNET_HEADER + usize::from(self.ip.total)
    }
}

/// See [`Stage::trim`].
#[inline]
pub(super) fn trim<F: Frame>(frame: &mut F, total: u16) {
    let end = SHORTEST_FRAME.max(ETHERNET_HEADER + usize::from(total));
    if frame.bytes().len() > end {
        frame.trim(end);
    }
}

/// What becomes of a frame from a group's MAC, which nobody has, or from ours.
#[cold]
fn of_no_neighbour(context: &Context<'_>, source: u64) -> Verdict {
    match source == context.mac && context.port.hears_kernel {
        true => Verdict::Kernel,
        false => Verdict::Drop(DropReason::BadSource),
    }
}

impl Worker {
    /// Fills in all of `stage` but the candidate.
    #[inline]
    pub(super) fn classify(&self, context: &Context<'_>, frame: &[u8], stage: &mut Stage) {
        if self.classify_plain(context, frame, stage) {
            return;
        }
        *stage = Stage::NOTHING;
        if let Err(verdict) = self.parse(context, frame, stage) {
            stage.kind = Kind::Settled(verdict);
        }
    }

    #[inline(never)]
    fn parse(&self, context: &Context<'_>, frame: &[u8], stage: &mut Stage) -> Result<(), Verdict> {
        let (header, packet) = frame
            .split_first_chunk()
            .ok_or(Verdict::Drop(DropReason::Truncated))?;
        let (destination, source, ether_type) = ethernet::numbers(header);
        let mac = context.mac;
        if source & ethernet::GROUP != 0 || source == mac {
            return Err(of_no_neighbour(context, source));
        }
        if destination != mac && destination & ethernet::GROUP == 0 {
            return Err(Verdict::Drop(DropReason::OtherMac));
        }
        match ether_type {
            ethernet::IPV4 if destination == mac => self.parse_ip::<V4>(context, packet, stage),
            ethernet::IPV6 if destination == mac => self.parse_ip::<V6>(context, packet, stage),
            ethernet::IPV6 => {
                stage.kind = Kind::Multicast;
                Ok(())
            }
            ethernet::ARP => {
                stage.kind = Kind::Arp;
                Ok(())
            }
            ethernet::VLAN if ethernet::is_priority_tag(packet) => {
                stage.kind = Kind::PriorityTagged;
                Ok(())
            }
            _ => Err(Verdict::Kernel),
        }
    }

    #[inline]
    fn parse_ip<V: Family>(
        &self,
        context: &Context<'_>,
        packet: &[u8],
        stage: &mut Stage,
    ) -> Result<(), Verdict> {
        let ip = V::parse(packet).map_err(Verdict::Drop)?;
        // `V::parse` has seen to it that the header ends within the total length, and that within the frame.
        let payload = &packet[usize::from(ip.header)..usize::from(ip.total)];
        if ip.fragment {
            super::fragment::is_followed(context, &ip)?;
            stage.set(Kind::Fragment, &ip);
            return Ok(());
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
                stage.set(kind, &ip);
                return Ok(());
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
        if context.steer
            && let Some(redirect) = self.owned_elsewhere(context, &tuple, hash)
        {
            return Err(redirect);
        }
        stage.set(Kind::Transport, &ip);
        stage.flags = flags;
        stage.protocol = protocol;
        stage.source_port = tuple.source_port;
        stage.destination_port = tuple.destination_port;
        stage.hash = hash;
        Ok(())
    }

    /// The verdict on a packet that can be told at once to be another worker's.
    #[inline]
    pub(super) fn owned_elsewhere<V: Family>(
        &self,
        context: &Context<'_>,
        tuple: &Tuple<V>,
        hash: u64,
    ) -> Option<Verdict> {
        steer::owner_at_once(context.tables, tuple, hash, self.workers)
            .filter(|owner| *owner != self.index && is_forwarded::<V>(context, tuple.destination))
            .map(Verdict::Redirect)
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
