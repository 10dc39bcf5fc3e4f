//! The packets that almost all are: IPv4 without IP options, a datagram or a segment with ACK, of a known flow, whose next hop is known and takes
//! it. They go through here in a fraction of the instructions that all the cases take together. Nothing is decided otherwise here than by
//! `parse` and `forward`: what is not as plain in any respect is left to those, untouched. SYNs get as far as the first stage.

use super::classify::{Kind, Stage};
use super::{Context, Worker};
use crate::Frame;
use crate::client_address::Insertion;
use crate::client_address::proxy::Place;
use crate::counters::Cells;
use crate::family::V4;
use crate::flow::{Flow, FlowState, Numbers, Side};
use crate::limits::ETHERNET_HEADER;
use crate::nat::{self, Plain, Rewrite};
use crate::neighbour::{Neighbour, Neighbours};
use crate::port::PortIndex;
use crate::service::Protocol;
use crate::wire::{checksum, ethernet, ip, ipv4, tcp, udp};

/// Where in the frame things stand: the EtherType, fields of the IP header, and the transport header.
const ETHER_TYPE: usize = 12;
const TOTAL_LENGTH: usize = ETHERNET_HEADER + 2;
const FRAGMENTATION: usize = ETHERNET_HEADER + ipv4::FRAGMENTATION;
const TTL: usize = ETHERNET_HEADER + 8;
const PROTOCOL: usize = ETHERNET_HEADER + 9;
const ADDRESSES: usize = ETHERNET_HEADER + 12;
const TRANSPORT: usize = ETHERNET_HEADER + ipv4::HEADER;

