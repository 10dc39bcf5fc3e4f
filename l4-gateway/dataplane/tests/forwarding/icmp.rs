//! ICMP: echo, and errors rewritten inside and out.

use std::net::Ipv4Addr;

use dataplane::{DropReason, Protocol, Verdict};

use super::frame::{self, ACK, PSH, Packet, Payload};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, client, from_client, from_target, local, target, to_client,
    to_target, vip,
};

const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const ROUTER_OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 9);

#[test]
fn echo_requests_to_our_addresses_are_answered() {
    let mut rig = Rig::new();
    let (outside, inside) = (*client(10, 1).ip(), *target(21).ip());
    for (description, address) in [
        ("the VIP", rig::VIP),
        ("the LocalIP", rig::LOCAL_IP),
        ("the port", rig::OUTSIDE_ADDRESS),
    ] {
        for data in [&b"hello"[..], b"", &[0x5a; 1400]] {
            let request = frame::icmp(outside, address, 8, 0, 0x1234_0001, data).ttl(3);
            let expected = frame::icmp(address, outside, 0, 0, 0x1234_0001, data);
            assert_eq!(
                rig.outside(&request),
                (OUTSIDE, to_client(&expected)),
                "{description}"
            );
        }
    }
    let request = frame::icmp(inside, rig::LOCAL_IP, 8, 0, 7, b"ping")
        .with(|packet| packet.options = vec![148, 4, 0, 0]);
    let expected = frame::icmp(rig::LOCAL_IP, inside, 0, 0, 7, b"ping")
        .with(|packet| packet.options = vec![148, 4, 0, 0]);
    assert_eq!(rig.inside(&request, 21), (INSIDE, to_target(&expected, 21)));
    assert_eq!(rig.worker_counts().echo_replies, 10);
}

#[test]
fn an_echo_request_to_an_address_the_kernel_holds_is_the_kernels() {
    let mut ports = rig::ports();
    ports[0].answers = false;
    let mut rig =
        Rig::from(&rig::small(), &rig::builder(&ports, &rig::services()), 0, 1).resolved();
    let request = from_client(&frame::icmp(
        *client(10, 1).ip(),
        rig::OUTSIDE_ADDRESS,
        8,
        0,
        1,
        b"ping",
    ));
    assert_eq!(
        rig.try_send(OUTSIDE, request.clone()),
        (Verdict::Kernel, request)
    );
}

/// Errors of each kind and each length of quote, from a router on the target's side: the client gets them as about its own
/// packet to the VIP.
#[test]
fn errors_about_packets_to_a_target_reach_the_client() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 40_000), 1000);
    let sent = frame::tcp(local(opened.local_port), target(21), ACK | PSH)
        .seq(1001u32.wrapping_add(opened.shift), 9001)
        .data(b"request")
        .ttl(60);
    let own = frame::tcp(client(10, 40_000), vip(80), ACK | PSH)
        .seq(1001, 9001)
        .data(b"request")
        .ttl(60);
    let kinds = [
        (3, 1, 0),
        (3, 4, 1400),
        (3, 13, 0),
        (11, 0, 0),
        (12, 0, 0x1400_0000),
    ];
    for (kind, code, rest) in kinds {
        // 8 bytes of TCP: the ports and the sequence number; 18: the checksum too; 20 and more: all.
        for quoted in [28, 32, 36, 38, 40, 47] {
            for router in [ROUTER_INSIDE, *target(21).ip()] {
                let error = frame::icmp(
                    router,
                    rig::LOCAL_IP,
                    kind,
                    code,
                    rest,
                    &sent.ip()[..quoted],
                );
                let expected = frame::icmp(
                    rig::VIP,
                    *client(10, 1).ip(),
                    kind,
                    code,
                    rest,
                    &own.ip()[..quoted],
                )
                .ttl(63);
                let got = rig.inside(&error, 21);
                assert_eq!(
                    got,
                    (OUTSIDE, to_client(&expected)),
                    "type {kind}.{code}, {quoted} bytes quoted"
                );
            }
        }
    }
    assert_eq!(rig.worker_counts().icmp_forwarded, 60);
    assert_eq!(rig.service_counts(80, Protocol::Tcp).icmp_forwarded, 60);
    assert_eq!(rig.flow_count(), 1);
}

#[test]
fn an_error_longer_than_the_next_link_takes_is_dropped() {
    let mut ports = rig::ports();
    ports[0].mtu = 600;
    let mut rig =
        Rig::from(&rig::small(), &rig::builder(&ports, &rig::services()), 0, 1).resolved();
    let opened = rig.establish(client(10, 40_000), 1000);
    let sent = frame::tcp(local(opened.local_port), target(21), ACK | PSH)
        .seq(1001u32.wrapping_add(opened.shift), 9001)
        .data(&[7; 1000])
        .ip();
    let error = |quoted: usize| {
        let packet = frame::icmp(ROUTER_INSIDE, rig::LOCAL_IP, 11, 0, 0, &sent[..quoted]);
        from_target(&packet, 21)
    };
    assert_eq!(rig.dropped(INSIDE, error(573)), DropReason::TooBig);
    assert!(rig.emitted().is_empty(), "never an error about an error");
    assert_eq!(rig.worker_counts().icmp_forwarded, 0);
    assert_eq!(rig.transmitted(INSIDE, error(572)).0, OUTSIDE);
}

