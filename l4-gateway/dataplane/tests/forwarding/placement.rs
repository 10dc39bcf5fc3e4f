//! On which port a packet of a flow may come in: a client's on any, a target's where the target is.

use std::net::SocketAddr;

use dataplane::{DropReason, FlowState, NextHops, Route, ServiceConfig};

use super::frame::{self, ACK, PSH, Packet, RST, SYN, mac, target_of};
use super::net::{BOTH, Net};
use super::rig::{
    self, INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, Opened, ROUTER_MAC, Rig, from_client,
    to_client, to_target, up,
};

fn state(rig: &Rig) -> FlowState {
    rig.worker.flows(rig.now).next().unwrap().state
}

/// What someone outside sends with a target's address, as its router hands it on.
fn forged(net: Net, opened: &Opened, flags: u8) -> Packet {
    let (target, local) = opened.inside(net);
    frame::tcp(target, local, flags).seq(9001, 1001u32.wrapping_add(opened.shift))
}

#[test]
fn who_writes_a_targets_address_on_another_port_is_not_the_target() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let (_, query) = rig.outside(&frame::udp(net.client(10, 5353), net.vip(53), b"query"));
        let quoted = frame::tcp(net.local(opened.local_port), net.target(21, 8080), ACK)
            .seq(1001u32.wrapping_add(opened.shift), 9001)
            .ip();
        let (kind, code) = net.port_unreachable();
        let cases = [
            ("a reset", forged(net, &opened, RST)),
            ("data", forged(net, &opened, ACK | PSH).data(b"lies")),
            (
                "a datagram",
                frame::udp(
                    net.target(target_of(&query), 8080),
                    net.local(frame::port_word(&query, 0)),
                    b"no",
                ),
            ),
            (
                "an ICMP error",
                frame::icmp(net.stranger(1).ip(), net.local_ip(), kind, code, 0, &quoted),
            ),
            ("one without hops left", forged(net, &opened, ACK).ttl(1)),
        ];
        let before = rig.target_counts(80, dataplane::Protocol::Tcp, 21);
        for (description, packet) in cases {
            assert_eq!(
                rig.dropped(OUTSIDE, from_client(&packet)),
                DropReason::WrongPort,
                "{description}"
            );
            assert!(rig.emitted().is_empty(), "{description}: nothing is told");
        }
        let after = rig.target_counts(80, dataplane::Protocol::Tcp, 21);
        assert_eq!(before, after, "nothing is counted for the target");
        assert_eq!(rig.worker_counts().icmp_forwarded, 0);
        let established = |flow: &dataplane::FlowView| flow.state == FlowState::Established;
        assert_eq!(rig.worker.flows(rig.now).filter(established).count(), 1);
        // The target itself is heard, and of a target that is gone from the snapshot the same holds.
        rig.from_target(&opened, ACK, 9001, 1001);
        let mut services = net.services();
        services[0].targets.remove(0);
        rig.swap(&services);
        rig.from_target(&opened, ACK, 9001, 1001);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&forged(net, &opened, RST))),
            DropReason::WrongPort
        );
    }
}

#[test]
fn a_client_may_come_in_on_any_port() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let (port, _) = rig.transmitted(
            INSIDE,
            frame::tcp(opened.client, net.vip(80), ACK)
                .seq(1001, 9001)
                .macs(mac(1), INSIDE_MAC)
                .frame(),
        );
        assert_eq!(port, INSIDE);
    }
}

/// One port, a router and the targets on its segment.
fn single_arm(net: Net) -> Rig {
    rig::node(&rig::small(), &net.single_port(), &net.services()).speaking(net)
}

#[test]
fn on_a_single_arm_both_sides_come_in_on_the_one_port() {
    for net in BOTH {
        let mut rig = single_arm(net);
        let from_router = |packet: &Packet| packet.clone().macs(ROUTER_MAC, INSIDE_MAC).frame();
        let to_router = |packet: &Packet| packet.clone().macs(INSIDE_MAC, ROUTER_MAC).frame();
        let from = net.client(10, 40_000);
        let (port, sent) = rig.transmitted(
            INSIDE,
            from_router(&frame::tcp(from, net.vip(80), SYN).seq(7, 0)),
        );
        let (local_port, seq) = (frame::port_word(&sent, 0), frame::tcp_word(&sent, 4));
        let expected = frame::tcp(net.local(local_port), net.target(21, 8080), SYN)
            .seq(seq, 0)
            .ttl(63);
        assert_eq!((port, sent), (INSIDE, to_target(&expected, 21)));
        let answer = frame::tcp(net.target(21, 8080), net.local(local_port), SYN | ACK)
            .seq(9000, seq.wrapping_add(1));
        let expected = frame::tcp(net.vip(80), from, SYN | ACK)
            .seq(9000, 8)
            .ttl(63);
        assert_eq!(rig.inside(&answer, 21), (INSIDE, to_router(&expected)));
        assert_eq!(state(&rig), FlowState::SynAnswered);
    }
}