/// Bytes at a place that is a constant within the head, so that the compiler finds nothing to check.
#[inline(always)]
fn bytes<const N: usize>(head: &Plain, at: usize) -> &[u8; N] {
    head[at..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn u16_of(head: &Plain, at: usize) -> u16 {
    u16::from_be_bytes(*bytes(head, at))
}

#[inline(always)]
fn u32_of(head: &Plain, at: usize) -> u32 {
    u32::from_be_bytes(*bytes(head, at))
}

#[inline(always)]
fn u64_of(head: &Plain, at: usize) -> u64 {
    u64::from_be_bytes(*bytes(head, at))
}

/// The numbers of a segment, and the sequence number behind it.
#[inline(always)]
fn numbers(head: &Plain, stage: &Stage) -> (Numbers, u32) {
    let numbers = Numbers {
        flags: stage.flags & !tcp::OPTIONS,
        sequence: u32_of(head, TRANSPORT + tcp::SEQUENCE),
        acknowledgment: u32_of(head, TRANSPORT + tcp::ACKNOWLEDGMENT),
    };
    let length = u32::from(stage.total) - ipv4::HEADER as u32;
    (numbers, tcp::next(bytes(head, TRANSPORT), length))
}

impl Worker {
    /// The first stage of a plain packet; false, and nothing has changed, of any other.
    #[inline(always)]
    pub(super) fn classify_plain(
        &self,
        context: &Context<'_>,
        frame: &[u8],
        stage: &mut Stage,
    ) -> bool {
        #[cfg(test)]
        if !self.takes_short_way {
            return false;
        }
        let Some(head) = frame.first_chunk::<{ nat::PLAIN }>() else {
            return false;
        };
        let destination = u64_of(head, 0) >> 16;
        let source = u64_of(head, 4) & 0xffff_ffff_ffff;
        // EtherType, version and header length; the last byte is the traffic class.
        let kind = u32_of(head, ETHER_TYPE) >> 8;
        let fragmentation = u16_of(head, FRAGMENTATION);
        if destination != context.mac
            || kind != u32::from(ethernet::IPV4) << 8 | 0x45
            || source & ethernet::GROUP != 0
            || source == context.mac
            || fragmentation & !ipv4::DONT_FRAGMENT != 0
        {
            return false;
        }
        let total = u16_of(head, TOTAL_LENGTH);
        let length = usize::from(total);
        if length + ETHERNET_HEADER > frame.len() || length < nat::PLAIN - ETHERNET_HEADER {
            return false;
        }
        if checksum::sum(bytes::<{ ipv4::HEADER }>(head, ETHERNET_HEADER)) != 0xffff {
            return false;
        }
        let mut is_plain = true;
        let protocol = match head[PROTOCOL] {
            ip::TCP => {
                let words = head[TRANSPORT + tcp::OFFSET] >> 4;
                let flags =
                    head[TRANSPORT + tcp::OFFSET + 1] & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK);
                let is_syn = flags & tcp::SYN != 0;
                if words < 5
                    || length < ipv4::HEADER + usize::from(words) * 4
                    || flags & (tcp::SYN | tcp::ACK) == 0
                    || is_syn && flags & (tcp::FIN | tcp::RST) != 0
                {
                    return false;
                }
                stage.flags = match words {
                    5 => flags,
                    8 if tcp::has_lone_timestamps(&frame[TRANSPORT..]) => flags,
                    _ => flags | tcp::OPTIONS,
                };
                is_plain = flags & tcp::ACK != 0;
                Protocol::Tcp
            }
            ip::UDP => {
                let datagram = u16_of(head, TRANSPORT + 4);
                let payload = length - ipv4::HEADER;
                if usize::from(datagram) < udp::HEADER || usize::from(datagram) > payload {
                    return false;
                }
                stage.flags = 0;
                Protocol::Udp
            }
            _ => return false,
        };
        let addresses = u64_of(head, ADDRESSES);
        let ports = u32_of(head, TRANSPORT);
        stage.kind = Kind::Transport;
        stage.is_v6 = false;
        stage.is_plain = is_plain;
        stage.ttl = head[TTL];
        stage.protocol = protocol;
        stage.dont_fragment = fragmentation != 0;
        stage.header = ipv4::HEADER as u16;
        stage.total = total;
        stage.set_ports(ports);
        stage.hash = self.flows.hash_plain(addresses, ports, protocol);
        if context.steer {
            let tuple = stage.tuple::<V4>(frame);
            if let Some(redirect) = self.owned_elsewhere(context, &tuple, stage.hash) {
                stage.kind = Kind::Settled(redirect);
                stage.is_plain = false;
            }
        }
        true
    }

    /// The third stage of a plain packet: the port by which it leaves. None if it is not to be forwarded as it is; nothing has changed
    /// then but what is known of its next hop.
    #[inline(always)]
    pub(super) fn pass<F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        stage: &Stage,
    ) -> Option<PortIndex> {
        let head = frame.bytes_mut().first_chunk_mut::<{ nat::PLAIN }>()?;
        let flow = self.flows.likely(stage.candidate)?;
        let addresses = u64::from_ne_bytes(*bytes(head, ADDRESSES));
        let Some(side) = flow.plain_side(stage.protocol, addresses, stage.ports()) else {
            return self.pass_beside_header(context, frame, stage);
        };
        if flow.hop_epoch != self.neighbours.epoch() || stage.ttl <= 1 {
            return None;
        }
        let hop = match side {
            Side::Client => flow.hop_to_target,
            Side::Target => {
                if !comes_from_target(&self.neighbours, context, flow) {
                    return None;
                }
                flow.hop_to_client
            }
        };
        let state = match stage.protocol {
            Protocol::Tcp => {
                if stage.flags != tcp::ACK || !flow.progress.is_established() {
                    return self.pass_turn(context, frame, stage, side);
                }
                FlowState::Established
            }
            // The flow may be about to be cut.
            Protocol::Udp if self.cuts.is_under_way() && context.tables.cuts_flow(flow) => {
                return None;
            }
            Protocol::Udp => FlowState::Udp,
        };
        let neighbour = self.neighbours.reached(hop, stage.total)?;
        if stage.protocol == Protocol::Tcp && side == Side::Client {
            let (numbers, next) = numbers(head, stage);
            if !flow.hears_on(numbers, next) {
                return None;
            }
        }
        let way = (side, neighbour, state);
        let port = rewrite_and_address(&self.cells, context, flow, head, stage, way);
        stage.trim(frame);
        #[cfg(test)]
        {
            self.went_short_way += 1;
        }
        Some(port)
    }

    /// The rest of [`Worker::pass`] for a client's segment of a connection whose PROXY header the target may not have yet: one that lies before
    /// the header or behind it, as long as nothing comes back all that the client sends.
    #[inline(never)]
    fn pass_beside_header<F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        stage: &Stage,
    ) -> Option<PortIndex> {
        let flow = self.flows.likely(stage.candidate)?;
        let gap = flow.gap()?;
        let place = gap.place(frame.bytes().get(stage.payload())?);
        let head = frame.bytes_mut().first_chunk_mut::<{ nat::PLAIN }>()?;
        let addresses = u64::from_ne_bytes(*bytes(head, ADDRESSES));
        if stage.protocol != Protocol::Tcp
            || flow.proxied_side(addresses, stage.ports())? != Side::Client
            || stage.flags != tcp::ACK
            || !flow.progress.is_established()
            || flow.hop_epoch != self.neighbours.epoch()
            || stage.ttl <= 1
        {
            return None;
        }
        let ahead = match place {
            Place::Before => 0,
            Place::Behind => gap.length,
            Place::First | Place::Across => return None,
        };
        let neighbour = self.neighbours.reached(flow.hop_to_target, stage.total)?;
        let (mut numbers, next) = numbers(head, stage);
        numbers.sequence = numbers.sequence.wrapping_add(ahead);
        if !flow.hears_on(numbers, next.wrapping_add(ahead)) {
            return None;
        }
        if place == Place::Behind
            && let Some(segment) = head.last_chunk_mut::<{ tcp::HEADER }>()
        {
            gap.move_on(segment).apply_at(segment, tcp::CHECKSUM);
        }
        let way = (Side::Client, neighbour, FlowState::Established);
        let port = rewrite_and_address(&self.cells, context, flow, head, stage, way);
        stage.trim(frame);
        #[cfg(test)]
        {
            self.went_short_way += 1;
        }
        Some(port)
    }

    /// The rest of [`Worker::pass`] for a segment that may be a turn in its flow's life, or has options.
    #[inline(never)]
    fn pass_turn<F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        stage: &Stage,
        side: Side,
    ) -> Option<PortIndex> {
        let head = frame.bytes_mut().first_chunk_mut::<{ nat::PLAIN }>()?;
        let flow = self.flows.likely(stage.candidate)?;
        // Of those with more in them than numbers only what comes from targets may go as it is.
        if stage.flags & (tcp::SYN | tcp::OPTIONS) != 0
            && (side == Side::Client || flow.insertion() != Insertion::None)
        {
            return None;
        }
        let is_established = flow.progress.is_established();
        let hop = self.hop::<V4>(context, stage.candidate, side).ok()?;
        self.neighbours.reached(hop, stage.total)?;
        let (numbers, next) = numbers(head, stage);
        if !(side == Side::Target && numbers.flags == tcp::ACK && is_established) {
            self.follow_turn::<V4>(numbers, next, stage.candidate, side);
        }
        // Both were found above, so that nothing ends this way any more.
        let flow = self.flows.get_mut(stage.candidate);
        let neighbour = self.neighbours.get(hop);
        let (state, shift) = (flow.progress.timed_as(), flow.shift);
        let way = (side, neighbour, state);
        let port = rewrite_and_address(&self.cells, context, flow, head, stage, way);
        if stage.flags & tcp::OPTIONS != 0
            && let Some(segment) = frame.bytes_mut().get_mut(stage.payload())
        {
            nat::shift_sack(segment, shift);
        }
        stage.trim(frame);
        #[cfg(test)]
        {
            self.went_short_way += 1;
        }
        Some(port)
    }
}

/// Whether a packet came in by the port by which its flow's target is reached: the target's do.
#[inline(always)]
fn comes_from_target(neighbours: &Neighbours, context: &Context<'_>, flow: &Flow) -> bool {
    let target = neighbours.known(flow.hop_to_target);
    target.is_some_and(|target| target.port == context.port.index)
}

/// Rewrites the start of a plain packet and addresses it to its next hop; the port by which that is reached.
#[inline(always)]
fn rewrite_and_address(
    cells: &Cells,
    context: &Context<'_>,
    flow: &mut Flow,
    head: &mut Plain,
    stage: &Stage,
    (side, neighbour, state): (Side, &Neighbour, FlowState),
) -> PortIndex {
    let deadline = context.tick + context.tables.timeout(flow.service(), state);
    if flow.deadline != deadline {
        flow.deadline = deadline;
    }
    cells.forwarded(flow, side, stage.total);
    let addresses = flow.narrow;
    let rewrite = Rewrite::new(flow, &addresses, side);
    nat::rewrite_plain(head, stage.protocol, &rewrite);
    head[..12].copy_from_slice(&neighbour.header);
    neighbour.port
}

#[cfg(test)]
mod tests;
