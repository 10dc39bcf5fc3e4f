//! Random and nearly valid frames of both families: nothing panics, the invariants hold, and what was established goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane::{MacAddr, PortIndex, Verdict};
use proptest::prelude::*;

use super::frame::{
    self, ACK, FRAGMENT, HOP_BY_HOP, OPTIONS, Packet, Payload, ROUTING, source_of, source_port,
};
use super::net::{BOTH, Net};
use super::rig::{INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, Rig, SECOND, from_client};

#[derive(Clone, Debug)]
enum Step {
    Frame(PortIndex, Vec<u8>),
    Pass(u64),
}

fn net() -> impl Strategy<Value = Net> {
    prop_oneof![Just(Net::V4), Just(Net::V6)]
}

fn address(net: Net) -> impl Strategy<Value = IpAddr> {
    let any = match net {
        Net::V4 => any::<Ipv4Addr>().prop_map(IpAddr::V4).boxed(),
        Net::V6 => any::<Ipv6Addr>().prop_map(IpAddr::V6).boxed(),
    };
    prop_oneof![
        Just(net.vip_ip()),
        Just(net.local_ip()),
        Just(net.target_ip(21)),
        Just(net.client(1, 0).ip()),
        any
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(80u16),
        Just(53),
        Just(8080),
        4000u16..4004,
        any::<u16>()
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(2u8),
        Just(16),
        Just(17),
        Just(4),
        Just(18),
        any::<u8>()
    ]
}

/// The word of IPv4, and extension headers of IPv6: mostly those of a whole packet.
fn parts() -> impl Strategy<Value = (u16, Vec<(u8, Vec<u8>)>)> {
    let word = prop_oneof![
        4 => Just(0x4000u16),
        1 => prop_oneof![Just(0x2000), Just(3), any::<u16>()],
    ];
    let number = prop_oneof![
        Just(FRAGMENT),
        Just(OPTIONS),
        Just(HOP_BY_HOP),
        Just(ROUTING)
    ];
    let body = prop_oneof![
        Just(vec![0, 0, 1, 0, 0, 0, 7]),
        Just(vec![0, 0, 0, 0, 0, 0, 7]),
        Just(vec![0, 1, 4, 0, 0, 0, 0]),
        prop::collection::vec(any::<u8>(), 7..16)
    ];
    let extensions = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec((number, body), 1..4),
    ];
    (word, extensions)
}

/// A segment, a datagram, an error that quotes a packet the other way round, or anything.
fn payload(from: SocketAddr, to: SocketAddr) -> impl Strategy<Value = Packet> {
    let rest = || prop::collection::vec(any::<u8>(), 0..60);
    let segment = (flags(), rest()).prop_map(move |(flags, rest)| {
        let numbered = frame::tcp(from, to, flags).seq(1, 1);
        let options = rest.len() % 11 * 4;
        match rest.split_at_checked(options) {
            Some((options, data)) => numbered.tcp_options(options).data(data),
            None => numbered.data(&rest),
        }
    });
    let datagram = rest().prop_map(move |rest| frame::udp(from, to, &rest));
    let error = (any::<u8>(), 0u8..5, any::<u32>(), 0usize..120).prop_map(
        move |(kind, code, rest, quoted)| {
            let kind = if kind < 128 {
                Net::of(from).port_unreachable().0
            } else {
                kind
            };
            let quote = frame::tcp(to, from, ACK).ip();
            let quote = &quote[..quote.len().min(quoted)];
            frame::icmp(from.ip(), to.ip(), kind, code, rest, quote)
        },
    );
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), any::<u8>()];
    let other = (protocol, rest()).prop_map(move |(protocol, rest)| {
        Packet::new(from.ip(), to.ip(), Payload::Raw(protocol, rest))
    });
    prop_oneof![3 => segment, 2 => datagram, 2 => error, 1 => other]
}

/// A frame of the node's world with some fields at random: random bytes alone never get far.
fn likely() -> impl Strategy<Value = Step> {
    net()
        .prop_flat_map(|net| (address(net), port(), address(net), port()))
        .prop_flat_map(|(from, from_port, to, to_port)| {
            payload((from, from_port).into(), (to, to_port).into())
        })
        .prop_flat_map(|packet| (Just(packet), parts(), any::<bool>()))
        .prop_map(|(packet, (word, extensions), is_outside)| {
            let (port, mac) = match is_outside {
                true => (OUTSIDE, OUTSIDE_MAC),
                false => (INSIDE, INSIDE_MAC),
            };
            let packet = packet.macs(MacAddr([2, 0, 0, 0, 9, 9]), mac);
            let packet = packet.with(|packet| {
                (packet.fragment, packet.extensions) = (word, extensions);
            });
            Step::Frame(port, packet.frame())
        })
}

fn random() -> impl Strategy<Value = Step> {
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    (0u16..2, bytes).prop_map(|(port, bytes)| Step::Frame(PortIndex(port), bytes))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => likely(),
        2 => random(),
        1 => (0u64..20).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn garbage_never_panics_and_leaves_established_flows_alone(steps in prop::collection::vec(step(), 0..60)) {
        let mut rig = Rig::both();
        let established = BOTH.map(|net| {
            rig.net = net;
            (net, rig.establish(net.client(200, 7777), 1000))
        });
        for step in steps {
            match step {
                Step::Frame(port, frame) => {
                    rig.try_send(port, frame);
                }
                Step::Pass(seconds) => {
                    rig.now.0 += seconds * SECOND;
                    rig.refresh();
                    rig.worker.check_invariants();
                }
            }
            // Random MACs may have been taken for the targets'; what matters here is the flow.
            for (net, opened) in established {
                let segment = frame::tcp(opened.client, net.vip(80), ACK).seq(1001, 9001);
                let (verdict, sent) = rig.try_send(OUTSIDE, from_client(&segment));
                prop_assert_eq!(verdict, Verdict::Transmit(INSIDE));
                prop_assert_eq!((source_of(&sent), source_port(&sent)), (net.local_ip(), opened.local_port));
            }
        }
    }
}