/// Clients among the targets, and a target that is its own client: the way leads in and out by the inner port.
#[test]
fn a_hairpin_comes_in_where_it_goes_out() {
    for net in BOTH {
        for last in [50, 22, 21] {
            let mut rig = Rig::of(net);
            let from = SocketAddr::new(net.target_ip(last), 40_000);
            let (port, sent) = rig.inside(&frame::tcp(from, net.vip(80), SYN).seq(7, 0), last);
            let (local_port, seq) = (frame::port_word(&sent, 0), frame::tcp_word(&sent, 4));
            let expected = frame::tcp(net.local(local_port), net.target(21, 8080), SYN)
                .seq(seq, 0)
                .ttl(63);
            assert_eq!((port, sent), (INSIDE, to_target(&expected, 21)));
            let answer = frame::tcp(net.target(21, 8080), net.local(local_port), SYN | ACK)
                .seq(9000, seq.wrapping_add(1));
            let expected = frame::tcp(net.vip(80), from, SYN | ACK)
                .seq(9000, 8)
                .ttl(63);
            if last == 50 {
                // A client on the segment is a next hop that has to be asked for.
                let (verdict, _) = rig.try_send(INSIDE, rig::from_target(&answer, 21));
                assert_eq!(verdict, dataplane::Verdict::Held);
                rig.resolve(INSIDE, from.ip(), mac(last));
                rig.out.clear();
            }
            assert_eq!(
                rig.inside(&answer, 21),
                (INSIDE, to_target(&expected, last)),
                "{from}"
            );
        }
    }
}

/// A route that moves a target to the other port, under a flow: its LocalIP stays at home on the old one.
#[test]
fn a_flow_survives_its_target_moving_to_another_port() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let router = net.address(1, 2);
        let mut services: Vec<ServiceConfig> = net.services();
        services[0].targets = vec![up(net.target(21, 8080))];
        let mut builder = rig::builder(&net.ports(), &services);
        builder.local_ip(net.address(1, 100));
        builder.route(Route {
            destination: net.target_ip(21),
            prefix: net.address_bits(),
            port: OUTSIDE,
            via: NextHops::one(router),
        });
        rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        rig.refresh();
        rig.resolve(OUTSIDE, router, mac(2));
        let (port, _) = rig.outside(&frame::tcp(opened.client, net.vip(80), ACK).seq(1001, 9001));
        assert_eq!(port, OUTSIDE, "towards where the target is now");
        let answer = forged(net, &opened, ACK);
        let expected = frame::tcp(net.vip(80), opened.client, ACK)
            .seq(9001, 1001)
            .ttl(63);
        for (port, frame) in [
            (INSIDE, rig::from_target(&answer, 21)),
            (OUTSIDE, answer.clone().macs(mac(2), OUTSIDE_MAC).frame()),
        ] {
            assert_eq!(
                rig.transmitted(port, frame),
                (OUTSIDE, to_client(&expected)),
                "from {port:?}"
            );
        }
    }
}

#[test]
fn free_ports_are_seen_before_they_run_out() {
    for net in BOTH {
        use dataplane::Protocol::{Tcp, Udp};
        let mut limits = rig::small();
        (limits.first_port, limits.last_port) = (5000, 5009);
        let mut services = net.services();
        services[0].targets.truncate(1);
        services[1].targets.truncate(1);
        // The same host behind another VIP port, with the same local ports towards it; and the same behind a service that rewrites nothing.
        let mut other = ServiceConfig::new(net.vip_ip(), Tcp, 81);
        other.targets = vec![up(net.target(21, 8080))];
        let mut direct = ServiceConfig::new(net.vip_ip(), Tcp, 82);
        direct.mode = dataplane::Mode::Direct;
        direct.targets = vec![up(net.target(21, 82))];
        services.extend([other, direct]);
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let free = |rig: &Rig, port, protocol| {
            let id = rig.service(port, protocol).targets[0];
            let free = rig.tables.free_ports(&rig.counters, &limits);
            free.get(&id).copied()
        };
        assert_eq!(free(&rig, 80, Tcp), Some(10));
        for n in 0..7 {
            rig.open(net.client(n, 40_000), 1000);
        }
        let from_another = frame::tcp(net.client(9, 40_000), net.vip(81), SYN).seq(1, 0);
        rig.outside(&from_another);
        assert_eq!(free(&rig, 80, Tcp), Some(2));
        assert_eq!(free(&rig, 81, Tcp), Some(2), "the same ports");
        assert_eq!(free(&rig, 53, Udp), Some(10), "UDP has its own");
        assert_eq!(free(&rig, 82, Tcp), None, "none are needed");
        for n in 10..12 {
            rig.open(net.client(n, 40_000), 1000);
        }
        assert_eq!(free(&rig, 80, Tcp), Some(0));
        let refused = frame::tcp(net.client(20, 40_000), net.vip(80), SYN).seq(1, 0);
        let (port, _) = rig.outside(&refused);
        assert_eq!(port, OUTSIDE, "an RST");
        rig.pass(40);
        assert_eq!(free(&rig, 80, Tcp), Some(10));
    }
}
