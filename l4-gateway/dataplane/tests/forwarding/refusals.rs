//! Connections that can't be served: the client hears of it at once, and it is counted.

use dataplane::{DropReason, Event, Limits, Protocol, UnknownSegment};

use super::frame::{self, ACK, FIN, PSH, RST, SYN};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, client, from_client, from_target, local, target, to_client, up, vip,
};

/// The RST a node makes: its own TTL, no window, identification 0.
fn rst(
    from: std::net::SocketAddrV4,
    to: std::net::SocketAddrV4,
    flags: u8,
    seq: u32,
    ack: u32,
) -> frame::Packet {
    frame::tcp(from, to, flags).seq(seq, ack).window(0)
}

#[test]
fn a_segment_of_no_flow_is_answered_as_rfc_9293_says() {
    let cases = [
        (
            "an ACK",
            frame::tcp(client(10, 4000), vip(80), ACK).seq(100, 200),
            (RST, 200, 0),
        ),
        (
            "data",
            frame::tcp(client(10, 4000), vip(80), ACK | PSH)
                .seq(100, 200)
                .data(b"hello"),
            (RST, 200, 0),
        ),
        (
            "SYN and ACK",
            frame::tcp(client(10, 4000), vip(80), SYN | ACK).seq(100, 200),
            (RST, 200, 0),
        ),
        (
            "FIN without ACK",
            frame::tcp(client(10, 4000), vip(80), FIN).seq(100, 0),
            (RST | ACK, 0, 101),
        ),
        (
            "a SYN nobody serves",
            frame::tcp(client(10, 4000), vip(8443), SYN).seq(100, 0),
            (RST | ACK, 0, 101),
        ),
        (
            "a SYN with data and options (fast open)",
            frame::tcp(client(10, 4000), vip(8443), SYN)
                .seq(u32::MAX, 0)
                .data(b"early")
                .tcp_options(&[1, 1, 4, 2]),
            (RST | ACK, 0, 5),
        ),
        (
            "IP options aren't repeated",
            frame::tcp(client(10, 4000), vip(80), ACK)
                .seq(100, 200)
                .with(|packet| packet.options = vec![148, 4, 0, 0]),
            (RST, 200, 0),
        ),
    ];
    for (description, input, (flags, seq, ack)) in cases {
        let mut rig = Rig::new();
        let port = if description.contains("nobody") || description.contains("fast open") {
            8443
        } else {
            80
        };
        let expected = to_client(&rst(vip(port), client(10, 4000), flags, seq, ack));
        assert_eq!(rig.outside(&input), (OUTSIDE, expected), "{description}");
        assert_eq!(rig.worker_counts().resets_sent, 1, "{description}");
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

#[test]
fn a_padded_segment_is_answered_by_its_own_length() {
    let mut rig = Rig::new();
    let mut input = from_client(&frame::tcp(client(10, 4000), vip(8443), SYN).seq(7, 0));
    input.extend([0; 6]);
    let expected = to_client(&rst(vip(8443), client(10, 4000), RST | ACK, 0, 8));
    assert_eq!(rig.transmitted(OUTSIDE, input), (OUTSIDE, expected));
}

#[test]
fn a_service_may_be_silent_about_segments_of_no_flow() {
    let mut services = rig::services();
    services[0].unknown_segment = UnknownSegment::Drop;
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    let reason = rig.dropped(
        OUTSIDE,
        from_client(&frame::tcp(client(10, 4000), vip(80), ACK)),
    );
    assert_eq!(reason, DropReason::NoFlow);
    let counts = rig.service_counts(80, Protocol::Tcp);
    assert_eq!((counts.no_flow, counts.resets_sent), (1, 0));
}

#[test]
fn a_target_that_speaks_on_after_its_flow_is_told_so() {
    let mut rig = Rig::new();
    let input = frame::tcp(target(21), local(4242), ACK | PSH)
        .seq(1, 900)
        .data(b"late");
    let expected = rst(local(4242), target(21), RST, 900, 0);
    assert_eq!(
        rig.inside(&input, 21),
        (INSIDE, rig::to_target(&expected, 21))
    );
    let datagram = frame::udp(target(21), local(4242), b"late");
    assert_eq!(
        rig.dropped(INSIDE, from_target(&datagram, 21)),
        DropReason::NoFlow
    );
    let error = frame::icmp(rig::LOCAL_IP, *target(21).ip(), 3, 3, 0, &datagram.ip());
    assert_eq!(rig.emitted(), [(INSIDE, rig::to_target(&error, 21))]);
}

#[test]
fn without_a_target_tcp_gets_a_reset_and_udp_an_unreachable() {
    let mut services = rig::services();
    for target in services.iter_mut().flat_map(|service| &mut service.targets) {
        target.up = false;
    }
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    let syn = frame::tcp(client(10, 4000), vip(80), SYN).seq(100, 0);
    let expected = to_client(&rst(vip(80), client(10, 4000), RST | ACK, 0, 101));
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

    let query = frame::udp(client(10, 5353), vip(53), b"query").ttl(9);
    assert_eq!(
        rig.dropped(OUTSIDE, from_client(&query)),
        DropReason::NoTarget
    );
    let error = frame::icmp(rig::VIP, *client(10, 1).ip(), 3, 3, 0, &query.ip());
    assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
    let counts = rig.service_counts(53, Protocol::Udp);
    assert_eq!((counts.no_target, counts.icmp_errors_sent), (1, 1));
    assert_eq!(rig.worker_counts().icmp_errors_sent, 1);
}

#[test]
fn icmp_errors_are_limited_in_rate_and_quote_no_more_than_576_bytes_carry() {
    let mut rig = Rig::new();
    let long = frame::udp(client(10, 5353), vip(9), &[0x55; 1400]);
    for _ in 0..15 {
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&long)),
            DropReason::NoService
        );
    }
    let error = to_client(&frame::icmp(
        rig::VIP,
        *client(10, 1).ip(),
        3,
        3,
        0,
        &long.ip()[..548],
    ));
    assert_eq!(error.len() - 14, 576);
    assert_eq!(rig.emitted(), vec![(OUTSIDE, error); 10]);
    assert_eq!(rig.worker_counts().icmp_errors_suppressed, 5);
    // A tenth of a second later there is one token again.
    rig.out.clear();
    rig.now.0 += 100 * rig::MILLISECOND;
    rig.dropped(OUTSIDE, from_client(&long));
    rig.dropped(OUTSIDE, from_client(&long));
    assert_eq!(rig.emitted().len(), 1);
}