#[test]
fn errors_about_packets_to_a_client_reach_the_target() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 40_000), 1000);
    let sent = frame::tcp(vip(80), client(10, 40_000), ACK | PSH)
        .seq(9001, 1001)
        .data(b"answer")
        .ttl(40);
    let own = frame::tcp(target(21), local(opened.local_port), ACK | PSH)
        .seq(9001, 1001u32.wrapping_add(opened.shift))
        .data(b"answer")
        .ttl(40);
    // From 34 bytes on the quote shows the ACK flag; before, the acknowledgment number can't be told from nothing.
    for quoted in [28, 34, 38, 40, 46] {
        let error = frame::icmp(ROUTER_OUTSIDE, rig::VIP, 3, 4, 1280, &sent.ip()[..quoted]);
        let expected = frame::icmp(
            rig::LOCAL_IP,
            *target(21).ip(),
            3,
            4,
            1280,
            &own.ip()[..quoted],
        )
        .ttl(63);
        assert_eq!(
            rig.outside(&error),
            (INSIDE, to_target(&expected, 21)),
            "{quoted} bytes quoted"
        );
    }
}

/// What a client says of its path counts for all who share the LocalIP: targets keep path MTUs by address.
#[test]
fn a_client_can_not_make_a_target_send_packets_below_the_least_path_mtu() {
    let mut services = rig::services();
    services[1].least_path_mtu = 576;
    let mut rig = Rig::with(&rig::small(), &services).resolved();
    let opened = rig.establish(client(10, 40_000), 1000);
    let (_, query) = rig.outside(&frame::udp(client(10, 5353), vip(53), b"query"));
    let port = frame::port_word(&query, 0);
    // What the target sent, and what the client got of it.
    let segment = frame::tcp(target(21), local(opened.local_port), ACK | PSH)
        .seq(9001, 1001u32.wrapping_add(opened.shift))
        .data(b"answer");
    let seen = frame::tcp(vip(80), client(10, 40_000), ACK | PSH)
        .seq(9001, 1001)
        .data(b"answer");
    let datagram = frame::udp(target(21), local(port), b"answer");
    let received = frame::udp(vip(53), client(10, 5353), b"answer");
    let to_segment = (&seen, &segment);
    let to_datagram = (&received, &datagram);
    // Where the second word has more than the size, that is carried along.
    let cases = [
        ("at the floor", 1280, to_segment, true),
        ("above it", 0xabcd_05dc, to_segment, true),
        ("below it", 1279, to_segment, false),
        ("below it, with more before", 0x0001_04ff, to_segment, false),
        ("the least of IPv4", 552, to_segment, false),
        ("a router that names none", 0, to_segment, false),
        ("at this service's floor", 576, to_datagram, true),
        ("below this service's", 575, to_datagram, false),
    ];
    let mut passed = 0;
    for (description, rest, (seen, own), passes) in cases {
        let error = frame::icmp(ROUTER_OUTSIDE, rig::VIP, 3, 4, rest, &seen.ip());
        if passes {
            passed += 1;
            let expected =
                frame::icmp(rig::LOCAL_IP, *target(21).ip(), 3, 4, rest, &own.ip()).ttl(63);
            assert_eq!(
                rig.outside(&error),
                (INSIDE, to_target(&expected, 21)),
                "{description}"
            );
        } else {
            let dropped = rig.dropped(OUTSIDE, from_client(&error));
            assert_eq!(dropped, DropReason::PathMtu, "{description}");
        }
        assert_eq!(rig.worker_counts().icmp_forwarded, passed, "{description}");
    }
    // Another error with the same second word, and the same from the target's side: nobody shares the client's address.
    let other = frame::icmp(ROUTER_OUTSIDE, rig::VIP, 3, 1, 552, &seen.ip());
    assert_eq!(rig.outside(&other).0, INSIDE);
    let sent = frame::tcp(local(opened.local_port), target(21), ACK)
        .seq(1001u32.wrapping_add(opened.shift), 9001);
    let own = frame::tcp(client(10, 40_000), vip(80), ACK).seq(1001, 9001);
    let error = frame::icmp(ROUTER_INSIDE, rig::LOCAL_IP, 3, 4, 552, &sent.ip());
    let expected = frame::icmp(rig::VIP, *client(10, 1).ip(), 3, 4, 552, &own.ip()).ttl(63);
    assert_eq!(rig.inside(&error, 21), (OUTSIDE, to_client(&expected)));
    assert!(rig.emitted().is_empty());
}

