use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::counters::Counters;
use crate::limits::FRAGMENT_SPANS;
use crate::wire::{checksum, put, u16_at};

fn limits() -> Limits {
    Limits {
        services: 1,
        targets: 1,
        held_bytes: 64,
        fragmented_packets: 4,
        early_fragments: 6,
        early_fragments_per_packet: 3,
        ..Limits::default()
    }
}

const HEAD: Head = Head::Ports(Ports {
    source: 40_000,
    destination: 53,
    protocol: Protocol::Udp,
});

struct Rig {
    fragments: Fragments,
    counters: Counters,
    cells: Arc<Cells>,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let counters = Counters::new(1, &limits());
        Self {
            fragments: Fragments::new(&limits(), 0, 1, &Secret::new([3; 32])),
            cells: counters.cells(0),
            counters,
            now: Now(5_000_000_000),
        }
    }

    fn take(&mut self, part: &Part) -> Result<Turn, DropReason> {
        let head = (part.start == 0).then_some(HEAD);
        let turn = self.fragments.take(self.now, part, head, &self.cells);
        if let Ok(Turn::Early { .. }) | Err(_) = turn {
            self.fragments.check_invariants();
        }
        turn
    }

    /// Takes a fragment in and holds it if it is early; whether there was room.
    fn hold(&mut self, part: &Part, frame: &[u8]) -> bool {
        let Ok(Turn::Early { place }) = self.take(part) else {
            panic!("not early");
        };
        self.fragments.hold(place, frame, PortIndex(1), self.now)
    }

    fn pop_all(&mut self, place: u16) -> Vec<Vec<u8>> {
        let mut frame = Vec::new();
        let mut all = Vec::new();
        while let Some(port) = self.fragments.pop(place, &mut frame) {
            assert_eq!(port, PortIndex(1));
            all.push(frame.clone());
        }
        self.fragments.check_invariants();
        all
    }

    fn expired(&self) -> u64 {
        self.counters.worker(0).early_fragments_dropped
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now.0 += milliseconds * 1_000_000;
        self.fragments.tick(self.now, &self.cells);
        self.fragments.check_invariants();
    }
}

/// Bytes `start..end` of packet `identification`.
fn part(identification: u32, start: u16, end: u16, last: bool) -> Part {
    Part {
        datagram: Datagram {
            source: Ipv4Addr::new(10, 1, 0, 7).into(),
            destination: Ipv4Addr::new(10, 0, 0, 100).into(),
            identification,
            protocol: 17,
        },
        start,
        end,
        last,
        identification_at: 4,
    }
}

#[test]
fn fragments_follow_their_first_and_the_packet_is_forgotten_when_whole() {
    let mut rig = Rig::new();
    let Ok(Turn::First { number, place, .. }) = rig.take(&part(1, 0, 16, false)) else {
        panic!("the first");
    };
    assert!(rig.pop_all(place).is_empty());
    rig.fragments.note(place, 5);
    let follows = Ok(Turn::Follows {
        head: HEAD,
        number,
        flow: Some(5),
    });
    assert_eq!(rig.take(&part(1, 32, 40, true)), follows);
    assert_eq!(rig.take(&part(1, 16, 32, false)), follows);
    // Whole: what comes under the same identification is another packet.
    let another = rig.take(&part(1, 0, 16, false));
    assert!(
        matches!(another, Ok(Turn::First { number: other, .. }) if other != number),
        "{another:?}"
    );
}

#[test]
fn early_fragments_wait_and_go_in_order_behind_the_first() {
    let mut rig = Rig::new();
    assert!(rig.hold(&part(1, 32, 40, true), b"third"));
    assert!(rig.hold(&part(1, 16, 32, false), b"second"));
    assert!(rig.hold(&part(2, 16, 32, false), b"another's"));
    rig.pass(FRAGMENT_HOLD);
    let Ok(Turn::First { place, .. }) = rig.take(&part(1, 0, 16, false)) else {
        panic!("the first");
    };
    assert_eq!(rig.pop_all(place), [b"third".to_vec(), b"second".to_vec()]);
    assert_eq!(rig.expired(), 0);
}