#[test]
fn exhausted_ports_are_counted_reported_once_a_second_and_answered() {
    let mut services = rig::services();
    services[0].targets.truncate(1);
    let limits = Limits {
        first_port: 5000,
        last_port: 5009,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &services).resolved();
    let id = rig.service(80, Protocol::Tcp).targets[0];
    let mut ports: Vec<u16> = (0..10)
        .map(|n| rig.open(client(n, 4000), 1).local_port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, (5000..=5009).collect::<Vec<u16>>());
    for n in 10..30 {
        let (_, answer) = rig.outside(&frame::tcp(client(n, 4000), vip(80), SYN).seq(1, 0));
        assert_eq!(
            answer,
            to_client(&rst(vip(80), client(n, 4000), RST | ACK, 0, 2))
        );
    }
    let counts = rig.service_counts(80, Protocol::Tcp);
    assert_eq!(
        (
            counts.port_exhausted,
            counts.resets_sent,
            counts.flows_active
        ),
        (20, 20, 10)
    );
    assert_eq!(rig.target_counts(80, Protocol::Tcp, 21).port_exhausted, 20);
    assert_eq!(rig.worker_counts().events_suppressed, 19);
    let service = rig.service(80, Protocol::Tcp).id;
    assert_eq!(
        rig.events(),
        [Event::PortsExhausted {
            service,
            target: id
        }]
    );
    // Flows in place go on, and a port that comes back is used.
    let flow = rig
        .worker
        .flows(rig.now)
        .find(|flow| flow.local.is_some_and(|local| local.port() == 5003))
        .unwrap();
    let (_, sent) = rig.inside(&frame::tcp(target(21), local(5003), RST | ACK), 21);
    assert_eq!(sent[47], RST | ACK);
    rig.now.0 += 10 * rig::SECOND;
    rig.pass(13);
    assert!(rig.flow_count() < 10);
    let again = rig.open_from(flow.client);
    assert!((5000..=5009).contains(&again));
}

impl Rig {
    /// Opens from any address; the local port.
    fn open_from(&mut self, from: std::net::SocketAddr) -> u16 {
        frame::port_word(
            &self.outside(&frame::tcp(rig::narrow(from), vip(80), SYN)).1,
            0,
        )
    }
}

