//! What connect attempts tell of their target, and ICMP errors from its side, as counted.

use dataplane::{Mode, Protocol, ServiceConfig, Verdict};

use super::frame::{self, ACK, RST, SYN};
use super::net::{BOTH, Net};
use super::rig::{self, INSIDE, MILLISECOND, OUTSIDE, Opened, Rig, up};

/// SYNs unanswered and refused, RSTs of the target, and errors that say it is unreachable.
fn counts(rig: &Rig, protocol: Protocol, target: u8) -> [u64; 4] {
    let port = match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    };
    let counts = rig.target_counts(port, protocol, target);
    [
        counts.syns_unanswered,
        counts.syns_refused,
        counts.resets,
        counts.unreachable,
    ]
}

fn of_tcp(rig: &Rig, target: u8) -> [u64; 4] {
    counts(rig, Protocol::Tcp, target)
}

const NONE: [u64; 4] = [0; 4];

fn wait(rig: &mut Rig, milliseconds: u64) {
    rig.now.0 += milliseconds * MILLISECOND;
}

#[test]
fn a_syn_counts_as_unanswered_when_the_next_comes_or_its_flow_expires() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let first = rig.open(net.client(10, 4000), 100);
        // A copy that the network made.
        wait(&mut rig, 400);
        rig.open(first.client, 100);
        assert_eq!(of_tcp(&rig, 21), NONE);
        for n in 1..=3 {
            wait(&mut rig, 1000);
            rig.open(first.client, 100);
            assert_eq!(of_tcp(&rig, 21), [n, 0, 0, 0]);
        }
        // The one that goes elsewhere counts against the target it leaves.
        let mut services = net.services();
        services[0].targets[0].up = false;
        rig.swap(&services);
        wait(&mut rig, 1000);
        assert_eq!(rig.open(first.client, 100).target, 22);
        assert_eq!((of_tcp(&rig, 21), of_tcp(&rig, 22)), ([4, 0, 0, 0], NONE));
        rig.pass(16);
        assert_eq!(rig.flow_count(), 0);
        assert_eq!(of_tcp(&rig, 22), [1, 0, 0, 0]);
        assert_eq!(of_tcp(&rig, 21), [4, 0, 0, 0]);
    }
}

#[test]
fn a_handshake_that_the_client_does_not_finish_says_nothing_of_the_target() {
    for net in BOTH {
        type Rest = fn(&mut Rig, &Opened);
        let cases: [(&str, Rest); 3] = [
            ("it never acknowledges", |rig, opened| {
                rig.from_target(opened, SYN | ACK, 9000, 101);
            }),
            ("it asks again all the same", |rig, opened| {
                rig.from_target(opened, SYN | ACK, 9000, 101);
                wait(rig, 1000);
                rig.open(opened.client, 100);
            }),
            ("it gives up", |rig, opened| {
                rig.from_client(opened, RST, 101, 0);
            }),
        ];
        for (description, rest) in cases {
            let mut rig = Rig::of(net);
            let opened = rig.open(net.client(10, 4000), 100);
            rest(&mut rig, &opened);
            rig.pass(40);
            assert_eq!(rig.flow_count(), 0);
            assert_eq!(of_tcp(&rig, 21), NONE, "{description}");
        }
    }
}

#[test]
fn an_rst_to_a_syn_is_a_refusal_and_one_later_is_not() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let refused = rig.open(net.client(10, 4000), 100);
        rig.from_target(&refused, RST | ACK, 0, 101);
        let served = rig.establish(net.client(10, 4001), 100);
        rig.from_target(&served, RST, 9001, 0);
        assert_eq!(of_tcp(&rig, 21), [0, 1, 1, 0]);
        assert_eq!(of_tcp(&rig, 22), [0, 0, 1, 0]);
        rig.pass(40);
        assert_eq!(of_tcp(&rig, 21), [0, 1, 1, 0], "it did answer");
    }
}

