use proptest::prelude::*;

use super::checksum::{Delta, checksum, sum};
use super::tcp;
use crate::family::{V4, V6};

/// RFC 1071 by the book.
fn by_the_book(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    for pair in bytes.chunks(2) {
        total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(sum(&bytes), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624() {
    // 0x5555 becomes 0x3285 under 0xdd2f: the older formulas give 0xffff, equation 3 gives 0.
    assert_eq!(Delta::word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let applied = |delta: Delta, checksum: u16| {
        let mut bytes = checksum.to_be_bytes();
        delta.apply_udp_at(&mut bytes, 0);
        u16::from_be_bytes(bytes)
    };
    assert_eq!(applied(Delta::word(1, 2), 0), 0);
    assert_eq!(applied(Delta::word(0x5555, 0x3285), 0xdd2f), 0xffff);
}

proptest! {
    #[test]
    fn sums_are_right_for_any_length(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(checksum(&bytes), by_the_book(&bytes));
    }

    /// Updating gives what computing anew gives, for one and for several replacements.
    #[test]
    fn updating_equals_computing_anew(
        mut bytes in prop::collection::vec(any::<u8>(), 24..60),
        double in any::<u32>(),
        word in any::<u16>(),
        at in 2usize..10,
    ) {
        // A header is never all zero (RFC 1624 leaves that case open).
        bytes[0] = 0x45;
        let before = by_the_book(&bytes);
        let old = super::u32_at(&bytes, at);
        super::put(&mut bytes, at, double.to_be_bytes());
        let mut delta = Delta::double(old, double).at(at);
        let old = super::u16_at(&bytes, 20);
        super::put(&mut bytes, 20, word.to_be_bytes());
        delta = delta.and(Delta::word(old, word));
        prop_assert_eq!(delta.apply(before), by_the_book(&bytes));
    }

    /// Whatever stands where TCP options should: nothing panics, nothing but options is touched, the delta is right.
    #[test]
    fn options_are_walked_safely(mut segment in prop::collection::vec(any::<u8>(), 20..80), offset in any::<u32>()) {
        segment[0] |= 1;
        let header = usize::from(segment[12] >> 4) * 4;
        let before = segment.clone();
        let delta = tcp::strip_timestamps(&mut segment).and(tcp::shift_sack(&mut segment, offset));
        prop_assert_eq!(&segment[..20], &before[..20]);
        let end = header.clamp(20, segment.len());
        prop_assert_eq!(&segment[end..], &before[end..]);
        prop_assert_eq!(delta.apply(by_the_book(&before)), by_the_book(&segment));
    }

    #[test]
    fn parsers_take_anything(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = super::ipv4::parse(&bytes);
        if let Ok(ip) = super::ipv6::parse(&bytes) {
            prop_assert!(ip.header <= ip.total && usize::from(ip.total) <= bytes.len());
            let _ = super::ndp::Ndp::parse(&ip, &bytes[usize::from(ip.header)..usize::from(ip.total)]);
        }
        let _ = super::arp::Arp::parse(&bytes);
        let _ = super::icmp::Quote::<V4>::parse(&bytes);
        let _ = super::icmp::Quote::<V6>::parse(&bytes);
        let _ = super::udp::parse::<V4>(&bytes);
        let _ = super::udp::parse::<V6>(&bytes);
        if tcp::parse(&bytes).is_ok() {
            prop_assert!(tcp::occupies(&bytes) <= bytes.len() as u32 + 2);
        }
    }
}

#[test]
fn what_is_no_segment_occupies_no_sequence_numbers() {
    assert_eq!(tcp::occupies(&[]), 0);
    assert_eq!(tcp::occupies(&[0xff; 19]), 0);
    let mut segment = [0; 30];
    (segment[12], segment[13]) = (5 << 4, tcp::FIN);
    assert_eq!(tcp::occupies(&segment), 11);
}
