//! Connections that can't be served: the client hears of it at once, and it is counted.

use std::net::SocketAddr;

use dataplane::{DropReason, Event, Limits, Protocol, UnknownSegment};

use super::frame::{self, ACK, FIN, OPTIONS, PSH, RST, SYN};
use super::net::{BOTH, Net, set_gateway};
use super::rig::{self, INSIDE, OUTSIDE, Rig, from_client, from_target, to_client, up};

/// The RST a node makes: its own TTL, no window, identification 0.
pub fn rst(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> frame::Packet {
    frame::tcp(from, to, flags).seq(seq, ack).window(0)
}

#[test]
fn a_segment_of_no_flow_is_answered_as_rfc_9293_says() {
    for net in BOTH {
        let cases = [
            (
                "an ACK",
                frame::tcp(net.client(10, 4000), net.vip(80), ACK).seq(100, 200),
                (RST, 200, 0),
            ),
            (
                "data",
                frame::tcp(net.client(10, 4000), net.vip(80), ACK | PSH)
                    .seq(100, 200)
                    .data(b"hello"),
                (RST, 200, 0),
            ),
            (
                "SYN and ACK",
                frame::tcp(net.client(10, 4000), net.vip(80), SYN | ACK).seq(100, 200),
                (RST, 200, 0),
            ),
            (
                "FIN without ACK",
                frame::tcp(net.client(10, 4000), net.vip(80), FIN).seq(100, 0),
                (RST | ACK, 0, 101),
            ),
            (
                "a SYN nobody serves",
                frame::tcp(net.client(10, 4000), net.vip(8443), SYN).seq(100, 0),
                (RST | ACK, 0, 101),
            ),
            (
                "a SYN with data and options (fast open)",
                frame::tcp(net.client(10, 4000), net.vip(8443), SYN)
                    .seq(u32::MAX, 0)
                    .data(b"early")
                    .tcp_options(&[1, 1, 4, 2]),
                (RST | ACK, 0, 5),
            ),
            (
                "IP options and extension headers aren't repeated",
                frame::tcp(net.client(10, 4000), net.vip(80), ACK)
                    .seq(100, 200)
                    .with(|packet| match net {
                        Net::V4 => packet.options = vec![148, 4, 0, 0],
                        Net::V6 => packet.extensions = vec![(OPTIONS, vec![0, 1, 4, 0, 0, 0, 0])],
                    }),
                (RST, 200, 0),
            ),
        ];
        for (description, input, (flags, seq, ack)) in cases {
            let mut rig = Rig::of(net);
            let port = if description.contains("nobody") || description.contains("fast open") {
                8443
            } else {
                80
            };
            let expected = to_client(&rst(net.vip(port), net.client(10, 4000), flags, seq, ack));
            assert_eq!(rig.outside(&input), (OUTSIDE, expected), "{description}");
            let counts = rig.worker_counts();
            let unserved = u64::from(port == 8443);
            assert_eq!(
                (counts.resets_sent, counts.segments_unserved),
                (1, unserved),
                "{description}"
            );
            assert_eq!(rig.flow_count(), 0, "{description}");
            if port == 80 {
                let counts = rig.service_counts(80, Protocol::Tcp);
                assert_eq!(
                    (counts.resets_sent, counts.no_flow),
                    (1, 1),
                    "{description}"
                );
            }
        }
    }
}

#[test]
fn an_rst_of_no_flow_is_not_answered() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        for flags in [RST, RST | ACK] {
            let stray = frame::tcp(net.client(10, 4000), net.vip(80), flags).seq(100, 200);
            assert_eq!(
                rig.dropped(OUTSIDE, from_client(&stray)),
                DropReason::NoFlow
            );
        }
        assert!(rig.emitted().is_empty());
    }
}

#[test]
fn a_padded_segment_is_answered_by_its_own_length() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let mut input =
            from_client(&frame::tcp(net.client(10, 4000), net.vip(8443), SYN).seq(7, 0));
        input.extend([0; 6]);
        let expected = to_client(&rst(net.vip(8443), net.client(10, 4000), RST | ACK, 0, 8));
        assert_eq!(rig.transmitted(OUTSIDE, input), (OUTSIDE, expected));
    }
}

#[test]
fn a_service_may_be_silent_about_segments_of_no_flow() {
    for net in BOTH {
        let mut services = net.services();
        services[0].unknown_segment = UnknownSegment::Drop;
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let reason = rig.dropped(
            OUTSIDE,
            from_client(&frame::tcp(net.client(10, 4000), net.vip(80), ACK)),
        );
        assert_eq!(reason, DropReason::NoFlow);
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!((counts.no_flow, counts.resets_sent), (1, 0));
    }
}

