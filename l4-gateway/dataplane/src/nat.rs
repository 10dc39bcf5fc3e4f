//! Rewriting a packet in place. Checksums are updated, not computed anew, so that a packet damaged before stays detectably so.

use std::net::Ipv4Addr;

use crate::family::{Family, V4};
use crate::flow::{Addresses, Flow, Side};
use crate::limits::ETHERNET_HEADER;
use crate::service::Protocol;
use crate::wire::checksum::Delta;
use crate::wire::{ipv4, put, tcp, u32_at, udp};

/// What becomes of the addresses of a packet from one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<A> {
    source: A,
    destination: A,
    /// Source and destination port, as written.
    ports: [u8; 4],
    shift: u32,
    side: Side,
}

impl<A: Copy> Rewrite<A> {
    /// Of packets that come from `side`.
    #[inline]
    pub(crate) fn new(flow: &Flow, addresses: &Addresses<A>, side: Side) -> Self {
        match side {
            Side::Client => Self {
                source: addresses.local,
                destination: addresses.target,
                ports: written(flow.local_port, flow.target_port),
                shift: flow.shift,
                side,
            },
            Side::Target => Self {
                source: addresses.vip,
                destination: addresses.client,
                ports: written(flow.vip_port, flow.client_port),
                shift: flow.shift,
                side,
            },
        }
    }
}

/// Two ports as the first bytes of a transport header.
#[inline]
fn written(source: u16, destination: u16) -> [u8; 4] {
    (u32::from(source) << 16 | u32::from(destination)).to_be_bytes()
}

/// Rewrites a whole frame whose headers were parsed before (`header`: bytes of the IP header, `total`: of the IP packet). Counts one
/// hop.
#[inline]
pub(crate) fn rewrite<V: Family>(
    frame: &mut [u8],
    header: u16,
    total: u16,
    protocol: Protocol,
    to: &Rewrite<V::Address>,
) {
    let end = ETHERNET_HEADER + usize::from(total);
    let Some(packet) = frame.get_mut(ETHERNET_HEADER..end) else {
        return;
    };
    let delta = V::readdress(packet, to.source, to.destination, 1);
    if let Some(transport) = packet.get_mut(usize::from(header)..) {
        match protocol {
            Protocol::Tcp => rewrite_tcp(transport, to, delta),
            Protocol::Udp => rewrite_udp(transport, to, delta),
        }
    }
}

/// Bytes from the start of a frame to the end of a TCP header without options, over IPv4 without options.
pub(crate) const PLAIN: usize = ETHERNET_HEADER + ipv4::HEADER + tcp::HEADER;

/// The start of a frame that holds IPv4 without options.
pub(crate) type Plain = [u8; PLAIN];

/// As [`rewrite`] of a frame that begins so, where a TCP segment has ACK; its SACK blocks are left to [`shift_sack`].
#[inline(always)]
pub(crate) fn rewrite_plain(frame: &mut Plain, protocol: Protocol, to: &Rewrite<Ipv4Addr>) {
    let packet = &mut frame[ETHERNET_HEADER..];
    let addresses = V4::readdress(packet, to.source, to.destination, 1);
    let Some(fixed) = packet.last_chunk_mut::<{ tcp::HEADER }>() else {
        return;
    };
    let delta = addresses.and(replace_ports(fixed, to.ports));
    match (protocol, to.side) {
        (Protocol::Tcp, Side::Client) => delta
            .and(add(fixed, tcp::SEQUENCE, to.shift))
            .apply_at(fixed, tcp::CHECKSUM),
        (Protocol::Tcp, Side::Target) => delta
            .and(add(fixed, tcp::ACKNOWLEDGMENT, to.shift.wrapping_neg()))
            .apply_at(fixed, tcp::CHECKSUM),
        (Protocol::Udp, _) => delta.apply_udp_at(fixed, udp::CHECKSUM),
    }
}

/// Moves the edges of SACK blocks in a segment from a target whose acknowledgment number was moved by `-shift`.
pub(crate) fn shift_sack(segment: &mut [u8], shift: u32) {
    tcp::shift_sack(segment, shift).apply_at(segment, tcp::CHECKSUM);
}

