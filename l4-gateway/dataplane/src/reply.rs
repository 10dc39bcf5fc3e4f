//! Answers made here. They go back the way the question came, to the MAC that sent it: no route or next hop is needed, and a
//! flood of questions fills no table.

use crate::family::Family;
use crate::limits::{ETHERNET_HEADER, LARGEST_ERROR, OWN_TTL};
use crate::wire::icmp::Problem;
use crate::wire::ip::{self, Ip};
use crate::wire::{checksum, ethernet, icmp, put, tcp, u32_at};
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
    let mut answer = [0; tcp::HEADER];
    answer[..2].copy_from_slice(&segment[2..4]);
    answer[2..4].copy_from_slice(&segment[..2]);
    answer[12] = 5 << 4;
    if segment[13] & tcp::ACK != 0 {
        put(
            &mut answer,
            tcp::SEQUENCE,
            u32_at(segment, tcp::ACKNOWLEDGMENT).to_be_bytes(),
        );
        answer[13] = tcp::RST;
    } else {
        let acknowledged = u32_at(segment, tcp::SEQUENCE).wrapping_add(tcp::occupies(segment));
        put(&mut answer, tcp::ACKNOWLEDGMENT, acknowledged.to_be_bytes());
        answer[13] = tcp::RST | tcp::ACK;
    }
    let length = tcp::HEADER;
    let pseudo = V::pseudo_header(ip.destination, ip.source, ip::TCP, length as u16);
    let sum = checksum::add(pseudo, checksum::sum(&answer));
    put(&mut answer, tcp::CHECKSUM, (!sum).to_be_bytes());
    let bytes = frame.bytes_mut();
    turn_round(bytes, mac);
    V::write_header(
        &mut bytes[ETHERNET_HEADER..],
        ip.destination,
        ip.source,
        ip::TCP,
        length,
        OWN_TTL,
    );
    put(bytes, ETHERNET_HEADER + V::HEADER, answer);
    frame.trim(ETHERNET_HEADER + V::HEADER + length);
}

/// Turns an echo request into its reply (RFC 792, RFC 4443 4.2), in place; IP options are carried along.
pub(crate) fn echo<V: Family>(frame: &mut [u8], ip: &Ip<V>, mac: MacAddr) {
    turn_round(frame, mac);
    let packet = &mut frame[ETHERNET_HEADER..];
    V::turn_header(packet, ip, OWN_TTL);
    let message = &mut packet[usize::from(ip.header)..usize::from(ip.total)];
    message[0] = V::KINDS.echo_reply;
    icmp::seal::<V>(ip.destination, ip.source, message);
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