#[test]
fn sizes_that_clients_report_are_rate_limited() {
    let mut rig = Rig::new();
    rig.establish(client(10, 40_000), 1000);
    let seen = frame::tcp(vip(80), client(10, 40_000), ACK).seq(9001, 1001);
    let error = |kind, code| {
        let error = frame::icmp(ROUTER_OUTSIDE, rig::VIP, kind, code, 1400, &seen.ip());
        from_client(&error)
    };
    for n in 0..30 {
        match n {
            0..10 => assert_eq!(rig.transmitted(OUTSIDE, error(3, 4)).0, INSIDE),
            _ => assert_eq!(rig.dropped(OUTSIDE, error(3, 4)), DropReason::IcmpRate),
        }
    }
    assert_eq!(rig.transmitted(OUTSIDE, error(3, 1)).0, INSIDE, "another");
    rig.now.0 += rig::SECOND / 10;
    assert_eq!(rig.transmitted(OUTSIDE, error(3, 4)).0, INSIDE, "later");
    assert_eq!(rig.dropped(OUTSIDE, error(3, 4)), DropReason::IcmpRate);
}

#[test]
fn errors_about_datagrams_keep_the_quoted_checksum_right() {
    let mut rig = Rig::new();
    for unchecked in [false, true] {
        let set = |packet: &mut Packet| {
            if let Payload::Udp(udp) = &mut packet.payload {
                udp.unchecked = unchecked;
            }
        };
        let (_, sent) = rig.outside(&frame::udp(client(10, 5353), vip(53), b"query"));
        let port = frame::port_word(&sent, 0);
        let sent = frame::udp(local(port), target(21), b"query")
            .with(set)
            .ttl(63);
        let own = frame::udp(client(10, 5353), vip(53), b"query")
            .with(set)
            .ttl(63);
        for quoted in [28, 33] {
            let error = frame::icmp(
                *target(21).ip(),
                rig::LOCAL_IP,
                3,
                3,
                0,
                &sent.ip()[..quoted],
            );
            let expected =
                frame::icmp(rig::VIP, *client(10, 1).ip(), 3, 3, 0, &own.ip()[..quoted]).ttl(63);
            assert_eq!(
                rig.inside(&error, 21),
                (OUTSIDE, to_client(&expected)),
                "{quoted} bytes quoted"
            );
        }
    }
}

#[test]
fn a_quote_with_ip_options_and_extra_bytes_is_rewritten() {
    let mut rig = Rig::new();
    let (_, sent) = rig.outside(&frame::udp(client(10, 5353), vip(53), b"query"));
    let port = frame::port_word(&sent, 0);
    let options = |packet: &mut Packet| packet.options = vec![148, 4, 0, 0];
    let sent = frame::udp(local(port), target(21), b"query").with(options);
    let own = frame::udp(client(10, 5353), vip(53), b"query").with(options);
    // RFC 4884 extensions follow the quote, padded to 128 bytes: carried along.
    let padded = |packet: &Packet| {
        let mut quote = packet.ip();
        quote.resize(128, 0);
        quote.extend([0x20, 0, 0, 0]);
        quote
    };
    let error = frame::icmp(
        ROUTER_INSIDE,
        rig::LOCAL_IP,
        11,
        0,
        0x0020_0000,
        &padded(&sent),
    );
    let expected = frame::icmp(
        rig::VIP,
        *client(10, 1).ip(),
        11,
        0,
        0x0020_0000,
        &padded(&own),
    )
    .ttl(63);
    assert_eq!(rig.inside(&error, 21), (OUTSIDE, to_client(&expected)));
}

#[test]
fn an_error_that_reaches_its_end_of_life_is_not_answered() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 40_000), 1000);
    let sent = frame::tcp(local(opened.local_port), target(21), ACK);
    let error = frame::icmp(ROUTER_INSIDE, rig::LOCAL_IP, 3, 1, 0, &sent.ip()).ttl(1);
    assert_eq!(
        rig.dropped(INSIDE, from_target(&error, 21)),
        DropReason::TtlExpired
    );
    assert!(rig.out.is_empty());
}

#[test]
fn an_error_to_another_of_our_addresses_than_it_quotes_is_dropped() {
    let mut rig = Rig::new();
    let opened = rig.establish(client(10, 40_000), 1000);
    let sent = frame::tcp(local(opened.local_port), target(21), ACK);
    let error = frame::icmp(ROUTER_INSIDE, rig::VIP, 3, 1, 0, &sent.ip());
    assert_eq!(
        rig.dropped(INSIDE, from_target(&error, 21)),
        DropReason::IcmpNoFlow
    );
}
