//! Conversations over IPv6 with the data plane, as steps of [`mod@crate::frames`].

use std::net::Ipv6Addr;

use super::frames::{answer, arrive, error, pass, segment};
use crate::frames::{FIX_CHECKSUMS, LOCAL_IP6, PORT_ADDRESSES6, VIP6};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 21);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A connection, and a datagram with an error about it: what the harness is tested with.
pub(crate) fn conversations() -> [Vec<u8>; 2] {
    let data = tcp(ACK, b"GET / HTTP/1.1\r\n\r\n");
    [
        [
            arrive(0, &tcp(SYN, &[])),
            answer(SYN | ACK),
            arrive(0, &data),
            answer(ACK),
        ]
        .concat(),
        [arrive(0, &query(&[])), error(32)].concat(),
    ]
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    let [connection, datagram] = conversations();
    vec![
        [
            connection.clone(),
            arrive(0, &tcp(FIN | ACK, &[])),
            answer(FIN | ACK),
            pass(43),
            arrive(0, &tcp(SYN, &[])),
        ]
        .concat(),
        [connection, error(1), error(64), error(128 | 32), error(192)].concat(),
        datagram,
        // A segment of no flow, an RST.
        arrive(0, &tcp(ACK, b"late")),
        arrive(0, &tcp(RST, &[])),
        // Extension headers: one, several, a route, a whole and a first fragment, a later one.
        arrive(0, &query(&[(0, options)])),
        arrive(
            0,
            &query(&[(0, options), (60, options), (43, [0, 0, 2, 0, 0, 0, 0, 0])]),
        ),
        arrive(0, &query(&[(43, [0, 0, 0, 1, 0, 0, 0, 0])])),
        arrive(0, &query(&[(44, [0, 0, 0, 0, 0, 0, 0, 1])])),
        arrive(0, &query(&[(44, [0, 0, 0, 1, 0, 0, 0, 1])])),
        arrive(0, &query(&[(44, [0, 0, 0, 8, 0, 0, 0, 1])])),
        arrive(0, &query(&[(60, options); 9])),
        // Ping, and neighbour discovery: by multicast and unicast, an answer, an announcement, a probe for duplicates.
        arrive(0, &icmp(CLIENT, VIP6, 128, 64, &[0, 1, 0, 1, 7])),
        arrive(
            1,
            &ndp(135, TARGET, LOCAL_IP6, LOCAL_IP6, &[1, 1, 2, 0, 0, 0, 0, 1]),
        ),
        arrive(
            0,
            &ndp(135, TARGET, PORT_ADDRESSES6[0], PORT_ADDRESSES6[0], &[]),
        ),
        arrive(
            1,
            &ndp(
                136,
                TARGET,
                PORT_ADDRESSES6[1],
                TARGET,
                &[2, 1, 2, 0, 0, 0, 0, 1],
            ),
        ),
        to_group(
            1,
            &ndp(136, TARGET, ALL_NODES, TARGET, &[2, 1, 2, 0, 0, 0, 0, 1]),
        ),
        to_group(
            1,
            &ndp(135, Ipv6Addr::UNSPECIFIED, solicited_node(), LOCAL_IP6, &[]),
        ),
        to_group(
            1,
            &ndp(
                135,
                TARGET,
                solicited_node(),
                LOCAL_IP6,
                &[1, 1, 2, 0, 0, 0, 0, 1],
            ),
        ),
    ]
}

fn solicited_node() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100)
}

/// Arrives as it is but for its checksums: to the group's MAC.
fn to_group(port: u8, frame: &[u8]) -> Vec<u8> {
    let mut step = arrive(port, frame);
    step[1] = port | FIX_CHECKSUMS;
    let macs = [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1];
    step[4..16].copy_from_slice(&macs);
    step
}

fn tcp(flags: u8, data: &[u8]) -> Vec<u8> {
    ip(
        CLIENT,
        VIP6,
        64,
        &[],
        6,
        &segment(40_000, 80, flags, &[], data),
    )
}

fn query(extensions: &[(u8, [u8; 8])]) -> Vec<u8> {
    let datagram = [
        0x9c, 0x40, 0, 53, 0, 13, 0xff, 0xff, b'q', b'u', b'e', b'r', b'y',
    ];
    ip(CLIENT, VIP6, 64, extensions, 17, &datagram)
}

fn icmp(from: Ipv6Addr, to: Ipv6Addr, kind: u8, hops: u8, rest: &[u8]) -> Vec<u8> {
    ip(
        from,
        to,
        hops,
        &[],
        58,
        &[&[kind, 0, 0, 0][..], rest].concat(),
    )
}

fn ndp(kind: u8, from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, option: &[u8]) -> Vec<u8> {
    let flags = if kind == 136 { 0x60 } else { 0 };
    let rest = [&[flags, 0, 0, 0][..], &target.octets(), option].concat();
    icmp(from, to, kind, 255, &rest)
}

/// Each extension header is its number and its bytes, of which the first is overwritten by the number of the next.
fn ip(
    from: Ipv6Addr,
    to: Ipv6Addr,
    hops: u8,
    extensions: &[(u8, [u8; 8])],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut behind = payload.to_vec();
    let mut next = protocol;
    for (number, bytes) in extensions.iter().rev() {
        let mut bytes = *bytes;
        bytes[0] = next;
        behind.splice(0..0, bytes);
        next = *number;
    }
    [
        &[0; 12][..],
        &[0x86, 0xdd, 0x60, 0, 0, 0],
        &(behind.len() as u16).to_be_bytes(),
        &[next, hops],
        &from.octets(),
        &to.octets(),
        &behind,
    ]
    .concat()
}
