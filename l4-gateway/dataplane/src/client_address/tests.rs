use std::net::SocketAddr;

use proptest::prelude::*;

use super::mss::{self, Room};
use super::proxy::{Gap, Header, Place};
use super::segment::{Span, update};
use super::toa::{self, Toa};
use crate::Frame;
use crate::wire::checksum::sum;
use crate::wire::tcp::{self, ACK, FIN, RST, SYN, URG};
use crate::wire::{put, u16_at, u32_at};

const ORIGINS: [u32; 6] = [0, 1, 1000, 0x7fff_fff0, 0xffff_fff0, u32::MAX];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The segment of a frame and where it is.
fn place(frame: &[u8]) -> Span {
    let (start, end) = match frame[14] >> 4 {
        6 => (54, 54 + usize::from(u16_at(frame, 18))),
        _ => (34, 14 + usize::from(u16_at(frame, 16))),
    };
    Span { start, end }
}

/// A frame with a TCP segment, over IPv6 or IPv4, all checksums right.
fn frame(ipv6: bool, sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    assert!(
        options.len().is_multiple_of(4),
        "a header is whole double words"
    );
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    put(&mut segment, tcp::SEQUENCE, sequence.to_be_bytes());
    put(&mut segment, tcp::ACKNOWLEDGMENT, 7u32.to_be_bytes());
    segment[12] = ((20 + options.len()) / 4 * 16) as u8;
    segment[13] = flags;
    segment[14..16].copy_from_slice(&[0xfa, 0xf0]);
    if flags & URG != 0 {
        segment[19] = 5;
    }
    segment.extend(options);
    segment.extend(payload);
    let mut frame = vec![2; 12];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((segment.len() as u16).to_be_bytes());
        frame.extend([6, 63]);
        frame.extend([0x11; 32]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((segment.len() as u16 + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 63, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
        let checksum = !sum(&frame[14..34]);
        put(&mut frame, 24, checksum.to_be_bytes());
    }
    frame.extend(segment);
    let transport = place(&frame).start;
    let checksum = !transport_sum(&frame);
    put(
        &mut frame,
        transport + tcp::CHECKSUM,
        checksum.to_be_bytes(),
    );
    frame
}

/// The sum over pseudo header and segment, of the lengths that the headers say.
fn transport_sum(frame: &[u8]) -> u16 {
    let place = place(frame);
    let addresses = match frame[14] >> 4 {
        6 => &frame[22..54],
        _ => &frame[26..34],
    };
    let segment = place.of(frame);
    let mut bytes = addresses.to_vec();
    bytes.extend([0, 6]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    sum(&bytes)
}

/// `frame` is `expected`, byte for byte, and `expected` is a frame with right checksums.
fn assert_frame(frame: &[u8], expected: &[u8]) {
    assert_eq!(transport_sum(expected), 0xffff);
    assert_eq!(frame, expected);
}

/// A buffer that is full.
struct Full(Vec<u8>);

impl Frame for Full {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn trim(&mut self, len: usize) {
        self.0.truncate(len);
    }
    fn make_room(&mut self, _at: usize, _len: usize) -> bool {
        false
    }
    fn cut(&mut self, at: usize, len: usize) -> bool {
        self.0.cut(at, len)
    }
}

#[test]
fn the_header_is_that_of_the_specification() {
    let header = Header::new(address("192.0.2.1:40000"), address("198.51.100.7:443"));
    assert_eq!(
        header.bytes(),
        [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 192, 0, 2, 1, 198, 51, 100, 7, 0x9c, 0x40, 0x01, 0xbb
        ]
    );
    let header = Header::new(
        address("[2001:db8::1]:40000"),
        address("[2001:db8:1::7]:443"),
    );
    let mut expected = vec![
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x21, 0, 36,
    ];
    expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    expected.extend([0x9c, 0x40, 0x01, 0xbb]);
    assert_eq!(header.bytes(), expected);
}

#[test]
fn segments_lie_to_the_header_as_their_numbers_say() {
    // What begins so far from the stream's first byte, with these flags and so much payload.
    let table: [(i32, u8, usize, Place); 19] = [
        // A SYN says itself where a stream begins.
        (1, SYN, 0, Place::Before),
        (-1, SYN, 0, Place::Before),
        (-1, SYN, 100, Place::Before),
        (0, ACK, 0, Place::Before),
        (0, ACK, 1, Place::First),
        (0, ACK, 1460, Place::First),
        (0, ACK | FIN, 0, Place::First),
        (0, ACK | FIN, 9, Place::First),
        (0, RST, 0, Place::Before),
        (0, RST, 9, Place::Before),
        (1, RST, 0, Place::Behind),
        (1, ACK, 0, Place::Behind),
        (1460, ACK, 1460, Place::Behind),
        (i32::MAX, ACK, 1460, Place::Behind),
        (-1, ACK, 0, Place::Before),
        (-1, ACK, 1, Place::Before),
        (-1, ACK, 2, Place::Across),
        (-100, ACK, 200, Place::Across),
        (i32::MIN, ACK, 1460, Place::Before),
    ];
    for origin in ORIGINS {
        let gap = Gap { origin, length: 28 };
        for (ahead, flags, payload, expected) in table {
            let frame = frame(
                false,
                origin.wrapping_add_signed(ahead),
                flags,
                &[],
                &vec![7; payload],
            );
            let found = gap.place(place(&frame).of(&frame));
            assert_eq!(found, expected, "{ahead} {flags:#x} {payload} at {origin}");
        }
    }
}

#[test]
fn an_acknowledgment_inside_the_header_acknowledges_nothing_of_the_client() {
    for origin in ORIGINS {
        for length in [28, 52] {
            let gap = Gap { origin, length };
            let at = |offset: i32| origin.wrapping_add_signed(offset);
            for (theirs, clients) in [
                (-1, -1),
                (0, 0),
                (1, 0),
                (27, 0),
                (length as i32, 0),
                (length as i32 + 1, 1),
            ] {
                assert_eq!(
                    gap.to_client(at(theirs)),
                    at(clients),
                    "{theirs} at {origin}"
                );
            }
            assert_eq!(gap.to_target(at(-1)), at(-1));
            assert_eq!(gap.to_target(at(0)), at(0));
            assert_eq!(gap.to_target(at(1)), at(1 + length as i32));
            assert!(!gap.is_filled_by(at(length as i32 - 1)));
            assert!(gap.is_filled_by(at(length as i32)));
            assert!(gap.is_filled_by(at(1 << 30)));
        }
    }
}

#[test]
fn acknowledgments_and_blocks_lose_the_header() {
    let sack = |edges: [u32; 4]| {
        let mut options = vec![1, 1, 5, 18];
        options.extend(edges.map(u32::to_be_bytes).concat());
        options
    };
    for ipv6 in [false, true] {
        let gap = Gap {
            origin: u32::MAX - 9,
            length: 28,
        };
        // Of the header 3 bytes; then from the stream's byte 100 to 200, which is past the wrap, and the header's end and 5 more.
        let theirs = sack([118, 218, 0, 23].map(|edge: u32| edge));
        let mut input = frame(ipv6, 1, ACK, &theirs, b"");
        let where_it_is = place(&input);
        let segment = where_it_is.of_mut(&mut input);
        let delta =
            crate::wire::checksum::Delta::double(u32_at(segment, 8), gap.origin.wrapping_add(3));
        put(segment, 8, gap.origin.wrapping_add(3).to_be_bytes());
        update(segment, delta);
        let delta = gap.acknowledge(segment);
        update(segment, delta);
        let clients = sack([90, 190, gap.origin, 23u32.wrapping_sub(28)]);
        let mut expected = frame(ipv6, 1, ACK, &clients, b"");
        let segment = place(&expected).of_mut(&mut expected);
        let delta = crate::wire::checksum::Delta::double(u32_at(segment, 8), gap.origin);
        put(segment, 8, gap.origin.to_be_bytes());
        update(segment, delta);
        assert_frame(&input, &expected);
    }
}

#[test]
fn a_header_goes_in_front_of_the_payload() {
    let header = Header::new(address("192.0.2.1:40000"), address("198.51.100.7:443"));
    let options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    for ipv6 in [false, true] {
        for options in [&[][..], &options] {
            for payload in [&b""[..], b"x", b"GET / HTTP/1.1"] {
                let mut input = frame(ipv6, 77, ACK | FIN, options, payload);
                let mut where_it_is = place(&input);
                assert!(where_it_is.insert_payload(&mut input, header.bytes()));
                let whole = [header.bytes(), payload].concat();
                let expected = frame(ipv6, 77, ACK | FIN, options, &whole);
                assert_frame(&input, &expected);
                assert_eq!(where_it_is, place(&expected));
            }
        }
        // Urgent data is as far behind the number as before, and the header.
        let mut input = frame(ipv6, 77, ACK | URG, &[], b"urgent");
        assert!(place(&input).insert_payload(&mut input, header.bytes()));
        assert_eq!(u16_at(place(&input).of(&input), tcp::URGENT), 5 + 28);
        assert_eq!(transport_sum(&input), 0xffff);
    }
}

#[test]
fn padding_stays_behind_the_segment() {
    let mut input = frame(false, 77, ACK | FIN, &[], b"");
    input.extend([0xee; 6]);
    let mut where_it_is = place(&input);
    assert!(where_it_is.insert_payload(&mut input, b"12"));
    assert_eq!(where_it_is.end, 56);
    input.truncate(56);
    assert_frame(&input, &frame(false, 77, ACK | FIN, &[], b"12"));
}

#[test]
fn a_full_buffer_is_left_as_it_is() {
    let input = frame(false, 77, ACK, &[1, 1, 1, 1], b"payload");
    let mut full = Full(input.clone());
    let mut where_it_is = place(&input);
    assert!(!where_it_is.insert_payload(&mut full, &[1, 2]));
    assert!(!where_it_is.insert_option(&mut full, &[1, 2, 3, 4]));
    assert_eq!(full.0, input);
    assert_eq!(where_it_is, place(&input));
    let mut longest = frame(false, 77, ACK, &[], &[0; 65_480]);
    assert!(
        !place(&longest).insert_payload(&mut longest, &[0; 28]),
        "no IP packet is so long"
    );
}

#[test]
fn a_syn_loses_its_data() {
    let options = [2, 4, 5, 0xb4, 34, 4, 1, 2];
    for ipv6 in [false, true] {
        for payload in [&b""[..], b"a", b"ab", b"early data"] {
            let mut input = frame(ipv6, 77, SYN, &options, payload);
            let mut where_it_is = place(&input);
            where_it_is.cut_payload(&mut input);
            let expected = frame(ipv6, 77, SYN, &options, b"");
            assert_frame(&input, &expected);
            assert_eq!(where_it_is, place(&expected));
        }
    }
}

#[test]
fn the_option_is_what_the_kernel_module_reads() {
    assert_eq!(
        Toa::new(address("192.0.2.1:40000")).bytes(),
        [254, 8, 0x9c, 0x40, 192, 0, 2, 1]
    );
    assert_eq!(
        Toa::new(address("[2001:db8::1]:40000")).bytes(),
        [
            254, 20, 0x9c, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
        ]
    );
}

#[test]
fn an_option_goes_in_front_of_the_others() {
    let timestamps = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    for (ipv6, client) in [(false, "192.0.2.1:40000"), (true, "[2001:db8::1]:40000")] {
        let toa = Toa::new(address(client));
        for options in [&[][..], &timestamps] {
            let mut input = frame(ipv6, 77, ACK, options, b"odd");
            assert!(place(&input).insert_option(&mut input, toa.bytes()));
            let expected = frame(ipv6, 77, ACK, &[toa.bytes(), options].concat(), b"odd");
            assert_frame(&input, &expected);
        }
    }
}

#[test]
fn an_option_without_room_takes_the_place_of_the_others() {
    let toa = Toa::new(address("192.0.2.1:40000"));
    let junk = [3; 36];
    let input = frame(false, 77, ACK, &junk, b"odd");
    let mut output = input.clone();
    let mut where_it_is = place(&input);
    assert!(!where_it_is.insert_option(&mut output, toa.bytes()));
    assert_eq!(output, input);
    assert!(toa.overwrite(where_it_is.of_mut(&mut output)));
    let mut options = toa.bytes().to_vec();
    options.resize(36, tcp::NOP);
    assert_frame(&output, &frame(false, 77, ACK, &options, b"odd"));
}

#[test]
fn forged_options_become_padding() {
    let toa = [254, 8, 0, 80, 10, 0, 0, 1];
    let mut ipv6 = [0x20; 20];
    ipv6[..4].copy_from_slice(&[254, 20, 0, 80]);
    // SMC and an early Fast Open have this kind too, but not the lengths that are believed.
    let other = [254, 6, 0xe2, 0xd4, 0xc3, 0xd9, 1, 1];
    let mut odd = vec![1];
    odd.extend(toa);
    odd.extend([1, 1, 1]);
    for (options, expected, stripped) in [
        (toa.to_vec(), vec![1; 8], 1),
        (ipv6.to_vec(), vec![1; 20], 1),
        (other.to_vec(), other.to_vec(), 0),
        (odd, vec![1; 12], 1),
        (
            [toa, toa, other].concat(),
            [[1; 8], [1; 8], other].concat(),
            2,
        ),
        // Behind the end, or where the walk stops, nobody reads on.
        (
            [&[0, 0, 0, 0][..], &toa].concat(),
            [&[0, 0, 0, 0][..], &toa].concat(),
            0,
        ),
        (
            [&[3, 1, 0, 0][..], &toa].concat(),
            [&[3, 1, 0, 0][..], &toa].concat(),
            0,
        ),
    ] {
        let mut input = frame(false, 77, ACK, &options, b"data");
        let segment = place(&input).of_mut(&mut input);
        let (count, delta) = toa::strip(segment);
        update(segment, delta);
        assert_eq!(count, stripped, "{options:?}");
        assert_frame(&input, &frame(false, 77, ACK, &expected, b"data"));
    }
}

#[test]
fn a_target_announces_less_by_what_is_inserted() {
    let room = |default, most, inserted| Room {
        default,
        most,
        inserted,
    };
    let mss = |size: u16| [&[2, 4][..], &size.to_be_bytes()].concat();
    for (options, room, expected) in [
        (mss(1460), room(536, 1460, 28), mss(1432)),
        // The link to the target is narrower than the target's own.
        (mss(8960), room(536, 1460, 28), mss(1432)),
        (mss(1440), room(1220, 1440, 52), mss(1388)),
        (mss(1460), room(536, 1460, 8), mss(1452)),
        // What a target announces by itself is never raised.
        (mss(80), room(536, 1460, 28), mss(64)),
        (mss(40), room(536, 1460, 28), mss(40)),
        (mss(0), room(536, 1460, 28), mss(0)),
        (
            [&[1][..], &mss(1460), &[1, 1, 1]].concat(),
            room(536, 1460, 28),
            [&[1][..], &mss(1432), &[1, 1, 1]].concat(),
        ),
        // Nothing announced: what then holds is said, less what is inserted.
        (vec![], room(536, 1460, 28), mss(508)),
        (
            vec![4, 2, 1, 1],
            room(1220, 1440, 52),
            [mss(1168), vec![4, 2, 1, 1]].concat(),
        ),
        (vec![1; 40], room(536, 1460, 28), vec![1; 40]),
    ] {
        for ipv6 in [false, true] {
            let mut input = frame(ipv6, 77, SYN | ACK, &options, b"");
            let mut where_it_is = place(&input);
            mss::lower(&mut input, &mut where_it_is, room);
            assert_frame(&input, &frame(ipv6, 77, SYN | ACK, &expected, b""));
        }
    }
}

proptest! {
    /// What the client sends and the target acknowledges fit each other, wherever numbers wrap.
    #[test]
    fn what_the_target_acknowledges_is_what_the_client_sent(origin: u32, length in 1u32..60, ahead in -0x3fff_ffff..0x3fff_ffffi32) {
        let gap = Gap { origin, length };
        let sequence = origin.wrapping_add_signed(ahead);
        prop_assert_eq!(gap.to_client(gap.to_target(sequence)), sequence);
        // Never further than the client has sent, and never back.
        let behind = |sequence: u32| sequence.wrapping_sub(origin) as i32;
        prop_assert!(behind(gap.to_client(sequence)) <= behind(sequence).max(0));
        prop_assert!(behind(gap.to_client(sequence.wrapping_add(1))) >= behind(gap.to_client(sequence)));
    }

    /// Whatever options a client sends: afterwards a reader finds none that it would believe, and nothing else has changed.
    #[test]
    fn no_forged_option_is_left(mut options in prop::collection::vec(prop_oneof![Just(254u8), Just(8), Just(20), Just(1), 0u8..=255], 0..=40)) {
        options.truncate(options.len() / 4 * 4);
        let mut input = frame(true, 1, ACK, &options, b"payload");
        let before = input.clone();
        let where_it_is = place(&input);
        let segment = where_it_is.of_mut(&mut input);
        let (stripped, delta) = toa::strip(segment);
        update(segment, delta);
        prop_assert_eq!(transport_sum(&input), 0xffff);
        prop_assert_eq!(toa::strip(where_it_is.of_mut(&mut input)).0, 0);
        if stripped == 0 {
            prop_assert_eq!(input, before);
        } else {
            let end = 74 + options.len();
            prop_assert_eq!(&input[..70], &before[..70]);
            prop_assert_eq!(&input[end..], &before[end..]);
        }
    }

    /// Whatever a client's segment holds, each edit leaves the checksums right and the payload what it was.
    #[test]
    fn each_edit_leaves_the_checksum_right_and_the_payload_alone(
        ipv6: bool,
        flags: u8,
        mut options in prop::collection::vec(any::<u8>(), 0..=40),
        payload in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        options.truncate(options.len() / 4 * 4);
        let room = Room { default: 536, most: 1460, inserted: 8 };
        let toa = Toa::new(address("192.0.2.1:40000"));
        let mut input = frame(ipv6, 1, flags, &options, &payload);
        let mut where_it_is = place(&input);
        mss::lower(&mut input, &mut where_it_is, room);
        if !where_it_is.insert_option(&mut input, toa.bytes()) {
            prop_assert!(toa.overwrite(where_it_is.of_mut(&mut input)));
        }
        prop_assert_eq!(where_it_is, place(&input));
        prop_assert_eq!(transport_sum(&input), 0xffff);
        prop_assert!(input.ends_with(&payload));
        prop_assert_eq!(&where_it_is.of(&input)[20..28], toa.bytes());
        let before = input.clone();
        prop_assert!(where_it_is.insert_payload(&mut input, &[7; 28]));
        prop_assert_eq!(transport_sum(&input), 0xffff);
        prop_assert!(input.ends_with(&payload));
        where_it_is.cut_payload(&mut input);
        prop_assert_eq!(transport_sum(&input), 0xffff);
        prop_assert_eq!(&where_it_is.of(&input)[20..], &place(&before).of(&before)[20..where_it_is.end - where_it_is.start]);
    }
}
