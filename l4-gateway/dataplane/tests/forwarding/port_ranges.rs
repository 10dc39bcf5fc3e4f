//! Services of several ports and of all ports of a VIP.

use std::net::SocketAddr;

use dataplane::{
    DropReason, Ids, Limits, Mode, PortRange, Protocol, ServiceConfig, TablesError, TargetConfig,
};

use super::direct::{delivered, each};
use super::frame::{
    self, ACK, PSH, Packet, RST, SYN, flags_of, port_word, source_port, tcp, tcp_word, udp,
};
use super::net::{BOTH, Net, both_ports};
use super::nic::{self, Nic};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, from_client, from_target, small, to_client, to_target, up,
};
use super::workers::Node;

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

fn service(
    net: Net,
    protocol: Protocol,
    ports: impl Into<PortRange>,
    target: SocketAddr,
) -> ServiceConfig {
    let mut service = ServiceConfig::new(net.vip_ip(), protocol, ports);
    service.targets = vec![up(target)];
    service
}

/// TCP: one port at target 21, those around it at 22, all at 23; UDP: some at one port of 24. Targets without a port get packets at the port
/// that they were sent to.
fn services(net: Net) -> Vec<ServiceConfig> {
    vec![
        service(net, Protocol::Tcp, PortRange::ALL, net.target(23, 0)),
        service(net, Protocol::Tcp, range(8000, 8999), net.target(22, 0)),
        service(
            net,
            Protocol::Tcp,
            range(9100, 9100 + 9),
            net.target(22, 90),
        ),
        service(net, Protocol::Tcp, 8005, net.target(21, 80)),
        service(net, Protocol::Udp, range(1000, 1999), net.target(24, 53)),
    ]
}

fn node(net: Net) -> Rig {
    Rig::serving(net, &small(), &services(net)).resolved()
}

#[test]
fn a_service_of_the_port_goes_before_a_range_and_a_range_before_all_ports() {
    for net in BOTH {
        let mut rig = node(net);
        for (port, target) in [
            (8005, net.target(21, 80)),
            (8000, net.target(22, 8000)),
            (8004, net.target(22, 8004)),
            (8006, net.target(22, 8006)),
            (8999, net.target(22, 8999)),
            (9100, net.target(22, 90)),
            (9109, net.target(22, 90)),
            (1, net.target(23, 1)),
            (7999, net.target(23, 7999)),
            (9000, net.target(23, 9000)),
            (9099, net.target(23, 9099)),
            (9110, net.target(23, 9110)),
            (65_535, net.target(23, 65_535)),
        ] {
            let (client, host) = (net.client(10, 4000), rig::last(target.ip()));
            let syn = tcp(client, net.vip(port), SYN).seq(100, 0);
            let (egress, sent) = rig.outside(&syn);
            let local = net.local(source_port(&sent));
            let seq = tcp_word(&sent, 4);
            let expected = tcp(local, target, SYN).seq(seq, 0).ttl(63);
            assert_eq!(
                (egress, sent),
                (INSIDE, to_target(&expected, host)),
                "{port}"
            );
            let answer = tcp(target, local, SYN | ACK).seq(7, seq.wrapping_add(1));
            let expected = tcp(net.vip(port), client, SYN | ACK).seq(7, 101).ttl(63);
            let got = rig.inside(&answer, host);
            assert_eq!(got, (OUTSIDE, to_client(&expected)), "{port}");
        }
        assert_eq!(rig.flow_count(), 13);
        // TCP has no port 0.
        assert!(
            rig.tables
                .service_at(net.vip_ip(), 0, Protocol::Tcp)
                .is_none()
        );
    }
}

#[test]
fn ports_beside_a_range_are_refused() {
    for net in BOTH {
        let mut rig = node(net);
        for (port, is_served) in [(999, false), (1000, true), (1999, true), (2000, false)] {
            let query = udp(net.client(10, 4000), net.vip(port), b"query");
            if is_served {
                let (_, sent) = rig.outside(&query);
                assert_eq!(port_word(&sent, 2), 53);
                continue;
            }
            let dropped = rig.dropped(OUTSIDE, from_client(&query));
            assert_eq!(dropped, DropReason::NoService);
            let (kind, code) = net.port_unreachable();
            let error = frame::icmp(net.vip_ip(), query.source, kind, code, 0, &query.ip());
            assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
            rig.out.clear();
        }
        let mut only_range = services(net);
        only_range.retain(|service| service.ports == range(8000, 8999));
        rig.swap(&only_range);
        for (port, flags) in [(7999, RST | ACK), (8999, SYN), (9000, RST | ACK)] {
            let syn = tcp(net.client(11, 4000), net.vip(port), SYN).seq(100, 0);
            assert_eq!(flags_of(&rig.outside(&syn).1), flags, "{port}");
        }
    }
}