#[test]
fn a_target_that_speaks_on_after_its_flow_is_told_so() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let input = frame::tcp(net.target(21, 8080), net.local(4242), ACK | PSH)
            .seq(1, 900)
            .data(b"late");
        let expected = rst(net.local(4242), net.target(21, 8080), RST, 900, 0);
        assert_eq!(
            rig.inside(&input, 21),
            (INSIDE, rig::to_target(&expected, 21))
        );
        let datagram = frame::udp(net.target(21, 8080), net.local(4242), b"late");
        assert_eq!(
            rig.dropped(INSIDE, from_target(&datagram, 21)),
            DropReason::NoFlow
        );
        let (kind, code) = net.port_unreachable();
        let (own, target) = (net.local_ip(), net.target_ip(21));
        let error = frame::icmp(own, target, kind, code, 0, &datagram.ip());
        assert_eq!(rig.emitted(), [(INSIDE, rig::to_target(&error, 21))]);
    }
}

#[test]
fn without_a_target_tcp_gets_a_reset_and_udp_an_unreachable() {
    for net in BOTH {
        let mut services = net.services();
        for target in services.iter_mut().flat_map(|service| &mut service.targets) {
            target.up = false;
        }
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let syn = frame::tcp(net.client(10, 4000), net.vip(80), SYN).seq(100, 0);
        let expected = to_client(&rst(net.vip(80), net.client(10, 4000), RST | ACK, 0, 101));
        assert_eq!(rig.outside(&syn), (OUTSIDE, expected));
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!(
            (counts.no_target, counts.resets_sent, counts.flows_created),
            (1, 1, 0)
        );
        assert_eq!(
            rig.events(),
            [Event::NoTarget {
                service: rig.service(80, Protocol::Tcp).id
            }]
        );
        rig.out.clear();

        let query = frame::udp(net.client(10, 5353), net.vip(53), b"query").ttl(9);
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&query)),
            DropReason::NoTarget
        );
        let (kind, code) = net.port_unreachable();
        let (own, client) = (net.vip_ip(), net.client(10, 1).ip());
        let error = frame::icmp(own, client, kind, code, 0, &query.ip());
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
        let counts = rig.service_counts(53, Protocol::Udp);
        assert_eq!((counts.no_target, counts.icmp_errors_sent), (1, 1));
        assert_eq!(rig.worker_counts().icmp_errors_sent, 1);
    }
}

#[test]
fn icmp_errors_are_limited_in_rate_and_quote_no_more_than_a_least_packet_carries() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let long = frame::udp(net.client(10, 5353), net.vip(9), &[0x55; 1400]);
        for _ in 0..15 {
            assert_eq!(
                rig.dropped(OUTSIDE, from_client(&long)),
                DropReason::NoService
            );
        }
        let (kind, code) = net.port_unreachable();
        let error = to_client(&frame::icmp(
            net.vip_ip(),
            net.client(10, 1).ip(),
            kind,
            code,
            0,
            &long.ip()[..net.quoted()],
        ));
        let whole = if net == Net::V4 { 576 } else { 1280 };
        assert_eq!(error.len() - 14, whole);
        assert_eq!(rig.emitted(), vec![(OUTSIDE, error); 10]);
        assert_eq!(rig.worker_counts().icmp_errors_suppressed, 5);
        // A tenth of a second later there is one token again.
        rig.out.clear();
        rig.now.0 += 100 * rig::MILLISECOND;
        rig.dropped(OUTSIDE, from_client(&long));
        rig.dropped(OUTSIDE, from_client(&long));
        assert_eq!(rig.emitted().len(), 1);
    }
}

#[test]
fn a_full_flow_table_refuses_new_flows_and_keeps_the_old() {
    for net in BOTH {
        let limits = Limits {
            flows: 8,
            ..rig::small()
        };
        let mut rig = Rig::serving(net, &limits, &net.services()).resolved();
        let first = rig.establish(net.client(0, 4000), 1);
        for n in 1..8 {
            rig.open(net.client(n, 4000), 1);
        }
        let (_, answer) = rig.outside(&frame::tcp(net.client(8, 4000), net.vip(80), SYN).seq(1, 0));
        assert_eq!(
            answer,
            to_client(&rst(net.vip(80), net.client(8, 4000), RST | ACK, 0, 2))
        );
        assert_eq!(
            rig.dropped(
                OUTSIDE,
                from_client(&frame::udp(net.client(8, 1), net.vip(53), b"x"))
            ),
            DropReason::FlowTableFull
        );
        assert_eq!(rig.service_counts(80, Protocol::Tcp).flow_table_full, 1);
        assert_eq!(rig.service_counts(53, Protocol::Udp).flow_table_full, 1);
        assert_eq!(rig.events(), [Event::FlowTableFull]);
        rig.from_client(&first, ACK, 2, 9001);
        // A closing connection's port comes anew within the full table.
        rig.from_client(&first, RST, 2, 9001);
        rig.open(net.client(0, 4000), 5);
        rig.pass(40);
        assert_eq!(rig.flow_count(), 0);
        rig.open(net.client(9, 4000), 1);
    }
}

