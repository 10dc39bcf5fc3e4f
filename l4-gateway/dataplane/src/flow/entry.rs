//! What is known of one flow: one cache line, and for IPv6 another with its addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::index::NONE;
use super::state::{FlowState, Progress};
use super::tuple::Tuple;
use crate::client_address::Insertion;
use crate::client_address::proxy::{self, Gap};
use crate::family::{self, Family};
use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::service::{Mode, Protocol};

/// A next hop that has to be looked up.
pub(crate) const HOP_UNKNOWN: u16 = u16::MAX;

/// From which side a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Target,
}

/// The addresses of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Addresses<A> {
    pub(crate) client: A,
    pub(crate) vip: A,
    pub(crate) target: A,
    pub(crate) local: A,
}

impl<A: Into<IpAddr>> Addresses<A> {
    /// Of either family.
    pub(crate) fn widened(self) -> Addresses<IpAddr> {
        Addresses {
            client: self.client.into(),
            vip: self.vip.into(),
            target: self.target.into(),
            local: self.local.into(),
        }
    }
}

/// One flow, in all that forwarding touches.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Flow {
    /// Of an IPv4 flow; those of an IPv6 flow are in the table's wide lines. Read them by [`Family::addresses`].
    pub(crate) narrow: Addresses<Ipv4Addr>,
    pub(crate) client_port: u16,
    pub(crate) vip_port: u16,
    pub(crate) target_port: u16,
    pub(crate) local_port: u16,
    pub(crate) target_id: TargetId,
    /// The tick at which it expires without another packet.
    pub(crate) deadline: u32,
    /// Added to sequence numbers from the client, subtracted from acknowledgments to it.
    pub(crate) shift: u32,
    /// TCP: the sequence number behind the client's last segment, as the client counts and a header in the [`Flow::gap`] as well: the
    /// target knows it by [`Flow::shift`] more.
    pub(crate) client_next: u32,
    /// TCP: the last acknowledgment number the client sent.
    pub(crate) client_acked: u32,
    /// TCP: the sequence number of the first byte of the client's stream (its initial sequence number + 1).
    pub(crate) origin: u32,
    /// The next in the list this entry is in: a slot of the expiry wheel, or the free entries.
    pub(crate) next: u32,
    service: u16,
    /// The worker's count of next hop changes when the hops below were looked up.
    pub(crate) hop_epoch: u16,
    pub(crate) hop_to_client: u16,
    pub(crate) hop_to_target: u16,
    pub(crate) progress: Progress,
    pub(crate) local_id: LocalIpId,
    marks: u16,
}

const _: () = assert!(size_of::<Flow>() == 64);

/// Bits of [`Flow::marks`]; the rest are free.
///
/// In the index; not set in a free entry, nor in one that was replaced and waits for the wheel to pass.
const ALIVE: u16 = 1 << 0;
/// IPv6, not IPv4.
const V6: u16 = 1 << 1;
/// TCP, not UDP.
const TCP: u16 = 1 << 2;
/// Found by packets from the client only: its target answers the client itself, and it has no local port.
const ONE_SIDED: u16 = 1 << 3;
/// Found by packets from its target only: each datagram of its client is scheduled anew, and goes by it if its target comes out.
const ONE_PACKET: u16 = 1 << 4;
/// Counted for its source: the worker knows the seat.
const SEATED: u16 = 1 << 5;
/// Keeps its source at its target.
const PERSISTENT: u16 = 1 << 6;
/// A SYN that doesn't belong to the connection was passed on; [`Flow::origin`] says with which number.
const KNOCKED: u16 = 1 << 8;
/// The lowest of the three bits of an [`Insertion`], the highest bits there are.
const INSERTION: u32 = 13;
/// The highest of them: segments of the flow change now.
const INSERTS: u16 = 1 << 15;
/// One-sided, and packets go to the target inside others.
const TUNNELLED: u16 = 1 << 7;

impl Flow {
    /// A free entry.
    pub(crate) const FREE: Flow = Flow {
        narrow: Addresses {
            client: Ipv4Addr::UNSPECIFIED,
            vip: Ipv4Addr::UNSPECIFIED,
            target: Ipv4Addr::UNSPECIFIED,
            local: Ipv4Addr::UNSPECIFIED,
        },
        client_port: 0,
        vip_port: 0,
        target_port: 0,
        local_port: 0,
        target_id: TargetId(0),
        deadline: 0,
        shift: 0,
        client_next: 0,
        client_acked: 0,
        origin: 0,
        next: NONE,
        service: 0,
        hop_epoch: 0,
        hop_to_client: HOP_UNKNOWN,
        hop_to_target: HOP_UNKNOWN,
        progress: Progress::new(FlowState::Udp),
        local_id: LocalIpId(0),
        marks: 0,
    };