#[test]
fn early_fragments_are_dropped_when_their_first_does_not_come() {
    let mut rig = Rig::new();
    assert!(rig.hold(&part(1, 16, 32, false), b"a"));
    rig.pass(FRAGMENT_HOLD + 1);
    assert_eq!(rig.expired(), 1);
    // Also where nobody ran the timers.
    assert!(rig.hold(&part(2, 16, 32, false), b"b"));
    rig.now.0 += (FRAGMENT_HOLD + 1) * 1_000_000;
    let Ok(Turn::First { place, .. }) = rig.take(&part(2, 0, 16, false)) else {
        panic!("the first");
    };
    assert!(rig.pop_all(place).is_empty());
    assert_eq!(rig.expired(), 2);
}

#[test]
fn a_packet_is_forgotten_when_nothing_followed_for_its_lifetime() {
    let mut rig = Rig::new();
    assert!(matches!(
        rig.take(&part(1, 0, 16, false)),
        Ok(Turn::First { .. })
    ));
    rig.pass(FRAGMENT_LIFETIME);
    assert!(matches!(
        rig.take(&part(1, 16, 32, false)),
        Ok(Turn::Follows { .. })
    ));
    rig.pass(FRAGMENT_LIFETIME);
    assert!(matches!(
        rig.take(&part(1, 32, 48, false)),
        Ok(Turn::Follows { .. })
    ));
    rig.pass(FRAGMENT_LIFETIME + 1);
    assert!(matches!(
        rig.take(&part(1, 48, 64, true)),
        Ok(Turn::Early { .. })
    ));
}

#[test]
fn overlaps_and_contradictions_are_refused() {
    let refused = Err(DropReason::FragmentOverlap);
    for (before, bad) in [
        // Twice the same, within, across either end, around.
        (part(1, 16, 32, false), part(1, 16, 32, false)),
        (part(1, 16, 32, false), part(1, 16, 24, false)),
        (part(1, 16, 32, false), part(1, 8, 24, false)),
        (part(1, 16, 32, false), part(1, 24, 40, false)),
        (part(1, 16, 32, false), part(1, 8, 48, false)),
        // The rest of a header that the first should have brought whole, or that overwrites it.
        (part(1, 8, 16, false), part(1, 0, 24, false)),
        (part(1, 0, 24, false), part(1, 8, 16, true)),
        (part(1, 0, 24, false), part(1, 0, 24, false)),
        // Two ends, an end in the middle, more behind the end.
        (part(1, 32, 40, true), part(1, 48, 56, true)),
        (part(1, 48, 56, false), part(1, 32, 40, true)),
        (part(1, 32, 40, true), part(1, 40, 48, false)),
        (part(1, 32, 40, true), part(1, 24, 40, false)),
    ] {
        let mut rig = Rig::new();
        assert!(rig.take(&before).is_ok(), "{before:?}");
        assert_eq!(rig.take(&bad), refused, "{bad:?} after {before:?}");
    }
}

#[test]
fn memory_stays_bounded_and_the_oldest_gives_way() {
    let mut rig = Rig::new();
    for n in 0..3 {
        assert!(rig.hold(&part(1, 16 + 16 * n, 32 + 16 * n, false), b"x"));
    }
    assert!(
        !rig.hold(&part(1, 160, 176, false), b"x"),
        "three of one packet"
    );
    assert!(!rig.hold(&part(2, 16, 32, false), &[0; 65]), "too long");
    for n in 0..3 {
        assert!(rig.hold(&part(3, 16 + 16 * n, 32 + 16 * n, false), b"x"));
    }
    assert!(!rig.hold(&part(4, 16, 32, false), b"x"), "six over all");
    assert_eq!(rig.expired(), 0);
    // The fifth packet takes the place of the first, the sixth that of the second.
    assert!(rig.hold(&part(5, 16, 32, false), b"x"));
    assert_eq!(rig.expired(), 3);
    for n in 6..10_000 {
        let _ = rig.take(&part(n, 16, 32, false));
    }
    assert_eq!(rig.expired(), 3 + 3 + 1);
    assert!(matches!(
        rig.take(&part(1, 0, 16, false)),
        Ok(Turn::First { .. })
    ));
}