#[test]
fn a_ttl_that_runs_out_is_reported_to_the_sender() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 4000), 1000);
        let cases = [
            (
                "a new connection",
                frame::tcp(net.client(11, 4000), net.vip(80), SYN).ttl(1),
            ),
            (
                "a known one",
                frame::tcp(net.client(10, 4000), net.vip(80), ACK)
                    .seq(1001, 9001)
                    .ttl(1),
            ),
            (
                "TTL 0",
                frame::tcp(net.client(10, 4000), net.vip(80), ACK)
                    .seq(1001, 9001)
                    .ttl(0),
            ),
            (
                "a datagram",
                frame::udp(net.client(10, 4000), net.vip(53), b"traceroute").ttl(1),
            ),
        ];
        for (description, input) in cases {
            rig.out.clear();
            assert_eq!(
                rig.dropped(OUTSIDE, from_client(&input)),
                DropReason::TtlExpired,
                "{description}"
            );
            let (kind, code) = net.time_exceeded();
            let own = net.outside_address();
            let error = frame::icmp(own, input.source, kind, code, 0, &input.ip());
            assert_eq!(
                rig.emitted(),
                [(OUTSIDE, to_client(&error))],
                "{description}"
            );
        }
        assert_eq!(rig.flow_count(), 1);
        rig.out.clear();
        let (kind, code) = net.time_exceeded();
        let input = frame::tcp(net.target(21, 8080), net.local(opened.local_port), ACK).ttl(1);
        assert_eq!(
            rig.dropped(INSIDE, from_target(&input, 21)),
            DropReason::TtlExpired
        );
        let error = frame::icmp(
            net.inside_address(),
            net.target_ip(21),
            kind,
            code,
            0,
            &input.ip(),
        );
        assert_eq!(rig.emitted(), [(INSIDE, rig::to_target(&error, 21))]);
    }
}

#[test]
fn a_packet_too_long_for_the_next_link_is_reported_to_the_sender() {
    for net in BOTH {
        let mut ports = net.ports();
        ports[1].mtu = 1400;
        let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
        rig.establish(net.client(10, 4000), 1000);
        let (most, (kind, code)) = (1400 - net.ip_header() - 20, net.too_big());
        let long = frame::tcp(net.client(10, 4000), net.vip(80), ACK)
            .seq(1001, 9001)
            .data(&vec![0; most + 1]);
        assert_eq!(rig.dropped(OUTSIDE, from_client(&long)), DropReason::TooBig);
        let error = frame::icmp(
            net.outside_address(),
            net.client(10, 1).ip(),
            kind,
            code,
            1400,
            &long.ip()[..net.quoted()],
        );
        assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
        rig.out.clear();
        let fits = frame::tcp(net.client(10, 4000), net.vip(80), ACK)
            .seq(1001, 9001)
            .data(&vec![0; most]);
        assert_eq!(rig.outside(&fits).0, INSIDE);
    }
}

#[test]
fn a_client_no_route_leads_to_is_counted() {
    for net in BOTH {
        let mut ports = net.ports();
        set_gateway(&mut ports[0], net, None);
        let mut rig = rig::node(&rig::small(), &ports, &net.services()).speaking(net);
        let opened = rig.open(net.client(10, 4000), 1000);
        let answer = frame::tcp(
            net.target(21, 8080),
            net.local(opened.local_port),
            SYN | ACK,
        );
        assert_eq!(
            rig.dropped(INSIDE, from_target(&answer, 21)),
            DropReason::NoRoute
        );
    }
}

#[test]
fn weight_zero_and_draining_targets_get_no_new_flows() {
    for net in BOTH {
        let mut services = net.services();
        services[0].targets = vec![
            up(net.target(21, 8080)),
            up(net.target(22, 8080)),
            up(net.target(23, 8080)),
        ];
        services[0].targets[0].weight = 0;
        services[0].targets[1].draining = true;
        for scheduler in [
            dataplane::Scheduler::RoundRobin,
            dataplane::Scheduler::WeightedRoundRobin,
            dataplane::Scheduler::WeightedLeastConnections,
            dataplane::Scheduler::Maglev,
        ] {
            services[0].scheduler = scheduler;
            let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
            for n in 0..20 {
                assert_eq!(rig.open(net.client(n, 4000), 1).target, 23, "{scheduler:?}");
            }
        }
    }
}
