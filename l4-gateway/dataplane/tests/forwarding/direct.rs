//! DR and tunnel: packets reach the target as the client sent them, and answers go past the node.

use std::net::SocketAddr;

use dataplane::{
    DropReason, FlowState, Ids, Limits, Mode, NextHops, Protocol, Route, ServiceConfig,
    TablesError, Verdict,
};

use super::frame::{ACK, FIN, PSH, Packet, Payload, RST, SYN, icmp, tcp, udp};
use super::net::{BOTH, Net, both_ports, one_target};
use super::rig::{
    self, INSIDE, INSIDE_MAC, OUTSIDE, ROUTER_MAC, Rig, SECOND, from_client, from_target, small,
    to_client, to_target,
};

const MODES: [Mode; 2] = [Mode::Direct, Mode::Tunnel];

/// Each mode over each family.
pub fn each() -> impl Iterator<Item = (Net, Mode)> {
    BOTH.into_iter()
        .flat_map(|net| MODES.map(|mode| (net, mode)))
}

pub fn services(mode: Mode) -> Vec<ServiceConfig> {
    let mut services = one_target(0);
    for service in &mut services {
        service.mode = mode;
    }
    services
}

fn node(mode: Mode) -> Rig {
    rig::node(&small(), &both_ports(), &services(mode))
}

/// What the target gets of a client's packet that has lost its hop already: in an outer packet like `seen`, as far as that can't be
/// foreseen (identification, flow label).
pub fn delivered(net: Net, mode: Mode, inner: &Packet, seen: &[u8]) -> Vec<u8> {
    if mode == Mode::Direct {
        return to_target(inner, 21);
    }
    let (source, target) = (net.inside_address(), net.target_ip(21));
    let protocol = if net == Net::V4 { 4 } else { 41 };
    let mut outer = Packet::new(source, target, Payload::Raw(protocol, inner.ip()));
    outer.tos = inner.tos;
    match net {
        Net::V4 => {
            outer.fragment = inner.fragment & 0x4000;
            if outer.fragment == 0 {
                outer.id = u16::from_be_bytes([seen[18], seen[19]]);
                assert_ne!(outer.id, 0, "what may be cut is numbered");
            }
        }
        Net::V6 => {
            outer.flow_label = u32::from_be_bytes(seen[14..18].try_into().unwrap()) & 0xfffff
        }
    }
    to_target(&outer, 21)
}

fn state(rig: &Rig) -> FlowState {
    rig.worker.flows(rig.now).next().unwrap().state
}

#[test]
fn a_connection_goes_to_one_target_as_the_client_sends_it() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        for (flags, seq, ack, data, after) in [
            (SYN, 1000, 0, &b""[..], FlowState::SynReceived),
            (SYN | ACK, 1000, 9001, b"", FlowState::SynReceived),
            (ACK, 1001, 9001, b"", FlowState::Established),
            (PSH | ACK, 1001, 9001, b"GET /", FlowState::Established),
            (FIN | ACK, 1006, 9500, b"", FlowState::FinClient),
            (ACK, 1007, 9501, b"", FlowState::FinClient),
        ] {
            let segment = tcp(client, vip, flags).seq(seq, ack).data(data);
            let (port, sent) = rig.transmitted(OUTSIDE, from_client(&segment));
            let expected = delivered(net, mode, &segment.ttl(63), &sent);
            assert_eq!((port, sent), (INSIDE, expected), "{net:?} {mode:?} {flags}");
            assert_eq!(state(&rig), after);
        }
        let view = rig.worker.flows(rig.now).next().unwrap();
        assert_eq!(view.target, net.target(21, 80));
        assert_eq!(view.local, None);
        assert_eq!(rig.flow_count(), 1);
        let counts = rig.worker_counts();
        assert_eq!((counts.flows_created, counts.resets_sent), (1, 0));
        // A new connection from the port begins at once; the last one was closed as far as the client is heard.
        let syn = tcp(client, vip, SYN).seq(7, 0);
        rig.transmitted(OUTSIDE, from_client(&syn));
        assert_eq!(rig.worker_counts().flows_rescheduled, 1);
        rig.pass(20);
        assert_eq!(rig.flow_count(), 0, "nobody followed the SYN");
    }
}