#[test]
fn too_many_gaps_are_refused_and_change_nothing() {
    let mut rig = Rig::new();
    for n in 0..FRAGMENT_SPANS as u16 {
        assert!(rig.take(&part(1, 8 + 16 * n, 16 + 16 * n, false)).is_ok());
    }
    let far = 32 + 16 * FRAGMENT_SPANS as u16;
    assert_eq!(
        rig.take(&part(1, far, far + 8, true)),
        Err(DropReason::FragmentNoRoom)
    );
    // One that closes a gap makes room.
    assert!(rig.take(&part(1, 16, 24, false)).is_ok());
    assert!(rig.take(&part(1, far, far + 8, true)).is_ok());
}

#[test]
fn workers_never_give_the_same_number() {
    for workers in [1, 2, 3, 7] {
        let mut seen = std::collections::HashSet::new();
        for index in 0..workers {
            let mut numbers = Numbers::new(index, workers, &Secret::new([9; 32]));
            for _ in 0..(1 << 16) / u32::from(workers) {
                assert!(seen.insert(numbers.next() as u16), "{workers} workers");
            }
        }
    }
}

#[test]
fn parts_are_read_and_malformed_ones_refused() {
    let addresses = (
        IpAddr::from(Ipv4Addr::new(10, 1, 0, 7)),
        IpAddr::from(Ipv4Addr::new(10, 0, 0, 100)),
    );
    // (flags and offset, payload) -> (start, end, last)
    for (word, payload, expected) in [
        (0x2000, 16, Ok((0, 16, false))),
        (0x2002, 16, Ok((16, 32, false))),
        (0x0004, 5, Ok((32, 37, true))),
        (0x2000, 15, Err(DropReason::BadFragment)),
        (0x2002, 0, Err(DropReason::BadFragment)),
        (0x0002, 0, Err(DropReason::BadFragment)),
        (0x1fff, 7, Ok((65_528, 65_535, true))),
        (0x1fff, 8, Err(DropReason::BadFragment)),
        (0x3fff, 8, Err(DropReason::BadFragment)),
    ] {
        let mut packet = [0; 20];
        (packet[0], packet[9]) = (0x45, 17);
        put(&mut packet, 4, [0xab, 0xcd]);
        put(&mut packet, 6, u16::to_be_bytes(word));
        let read = Part::of_ipv4(&packet, addresses.0, addresses.1, 20, 20 + payload);
        let place = read.map(|part| (part.start, part.end, part.last));
        assert_eq!(place, expected, "IPv4 {word:#x} {payload}");
        if let Ok(part) = read {
            assert_eq!(part.datagram.identification, 0xabcd);
            assert_eq!((part.datagram.protocol, part.identification_at), (17, 4));
        }
        let mut packet = [0; 56];
        let more = u16::from(word & 0x2000 != 0);
        put(&mut packet, 48, [17, 0]);
        put(&mut packet, 50, (word << 3 | more).to_be_bytes());
        put(&mut packet, 52, [1, 2, 3, 4]);
        let read = Part::of_ipv6(&packet, addresses.0, addresses.1, 48, 56 + payload);
        let place = read.map(|part| (part.start, part.end, part.last));
        assert_eq!(place, expected, "IPv6 {word:#x} {payload}");
        if let Ok(part) = read {
            assert_eq!(part.datagram.identification, 0x0102_0304);
            assert_eq!((part.datagram.protocol, part.identification_at), (0, 52));
        }
        assert!(Part::of_ipv6(&packet[..55], addresses.0, addresses.1, 48, 56).is_err());
    }
}

/// A packet with these options, flags and offset; its payload counts up.
fn packet(options: &[u8], word: u16, payload: usize) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0; header];
    packet[0] = 0x40 | (header / 4) as u8;
    put(&mut packet, 2, ((header + payload) as u16).to_be_bytes());
    put(&mut packet, 4, [0x12, 0x34]);
    put(&mut packet, 6, word.to_be_bytes());
    (packet[8], packet[9]) = (63, 17);
    put(&mut packet, 12, [10, 1, 0, 7, 10, 0, 0, 100]);
    packet[20..].copy_from_slice(options);
    packet.extend((0..payload).map(|n| (n % 251) as u8));
    packet
}