#[test]
fn one_local_port_serves_several_targets_at_once() {
    let limits = Limits {
        first_port: 5000,
        last_port: 5000,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &rig::services()).resolved();
    let (first, second) = (rig.open(client(1, 4000), 1), rig.open(client(2, 4000), 1));
    assert_eq!((first.target, second.target), (21, 22));
    assert_eq!((first.local_port, second.local_port), (5000, 5000));
    // And TCP and UDP, towards the same target.
    let (_, sent) = rig.outside(&frame::udp(client(1, 4000), vip(53), b"query"));
    assert_eq!(frame::port_word(&sent, 0), 5000);
}

#[test]
fn two_services_with_one_target_never_share_a_local_port_towards_it() {
    let mut services = rig::services();
    services[0].targets.truncate(1);
    let mut other = services[0].clone();
    other.port = 443;
    services.push(other);
    let limits = Limits {
        first_port: 5000,
        last_port: 5007,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &services).resolved();
    let mut ports = Vec::new();
    for n in 0..4 {
        ports.push(rig.open_from(client(n, 4000).into()));
        let (_, sent) = rig.outside(&frame::tcp(client(n, 4000), vip(443), SYN));
        ports.push(frame::port_word(&sent, 0));
    }
    ports.sort_unstable();
    assert_eq!(ports, (5000..=5007).collect::<Vec<u16>>());
    let (_, answer) = rig.outside(&frame::tcp(client(9, 4000), vip(443), SYN));
    assert_eq!(answer[47], RST | ACK);
    assert_eq!(rig.service_counts(443, Protocol::Tcp).port_exhausted, 1);
}

#[test]
fn local_ips_take_turns_out_of_step_with_the_scheduler() {
    let mut builder = rig::builder(&rig::ports(), &rig::services());
    builder.local_ip(std::net::Ipv4Addr::new(10, 3, 0, 101));
    let mut rig = Rig::from(&rig::small(), &builder, 0, 1).resolved();
    // Two targets and two LocalIPs in turn: all four pairs must be used, not two of them.
    let mut pairs = std::collections::BTreeMap::new();
    for n in 0..16 {
        let (_, sent) = rig.outside(&frame::tcp(client(n, 4000), vip(80), SYN));
        *pairs.entry((sent[29], sent[33])).or_insert(0) += 1;
    }
    assert_eq!(
        pairs.into_iter().collect::<Vec<_>>(),
        [
            ((100, 21), 4),
            ((100, 22), 4),
            ((101, 21), 4),
            ((101, 22), 4)
        ]
    );
}

#[test]
fn when_one_local_ip_is_out_of_ports_the_other_serves() {
    let mut services = rig::services();
    services[0].targets.truncate(1);
    let mut builder = rig::builder(&rig::ports(), &services);
    builder.local_ip(std::net::Ipv4Addr::new(10, 3, 0, 101));
    let limits = Limits {
        first_port: 5000,
        last_port: 5002,
        ..rig::small()
    };
    let mut rig = Rig::from(&limits, &builder, 0, 1).resolved();
    let mut used: Vec<(u8, u16)> = (0..6)
        .map(|n| {
            let (_, sent) = rig.outside(&frame::tcp(client(n, 4000), vip(80), SYN));
            (sent[29], frame::port_word(&sent, 0))
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 6);
    assert_eq!(
        rig.outside(&frame::tcp(client(9, 4000), vip(80), SYN)).1[47],
        RST | ACK
    );
}

#[test]
fn a_full_flow_table_refuses_new_flows_and_keeps_the_old() {
    let limits = Limits {
        flows: 8,
        ..rig::small()
    };
    let mut rig = Rig::with(&limits, &rig::services()).resolved();
    let first = rig.establish(client(0, 4000), 1);
    for n in 1..8 {
        rig.open(client(n, 4000), 1);
    }
    let (_, answer) = rig.outside(&frame::tcp(client(8, 4000), vip(80), SYN).seq(1, 0));
    assert_eq!(
        answer,
        to_client(&rst(vip(80), client(8, 4000), RST | ACK, 0, 2))
    );
    assert_eq!(
        rig.dropped(
            OUTSIDE,
            from_client(&frame::udp(client(8, 1), vip(53), b"x"))
        ),
        DropReason::FlowTableFull
    );
    assert_eq!(rig.service_counts(80, Protocol::Tcp).flow_table_full, 1);
    assert_eq!(rig.service_counts(53, Protocol::Udp).flow_table_full, 1);
    assert_eq!(rig.events(), [Event::FlowTableFull]);
    rig.from_client(&first, ACK, 2, 9001);
    // A closing connection's port comes anew within the full table.
    rig.from_client(&first, RST, 2, 9001);
    rig.open(client(0, 4000), 5);
    rig.pass(40);
    assert_eq!(rig.flow_count(), 0);
    rig.open(client(9, 4000), 1);
}

#[test]
fn a_ttl_that_runs_out_is_reported_to_the_sender() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 4000), 1000);
    let cases = [
        (
            "a new connection",
            frame::tcp(client(11, 4000), vip(80), SYN).ttl(1),
        ),
        (
            "a known one",
            frame::tcp(client(10, 4000), vip(80), ACK)
                .seq(1001, 9001)
                .ttl(1),
        ),
        (
            "TTL 0",
            frame::tcp(client(10, 4000), vip(80), ACK)
                .seq(1001, 9001)
                .ttl(0),
        ),
        (
            "a datagram",
            frame::udp(client(10, 4000), vip(53), b"traceroute").ttl(1),
        ),
    ];
    for (description, input) in cases {
        rig.out.clear();
        assert_eq!(
            rig.dropped(OUTSIDE, from_client(&input)),
            DropReason::TtlExpired,
            "{description}"
        );
        let error = frame::icmp(rig::OUTSIDE_ADDRESS, input.source, 11, 0, 0, &input.ip());
        assert_eq!(
            rig.emitted(),
            [(OUTSIDE, to_client(&error))],
            "{description}"
        );
    }
    assert_eq!(rig.flow_count(), 1);
    rig.out.clear();
    let input = frame::tcp(target(21), local(opened.local_port), ACK).ttl(1);
    assert_eq!(
        rig.dropped(INSIDE, from_target(&input, 21)),
        DropReason::TtlExpired
    );
    let error = frame::icmp(rig::INSIDE_ADDRESS, *target(21).ip(), 11, 0, 0, &input.ip());
    assert_eq!(rig.emitted(), [(INSIDE, rig::to_target(&error, 21))]);
}