#[test]
fn on_a_single_arm_packets_leave_by_the_port_they_came_in_on() {
    for (net, mode) in each() {
        let mut services = services(mode);
        services.retain(|service| service.vip == net.vip_ip());
        let mut rig = rig::node(&small(), &net.single_port(), &services).speaking(net);
        for packet in [
            tcp(net.client(7, 5000), net.vip(80), SYN).seq(1, 0),
            udp(net.client(7, 5000), net.vip(53), b"query"),
        ] {
            let frame = packet.clone().macs(ROUTER_MAC, INSIDE_MAC).frame();
            let (port, sent) = rig.transmitted(INSIDE, frame);
            let expected = delivered(net, mode, &packet.ttl(63), &sent);
            assert_eq!((port, sent), (INSIDE, expected), "{net:?} {mode:?}");
        }
    }
}

#[test]
fn an_rst_counts_until_the_client_goes_on_talking() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        for (flags, after) in [
            (SYN, FlowState::SynReceived),
            (ACK, FlowState::Established),
            (RST, FlowState::Closed),
            (ACK, FlowState::Established),
        ] {
            rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, flags).seq(1, 1)));
            assert_eq!(state(&rig), after);
        }
    }
}

#[test]
fn datagrams_keep_class_and_may_be_cut_inside_a_tunnel() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let query = udp(net.client(7, 5000), net.vip(53), b"query").with(|packet| {
            // Expedited forwarding, congestion experienced.
            packet.tos = 0xbb;
            packet.fragment = 0;
            packet.id = 77;
        });
        let (port, sent) = rig.transmitted(OUTSIDE, from_client(&query));
        let expected = delivered(net, mode, &query.ttl(63), &sent);
        assert_eq!((port, sent), (INSIDE, expected), "{net:?} {mode:?}");
    }
    // 1480 bytes are left inside the outer packet: what is longer is cut first, so that the target gets whole outer packets.
    let net = Net::V4;
    let mut rig = node(Mode::Tunnel);
    let long = udp(net.client(7, 5000), net.vip(53), &[7; 1460]).with(|packet| {
        (packet.fragment, packet.id) = (0, 77);
    });
    let verdict = rig.try_send(OUTSIDE, from_client(&long)).0;
    assert_eq!(verdict, Verdict::Consumed);
    let sent = rig.emitted();
    let pieces = long.ttl(63).cut(77, &[1456]);
    let expected = pieces.iter().zip(&sent);
    let expected: Vec<_> = expected
        .map(|(piece, (_, seen))| (INSIDE, delivered(net, Mode::Tunnel, piece, seen)))
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn what_is_too_long_for_the_outer_packet_is_reported_with_what_is_left() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let left = match mode {
            Mode::Tunnel => 1500 - net.ip_header(),
            _ => 1500,
        };
        let (client, vip) = (net.client(7, 5000), net.vip(53));
        let fits = udp(client, vip, &vec![7; left - net.ip_header() - 8]);
        let (port, sent) = rig.transmitted(OUTSIDE, from_client(&fits));
        let expected = delivered(net, mode, &fits.ttl(63), &sent);
        assert_eq!(sent.len(), 1514, "{net:?} {mode:?}");
        assert_eq!((port, sent), (INSIDE, expected));
        let long = udp(client, vip, &vec![7; left - net.ip_header() - 7]);
        assert_eq!(rig.dropped(OUTSIDE, from_client(&long)), DropReason::TooBig);
        let (kind, code) = net.too_big();
        let quote = &long.ip()[..net.quoted()];
        let error = icmp(
            net.outside_address(),
            client.ip(),
            kind,
            code,
            left as u32,
            quote,
        );
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
    }
}

