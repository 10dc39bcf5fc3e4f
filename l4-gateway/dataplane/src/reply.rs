//! Answers made here. They go back the way the question came, to the MAC that sent it: no route or next hop is needed, and a
//! flood of questions fills no table.

use std::net::Ipv4Addr;

use crate::limits::{ETHERNET_HEADER, ICMP_QUOTE, OWN_TTL};
use crate::wire::ipv4::Ipv4;
use crate::wire::{checksum, ethernet, icmp, ipv4, put, tcp, u32_at};
use crate::{Frame, MacAddr};

/// Turns a TCP segment into the RST that answers it (RFC 9293 3.10.7.1), in place.
pub(crate) fn reset<F: Frame>(frame: &mut F, ip: &Ipv4, mac: MacAddr) {
    const LENGTH: usize = ETHERNET_HEADER + ipv4::HEADER + tcp::HEADER;
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
    let (source, destination) = (ip.destination.octets(), ip.source.octets());
    let pseudo = checksum::pseudo_header(source, destination, ipv4::TCP, tcp::HEADER as u16);
    let sum = checksum::add(pseudo, checksum::sum(&answer));
    put(&mut answer, tcp::CHECKSUM, (!sum).to_be_bytes());
    let ip_header = ipv4::header(ip.destination, ip.source, ipv4::TCP, tcp::HEADER, OWN_TTL);
    let bytes = frame.bytes_mut();
    turn_round(bytes, mac);
    put(bytes, ETHERNET_HEADER, ip_header);
    put(bytes, ETHERNET_HEADER + ipv4::HEADER, answer);
    frame.trim(LENGTH);
}

/// Turns an echo request into its reply (RFC 792), in place; IP options are carried along.
pub(crate) fn echo(frame: &mut [u8], ip: &Ipv4, mac: MacAddr) {
    turn_round(frame, mac);
    let header = usize::from(ip.header);
    let packet = &mut frame[ETHERNET_HEADER..];
    packet[8] = OWN_TTL;
    put(packet, 12, ip.destination.octets());
    put(packet, 16, ip.source.octets());
    put(packet, 10, [0, 0]);
    let sum = checksum::checksum(&packet[..header]);
    put(packet, 10, sum.to_be_bytes());
    let message = &mut packet[header..usize::from(ip.total)];
    message[0] = icmp::ECHO_REPLY;
    put(message, 2, [0, 0]);
    let sum = checksum::checksum(message);
    put(message, 2, sum.to_be_bytes());
}

/// The longest frame [`icmp_error`] makes.
const ERROR: usize = ETHERNET_HEADER + ipv4::HEADER + icmp::HEADER + ICMP_QUOTE;

/// The ICMP error about a frame, from `source`; `rest` is the second half of its header. Written to `write`, not in place.
pub(crate) fn icmp_error(
    frame: &[u8],
    ip: &Ipv4,
    mac: MacAddr,
    source: Ipv4Addr,
    (kind, code, rest): (u8, u8, u32),
    write: impl FnOnce(&[u8]),
) {
    let mut answer = [0; ERROR];
    let Some(packet) = frame.get(ETHERNET_HEADER..ETHERNET_HEADER + usize::from(ip.total)) else {
        return;
    };
    let Some(header) = frame.first_chunk() else {
        return;
    };
    let quote = &packet[..packet.len().min(ICMP_QUOTE)];
    let length = icmp::HEADER + quote.len();
    put(
        &mut answer,
        0,
        ethernet::header(ethernet::source(header), mac, ethernet::IPV4),
    );
    put(
        &mut answer,
        ETHERNET_HEADER,
        ipv4::header(source, ip.source, ipv4::ICMP, length, OWN_TTL),
    );
    let message = &mut answer[ETHERNET_HEADER + ipv4::HEADER..][..length];
    message[0] = kind;
    message[1] = code;
    put(message, 4, rest.to_be_bytes());
    message[icmp::HEADER..].copy_from_slice(quote);
    let sum = checksum::checksum(message);
    put(message, 2, sum.to_be_bytes());
    write(&answer[..ETHERNET_HEADER + ipv4::HEADER + length]);
}

/// Addresses a frame to its sender.
pub(crate) fn turn_round(frame: &mut [u8], mac: MacAddr) {
    frame.copy_within(6..12, 0);
    put(frame, 6, mac.0);
}
