//! Conversations with the data plane, as steps of [`mod@crate::frames`].

use std::net::Ipv4Addr;

use crate::frames::{FIX_CHECKSUMS, FIX_MAC, LOCAL_IP, VIP};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 21);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let syn = || arrive(0, &tcp(CLIENT, 40_000, VIP, 80, SYN, &[]));
    let data = || {
        arrive(
            0,
            &tcp(CLIENT, 40_000, VIP, 80, ACK, b"GET / HTTP/1.1\r\n\r\n"),
        )
    };
    // Behind the SYN, as the first byte of a stream is.
    let second = |data| {
        let mut frame = tcp(CLIENT, 40_000, VIP, 80, ACK, data);
        frame[41] = 2;
        arrive(0, &frame)
    };
    let forged = |flags| {
        let options = [1, 254, 8, 0, 80, 10, 0, 0, 1, 3, 3, 7];
        let segment = segment(40_000, 80, flags, &options, &[]);
        arrive(0, &ip(CLIENT, VIP, 6, &[], &segment))
    };
    let query = || arrive(0, &udp(CLIENT, 40_000, VIP, 53, b"query"));
    let closing = [
        syn(),
        answer(SYN | ACK),
        data(),
        arrive(0, &tcp(CLIENT, 40_000, VIP, 80, FIN | ACK, &[])),
        answer(FIN | ACK),
        arrive(0, &tcp(CLIENT, 40_000, VIP, 80, ACK, &[])),
    ];
    let mut seeds = vec![
        [syn(), answer(SYN | ACK), data(), answer(ACK)].concat(),
        closing.concat(),
        // A new connection from the same port while the old one closes; and after every flow has expired.
        [closing.concat(), syn(), pass(43), syn(), answer(SYN | ACK)].concat(),
        [syn(), answer(RST | ACK), syn()].concat(),
        [query(), answer(0), query(), pass(40), answer(0)].concat(),
        // A segment of no flow; from a target to nobody's port.
        data(),
        arrive(1, &tcp(TARGET, 8080, LOCAL_IP, 50_000, ACK, b"late")),
        // Ports of a range and beside it, with their answers; and as one source's of a group.
        [
            arrive(0, &tcp(CLIENT, 40_000, VIP, 8000, SYN, &[])),
            answer(SYN | ACK),
            arrive(0, &udp(CLIENT, 40_000, VIP, 8099, b"query")),
            answer(0),
            error(3 | 32),
            arrive(0, &tcp(CLIENT, 40_000, VIP, 8100, SYN, &[])),
            swap(32),
            arrive(0, &tcp(CLIENT, 40_001, VIP, 8042, SYN, &[])),
            syn(),
            query(),
            answer(0),
        ]
        .concat(),
        // Errors about what was forwarded, each kind, short and long quotes.
        [
            syn(),
            error(1),
            error(4),
            error(64),
            error(4 | 32),
            query(),
            error(3 | 32),
            error(128),
        ]
        .concat(),
        // Targets go, drain, all go.
        [
            syn(),
            swap(1),
            answer(SYN | ACK),
            swap(3),
            data(),
            swap(4),
            data(),
            syn(),
            query(),
            swap(0),
            syn(),
        ]
        .concat(),
        // The client's address in front of the stream: data, again, acknowledged, an end without any; errors about it.
        [
            swap(8),
            syn(),
            answer(SYN | ACK),
            second(b"data"),
            error(4 | 32),
            second(b"data"),
            answer(ACK),
            second(b"data"),
            error(4 | 32),
        ]
        .concat(),
        // And in an option, among forged ones.
        [
            swap(16),
            syn(),
            answer(SYN | ACK),
            forged(SYN),
            forged(ACK),
            error(4 | 32),
            second(b"data"),
            answer(ACK),
            swap(0),
            forged(ACK),
        ]
        .concat(),
        // Fragments in order and out of it, twice the same, overlapping, waiting in vain; a packet that is cut.
        [
            part_of_query(0, 2),
            part_of_query(2, 4),
            part_of_query(4, 9),
        ]
        .concat(),
        [
            part_of_query(4, 9),
            part_of_query(2, 4),
            part_of_query(2, 4),
            part_of_query(0, 2),
            answer(0),
        ]
        .concat(),
        [
            part_of_query(0, 2),
            part_of_query(1, 3),
            pass(32),
            part_of_query(2, 4),
        ]
        .concat(),
        [part_of_query(2, 4), pass(29), pass(20), part_of_query(0, 2)].concat(),
        [
            query(),
            arrive(0, &may_be_cut(udp(CLIENT, 40_000, VIP, 53, &[7; 1600]))),
        ]
        .concat(),
        // DR, then a tunnel: connections, errors about inner and outer packets, a flow that outlives its mode.
        [
            swap(24),
            syn(),
            data(),
            query(),
            error(4 | 32),
            part_of_query(2, 4),
            part_of_query(0, 2),
            swap(0),
            data(),
        ]
        .concat(),
        [
            swap(24 | 64),
            syn(),
            error(4 | 32),
            data(),
            error(4),
            error(64 | 32),
            arrive(0, &may_be_cut(udp(CLIENT, 40_000, VIP, 53, &[7; 1480]))),
            error(4 | 32),
            part_of_query(0, 2),
            part_of_query(2, 9),
        ]
        .concat(),
        // Ping to the VIP, to the LocalIP, and time running out.
        arrive(0, &icmp(CLIENT, VIP, 8, b"ping")),
        arrive(1, &icmp(TARGET, LOCAL_IP, 8, b"ping")),
        arrive(0, &with_ttl(tcp(CLIENT, 40_000, VIP, 80, SYN, &[]), 1)),
        // ARP for the VIP, the LocalIP and the port; a reply nobody asked for.
        arrive(0, &arp(1, Ipv4Addr::new(10, 2, 0, 1), VIP)),
        arrive(1, &arp(1, TARGET, LOCAL_IP)),
        arrive(
            0,
            &arp(1, Ipv4Addr::new(10, 2, 0, 1), Ipv4Addr::new(10, 2, 0, 11)),
        ),
        arrive(1, &arp(2, TARGET, LOCAL_IP)),
        // Hairpin, martians, a fragment, IP options, TCP options, no checksum.
        arrive(1, &tcp(TARGET, 40_000, VIP, 80, SYN, &[])),
        arrive(0, &tcp(Ipv4Addr::LOCALHOST, 1, VIP, 80, SYN, &[])),
        arrive(0, &tcp(VIP, 1, VIP, 80, SYN, &[])),
        arrive(0, &part(udp(CLIENT, 1, VIP, 53, b"first and last"), 0, 1)),
        arrive(
            0,
            &ip(
                CLIENT,
                VIP,
                6,
                &[0x94, 4, 0, 0],
                &segment(40_000, 80, SYN, &[], &[]),
            ),
        ),
        arrive(
            0,
            &ip(
                CLIENT,
                VIP,
                6,
                &[],
                &segment(
                    40_000,
                    80,
                    SYN,
                    &[
                        2, 4, 5, 180, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 4, 2, 3, 3, 7, 0,
                    ],
                    &[],
                ),
            ),
        ),
        arrive(
            0,
            &ip(CLIENT, VIP, 17, &[], &[0x9c, 0x40, 0, 53, 0, 8, 0, 0]),
        ),
        // Neither IPv4 nor ARP, and nothing at all.
        arrive(0, &[&[0; 12][..], &[0x88, 0xcc], &[0x60; 60]].concat()),
        arrive(0, &[]),
    ];
    // Many clients, more than there are flows.
    seeds.push(
        (0..24)
            .flat_map(|client| arrive(0, &tcp(CLIENT, 40_000 + client, VIP, 80, SYN, &[])))
            .collect(),
    );
    seeds
}