    /// A flow between the sender of a packet (the client side key) and a port of a target. Its addresses are kept apart.
    pub(crate) fn new<V: Family>(packet: &Tuple<V>, target_port: u16, local_port: u16) -> Self {
        Self {
            client_port: packet.source_port,
            vip_port: packet.destination_port,
            target_port,
            local_port,
            progress: Progress::new(match packet.protocol {
                Protocol::Tcp => FlowState::SynReceived,
                Protocol::Udp => FlowState::Udp,
            }),
            marks: marks::<V>(packet.protocol),
            ..Self::FREE
        }
    }

    /// The service, by number: there are at most 65,536.
    #[inline]
    pub(crate) fn service(&self) -> ServiceId {
        ServiceId(u32::from(self.service))
    }

    pub(crate) fn with_service(self, service: ServiceId) -> Self {
        Self {
            service: service.0 as u16,
            ..self
        }
    }

    /// As the service's mode wants it: but for FULLNAT, packets from the target don't find it.
    pub(crate) fn in_mode(self, mode: Mode) -> Self {
        self.marked(match mode {
            Mode::FullNat => 0,
            Mode::Direct => ONE_SIDED,
            Mode::Tunnel => ONE_SIDED | TUNNELLED,
        })
    }

    /// The LocalIP that its packets leave by: of FULLNAT only.
    pub(crate) fn local_ip(&self) -> Option<LocalIpId> {
        self.is_two_sided().then_some(self.local_id)
    }

    /// Whether packets go to the target inside others.
    pub(crate) fn is_tunnelled(&self) -> bool {
        self.marks & TUNNELLED != 0
    }

    /// Found by [`super::FlowTable::find_one_packet`] in place of packets from the client.
    pub(crate) fn one_packet(self) -> Self {
        self.marked(ONE_PACKET)
    }

    pub(crate) fn is_one_packet(&self) -> bool {
        self.marks & ONE_PACKET != 0
    }

    /// Counted for its source.
    pub(crate) fn seated(self) -> Self {
        self.marked(SEATED)
    }

    pub(crate) fn is_seated(&self) -> bool {
        self.marks & SEATED != 0
    }

    /// Keeps its source at its target.
    pub(crate) fn persistent(self) -> Self {
        self.marked(PERSISTENT)
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.marks & PERSISTENT != 0
    }

    fn marked(self, mark: u16) -> Self {
        Self {
            marks: self.marks | mark,
            ..self
        }
    }

    /// Whether packets from the target find it.
    #[inline]
    pub(crate) fn is_two_sided(&self) -> bool {
        self.marks & ONE_SIDED == 0
    }

    /// Whether an end may take the connection for alive, and should hear of it if the flow ends: not of a handshake that nobody
    /// finished, whose client may be an address that somebody made up.
    pub(crate) fn is_open(&self) -> bool {
        match self.progress.state() {
            FlowState::Established => true,
            // Where the target isn't heard, that is how every connection ends.
            FlowState::FinClient | FlowState::FinTarget => self.is_two_sided(),
            _ => false,
        }
    }

    /// Whether it counts as established: the handshake is complete, and neither FIN nor RST has been believed.
    #[inline]
    pub(crate) fn is_established(&self) -> bool {
        self.progress.state() == FlowState::Established
    }

    /// Whether the connection is closed, as far as can be seen, and the flow is kept for what may come late.
    pub(crate) fn is_closed(&self) -> bool {
        match self.progress.state() {
            FlowState::TimeWait | FlowState::Closed => true,
            // Where the target isn't heard, that is how every connection ends.
            FlowState::FinClient => !self.is_two_sided(),
            _ => false,
        }
    }

    /// Notes that a SYN was passed on to a target that may have forgotten the connection.
    pub(super) fn knock(&mut self, sequence: u32) {
        self.origin = sequence.wrapping_add(1);
        self.marks |= KNOCKED;
    }

    /// Whether a target that acknowledges this (as the client counts) answers the SYN of [`Flow::knock`].
    pub(super) fn answers_knock(&self, acknowledged: u32) -> bool {
        self.marks & KNOCKED != 0 && acknowledged == self.origin
    }

    pub(super) fn forget_knock(&mut self) {
        self.marks &= !KNOCKED;
    }

