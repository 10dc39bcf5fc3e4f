//! Rewriting a packet in place. Checksums are updated, not computed anew, so that a packet damaged before stays detectably so.

use crate::family::Family;
use crate::flow::{Addresses, Flow, Side, Tuple};
use crate::limits::ETHERNET_HEADER;
use crate::service::Protocol;
use crate::wire::checksum::Delta;
use crate::wire::ip::Ip;
use crate::wire::{put, tcp, u16_at, u32_at, udp};

/// What becomes of the addresses of a packet from one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<A> {
    source: A,
    destination: A,
    source_port: u16,
    destination_port: u16,
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
                source_port: flow.local_port,
                destination_port: flow.target_port,
                shift: flow.shift,
                side,
            },
            Side::Target => Self {
                source: addresses.vip,
                destination: addresses.client,
                source_port: flow.vip_port,
                destination_port: flow.client_port,
                shift: flow.shift,
                side,
            },
        }
    }
}

/// Rewrites a whole frame whose headers were parsed before into `ip` and `tuple`. Counts one hop.
#[inline]
pub(crate) fn rewrite<V: Family>(
    frame: &mut [u8],
    ip: &Ip<V>,
    tuple: &Tuple<V>,
    to: &Rewrite<V::Address>,
) {
    let delta = V::delta(
        [tuple.source, tuple.destination],
        [to.source, to.destination],
    );
    let end = ETHERNET_HEADER + usize::from(ip.total);
    let Some(packet) = frame.get_mut(ETHERNET_HEADER..end) else {
        return;
    };
    V::readdress(packet, to.source, to.destination, delta, 1);
    let delta = delta
        .and(Delta::word(tuple.source_port, to.source_port))
        .and(Delta::word(tuple.destination_port, to.destination_port));
    if let Some(transport) = packet.get_mut(usize::from(ip.header)..) {
        match tuple.protocol {
            Protocol::Tcp => rewrite_tcp(transport, to, delta),
            Protocol::Udp => rewrite_udp(transport, to, delta),
        }
    }
}

#[inline]
fn rewrite_tcp<A>(segment: &mut [u8], to: &Rewrite<A>, mut delta: Delta) {
    let Some(fixed) = segment.first_chunk_mut::<{ tcp::HEADER }>() else {
        return;
    };
    put(fixed, 0, to.source_port.to_be_bytes());
    put(fixed, 2, to.destination_port.to_be_bytes());
    let acknowledges = fixed[13] & tcp::ACK != 0;
    match to.side {
        Side::Client => delta = delta.and(add(fixed, tcp::SEQUENCE, to.shift)),
        Side::Target if acknowledges => {
            delta = delta.and(add(fixed, tcp::ACKNOWLEDGMENT, to.shift.wrapping_neg()))
        }
        Side::Target => {}
    }
    let options = fixed[12] >> 4 > 5;
    let checksum = u16_at(fixed, tcp::CHECKSUM);
    if options && to.side == Side::Target && acknowledges {
        delta = delta.and(tcp::shift_sack(segment, to.shift));
    }
    put(segment, tcp::CHECKSUM, delta.apply(checksum).to_be_bytes());
}

#[inline]
fn rewrite_udp<A>(datagram: &mut [u8], to: &Rewrite<A>, delta: Delta) {
    let Some(fixed) = datagram.first_chunk_mut::<{ udp::HEADER }>() else {
        return;
    };
    put(fixed, 0, to.source_port.to_be_bytes());
    put(fixed, 2, to.destination_port.to_be_bytes());
    let checksum = u16_at(fixed, udp::CHECKSUM);
    put(
        fixed,
        udp::CHECKSUM,
        delta.apply_udp(checksum).to_be_bytes(),
    );
}

/// Adds to a double word; how that changes the checksum.
#[inline]
fn add(bytes: &mut [u8], at: usize, n: u32) -> Delta {
    let old = u32_at(bytes, at);
    let new = old.wrapping_add(n);
    put(bytes, at, new.to_be_bytes());
    Delta::double(old, new)
}

/// Takes the timestamp option out of a client's SYN.
pub(crate) fn strip_timestamps<V: Family>(frame: &mut [u8], ip: &Ip<V>) {
    let end = ETHERNET_HEADER + usize::from(ip.total);
    if let Some(segment) = frame.get_mut(ETHERNET_HEADER + usize::from(ip.header)..end) {
        let delta = tcp::strip_timestamps(segment);
        let checksum = u16_at(segment, tcp::CHECKSUM);
        put(segment, tcp::CHECKSUM, delta.apply(checksum).to_be_bytes());
    }
}

/// Undoes the rewriting in the packet an ICMP error quotes, so that the receiver of the error finds its own packet: the side
/// the error comes from got what `flow` made of it. `quote` starts at the quoted IP header, of `header` bytes, in which
/// `quoted` was found.
///
/// The quote may end anywhere behind the first 8 bytes of the transport header: fields beyond it are left out. Its TTL is what
/// was left on arrival and stays.
pub(crate) fn restore_quote<V: Family>(
    quote: &mut [u8],
    header: usize,
    quoted: &Tuple<V>,
    flow: &Flow,
    addresses: &Addresses<V::Address>,
    error_from: Side,
) {
    // What was sent towards `error_from` came from the other side.
    let original = match error_from {
        Side::Target => flow.client_key::<V>(addresses),
        Side::Client => flow.target_key::<V>(addresses),
    };
    let (source, destination) = (original.source, original.destination);
    let mut delta = V::delta([quoted.source, quoted.destination], [source, destination]);
    V::readdress(quote, source, destination, delta, 0);
    delta = delta
        .and(Delta::word(quoted.source_port, original.source_port))
        .and(Delta::word(
            quoted.destination_port,
            original.destination_port,
        ));
    let Some(transport) = quote.get_mut(header..) else {
        return;
    };
    put(transport, 0, original.source_port.to_be_bytes());
    put(transport, 2, original.destination_port.to_be_bytes());
    match original.protocol {
        Protocol::Tcp => {
            match error_from {
                Side::Target => {
                    delta = delta.and(add(transport, tcp::SEQUENCE, flow.shift.wrapping_neg()))
                }
                Side::Client if transport.len() > 13 && transport[13] & tcp::ACK != 0 => {
                    delta = delta.and(add(transport, tcp::ACKNOWLEDGMENT, flow.shift));
                }
                Side::Client => {}
            }
            if transport.len() >= tcp::CHECKSUM + 2 {
                let checksum = u16_at(transport, tcp::CHECKSUM);
                put(
                    transport,
                    tcp::CHECKSUM,
                    delta.apply(checksum).to_be_bytes(),
                );
            }
        }
        Protocol::Udp => {
            let checksum = u16_at(transport, udp::CHECKSUM);
            put(
                transport,
                udp::CHECKSUM,
                delta.apply_udp(checksum).to_be_bytes(),
            );
        }
    }
}