#[test]
fn the_hop_limit_counts_and_its_end_is_reported() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let query = udp(net.client(7, 5000), net.vip(53), b"query").ttl(1);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&query)),
            DropReason::TtlExpired
        );
        let (kind, code) = net.time_exceeded();
        let (own, client) = (net.outside_address(), net.client(7, 0).ip());
        let error = icmp(own, client, kind, code, 0, &query.ip());
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
    }
}

#[test]
fn fragments_keep_their_number_and_follow_their_first() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let query = udp(net.client(7, 5000), net.vip(53), &[7; 100]);
        let parts = query.cut(99, &[24, 56]);
        let held = rig.try_send(OUTSIDE, from_client(&parts[2])).0;
        assert_eq!(held, Verdict::Held);
        let (port, first) = rig.transmitted(OUTSIDE, from_client(&parts[0]));
        let mut sent = vec![(port, first)];
        sent.extend(rig.emitted());
        sent.push(rig.transmitted(OUTSIDE, from_client(&parts[1])));
        let parts = query.ttl(63).cut(99, &[24, 56]);
        let expected: Vec<_> = [0, 2, 1]
            .iter()
            .zip(&sent)
            .map(|(n, (_, seen))| (INSIDE, delivered(net, mode, &parts[*n], seen)))
            .collect();
        assert_eq!(sent, expected, "{net:?} {mode:?}");
    }
}

#[test]
fn errors_about_what_the_target_answered_reach_the_target() {
    // The path of the answer is smaller: the router there tells the VIP, which the target has, and so do we.
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1, 0)));
        let answer = tcp(vip, client, ACK).seq(9000, 2).data(&[7; 40]).ip();
        let (kind, code) = net.too_big();
        // Of any size: the target keeps it for the client, whose address it sees, alone.
        let error = icmp(net.address(9, 99), vip.ip(), kind, code, 600, &answer);
        let (port, sent) = rig.transmitted(OUTSIDE, from_client(&error));
        let expected = delivered(net, mode, &error.ttl(63), &sent);
        assert_eq!((port, sent), (INSIDE, expected), "{net:?} {mode:?}");
        assert_eq!(rig.worker_counts().icmp_forwarded, 1);
    }
}

/// An error from a router between the node and the target about an outer packet that was sent.
pub fn about_outer(net: Net, sent: &[u8], kind: u8, code: u8, rest: u32, length: usize) -> Packet {
    let outer = &sent[14..];
    let router = net.address(2, 1);
    let quote = &outer[..outer.len().min(length)];
    icmp(router, net.inside_address(), kind, code, rest, quote)
}

#[test]
fn errors_about_outer_packets_are_told_to_the_client() {
    for net in BOTH {
        let cases = match net {
            Net::V4 => vec![
                ((3, 4, 1400), Some((3, 4, 1380))),
                ((3, 2, 0), Some((3, 1, 0))),
                ((11, 0, 0), Some((3, 1, 0))),
                ((3, 3, 0), None),
            ],
            Net::V6 => vec![
                ((2, 0, 1400), Some((2, 0, 1360))),
                ((1, 0, 0), Some((1, 3, 0))),
                ((3, 0, 0), Some((1, 3, 0))),
                ((4, 0, 4), None),
            ],
        };
        for ((kind, code, rest), meaning) in cases {
            let mut rig = node(Mode::Tunnel);
            let (client, vip) = (net.client(7, 5000), net.vip(80));
            rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1, 0)));
            let data = tcp(client, vip, ACK).seq(2, 1).data(&[7; 700]);
            let (_, sent) = rig.transmitted(OUTSIDE, from_client(&data));
            let error = about_outer(net, &sent, kind, code, rest, 528);
            let (verdict, _) = rig.try_send(INSIDE, from_target(&error, 1));
            let Some((kind, code, rest)) = meaning else {
                assert_eq!(verdict, Verdict::Drop(DropReason::IcmpIgnored));
                assert!(rig.emitted().is_empty());
                continue;
            };
            assert_eq!(verdict, Verdict::Consumed, "{net:?} {error:?}");
            let inner = &data.ttl(63).ip()[..528 - net.ip_header()];
            let told = icmp(vip.ip(), client.ip(), kind, code, rest, inner);
            assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&told))]);
            assert_eq!(rig.worker_counts().tunnel_errors, 1);
        }
    }
}