#[test]
fn a_cut_packet_keeps_copied_options_in_all_fragments_and_others_in_the_first() {
    // Record route (not copied), then router alert (copied), no operation, end.
    let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 1];
    let packet = packet(&options, 0x2005, 40);
    let mut pieces = Vec::new();
    assert!(cut(&packet, 32, 48, |header, payload| {
        assert_eq!(checksum::sum(header), 0xffff);
        pieces.push((header.to_vec(), payload.to_vec()));
    }));
    let expected: [(&[u8], u16, _, u16); 3] = [
        (&options, 0x2005, 0..16, 48),
        (&[148, 4, 0, 0], 0x2007, 16..40, 48),
        (&[], 0, 0..0, 0),
    ];
    for ((header, payload), (options, word, bytes, total)) in pieces.iter().zip(&expected) {
        assert_eq!(&header[20..], *options);
        assert_eq!(usize::from(header[0] & 15) * 4, header.len());
        assert_eq!(u16_at(header, 2), *total);
        assert_eq!(u16_at(header, 6), *word);
        assert_eq!(header[4..6], [0x12, 0x34]);
        assert_eq!(header[8..10], [63, 17]);
        assert_eq!(header[12..20], packet[12..20]);
        assert_eq!(*payload, packet[32..][bytes.clone()]);
    }
    assert_eq!(pieces.len(), 2);
}

#[test]
fn a_link_too_small_for_any_payload_cuts_nothing() {
    let packet = packet(&[], 0, 40);
    assert!(!cut(&packet, 20, 27, |_, _| panic!("a piece")));
    assert!(!cut(&packet[..10], 20, 1500, |_, _| panic!("a piece")));
}

proptest! {
    #[test]
    fn whatever_is_cut_can_be_put_together(payload in 1usize..5000, mtu in 68u16..1600, words in 0usize..11, base in 0u16..100, more: bool) {
        let options: Vec<u8> = (0..words).flat_map(|_| [148, 4, 0, 0]).collect();
        let payload = if more { payload.next_multiple_of(8) } else { payload };
        let word = base | if more { 0x2000 } else { 0 };
        let packet = packet(&options, word, payload);
        let header = 20 + options.len();
        let mut together = Vec::new();
        let mut last = 0;
        let done = cut(&packet, header, mtu, |header, piece| {
            assert!(header.len() + piece.len() <= usize::from(mtu));
            assert_eq!(checksum::sum(header), 0xffff);
            assert_eq!(usize::from(u16_at(header, 2)), header.len() + piece.len());
            last = u16_at(header, 6);
            assert_eq!(usize::from(last & 0x1fff), usize::from(base) + together.len() / 8);
            together.extend_from_slice(piece);
            assert!(last & 0x2000 == 0 || piece.len() % 8 == 0);
        });
        prop_assert!(done);
        prop_assert_eq!(&together[..], &packet[header..]);
        prop_assert_eq!(last & 0x2000 != 0, more);
    }

    #[test]
    fn seen_bytes_are_those_of_a_bitmap(parts in prop::collection::vec((0u16..40, 1u16..6, prop::bool::weighted(0.1)), 1..60)) {
        let mut seen = Seen::NOTHING;
        let (mut bitmap, mut end) = ([false; 64], None);
        for (start, length, last) in parts {
            let bytes = usize::from(start)..usize::from(start + length);
            let contradicts = match (end, last) {
                (Some(end), true) => end != bytes.end,
                (Some(end), false) => bytes.end >= end,
                (None, true) => bitmap[bytes.end..].contains(&true),
                (None, false) => false,
            };
            let refused = contradicts || bitmap[bytes.clone()].contains(&true);
            match seen.add(start, start + length, last) {
                Err(DropReason::FragmentNoRoom) => prop_assert!(!refused),
                result => {
                    prop_assert_eq!(result.is_err(), refused);
                    if !refused {
                        bitmap[bytes.clone()].fill(true);
                        end = end.or(last.then_some(bytes.end));
                    }
                }
            }
            let whole = end.is_some_and(|end| bitmap[..end].iter().all(|seen| *seen));
            prop_assert_eq!(seen.is_whole(), whole);
        }
    }
}