/// An error about a packet that went to a target, from the target; the verdict.
fn error(rig: &mut Rig, (kind, code): (u8, u8), sent: &frame::Packet) -> Verdict {
    let net = rig.net;
    let quote = sent.ip();
    let error = frame::icmp(net.target_ip(21), net.local_ip(), kind, code, 0, &quote);
    rig.try_send(INSIDE, rig::from_target(&error, 21)).0
}

/// Types and codes that say so, and some that don't.
fn kinds(net: Net) -> [((u8, u8), bool); 6] {
    match net {
        // Host, port, prohibited; too big, no hop left, parameter problem.
        Net::V4 => [
            ((3, 1), true),
            ((3, 3), true),
            ((3, 13), true),
            ((3, 4), false),
            ((11, 0), false),
            ((12, 0), false),
        ],
        Net::V6 => [
            ((1, 3), true),
            ((1, 4), true),
            ((1, 1), true),
            ((2, 0), false),
            ((3, 0), false),
            ((4, 0), false),
        ],
    }
}

#[test]
fn errors_that_say_a_target_is_unreachable_count() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.open(net.client(10, 4000), 100);
        let (_, asked) = rig.outside(&frame::udp(net.client(10, 5000), net.vip(53), b"query"));
        assert_eq!((opened.target, frame::target_of(&asked)), (21, 21));
        let local = net.local(frame::source_port(&asked));
        let query = frame::udp(local, net.target(21, 8080), b"query");
        let (target, local) = opened.inside(net);
        let syn = |seq: u32| frame::tcp(local, target, SYN).seq(seq, 0);
        let known = 100 + opened.shift;
        for (place, (kind, counts_here)) in kinds(net).into_iter().enumerate() {
            let before = [Protocol::Tcp, Protocol::Udp].map(|of| counts(&rig, of, 21)[3]);
            assert_eq!(
                error(&mut rig, kind, &syn(known)),
                Verdict::Transmit(OUTSIDE)
            );
            assert_eq!(error(&mut rig, kind, &query), Verdict::Transmit(OUTSIDE));
            let after = [Protocol::Tcp, Protocol::Udp].map(|of| counts(&rig, of, 21)[3]);
            let more = u64::from(counts_here);
            assert_eq!(after, before.map(|n| n + more), "{place}: {kind:?}");
            // About a segment that can't have been sent: passed on, for its receiver to judge (RFC 5927 4.1).
            let guessed = syn(known.wrapping_add(1 << 30));
            assert_eq!(error(&mut rig, kind, &guessed), Verdict::Transmit(OUTSIDE));
            assert_eq!(counts(&rig, Protocol::Tcp, 21)[3], after[0]);
        }
        assert_eq!(of_tcp(&rig, 21), [0, 0, 0, 3]);
        // Of a client, about an answer.
        let answer = frame::udp(net.vip(53), net.client(10, 5000), b"answer").ip();
        let (kind, code) = net.port_unreachable();
        let late = frame::icmp(net.address(9, 10), net.vip_ip(), kind, code, 0, &answer);
        rig.outside(&late);
        assert_eq!(counts(&rig, Protocol::Udp, 21), [0, 0, 0, 3]);
    }
}

/// Where answers aren't seen, SYNs of forged addresses would make every target look dead.
#[test]
fn under_dr_and_through_tunnels_nothing_is_said_of_targets() {
    for net in BOTH {
        for mode in [Mode::Direct, Mode::Tunnel] {
            let mut service = ServiceConfig::new(net.vip_ip(), Protocol::Tcp, 80);
            service.mode = mode;
            service.targets = vec![up(net.target(21, 80))];
            let mut rig = Rig::serving(net, &rig::small(), &[service]).resolved();
            let syn = frame::tcp(net.client(10, 4000), net.vip(80), SYN).seq(100, 0);
            rig.outside(&syn);
            wait(&mut rig, 1000);
            rig.outside(&syn);
            rig.pass(16);
            assert_eq!(rig.flow_count(), 0);
            let id = rig.service(80, Protocol::Tcp).targets[0];
            let counts = rig.counters.target(id);
            assert_eq!((counts.packets_in, counts.syns_unanswered), (2, 0));
        }
    }
}