#[test]
fn errors_about_outer_packets_are_told_at_a_limited_rate() {
    for net in BOTH {
        let mut rig = node(Mode::Tunnel);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        let syn = tcp(client, vip, SYN).seq(1, 0);
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&syn));
        let (too_big, unreachable) = match net {
            Net::V4 => ((3, 4), (3, 1)),
            Net::V6 => ((2, 0), (1, 3)),
        };
        for (kind, code) in [unreachable, too_big] {
            let error = from_target(&about_outer(net, &sent, kind, code, 1400, 500), 1);
            for n in 0..30 {
                let (verdict, _) = rig.try_send(INSIDE, error.clone());
                let expected = match n {
                    0..10 => Verdict::Consumed,
                    _ => Verdict::Drop(DropReason::IcmpRate),
                };
                assert_eq!(verdict, expected, "{net:?}: {kind}.{code}, the {n}th");
            }
        }
        assert_eq!(rig.worker_counts().tunnel_errors, 20);
        assert_eq!(rig.emitted().len(), 20);
    }
}

/// Who knows a connection and guesses its target could make up what our outer packet looked like.
#[test]
fn an_error_about_an_outer_packet_from_outside_is_dropped() {
    for net in BOTH {
        let mut rig = node(Mode::Tunnel);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        let syn = tcp(client, vip, SYN).seq(1, 0);
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&syn));
        let (kind, code) = net.too_big();
        let quote = &sent[14..];
        let forged = icmp(
            net.address(9, 9),
            net.inside_address(),
            kind,
            code,
            1300,
            quote,
        );
        let (verdict, _) = rig.try_send(OUTSIDE, from_client(&forged));
        assert_eq!(verdict, Verdict::Drop(DropReason::WrongPort), "{net:?}");
        assert!(rig.emitted().is_empty(), "{net:?}");
        assert_eq!(rig.worker_counts().tunnel_errors, 0);
    }
}

#[test]
fn errors_that_do_not_tell_whose_packet_it_was_go_no_further() {
    for net in BOTH {
        let mut rig = node(Mode::Tunnel);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        let syn = tcp(client, vip, SYN).seq(1, 0);
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&syn));
        let (kind, code) = net.too_big();
        // RFC 792 asks for 8 bytes behind the header: not enough to tell.
        let short = about_outer(net, &sent, kind, code, 1400, net.ip_header() + 8);
        // A client that isn't there, a target that isn't its own, another's tunnel.
        let mut stranger = sent.clone();
        let inner_port = 14 + 2 * net.ip_header();
        stranger[inner_port] ^= 1;
        let stranger = about_outer(net, &stranger, kind, code, 1400, 500);
        let mut elsewhere = sent.clone();
        elsewhere[14 + net.ip_header() - 1] ^= 1;
        let elsewhere = about_outer(net, &elsewhere, kind, code, 1400, 500);
        for (what, error) in [
            ("a short quote", short),
            ("a strange client", stranger),
            ("another target", elsewhere),
        ] {
            let verdict = rig.try_send(INSIDE, from_target(&error, 1)).0;
            let expected = Verdict::Drop(DropReason::IcmpNoFlow);
            assert_eq!(verdict, expected, "{net:?}: {what}");
            assert!(rig.emitted().is_empty(), "{net:?}: {what}");
        }
        let mut others = sent.clone();
        others[14 + if net == Net::V4 { 15 } else { 23 }] ^= 1;
        let others = about_outer(net, &others, kind, code, 1400, 500);
        let verdict = rig.try_send(INSIDE, from_target(&others, 1)).0;
        assert!(
            !matches!(verdict, Verdict::Transmit(_)) && rig.emitted().is_empty(),
            "an error about a tunnel from another source: {verdict:?}"
        );
        // An outer packet in an error must not be taken for the client's own.
        let broken = about_outer(net, &sent, kind, code, 1400, 500).with(|packet| {
            packet.raw_mut()[2] ^= 1;
        });
        let verdict = rig.try_send(INSIDE, from_target(&broken, 1)).0;
        assert!(!matches!(verdict, Verdict::Consumed), "{verdict:?}");
        assert!(rig.emitted().is_empty());
    }
}