pub(super) fn arrive(port: u8, frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u16).to_le_bytes();
    [&[0, port | FIX_CHECKSUMS | FIX_MAC][..], &length, frame].concat()
}

/// A fragment of a datagram of 64 bytes, arriving; the numbers count eights.
fn part_of_query(start: usize, end: usize) -> Vec<u8> {
    arrive(0, &part(udp(CLIENT, 40_001, VIP, 53, &[7; 56]), start, end))
}

/// Without "don't fragment".
fn may_be_cut(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0;
    frame
}

pub(super) fn answer(flags: u8) -> Vec<u8> {
    vec![4, flags, 1]
}

pub(super) fn error(choice: u8) -> Vec<u8> {
    vec![5, choice]
}

pub(super) fn pass(exponent: u8) -> Vec<u8> {
    vec![6, exponent]
}

fn swap(variant: u8) -> Vec<u8> {
    vec![7, variant]
}

fn tcp(
    from: Ipv4Addr,
    from_port: u16,
    to: Ipv4Addr,
    to_port: u16,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    ip(
        from,
        to,
        6,
        &[],
        &segment(from_port, to_port, flags, &[], data),
    )
}

pub(super) fn segment(from: u16, to: u16, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let offset = (5 + options.len() / 4) as u8;
    [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &[
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            1,
            offset << 4,
            flags,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ],
        &options,
        data,
    ]
    .concat()
}

fn udp(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, to_port: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let datagram = [
        &from_port.to_be_bytes()[..],
        &to_port.to_be_bytes(),
        &length.to_be_bytes(),
        &[0xff, 0xff],
        data,
    ]
    .concat();
    ip(from, to, 17, &[], &datagram)
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: u8, data: &[u8]) -> Vec<u8> {
    ip(
        from,
        to,
        1,
        &[],
        &[&[kind, 0, 0, 0, 0, 1, 0, 1][..], data].concat(),
    )
}

fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let total = ((header + payload.len()) as u16).to_be_bytes();
    [
        &[0; 12][..],
        &[8, 0, 0x40 | (header / 4) as u8, 0],
        &total,
        &[0, 0, 0x40, 0, 64, protocol, 0, 0],
        &from.octets(),
        &to.octets(),
        options,
        payload,
    ]
    .concat()
}

fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    frame[22] = ttl;
    frame
}

/// Bytes `start..end` of the payload of a frame's packet, as a fragment; the numbers count eights.
fn part(mut frame: Vec<u8>, start: usize, end: usize) -> Vec<u8> {
    let (header, payload) = (14 + 20, frame.len() - 34);
    let bytes = header + 8 * start..header + (8 * end).min(payload);
    let more = if bytes.end < frame.len() { 0x20 } else { 0 };
    let part = frame[bytes].to_vec();
    frame.truncate(header);
    frame.extend(&part);
    let total = (20 + part.len()) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    (frame[20], frame[21]) = (more, start as u8);
    frame
}

fn arp(operation: u8, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let sender = [2, 0, 0, 0, 0, 1];
    [
        &[0xff; 6][..],
        &sender,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &sender,
        &from.octets(),
        &[0; 6],
        &to.octets(),
    ]
    .concat()
}