/// Rewrites the addresses of a later fragment of a packet from `side`; it has no ports. Counts one hop.
pub(crate) fn readdress<V: Family>(
    frame: &mut [u8],
    addresses: &Addresses<V::Address>,
    side: Side,
) {
    let (source, destination) = match side {
        Side::Client => (addresses.local, addresses.target),
        Side::Target => (addresses.vip, addresses.client),
    };
    if let Some(packet) = frame.get_mut(ETHERNET_HEADER..) {
        V::readdress(packet, source, destination, 1);
    }
}

#[inline]
fn rewrite_tcp<A>(segment: &mut [u8], to: &Rewrite<A>, mut delta: Delta) {
    let Some(fixed) = segment.first_chunk_mut::<{ tcp::HEADER }>() else {
        return;
    };
    delta = delta.and(replace_ports(fixed, to.ports));
    let acknowledges = fixed[13] & tcp::ACK != 0;
    match to.side {
        Side::Client => delta = delta.and(add(fixed, tcp::SEQUENCE, to.shift)),
        Side::Target if acknowledges => {
            delta = delta.and(add(fixed, tcp::ACKNOWLEDGMENT, to.shift.wrapping_neg()))
        }
        Side::Target => {}
    }
    let options = fixed[12] >> 4 > 5;
    if options && to.side == Side::Target && acknowledges {
        delta = delta.and(tcp::shift_sack(segment, to.shift));
    }
    delta.apply_at(segment, tcp::CHECKSUM);
}

#[inline]
fn rewrite_udp<A>(datagram: &mut [u8], to: &Rewrite<A>, delta: Delta) {
    let Some(fixed) = datagram.first_chunk_mut::<{ udp::HEADER }>() else {
        return;
    };
    let delta = delta.and(replace_ports(fixed, to.ports));
    delta.apply_udp_at(fixed, udp::CHECKSUM);
}

/// Writes the ports of a transport header; how that changes the checksum.
#[inline]
fn replace_ports<const N: usize>(header: &mut [u8; N], ports: [u8; 4]) -> Delta {
    let old = u32_at(header, 0).to_be_bytes();
    put(header, 0, ports);
    Delta::bytes(old, ports)
}

/// Adds to a double word; how that changes the checksum.
#[inline]
fn add(bytes: &mut [u8], at: usize, n: u32) -> Delta {
    let old = u32_at(bytes, at);
    let new = old.wrapping_add(n);
    put(bytes, at, new.to_be_bytes());
    Delta::double(old, new)
}

/// Undoes the rewriting in the packet an ICMP error quotes, so that the receiver of the error finds its own packet: the side
/// the error comes from got what `flow` made of it. `quote` starts at the quoted IP header, of `header` bytes.
///
/// The quote may end anywhere behind the first 8 bytes of the transport header: fields beyond it are left out. Its TTL is what
/// was left on arrival and stays.
pub(crate) fn restore_quote<V: Family>(
    quote: &mut [u8],
    header: usize,
    flow: &Flow,
    addresses: &Addresses<V::Address>,
    error_from: Side,
) {
    // What was sent towards `error_from` came from the other side.
    let original = match error_from {
        Side::Target => flow.client_key::<V>(addresses),
        Side::Client => flow.target_key::<V>(addresses),
    };
    let mut delta = V::readdress(quote, original.source, original.destination, 0);
    let Some(transport) = quote.get_mut(header..) else {
        return;
    };
    if let Some(place) = transport.first_chunk_mut::<4>() {
        let ports = written(original.source_port, original.destination_port);
        delta = delta.and(replace_ports(place, ports));
    }
    match original.protocol {
        Protocol::Tcp => {
            match error_from {
                Side::Target => {
                    let sequence = u32_at(transport, tcp::SEQUENCE);
                    let more = flow.as_client_counts(sequence).wrapping_sub(sequence);
                    delta = delta.and(add(transport, tcp::SEQUENCE, more));
                }
                Side::Client if transport.len() > 13 && transport[13] & tcp::ACK != 0 => {
                    let acknowledged = u32_at(transport, tcp::ACKNOWLEDGMENT);
                    let more = flow
                        .as_target_counts(acknowledged)
                        .wrapping_sub(acknowledged);
                    delta = delta.and(add(transport, tcp::ACKNOWLEDGMENT, more));
                }
                Side::Client => {}
            }
            delta.apply_at(transport, tcp::CHECKSUM);
        }
        Protocol::Udp => delta.apply_udp_at(transport, udp::CHECKSUM),
    }
}