/// The local port alone doesn't tell which of a target's ports an answer is from: target, its port and the LocalIP's do together.
#[test]
fn answers_of_many_ports_of_a_target_find_back_over_one_local_port() {
    for net in BOTH {
        let limits = Limits {
            first_port: 5000,
            last_port: 5000,
            ..small()
        };
        let tens = (1..=8u16).map(|n| range(n * 10, n * 10 + 9));
        let target = net.target(22, 0);
        let services: Vec<_> = tens
            .map(|ports| service(net, Protocol::Tcp, ports, target))
            .collect();
        let mut rig = Rig::serving(net, &limits, &services).resolved();
        let client = |n: u16| net.client(n as u8, 4000);
        let mut numbers = Vec::new();
        for n in 1..=8u16 {
            let syn = tcp(client(n), net.vip(n * 11), SYN).seq(100, 0);
            let (_, sent) = rig.outside(&syn);
            assert_eq!((source_port(&sent), port_word(&sent, 2)), (5000, n * 11));
            numbers.push(tcp_word(&sent, 4).wrapping_add(1));
        }
        for n in (1..=8u16).rev() {
            let ack = numbers[usize::from(n) - 1];
            let answer = tcp(net.target(22, n * 11), net.local(5000), SYN | ACK).seq(7, ack);
            let expected = tcp(net.vip(n * 11), client(n), SYN | ACK)
                .seq(7, 101)
                .ttl(63);
            assert_eq!(rig.inside(&answer, 22), (OUTSIDE, to_client(&expected)));
        }
        // From a port that nobody asked.
        let stray = tcp(net.target(22, 12), net.local(5000), SYN | ACK).seq(7, 1);
        let (port, answer) = rig.inside(&stray, 22);
        assert_eq!((port, flags_of(&answer)), (INSIDE, RST));
        assert_eq!(rig.flow_count(), 8);
        rig.pass(20);
        assert_eq!(rig.flow_count(), 0, "and all ports are free again");
    }
}

/// Of one service, as of any other: as many flows to a target as there are local ports.
#[test]
fn a_target_has_as_many_local_ports_for_all_its_ports_together() {
    for net in BOTH {
        let limits = Limits {
            first_port: 5000,
            last_port: 5003,
            ..small()
        };
        let all = [service(
            net,
            Protocol::Udp,
            PortRange::ALL,
            net.target(22, 0),
        )];
        let mut rig = Rig::serving(net, &limits, &all).resolved();
        for port in 1..=4 {
            rig.outside(&udp(net.client(1, 4000), net.vip(port), b"query"));
        }
        let one_more = udp(net.client(1, 4000), net.vip(5), b"query");
        let dropped = rig.dropped(OUTSIDE, from_client(&one_more));
        assert_eq!(dropped, DropReason::PortExhausted);
        let free = rig.tables.free_ports(&rig.counters, &limits);
        assert_eq!(free.values().collect::<Vec<_>>(), [&0]);
    }
}

#[test]
fn errors_about_packets_of_a_range_are_told_by_the_ports_they_were_sent_to() {
    for net in BOTH {
        let mut rig = node(net);
        let (client, vip, target) = (net.client(10, 4000), net.vip(8123), net.target(22, 8123));
        let (_, sent) = rig.outside(&tcp(client, vip, SYN).seq(1000, 0));
        let (local, shift) = (
            net.local(source_port(&sent)),
            tcp_word(&sent, 4).wrapping_sub(1000),
        );
        let segment = |from, to, seq: u32| tcp(from, to, ACK | PSH).seq(seq, 9001).data(b"data");
        let (kind, code) = net.port_unreachable();
        let error = |from, to, quoted: &Packet| frame::icmp(from, to, kind, code, 0, &quoted.ip());
        let inside = error(
            target.ip(),
            local.ip(),
            &segment(local, target, 1001u32.wrapping_add(shift)),
        );
        let outside = error(vip.ip(), client.ip(), &segment(client, vip, 1001)).ttl(63);
        assert_eq!(rig.inside(&inside, 22), (OUTSIDE, to_client(&outside)));
        // The other way.
        let answer = tcp(vip, client, ACK).seq(9001, 1001).data(b"data");
        let quoted = tcp(target, local, ACK).seq(9001, 1001u32.wrapping_add(shift));
        let outside = error(net.outside_address(), vip.ip(), &answer).with(|packet| {
            packet.source = net.stranger(7).ip();
        });
        let inside = error(local.ip(), target.ip(), &quoted.data(b"data")).ttl(63);
        assert_eq!(rig.outside(&outside), (INSIDE, to_target(&inside, 22)));
    }
}

