//! What others on the network send: receivers that answer, routers that complain, neighbours that are asked for.

use std::net::Ipv6Addr;

use super::packet::{Packet, fix_checksums};
use super::{ETHERNET, NEIGHBOUR_MAC, PORT_MACS};

/// What the receiver of `frame` sends back: all ends swapped. TCP gets `flags` and acknowledges; its sequence moves by `change`.
pub(super) fn answered(mut frame: Vec<u8>, port: u16, flags: u8, change: u8) -> Vec<u8> {
    frame[..6].copy_from_slice(&PORT_MACS[usize::from(port)].0);
    frame[6..12].copy_from_slice(&NEIGHBOUR_MAC.0);
    let Some(packet) = Packet::of(&frame) else {
        return frame;
    };
    let (protocol, header, total) = (packet.protocol, packet.header, packet.bytes.len());
    let (addresses, hops) = (packet.addresses(), if packet.is_v6 { 7 } else { 8 });
    let packet = &mut frame[ETHERNET..ETHERNET + total];
    packet[hops] = 64;
    let half = addresses.len() / 2;
    let (source, destination) = packet[addresses].split_at_mut(half);
    source.swap_with_slice(destination);
    let payload = &mut packet[header..];
    if (protocol == 6 && payload.len() >= 20) || (protocol == 17 && payload.len() >= 8) {
        let (source, destination) = payload[..4].split_at_mut(2);
        source.swap_with_slice(destination);
    }
    if protocol == 6 && payload.len() >= 20 {
        let (sequence, acknowledged) = payload[4..12].split_at_mut(4);
        sequence.swap_with_slice(acknowledged);
        payload[7] = payload[7].wrapping_add(change);
        payload[13] = flags;
    }
    fix_checksums(&mut frame);
    frame
}

/// An ICMP error about `frame` from a router at 10.9.9.9 or 2001:db8:9::9: one of four kinds and a code, with as much of the packet
/// as RFC 792 asks, or more.
pub(super) fn icmp_error(frame: &[u8], port: u16, choice: u8) -> Vec<u8> {
    let Some(packet) = Packet::of(frame) else {
        return frame.to_vec();
    };
    let kinds = match packet.is_v6 {
        false => [3, 11, 12, 5],
        true => [1, 2, 3, 4],
    };
    let kind = kinds[usize::from(choice >> 6)];
    let length = packet.header + if choice & 32 == 0 { 8 } else { 64 };
    let quote = &packet.bytes[..packet.bytes.len().min(length)];
    let mut error = Vec::new();
    error.extend(PORT_MACS[usize::from(port)].0);
    error.extend(NEIGHBOUR_MAC.0);
    let message = (8 + quote.len()) as u16;
    if packet.is_v6 {
        error.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        error.extend(message.to_be_bytes());
        error.extend([58, 64]);
        error.extend(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).octets());
        error.extend(&packet.bytes[8..24]);
    } else {
        error.extend([8, 0, 0x45, 0]);
        error.extend((20 + message).to_be_bytes());
        error.extend([0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9]);
        error.extend(&packet.bytes[12..16]);
    }
    error.extend([kind, choice & 15, 0, 0, 0, 0, 5, 0]);
    error.extend(quote);
    fix_checksums(&mut error);
    error
}

/// The answer to a question for a next hop.
pub(super) fn reply(request: &[u8]) -> Vec<u8> {
    if request[12..14] == [8, 6] {
        arp_reply(request)
    } else {
        advertisement(request)
    }
}

fn advertisement(request: &[u8]) -> Vec<u8> {
    let mut reply = request[6..12].to_vec();
    reply.extend(NEIGHBOUR_MAC.0);
    reply.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    reply.extend(&request[62..78]);
    reply.extend(&request[22..38]);
    reply.extend([136, 0, 0, 0, 0x60, 0, 0, 0]);
    reply.extend(&request[62..78]);
    reply.extend([2, 1]);
    reply.extend(NEIGHBOUR_MAC.0);
    fix_checksums(&mut reply);
    reply
}

fn arp_reply(request: &[u8]) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&NEIGHBOUR_MAC.0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&NEIGHBOUR_MAC.0);
    reply[28..32].copy_from_slice(&request[38..42]);
    reply[32..38].copy_from_slice(&request[22..28]);
    reply[38..42].copy_from_slice(&request[28..32]);
    reply
}