#[test]
fn without_a_local_ip_a_client_has_as_many_flows_as_ports() {
    for (net, mode) in each() {
        let limits = Limits {
            flows: 256,
            first_port: 2000,
            last_port: 2001,
            ..small()
        };
        let mut builder = dataplane::Tables::builder();
        for port in both_ports() {
            builder.port(port);
        }
        for service in services(mode) {
            builder.service(service);
        }
        let mut rig = Rig::from(&limits, &builder, 0, 1).resolved();
        for port in 1..=200 {
            let syn = tcp(net.client(7, port), net.vip(80), SYN).seq(1, 0);
            rig.transmitted(OUTSIDE, from_client(&syn));
        }
        assert_eq!(rig.flow_count(), 200);
    }
}

#[test]
fn flows_keep_their_mode_when_the_service_takes_another() {
    for net in BOTH {
        let mut rig = node(Mode::Direct);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1, 0)));
        let mut tunnel = services(Mode::Tunnel);
        for service in &mut tunnel {
            service.targets = vec![rig::up(net.target(22, service.ports.first()))];
        }
        tunnel.retain(|service| service.vip == vip.ip() && service.ports == 80.into());
        rig.tables = rig::builder(&both_ports(), &tunnel)
            .build(&mut rig.ids, Some(&rig.tables))
            .unwrap();
        rig.refresh();
        rig.out.clear();
        let data = tcp(client, vip, ACK).seq(2, 1).data(b"data");
        let (_, sent) = rig.transmitted(OUTSIDE, from_client(&data));
        assert_eq!(sent, to_target(&data.ttl(63), 21));
    }
}

#[test]
fn what_contradicts_a_mode_is_no_snapshot() {
    let build = |services: &[ServiceConfig], change: &dyn Fn(&mut dataplane::TablesBuilder)| {
        let mut builder = rig::builder(&both_ports(), services);
        change(&mut builder);
        builder.build(&mut Ids::new(&small()), None).map(|_| ())
    };
    let with = |mode, target: SocketAddr| {
        let mut service = ServiceConfig::new(Net::V4.vip(80).ip(), Protocol::Tcp, 80);
        service.mode = mode;
        service.targets = vec![rig::up(target)];
        [service]
    };
    let near = Net::V4.target(21, 80);
    let far: SocketAddr = "10.9.0.1:80".parse().unwrap();
    for mode in MODES {
        let other = Net::V4.target(21, 8080);
        assert_eq!(
            build(&with(mode, other), &|_| {}),
            Err(TablesError::PortDiffers {
                target: other,
                ports: 80.into()
            })
        );
        assert_eq!(build(&with(mode, near), &|_| {}), Ok(()));
    }
    assert_eq!(
        build(&with(Mode::Direct, far), &|_| {}),
        Err(TablesError::TargetOffLink {
            target: far,
            port: 0
        })
    );
    assert_eq!(build(&with(Mode::Tunnel, far), &|_| {}), Ok(()));
    // On the segment by a route without gateway.
    let on_link = |builder: &mut dataplane::TablesBuilder| {
        builder.route(Route {
            destination: far.ip(),
            prefix: 32,
            port: INSIDE,
            via: NextHops::ON_LINK,
        });
    };
    assert_eq!(build(&with(Mode::Direct, far), &on_link), Ok(()));
    let mut ports = both_ports();
    ports[1].mtu = 1319;
    let mut wide = services(Mode::Tunnel);
    wide.retain(|service| service.vip == Net::V6.vip(0).ip());
    let target = wide[0].targets[0].address;
    let built = rig::builder(&ports, &wide).build(&mut Ids::new(&small()), None);
    assert_eq!(
        built.map(|_| ()),
        Err(TablesError::LinkTooSmall {
            target,
            port: 1,
            mtu: 1319
        })
    );
}

