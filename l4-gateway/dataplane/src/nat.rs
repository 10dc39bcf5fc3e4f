//! Rewriting a packet in place. Checksums are updated, not computed anew, so that a packet damaged before stays detectably so.

use std::net::Ipv4Addr;

use crate::flow::{Flow, Side};
use crate::limits::ETHERNET_HEADER;
use crate::service::Protocol;
use crate::wire::checksum::Delta;
use crate::wire::{ipv4, put, tcp, u16_at, u32_at, udp};

/// What becomes of the addresses of a packet from one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
    address_delta: Delta,
    delta: Delta,
    shift: u32,
    side: Side,
}

impl Rewrite {
    /// Of packets that come from `side`.
    #[inline]
    pub(crate) fn new(flow: &Flow, side: Side) -> Self {
        match side {
            Side::Client => Self {
                source: flow.local,
                destination: flow.target,
                source_port: flow.local_port,
                destination_port: flow.target_port,
                address_delta: flow.address_delta,
                delta: flow.delta,
                shift: flow.shift,
                side,
            },
            Side::Target => Self {
                source: flow.vip,
                destination: flow.client,
                source_port: flow.vip_port,
                destination_port: flow.client_port,
                address_delta: flow.address_delta.reversed(),
                delta: flow.delta.reversed(),
                shift: flow.shift,
                side,
            },
        }
    }
}

/// One TTL less: the word of TTL and protocol shrinks by 0x0100.
const ONE_HOP: (u16, u16) = (0x0100, 0x0000);

/// Rewrites a whole frame whose headers were parsed before (`header`: bytes of the IP header, `total`: IP total length). Counts
/// one hop.
#[inline]
pub(crate) fn rewrite(frame: &mut [u8], header: u8, total: u16, protocol: Protocol, to: &Rewrite) {
    let Some((head, _)) = frame.split_first_chunk_mut::<{ ETHERNET_HEADER + ipv4::HEADER }>()
    else {
        return;
    };
    let ip: &mut [u8] = &mut head[ETHERNET_HEADER..];
    let checksum = u16_at(ip, 10);
    let delta = to.address_delta.and(Delta::word(ONE_HOP.0, ONE_HOP.1));
    ip[8] = ip[8].wrapping_sub(1);
    put(ip, 10, delta.apply(checksum).to_be_bytes());
    put(ip, 12, to.source.octets());
    put(ip, 16, to.destination.octets());
    let end = ETHERNET_HEADER + usize::from(total);
    if let Some(transport) = frame.get_mut(ETHERNET_HEADER + usize::from(header)..end) {
        match protocol {
            Protocol::Tcp => rewrite_tcp(transport, to),
            Protocol::Udp => rewrite_udp(transport, to),
        }
    }
}

#[inline]
fn rewrite_tcp(segment: &mut [u8], to: &Rewrite) {
    let mut delta = to.delta;
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
fn rewrite_udp(datagram: &mut [u8], to: &Rewrite) {
    let Some(fixed) = datagram.first_chunk_mut::<{ udp::HEADER }>() else {
        return;
    };
    put(fixed, 0, to.source_port.to_be_bytes());
    put(fixed, 2, to.destination_port.to_be_bytes());
    let checksum = u16_at(fixed, udp::CHECKSUM);
    put(
        fixed,
        udp::CHECKSUM,
        to.delta.apply_udp(checksum).to_be_bytes(),
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
pub(crate) fn strip_timestamps(frame: &mut [u8], header: u8, total: u16) {
    let end = ETHERNET_HEADER + usize::from(total);
    if let Some(segment) = frame.get_mut(ETHERNET_HEADER + usize::from(header)..end) {
        let delta = tcp::strip_timestamps(segment);
        let checksum = u16_at(segment, tcp::CHECKSUM);
        put(segment, tcp::CHECKSUM, delta.apply(checksum).to_be_bytes());
    }
}

/// Undoes the rewriting in the packet an ICMP error quotes, so that the receiver of the error finds its own packet: the side
/// the error comes from got what `flow` made of it. `quote` starts at the quoted IP header, of `header` bytes.
///
/// The quote may end anywhere behind the first 8 bytes of the transport header: fields beyond it are left out. Its TTL is what
/// was left on arrival and stays.
pub(crate) fn restore_quote(quote: &mut [u8], header: usize, flow: &Flow, error_from: Side) {
    // What was sent towards `error_from` came from the other side.
    let (source, destination, source_port, destination_port, undone) = match error_from {
        Side::Target => (flow.client, flow.vip, flow.client_port, flow.vip_port, true),
        Side::Client => (
            flow.target,
            flow.local,
            flow.target_port,
            flow.local_port,
            false,
        ),
    };
    let direction = |delta: Delta| if undone { delta.reversed() } else { delta };
    let (address_delta, mut delta) = (direction(flow.address_delta), direction(flow.delta));
    let checksum = u16_at(quote, 10);
    put(quote, 10, address_delta.apply(checksum).to_be_bytes());
    put(quote, 12, source.octets());
    put(quote, 16, destination.octets());
    let Some(transport) = quote.get_mut(header..) else {
        return;
    };
    put(transport, 0, source_port.to_be_bytes());
    put(transport, 2, destination_port.to_be_bytes());
    match flow.protocol {
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
