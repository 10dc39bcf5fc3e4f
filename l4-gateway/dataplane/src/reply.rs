//! Answers made here. They go back the way the question came, to the MAC that sent it: no route or next hop is needed, and a
//! flood of questions fills no table.

use crate::family::Family;
use crate::limits::{ETHERNET_HEADER, LARGEST_ERROR, OWN_TTL};
use crate::wire::checksum::Delta;
use crate::wire::icmp::Problem;
use crate::wire::ip::{self, Ip};
use crate::wire::{checksum, ethernet, icmp, put, tcp, u16_at, u32_at};
use crate::{Frame, MacAddr};

/// Turns a TCP segment into the RST that answers it (RFC 9293 3.10.7.1), in place.
pub(crate) fn reset<V: Family, F: Frame>(frame: &mut F, ip: &Ip<V>, mac: MacAddr) {
    let bytes = frame.bytes();
    let (start, end) = (
        ETHERNET_HEADER + usize::from(ip.header),
        ETHERNET_HEADER + usize::from(ip.total),
    );
    let Some(segment) = bytes.get(start..end) else {
        return;
    };
    let (flags, sequence, acknowledgment) = if segment[13] & tcp::ACK != 0 {
        (tcp::RST, u32_at(segment, tcp::ACKNOWLEDGMENT), 0)
    } else {
        let behind = u32_at(segment, tcp::SEQUENCE).wrapping_add(tcp::occupies(segment));
        (tcp::RST | tcp::ACK, 0, behind)
    };
    let (from, to) = (u16_at(segment, 2), u16_at(segment, 0));
    let bytes = frame.bytes_mut();
    turn_round(bytes, mac);
    let length = write_segment::<V>(
        bytes,
        (ip.destination, from),
        (ip.source, to),
        (flags, sequence, acknowledgment),
    );
    frame.trim(length);
}

/// Writes a TCP segment without options, data and window behind the Ethernet header of a frame; the frame's length.
pub(crate) fn write_segment<V: Family>(
    frame: &mut [u8],
    (source, source_port): (V::Address, u16),
    (destination, destination_port): (V::Address, u16),
    (flags, sequence, acknowledgment): (u8, u32, u32),
) -> usize {
    let length = tcp::HEADER;
    let mut segment = [0; tcp::HEADER];
    put(&mut segment, 0, source_port.to_be_bytes());
    put(&mut segment, 2, destination_port.to_be_bytes());
    put(&mut segment, tcp::SEQUENCE, sequence.to_be_bytes());
    put(
        &mut segment,
        tcp::ACKNOWLEDGMENT,
        acknowledgment.to_be_bytes(),
    );
    put(&mut segment, 12, [5 << 4, flags]);
    let pseudo = V::pseudo_header(source, destination, ip::TCP, length as u16);
    let sum = checksum::add(pseudo, checksum::sum(&segment));
    put(&mut segment, tcp::CHECKSUM, (!sum).to_be_bytes());
    let packet = frame.get_mut(ETHERNET_HEADER..).unwrap_or(&mut []);
    V::write_header(packet, source, destination, ip::TCP, length, OWN_TTL);
    put(packet, V::HEADER, segment);
    ETHERNET_HEADER + V::HEADER + length
}

/// Turns an echo request, or a fragment of one, into its reply (RFC 792, RFC 4443 4.2), in place; IP options are carried along.
pub(crate) fn echo<V: Family>(frame: &mut [u8], ip: &Ip<V>, mac: MacAddr) {
    turn_round(frame, mac);
    let packet = frame.get_mut(ETHERNET_HEADER..).unwrap_or(&mut []);
    V::turn_header(packet, ip, OWN_TTL);
    if ip.first
        && let Some(message) = packet.get_mut(usize::from(ip.header)..)
    {
        let old = u16_at(message, 0);
        let [_, code] = old.to_be_bytes();
        let new = u16::from_be_bytes([V::KINDS.echo_reply, code]);
        put(message, 0, new.to_be_bytes());
        Delta::word(old, new).apply_bare_at(message, icmp::CHECKSUM);
    }
}

/// The ICMP error about a frame, from `source`. Written to `write`, not in place.
pub(crate) fn icmp_error<V: Family>(
    frame: &[u8],
    ip: &Ip<V>,
    mac: MacAddr,
    source: V::Address,
    problem: Problem,
    write: impl FnOnce(&[u8]),
) {
    let mut answer = [0; LARGEST_ERROR];
    let Some(packet) = frame.get(ETHERNET_HEADER..ETHERNET_HEADER + usize::from(ip.total)) else {
        return;
    };
    let Some(header) = frame.first_chunk() else {
        return;
    };
    let quote = &packet[..packet.len().min(V::QUOTE)];
    let length = icmp::HEADER + quote.len();
    put(
        &mut answer,
        0,
        ethernet::header(ethernet::source(header), mac, V::ETHER_TYPE),
    );
    V::write_header(
        &mut answer[ETHERNET_HEADER..],
        source,
        ip.source,
        V::ICMP,
        length,
        OWN_TTL,
    );
    let message = &mut answer[ETHERNET_HEADER + V::HEADER..][..length];
    let (kind, code, rest) = V::KINDS.of(problem);
    message[0] = kind;
    message[1] = code;
    put(message, 4, rest.to_be_bytes());
    message[icmp::HEADER..].copy_from_slice(quote);
    icmp::seal::<V>(source, ip.source, message);
    write(&answer[..ETHERNET_HEADER + V::HEADER + length]);
}

/// Addresses a frame to its sender.
pub(crate) fn turn_round(frame: &mut [u8], mac: MacAddr) {
    frame.copy_within(6..12, 0);
    put(frame, 6, mac.0);
}