#[test]
fn fragments_of_a_range_go_to_the_port_they_were_sent_to_and_back() {
    for net in BOTH {
        let all = [service(
            net,
            Protocol::Udp,
            PortRange::ALL,
            net.target(22, 0),
        )];
        let mut rig = Rig::serving(net, &small(), &all).resolved();
        let (client, vip) = (net.client(10, 4000), net.vip(30_001));
        let header = net.ip_header() + if net == Net::V6 { 8 } else { 0 };
        let ports = |frame: &[u8]| {
            let at = |at: usize| u16::from_be_bytes([frame[14 + at], frame[15 + at]]);
            (at(header), at(header + 2))
        };
        let query = udp(client, vip, &[1; 100]).cut(77, &[24, 56]);
        let first = rig.transmitted(OUTSIDE, from_client(&query[0])).1;
        let (local, target) = ports(&first);
        assert_eq!(target, 30_001);
        for later in &query[1..] {
            assert_eq!(rig.transmitted(OUTSIDE, from_client(later)).0, INSIDE);
        }
        let answer = udp(net.target(22, 30_001), net.local(local), &[2; 100]).cut(5, &[48]);
        let first = rig.transmitted(INSIDE, from_target(&answer[0], 22)).1;
        assert_eq!(ports(&first), (30_001, 4000));
        let later = rig.transmitted(INSIDE, from_target(&answer[1], 22)).0;
        assert_eq!(later, OUTSIDE);
        assert_eq!(rig.flow_count(), 1);
    }
}

#[test]
fn direct_and_tunnelled_packets_keep_their_port() {
    for (net, mode) in each() {
        let mut service = service(net, Protocol::Tcp, range(8000, 8999), net.target(21, 0));
        service.mode = mode;
        let mut rig = rig::node(&small(), &both_ports(), &[service]).speaking(net);
        for port in [8000, 8123, 8999] {
            let syn = tcp(net.client(7, 5000), net.vip(port), SYN).seq(1, 0);
            let (egress, sent) = rig.transmitted(OUTSIDE, from_client(&syn));
            let expected = delivered(net, mode, &syn.ttl(63), &sent);
            assert_eq!(
                (egress, sent),
                (INSIDE, expected),
                "{net:?} {mode:?} {port}"
            );
        }
        let mut shown: Vec<_> = rig.worker.flows(rig.now).map(|flow| flow.target).collect();
        shown.sort_unstable();
        assert_eq!(shown, [8000, 8123, 8999].map(|port| net.target(21, port)));
    }
}

#[test]
fn each_datagram_of_a_range_may_go_elsewhere_and_each_port_has_flows_of_its_own() {
    for net in BOTH {
        let mut log = service(net, Protocol::Udp, range(500, 599), net.target(21, 0));
        log.targets.push(up(net.target(22, 0)));
        log.policy.one_packet = true;
        let mut rig = Rig::serving(net, &small(), &[log]).resolved();
        for (n, port) in [(0u8, 514), (1, 514), (0, 515), (1, 515), (0, 514)] {
            let (_, sent) = rig.outside(&udp(net.client(1, 4000), net.vip(port), b"line"));
            assert_eq!(
                (frame::target_of(&sent), port_word(&sent, 2)),
                (21 + n, port)
            );
            let local = net.local(source_port(&sent));
            let answer = udp(net.target(21 + n, port), local, b"ok");
            let expected = udp(net.vip(port), net.client(1, 4000), b"ok").ttl(63);
            let got = rig.inside(&answer, 21 + n);
            assert_eq!(got, (OUTSIDE, to_client(&expected)));
        }
        assert_eq!(rig.flow_count(), 4);
    }
}

#[test]
fn ranges_that_overlap_are_no_configuration() {
    use Protocol::{Tcp, Udp};
    for net in BOTH {
        let build = |services: &[ServiceConfig]| {
            let builder = rig::builder(&net.ports(), services);
            builder.build(&mut Ids::new(&small()), None).map(|_| ())
        };
        let of = |ports| service(net, Tcp, ports, net.target(22, 0));
        let (low, high) = (range(100, 199), range(200, 299));
        assert_eq!(build(&[of(low), of(high), of(PortRange::ALL)]), Ok(()));
        let refused = |ports, other| {
            Err(TablesError::DuplicateService {
                vip: net.vip_ip(),
                protocol: Tcp,
                ports,
                other,
            })
        };
        for (overlapping, with) in [
            (range(199, 200), low),
            (range(299, 300), high),
            (range(90, 100), low),
            (range(90, 300), low),
            (range(120, 130), low),
            (low, low),
        ] {
            let result = build(&[of(high), of(low), of(overlapping)]);
            assert_eq!(result, refused(overlapping, with), "{overlapping}");
        }
        let all = PortRange::ALL;
        assert_eq!(build(&[of(all), of(all)]), refused(all, all));
        let other_protocol = service(net, Udp, low, net.target(22, 0));
        let mut other_vip = of(low);
        other_vip.vip = net.address(0, 101);
        assert_eq!(build(&[of(low), other_protocol, other_vip]), Ok(()));
        // What is left open must be left open by both.
        let fixed = net.target(22, 0);
        let result = build(&[service(net, Tcp, 80, fixed)]);
        assert_eq!(result, Err(TablesError::PortZero(fixed)));
        let mut direct = service(net, Tcp, low, net.target(22, 100));
        direct.mode = Mode::Direct;
        assert_eq!(
            build(&[direct]),
            Err(TablesError::PortDiffers {
                target: net.target(22, 100),
                ports: low,
            })
        );
    }
}