    /// Whether the entry is in the index.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.marks & ALIVE != 0
    }

    pub(super) fn set_alive(&mut self, alive: bool) {
        self.marks = self.marks & !ALIVE | if alive { ALIVE } else { 0 };
    }

    #[inline]
    pub(crate) fn is_v6(&self) -> bool {
        self.marks & V6 != 0
    }

    #[inline]
    pub(crate) fn protocol(&self) -> Protocol {
        if self.marks & TCP != 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    /// What the flow does so that its target learns the client's address.
    pub(crate) fn insertion(&self) -> Insertion {
        Insertion::from_number(self.marks >> INSERTION)
    }

    pub(crate) fn set_insertion(&mut self, insertion: Insertion) {
        let rest = self.marks & ((1 << INSERTION) - 1);
        self.marks = rest | insertion.number() << INSERTION;
    }

    /// Whether that changes segments now, SYNs apart.
    #[inline]
    pub(crate) fn inserts(&self) -> bool {
        self.marks & INSERTS != 0
    }

    /// Where a PROXY header stands in the client's numbers, if the flow's shift doesn't account for it.
    pub(crate) fn gap(&self) -> Option<Gap> {
        matches!(self.insertion(), Insertion::ProxyOffered | Insertion::Proxy).then(|| Gap {
            origin: self.origin,
            length: if self.is_v6() {
                proxy::OVER_IPV6
            } else {
                proxy::OVER_IPV4
            } as u32,
        })
    }

    /// What the target calls the client's sequence number.
    pub(crate) fn as_target_counts(&self, sequence: u32) -> u32 {
        let sequence = self.gap().map_or(sequence, |gap| gap.to_target(sequence));
        sequence.wrapping_add(self.shift)
    }

    /// What the client calls a sequence number of its, by which the target knows it.
    pub(crate) fn as_client_counts(&self, sequence: u32) -> u32 {
        let sequence = sequence.wrapping_sub(self.shift);
        self.gap().map_or(sequence, |gap| gap.to_client(sequence))
    }

    /// The tuple of packets from the client.
    pub(crate) fn client_key<V: Family>(&self, addresses: &Addresses<V::Address>) -> Tuple<V> {
        Tuple {
            source: addresses.client,
            destination: addresses.vip,
            source_port: self.client_port,
            destination_port: self.vip_port,
            protocol: self.protocol(),
        }
    }

    /// The tuple of packets from the target.
    #[inline]
    pub(crate) fn target_key<V: Family>(&self, addresses: &Addresses<V::Address>) -> Tuple<V> {
        Tuple {
            source: addresses.target,
            destination: addresses.local,
            source_port: self.target_port,
            destination_port: self.local_port,
            protocol: self.protocol(),
        }
    }

    /// As [`Flow::side`] of an IPv4 packet whose addresses are `addresses` as they lie in memory; none as well if more is to be done
    /// with it than to rewrite it.
    #[inline(always)]
    pub(crate) fn plain_side(
        &self,
        protocol: Protocol,
        addresses: u64,
        ports: u32,
    ) -> Option<Side> {
        self.plain_side_but(INSERTS, protocol, addresses, ports)
    }

    /// As [`Flow::plain_side`], of a flow in front of whose stream a PROXY header goes that its target may not have yet.
    #[inline]
    pub(crate) fn proxied_side(&self, addresses: u64, ports: u32) -> Option<Side> {
        (self.insertion() == Insertion::Proxy)
            .then(|| self.plain_side_but(0, Protocol::Tcp, addresses, ports))
            .flatten()
    }

    /// As [`Flow::plain_side`], of a flow that has none of these marks.
    #[inline(always)]
    fn plain_side_but(
        &self,
        apart: u16,
        protocol: Protocol,
        addresses: u64,
        ports: u32,
    ) -> Option<Side> {
        let differs = self.marks ^ marks::<family::V4>(protocol);
        if differs & (ALIVE | V6 | TCP | ONE_SIDED | ONE_PACKET | apart) != 0 {
            return None;
        }
        let Addresses {
            client,
            vip,
            target,
            local,
        } = self.narrow;
        if addresses == pair(client, vip)
            && ports == u32::from(self.client_port) << 16 | u32::from(self.vip_port)
        {
            Some(Side::Client)
        } else if addresses == pair(target, local)
            && ports == u32::from(self.target_port) << 16 | u32::from(self.local_port)
        {
            Some(Side::Target)
        } else {
            None
        }
    }

    /// From which side of this flow, with these addresses, a packet comes, if from any.
    #[inline]
    pub(super) fn side<V: Family>(
        &self,
        addresses: impl FnOnce() -> Addresses<V::Address>,
        packet: &Tuple<V>,
    ) -> Option<Side> {
        let differs = self.marks ^ marks::<V>(packet.protocol);
        if differs & (ALIVE | V6 | TCP) != 0 {
            return None;
        }
        let addresses = addresses();
        if (self.client_port, self.vip_port) == (packet.source_port, packet.destination_port)
            && addresses.client == packet.source
            && addresses.vip == packet.destination
        {
            Some(Side::Client)
        } else if (self.target_port, self.local_port)
            == (packet.source_port, packet.destination_port)
            && addresses.target == packet.source
            && addresses.local == packet.destination
            && differs & ONE_SIDED == 0
        {
            Some(Side::Target)
        } else {
            None
        }
    }
}

/// Two addresses as they lie in memory one after the other.
#[inline(always)]
fn pair(first: Ipv4Addr, second: Ipv4Addr) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.octets(), second.octets());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The marks of a living flow that packets of both sides find.
#[inline]
fn marks<V: Family>(protocol: Protocol) -> u16 {
    let family = if V::IS_V6 { V6 } else { 0 };
    let transport = match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => 0,
    };
    ALIVE | family | transport
}