#[test]
fn a_packet_too_long_for_the_next_link_is_reported_to_the_sender() {
    let mut ports = rig::ports();
    ports[1].mtu = 1400;
    let mut rig =
        Rig::from(&rig::small(), &rig::builder(&ports, &rig::services()), 0, 1).resolved();
    rig.establish(client(10, 4000), 1000);
    let long = frame::tcp(client(10, 4000), vip(80), ACK)
        .seq(1001, 9001)
        .data(&[0; 1361]);
    assert_eq!(rig.dropped(OUTSIDE, from_client(&long)), DropReason::TooBig);
    let error = frame::icmp(
        rig::OUTSIDE_ADDRESS,
        *client(10, 1).ip(),
        3,
        4,
        1400,
        &long.ip()[..548],
    );
    assert_eq!(rig.emitted(), [(OUTSIDE, to_client(&error))]);
    rig.out.clear();
    let fits = frame::tcp(client(10, 4000), vip(80), ACK)
        .seq(1001, 9001)
        .data(&[0; 1360]);
    assert_eq!(rig.outside(&fits).0, INSIDE);
}

#[test]
fn a_client_no_route_leads_to_is_counted() {
    let mut ports = rig::ports();
    rig::ipv4(&mut ports[0]).gateway = None;
    let mut rig =
        Rig::from(&rig::small(), &rig::builder(&ports, &rig::services()), 0, 1).resolved();
    let opened = rig.open(client(10, 4000), 1000);
    let answer = frame::tcp(target(21), local(opened.local_port), SYN | ACK);
    assert_eq!(
        rig.dropped(INSIDE, from_target(&answer, 21)),
        DropReason::NoRoute
    );
}

#[test]
fn weight_zero_and_draining_targets_get_no_new_flows() {
    let mut services = rig::services();
    services[0].targets = vec![up(target(21)), up(target(22)), up(target(23))];
    services[0].targets[0].weight = 0;
    services[0].targets[1].draining = true;
    for scheduler in [
        dataplane::Scheduler::RoundRobin,
        dataplane::Scheduler::WeightedRoundRobin,
        dataplane::Scheduler::WeightedLeastConnections,
        dataplane::Scheduler::Maglev,
    ] {
        services[0].scheduler = scheduler;
        let mut rig = Rig::with(&rig::small(), &services).resolved();
        for n in 0..20 {
            assert_eq!(rig.open(client(n, 4000), 1).target, 23, "{scheduler:?}");
        }
    }
}