#[test]
fn a_service_whose_ports_change_keeps_its_flows() {
    for net in BOTH {
        let of = |ports| service(net, Protocol::Tcp, ports, net.target(22, 0));
        let (before, after) = (range(8000, 8999), range(8500, 9499));
        let mut rig = Rig::serving(net, &small(), &[of(before)]).resolved();
        let id = rig.service(8000, Protocol::Tcp).id;
        for port in [8100, 8600] {
            rig.outside(&tcp(net.client(1, 4000), net.vip(port), SYN).seq(100, 0));
        }
        let vip = net.vip_ip();
        assert!(rig.ids.change_ports(vip, Protocol::Tcp, before, after));
        rig.swap(&[of(after)]);
        assert_eq!(rig.service(9000, Protocol::Tcp).id, id);
        assert!(rig.tables.service_of(vip, before, Protocol::Tcp).is_none());
        // What has left the range is still forwarded, and begins nothing new.
        for (port, client, flags) in [(8100, 1, ACK), (8600, 1, ACK), (8100, 2, RST | ACK)] {
            let kind = if client == 1 { ACK } else { SYN };
            let segment = tcp(net.client(client, 4000), net.vip(port), kind).seq(101, 0);
            assert_eq!(flags_of(&rig.outside(&segment).1), flags, "{port} {client}");
        }
        // Not where the one is unknown, or the other known.
        rig.swap(&[of(after), of(range(1, 9))]);
        let mut change = |before, after| rig.ids.change_ports(vip, Protocol::Tcp, before, after);
        assert!(!change(range(3, 4), range(5, 6)));
        assert!(!change(after, range(1, 9)));
    }
}

#[test]
fn targets_of_a_range_are_told_apart_by_address_and_port() {
    for net in BOTH {
        let mut both = service(net, Protocol::Tcp, range(80, 89), net.target(22, 0));
        both.targets.push(up(net.target(22, 8080)));
        let twice = TargetConfig {
            weight: 2,
            ..both.targets[0]
        };
        let mut rig = Rig::serving(net, &small(), std::slice::from_ref(&both)).resolved();
        let ports = [4000, 4001].map(|port| {
            let (_, sent) = rig.outside(&tcp(net.client(1, port), net.vip(85), SYN).seq(1, 0));
            port_word(&sent, 2)
        });
        assert_eq!(ports, [85, 8080]);
        both.targets.push(twice);
        let builder = rig::builder(&net.ports(), &[both]);
        assert!(matches!(
            builder.build(&mut Ids::new(&small()), None),
            Err(TablesError::DuplicateTarget { .. })
        ));
    }
}

/// NICs hash the port that an answer comes from, which is the client's choice here.
#[test]
fn answers_of_all_ports_come_to_the_worker_of_their_flow() {
    for net in BOTH {
        let limits = Limits {
            flows: 128,
            ..small()
        };
        let all = service(net, Protocol::Udp, PortRange::ALL, net.target(22, 0));
        let mut builder = rig::builder(&net.ports(), &[all]);
        for port in [OUTSIDE, INSIDE] {
            builder.spread(port, nic::spread(4, false));
        }
        let mut node = Node::made_of(net, &builder, Nic::Toeplitz(nic::KEY), 4, &limits);
        for n in 0..60u16 {
            let (client, port) = (net.client(1, 4000 + n * 13), 1 + n * 1001);
            let query = from_client(&udp(client, net.vip(port), b"query"));
            let (owner, _, sent) = node.send(OUTSIDE, query);
            let local = net.local(source_port(&sent));
            let answer = from_target(&udp(net.target(22, port), local, b"answer"), 22);
            assert_eq!(node.send(INSIDE, answer).0, owner);
        }
        assert_eq!(node.redirected().0, 0);
    }
}