#[test]
fn a_segment_of_no_flow_is_reset_as_under_fullnat() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        let late = tcp(client, vip, ACK).seq(5, 700).data(b"late");
        let (port, sent) = rig.transmitted(OUTSIDE, from_client(&late));
        let reset = tcp(vip, client, RST).seq(700, 0).window(0);
        assert_eq!((port, sent), (OUTSIDE, to_client(&reset)));
    }
}

/// A flow goes when nobody was heard for its state's timeout, and takes nothing with it.
#[test]
fn one_sided_flows_expire_by_their_state() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1, 0)));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, ACK).seq(2, 1)));
        rig.pass(60);
        assert_eq!(rig.flow_count(), 1, "established");
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, FIN | ACK).seq(2, 1)));
        rig.now.0 += 75 * SECOND;
        rig.pass(1);
        assert_eq!(rig.flow_count(), 0);
        assert_eq!(rig.worker_counts().resets_sent, 0, "it was closed");
    }
}

#[test]
fn the_client_of_an_idle_connection_that_expires_is_reset() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let (client, vip) = (net.client(7, 5000), net.vip(80));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, SYN).seq(1, 0)));
        rig.transmitted(OUTSIDE, from_client(&tcp(client, vip, ACK).seq(2, 700)));
        rig.now.0 += 910 * SECOND;
        let mut sent = Vec::new();
        for _ in 0..2000 {
            rig.now.0 += 5_000_000;
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            let resets = rig.emitted();
            sent.extend(resets.into_iter().filter(|(_, frame)| {
                (net == Net::V4 && frame[23] == 6) || (net == Net::V6 && frame[20] == 6)
            }));
            rig.refresh();
            rig.out.clear();
        }
        assert_eq!(rig.flow_count(), 0);
        let reset = tcp(vip, client, RST).seq(700, 0).window(0);
        assert_eq!(sent, [(OUTSIDE, to_client(&reset))], "{net:?} {mode:?}");
    }
}

/// Of what a client closed nobody hears: the target isn't heard, so the connection may be over.
#[test]
fn a_cut_resets_the_client_of_an_open_connection_only() {
    for (net, mode) in each() {
        let mut rig = node(mode);
        let vip = net.vip(80);
        for (last, end) in [(7, ACK), (8, FIN | ACK)] {
            let client = net.client(last, 5000);
            for (flags, seq, ack) in [(SYN, 1, 0), (ACK, 2, 700), (end, 2, 700)] {
                let segment = tcp(client, vip, flags).seq(seq, ack);
                rig.transmitted(OUTSIDE, from_client(&segment));
            }
        }
        let mut services = services(mode);
        for target in services.iter_mut().flat_map(|service| &mut service.targets) {
            target.cut = true;
        }
        rig.tables = rig::builder(&both_ports(), &services)
            .build(&mut rig.ids, Some(&rig.tables))
            .unwrap();
        rig.out.clear();
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        let reset = tcp(vip, net.client(7, 5000), RST).seq(700, 0).window(0);
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&reset))], "{mode:?}");
        assert_eq!(rig.flow_count(), 0);
    }
}
