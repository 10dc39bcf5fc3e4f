//! Tunnel mode: a client's packet goes to the target inside another, which the target takes off (RFC 2003 for IPv4, RFC 2473 for
//! IPv6). The target holds the VIP and answers the client directly.
//!
//! The inner packet is a forwarded one: it loses a hop, and one too long for the way is cut or refused before it is wrapped, so
//! that targets needn't put outer packets together. The outer header copies what routers treat a packet by: traffic class with
//! the congestion bits (RFC 6040 4.1) and "don't fragment".

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::family::{Family, V4, V6};
use crate::limits::OWN_TTL;
use crate::wire::{checksum, ipv4, ipv6, put, u16_at, u32_at};

/// Protocol number of IPv4 inside of IP.
pub(crate) const IPV4: u8 = 4;
/// Protocol number of IPv6 inside of IP.
pub(crate) const IPV6: u8 = 41;

/// The outer header around an IPv4 packet. `identification` must differ from that of others with these addresses while they are
/// under way: unless "don't fragment" is set, a router may cut the outer packet.
pub(crate) fn around_ipv4(
    inner: &[u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
) -> [u8; ipv4::HEADER] {
    let mut outer = ipv4::header(source, destination, IPV4, inner.len(), OWN_TTL);
    outer[1] = inner.get(1).copied().unwrap_or(0);
    let dont_fragment = u16_at(inner, ipv4::FRAGMENTATION) & ipv4::DONT_FRAGMENT;
    put(&mut outer, ipv4::FRAGMENTATION, dont_fragment.to_be_bytes());
    if dont_fragment == 0 {
        put(
            &mut outer,
            ipv4::IDENTIFICATION,
            identification.to_be_bytes(),
        );
    }
    put(&mut outer, 10, [0, 0]);
    let sum = checksum::checksum(&outer);
    put(&mut outer, 10, sum.to_be_bytes());
    outer
}

/// The outer header around an IPv6 packet; `flow` becomes the flow label, so that the packets of a flow take one path, and flows
/// several (RFC 6438).
pub(crate) fn around_ipv6(
    inner: &[u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    flow: u64,
) -> [u8; ipv6::HEADER] {
    let mut outer = [0; ipv6::HEADER];
    let class = u32_at(inner, 0) & 0x0ff0_0000;
    let label = (flow & 0x000f_ffff) as u32;
    put(&mut outer, 0, (0x6000_0000 | class | label).to_be_bytes());
    put(&mut outer, 4, (inner.len() as u16).to_be_bytes());
    (outer[6], outer[7]) = (IPV6, OWN_TTL);
    put(&mut outer, 8, source.octets());
    put(&mut outer, 24, destination.octets());
    outer
}

/// Type, code and the second half of the header of an ICMP error.
pub(crate) type Error = (u8, u8, u32);

/// What an ICMP error about an outer packet, from somewhere between us and the target, means for the sender of the inner one
/// (RFC 2003 4); none if it is no business of that one's.
pub(crate) fn meaning_ipv4((kind, code, rest): Error) -> Option<Error> {
    match (kind, code) {
        // Too big, with the MTU of the next link; of routers older than RFC 1191 without.
        (3, 4) => Some((3, 4, less::<V4>(rest & 0xffff))),
        // The outer header has no ports, and its route isn't the sender's.
        (3, 3 | 5) => None,
        // A target that doesn't know the tunnel, a loop in it: the host isn't reached.
        (3, _) | (11, 0) => Some((3, 1, 0)),
        _ => None,
    }
}

/// As [`meaning_ipv4`], for IPv6 (RFC 2473 8).
pub(crate) fn meaning_ipv6((kind, code, rest): Error) -> Option<Error> {
    match (kind, code) {
        (2, _) => Some((2, 0, less::<V6>(rest))),
        // No route, hop limit exceeded, next header unknown to the target: address unreachable.
        (1, _) | (3, 0) | (4, 1) => Some((1, 3, 0)),
        _ => None,
    }
}

/// An MTU less an outer header; 0 is none.
fn less<V: Family>(mtu: u32) -> u32 {
    match mtu {
        0 => 0,
        mtu => mtu
            .saturating_sub(V::HEADER as u32)
            .max(V::SMALLEST_MTU as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_ipv4_headers_copy_class_and_dont_fragment() {
        let (source, target) = (Ipv4Addr::new(10, 3, 0, 11), Ipv4Addr::new(10, 3, 0, 21));
        let mut inner = [0; 100];
        (inner[0], inner[1]) = (0x45, 0xb9);
        for (flags, word) in [(0x40, [0, 0, 0x40, 0]), (0x20, [0xbe, 0xef, 0, 0])] {
            inner[6] = flags;
            let outer = around_ipv4(&inner, source, target, 0xbeef);
            let mut expected = vec![0x45, 0xb9, 0, 120];
            expected.extend(word);
            expected.extend([64, 4, outer[10], outer[11], 10, 3, 0, 11, 10, 3, 0, 21]);
            assert_eq!(outer[..], expected);
            assert_eq!(checksum::sum(&outer), 0xffff);
        }
    }

    #[test]
    fn outer_ipv6_headers_copy_the_class_and_label_the_flow() {
        let (source, target) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let mut inner = [0; 100];
        put(&mut inner, 0, 0x6b9a_bcdeu32.to_be_bytes());
        let outer = around_ipv6(&inner, source, target, 0xffff_ffff_fff1_2345);
        assert_eq!(outer[..8], [0x6b, 0x91, 0x23, 0x45, 0, 100, 41, 64]);
        assert_eq!(outer[8..24], source.octets());
        assert_eq!(outer[24..], target.octets());
    }

    #[test]
    fn errors_about_outer_packets_are_told_in_terms_of_the_inner() {
        for (error, meaning) in [
            ((3, 4, 1400), Some((3, 4, 1380))),
            ((3, 4, 0), Some((3, 4, 0))),
            ((3, 4, 70), Some((3, 4, 68))),
            ((3, 0, 0), Some((3, 1, 0))),
            ((3, 1, 0), Some((3, 1, 0))),
            ((3, 2, 0), Some((3, 1, 0))),
            ((3, 3, 0), None),
            ((3, 5, 0), None),
            ((3, 13, 7), Some((3, 1, 0))),
            ((11, 0, 0), Some((3, 1, 0))),
            ((11, 1, 0), None),
            ((12, 0, 0), None),
            ((5, 0, 0), None),
        ] {
            assert_eq!(meaning_ipv4(error), meaning, "ICMP {error:?}");
        }
        for (error, meaning) in [
            ((2, 0, 1400), Some((2, 0, 1360))),
            ((2, 0, 1280), Some((2, 0, 1280))),
            ((1, 0, 0), Some((1, 3, 0))),
            ((1, 4, 0), Some((1, 3, 0))),
            ((3, 0, 0), Some((1, 3, 0))),
            ((3, 1, 0), None),
            ((4, 1, 6), Some((1, 3, 0))),
            ((4, 0, 4), None),
        ] {
            assert_eq!(meaning_ipv6(error), meaning, "ICMPv6 {error:?}");
        }
    }
}
