use std::net::Ipv4Addr;

use super::*;
use crate::NextHops;
use crate::counters::Counters;
use crate::ids::Ids;
use crate::port::Segment;

const PORT: PortIndex = PortIndex(0);

struct Node {
    tables: Tables,
    neighbours: Neighbours,
    now: Now,
}

impl Node {
    fn new(neighbours: u16) -> Self {
        let limits = Limits {
            neighbours,
            ..Limits::default()
        };
        let mut builder = Tables::builder();
        builder.port(Port {
            index: PORT,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            ipv4: Some(Segment {
                address: Ipv4Addr::new(10, 2, 0, 11),
                prefix: 8,
                gateways: NextHops::ON_LINK,
            }),
            ipv6: None,
            mtu: 1500,
            answers: true,
            announce_every: None,
            hears_kernel: false,
        });
        Self {
            tables: builder.build(&mut Ids::new(&limits), None).unwrap(),
            neighbours: Neighbours::new(&limits, Secret::new([1; 32])),
            now: Now(0),
        }
    }

    fn slot(&mut self, host: u32) -> Option<u16> {
        let slot = self
            .neighbours
            .slot(&self.tables, self.now, PORT, address(host));
        self.neighbours.check_invariants();
        slot
    }

    fn later(&mut self, seconds: u64) {
        self.now.0 += seconds * 1_000_000_000;
    }

    fn follow(&mut self) {
        let cells = Counters::new(1, &Limits::default()).cells(0);
        self.neighbours.follow(&self.tables, self.now, &cells);
        self.neighbours.check_invariants();
    }
}

fn address(host: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a10_0000 + host).into()
}

/// Hosts that come and go one after the other, as somebody who makes addresses up has them.
#[test]
fn a_neighbour_that_is_given_up_makes_nobody_look_anything_up_anew() {
    let mut node = Node::new(16);
    let first = node.slot(0).unwrap();
    for host in 1..128 {
        assert!(node.slot(host).is_some());
        node.later(2);
    }
    assert_eq!(node.neighbours.epoch(), 1);
    // The slots are used up: those that rest are given out again, in another epoch.
    let mut again = 0;
    for host in 128..1024 {
        again += u32::from(node.slot(host) == Some(first));
        assert_eq!(node.neighbours.get(first).address == address(0), again == 0);
        node.later(2);
    }
    assert!(again >= 1);
    let epoch = node.neighbours.epoch();
    assert!(epoch <= 1 + 1024 / 112, "{epoch} for 1024 neighbours");
}

#[test]
fn a_slot_that_is_remembered_is_its_neighbour_s_again() {
    let mut node = Node::new(4);
    let slot = node.slot(0).unwrap();
    for host in 1..6 {
        node.later(2);
        node.slot(host).unwrap();
    }
    assert_eq!(node.neighbours.get(slot).state, State::Free);
    assert_eq!(node.neighbours.get(slot).mtu, 1500);
    node.later(2);
    let woken = node.neighbours.wake(&node.tables, node.now, slot);
    assert_eq!(woken, Some(slot));
    assert_eq!(node.slot(0), Some(slot));
    assert_eq!(node.neighbours.get(slot).state, State::Incomplete);
    // Known by another slot meanwhile.
    for host in 1..5 {
        node.later(2);
        node.slot(host).unwrap();
    }
    assert_eq!(node.neighbours.get(slot).state, State::Free);
    let other = node.slot(0).unwrap();
    assert_ne!(other, slot);
    let woken = node.neighbours.wake(&node.tables, node.now, slot);
    assert_eq!(woken, Some(other));
    node.neighbours.check_invariants();
}

#[test]
fn epochs_begin_anew_when_all_have_been_forgotten() {
    let mut node = Node::new(4);
    node.neighbours.epoch = u16::MAX - 1;
    node.follow();
    assert_eq!(node.neighbours.epoch(), u16::MAX);
    for _ in 0..3 {
        node.follow();
        assert!(node.neighbours.is_between_epochs());
        assert!(node.slot(7).is_some());
    }
    node.neighbours.begin_epochs();
    assert_eq!(node.neighbours.epoch(), 1);
    node.follow();
    assert_eq!(node.neighbours.epoch(), 2);
}
