//! The way of ordinary packets, both directions, byte for byte.

use dataplane::{Protocol, Verdict};

use super::frame::{self, ACK, PSH, Payload, SYN, target_of};
use super::net::{BOTH, Net};
use super::rig::{
    self, INSIDE, OUTSIDE, Rig, client, from_client, from_target, local, target, to_client,
    to_target, vip,
};

#[test]
fn tcp_is_rewritten_at_both_ends_in_both_directions() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        assert_eq!(opened.target, 21);
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        struct Case {
            description: &'static str,
            from_client: bool,
            flags: u8,
            seq: u32,
            ack: u32,
            data: &'static [u8],
            options: &'static [u8],
        }
        let cases = [
            Case {
                description: "a request",
                from_client: true,
                flags: ACK | PSH,
                seq: 1001,
                ack: 9001,
                data: b"GET / HTTP/1.1\r\n\r\n",
                options: &[],
            },
            Case {
                description: "an odd number of payload bytes",
                from_client: true,
                flags: ACK,
                seq: 1019,
                ack: 9001,
                data: b"odd",
                options: &[],
            },
            Case {
                description: "an answer",
                from_client: false,
                flags: ACK | PSH,
                seq: 9001,
                ack: 1022,
                data: b"HTTP/1.1 200 OK\r\n\r\n",
                options: &[],
            },
            Case {
                description: "timestamps of a running connection are left alone",
                from_client: true,
                flags: ACK,
                seq: 1022,
                ack: 9020,
                data: b"more",
                options: &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            },
            Case {
                description: "sequence numbers wrap",
                from_client: true,
                flags: ACK,
                seq: u32::MAX,
                ack: u32::MAX,
                data: &[0xff; 40],
                options: &[],
            },
        ];
        assert_eq!(options.len(), 12);
        for case in cases {
            let Case {
                description,
                from_client,
                flags,
                seq,
                ack,
                data,
                options,
            } = case;
            let (client_side, target_side) = (
                (net.client(10, 40_000), net.vip(80)),
                (net.local(opened.local_port), net.target(21, 8080)),
            );
            if from_client {
                let input = frame::tcp(client_side.0, client_side.1, flags)
                    .seq(seq, ack)
                    .data(data)
                    .tcp_options(options);
                let expected = frame::tcp(target_side.0, target_side.1, flags)
                    .seq(seq.wrapping_add(opened.shift), ack)
                    .data(data)
                    .tcp_options(options)
                    .ttl(63);
                assert_eq!(
                    rig.outside(&input),
                    (INSIDE, to_target(&expected, 21)),
                    "{description}"
                );
            } else {
                let input = frame::tcp(target_side.1, target_side.0, flags)
                    .seq(seq, ack.wrapping_add(opened.shift))
                    .data(data)
                    .tcp_options(options);
                let expected = frame::tcp(client_side.1, client_side.0, flags)
                    .seq(seq, ack)
                    .data(data)
                    .tcp_options(options)
                    .ttl(63);
                assert_eq!(
                    rig.inside(&input, 21),
                    (OUTSIDE, to_client(&expected)),
                    "{description}"
                );
            }
        }
        let counts = rig.service_counts(80, Protocol::Tcp);
        assert_eq!((counts.packets_in, counts.packets_out), (2 + 4, 1 + 1));
        let bare = net.ip_header() as u64 + 20;
        assert_eq!(counts.bytes_in, 6 * bare + 18 + 3 + 16 + 40);
        assert_eq!(counts.bytes_out, 2 * bare + 19);
        assert_eq!((counts.flows_created, counts.flows_active), (1, 1));
        let target = rig.target_counts(80, Protocol::Tcp, 21);
        assert_eq!(
            (target.packets_in, target.bytes_in),
            (counts.packets_in, counts.bytes_in)
        );
        assert_eq!(
            (target.packets_out, target.bytes_out),
            (counts.packets_out, counts.bytes_out)
        );
        let worker = rig.worker_counts();
        assert_eq!(worker.dropped, 0);
        assert_eq!(worker.flows_active, 1);
    }
}

#[test]
fn sack_blocks_follow_the_shifted_sequence_numbers() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        // Padded in front by an odd number of NOPs, so that the edges lie at odd offsets.
        for pad in 0..4u32 {
            let block = |shift: u32| {
                let mut options = vec![1; pad as usize];
                options.extend([5, 18]);
                for edge in [5000u32, 6000, 8000, 9999] {
                    options.extend(edge.wrapping_add(shift).to_be_bytes());
                }
                options.resize(options.len().next_multiple_of(4), 0);
                options
            };
            let input = frame::tcp(net.target(21, 8080), net.local(opened.local_port), ACK)
                .seq(1, 1001u32.wrapping_add(opened.shift))
                .tcp_options(&block(opened.shift));
            let expected = frame::tcp(net.vip(80), net.client(10, 40_000), ACK)
                .seq(1, 1001)
                .tcp_options(&block(0))
                .ttl(63);
            assert_eq!(
                rig.inside(&input, 21),
                (OUTSIDE, to_client(&expected)),
                "{pad} bytes in front"
            );
        }
    }
}

#[test]
fn timestamps_are_taken_out_of_a_syn_and_the_initial_sequence_is_ours() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        // MSS, SACK permitted, timestamps, window scale: what Linux sends.
        let options = |timestamps: &[u8]| {
            let mut options = vec![2, 4, 5, 0xb4, 4, 2];
            options.extend(timestamps);
            options.extend([1, 3, 3, 7]);
            options
        };
        let syn = frame::tcp(net.client(10, 40_000), net.vip(80), SYN)
            .seq(77, 0)
            .tcp_options(&options(&[8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0]));
        let (port, sent) = rig.outside(&syn);
        let (local_port, seq) = (frame::port_word(&sent, 0), frame::tcp_word(&sent, 4));
        let expected = frame::tcp(net.local(local_port), net.target(21, 8080), SYN)
            .seq(seq, 0)
            .tcp_options(&options(&[1; 10]))
            .ttl(63);
        assert_eq!((port, sent), (INSIDE, to_target(&expected, 21)));
        // A repeated SYN is the same, byte for byte.
        assert_eq!(rig.outside(&syn), (INSIDE, to_target(&expected, 21)));
        assert_eq!(rig.flow_count(), 1);
    }
}

#[test]
fn timestamps_alone_or_at_an_odd_offset_are_taken_out_too() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        for (port, options) in [
            (
                40_000,
                [1, 8, 10, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1],
            ),
            (
                40_002,
                [1, 1, 8, 10, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0],
            ),
        ] {
            let syn = frame::tcp(net.client(10, port), net.vip(80), SYN)
                .seq(77, 0)
                .tcp_options(&options);
            let (_, sent) = rig.outside(&syn);
            let chosen = target_of(&sent);
            let expected = frame::tcp(
                net.local(frame::port_word(&sent, 0)),
                net.target(chosen, 8080),
                SYN,
            )
            .seq(frame::tcp_word(&sent, 4), 0)
            .tcp_options(&[1; 12])
            .ttl(63);
            assert_eq!(sent, to_target(&expected, chosen));
        }
    }
}

#[test]
fn a_service_may_keep_timestamps() {
    for net in BOTH {
        let mut services = net.services();
        services[0].timestamps = dataplane::Timestamps::Keep;
        let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
        let options = [1, 1, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0];
        let (_, sent) = rig
            .outside(&frame::tcp(net.client(10, 40_000), net.vip(80), SYN).tcp_options(&options));
        assert_eq!(sent[14 + net.ip_header() + 20..], options);
    }
}

#[test]
fn udp_is_rewritten_at_both_ends() {
    for net in BOTH {
        struct Case {
            description: &'static str,
            data: Vec<u8>,
            unchecked: bool,
            ttl: u8,
            tos: u8,
        }
        let cases = [
            Case {
                description: "a query",
                data: b"query".to_vec(),
                unchecked: false,
                ttl: 64,
                tos: 0,
            },
            Case {
                description: "no checksum stays none",
                data: b"query".to_vec(),
                unchecked: true,
                ttl: 64,
                tos: 0,
            },
            Case {
                description: "empty",
                data: vec![],
                unchecked: false,
                ttl: 2,
                tos: 0,
            },
            Case {
                description: "TOS and ECN are kept",
                data: vec![0xff; 1472 - (net.ip_header() - 20)],
                unchecked: false,
                ttl: 255,
                tos: 0xb9,
            },
        ];
        let mut rig = Rig::of(net);
        let mut local_port = None;
        // IPv6 datagrams must have one (RFC 8200 8.1).
        for Case {
            description,
            data,
            unchecked,
            ttl,
            tos,
        } in cases
            .into_iter()
            .filter(|case| net == Net::V4 || !case.unchecked)
        {
            let set = |packet: &mut frame::Packet| {
                (packet.ttl, packet.tos, packet.id, packet.fragment) = (ttl, tos, 0x1234, 0);
                if let Payload::Udp(udp) = &mut packet.payload {
                    udp.unchecked = unchecked;
                }
            };
            let (_, sent) =
                rig.outside(&frame::udp(net.client(10, 5353), net.vip(53), &data).with(set));
            let port = *local_port.get_or_insert(frame::port_word(&sent, 0));
            let expected = frame::udp(net.local(port), net.target(21, 8080), &data)
                .with(set)
                .ttl(ttl - 1);
            assert_eq!(sent, to_target(&expected, 21), "{description}: in");
            let answer = frame::udp(net.target(21, 8080), net.local(port), &data).with(set);
            let expected = frame::udp(net.vip(53), net.client(10, 5353), &data)
                .with(set)
                .ttl(ttl - 1);
            assert_eq!(
                rig.inside(&answer, 21),
                (OUTSIDE, to_client(&expected)),
                "{description}: out"
            );
        }
        assert_eq!(rig.flow_count(), 1);
        let counts = rig.service_counts(53, Protocol::Udp);
        let queries = if net == Net::V4 { 2 } else { 1 };
        assert_eq!(
            (counts.packets_in, counts.packets_out, counts.flows_created),
            (queries + 2, queries + 2, 1)
        );
        let bare = net.ip_header() as u64 + 8;
        assert_eq!(counts.bytes_in, queries * (bare + 5) + bare + 1500);
    }
}

#[test]
fn a_udp_checksum_that_comes_out_zero_is_sent_as_ffff() {
    for net in BOTH {
        // Try payloads until the sum after the rewriting is zero.
        let mut rig = Rig::of(net);
        let (_, sent) = rig.outside(&frame::udp(net.client(10, 5353), net.vip(53), &[0, 0]));
        let port = frame::port_word(&sent, 0);
        let sum = 14 + net.ip_header() + 6;
        let hit = (0..=u16::MAX).find(|word| {
            let rewritten =
                frame::udp(net.local(port), net.target(21, 8080), &word.to_be_bytes()).frame();
            rewritten[sum..sum + 2] == [0xff, 0xff]
        });
        let data = hit
            .expect("one word in 65536 makes the sum zero")
            .to_be_bytes();
        let (_, sent) = rig.outside(&frame::udp(net.client(10, 5353), net.vip(53), &data));
        assert_eq!(
            sent,
            to_target(
                &frame::udp(net.local(port), net.target(21, 8080), &data).ttl(63),
                21
            )
        );
        assert_eq!(sent[sum..sum + 2], [0xff, 0xff]);
    }
}

#[test]
fn ip_options_are_carried_along() {
    let mut rig = Rig::new();
    // Router alert (RFC 2113), then end of options.
    let options = vec![148, 4, 0, 0, 1, 0, 0, 0];
    let set = |packet: &mut frame::Packet| packet.options = options.clone();
    let (_, sent) = rig.outside(&frame::udp(client(10, 5353), vip(53), b"query").with(set));
    let port = frame::port_word(&sent, 8);
    assert_eq!(
        sent,
        to_target(
            &frame::udp(local(port), target(21), b"query")
                .with(set)
                .ttl(63),
            21
        )
    );
}

#[test]
fn ethernet_padding_is_not_taken_for_payload() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let mut input =
            from_client(&frame::tcp(net.client(10, 40_000), net.vip(80), ACK).seq(1001, 9001));
        input.extend([0xaa; 6]);
        let (_, sent) = rig.transmitted(OUTSIDE, input);
        let expected = frame::tcp(net.local(opened.local_port), net.target(21, 8080), ACK)
            .seq(1001u32.wrapping_add(opened.shift), 9001);
        let mut expected = to_target(&expected.ttl(63), 21);
        // A longer one needs no padding.
        expected.resize(expected.len().max(60), 0xaa);
        assert_eq!(sent, expected);
        let bare = net.ip_header() as u64 + 20;
        assert_eq!(rig.service_counts(80, Protocol::Tcp).bytes_in, 3 * bare);
    }
}

#[test]
fn what_stands_behind_the_packet_is_not_forwarded() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let opened = rig.establish(net.client(10, 40_000), 1000);
        let mut input =
            from_client(&frame::tcp(net.client(10, 40_000), net.vip(80), ACK).seq(1001, 9001));
        input.resize(1514, 0xaa);
        let (_, sent) = rig.transmitted(OUTSIDE, input);
        let expected = frame::tcp(net.local(opened.local_port), net.target(21, 8080), ACK)
            .seq(1001u32.wrapping_add(opened.shift), 9001);
        let mut expected = to_target(&expected.ttl(63), 21);
        expected.resize(expected.len().max(60), 0xaa); // up to the shortest frame
        assert_eq!(sent, expected);
        // Nor is it answered.
        let request = if net == Net::V4 { 8 } else { 128 };
        let ping = frame::icmp(net.client(10, 0).ip(), net.vip_ip(), request, 0, 1, b"ping");
        let (_, whole) = rig.transmitted(OUTSIDE, from_client(&ping));
        let mut padded = from_client(&ping);
        padded.resize(1514, 0xaa);
        let (_, sent) = rig.transmitted(OUTSIDE, padded);
        assert_eq!(
            (sent.len(), &sent[..whole.len()]),
            (whole.len().max(60), &whole[..])
        );
    }
}

#[test]
fn a_burst_is_worked_on_in_order_and_a_flow_made_in_it_serves_the_rest() {
    for net in BOTH {
        let mut rig = Rig::of(net);
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for _ in 0..100 {
            frames.push(from_client(&frame::udp(
                net.client(10, 5353),
                net.vip(53),
                b"query",
            )));
        }
        frames.insert(50, vec![0; 3]);
        let mut verdicts = vec![Verdict::Kernel; frames.len()];
        rig.worker.burst(
            &rig.tables,
            rig.now,
            OUTSIDE,
            &mut frames,
            &mut verdicts,
            &mut rig.out,
        );
        for (at, verdict) in verdicts.iter().enumerate() {
            match at {
                50 => assert_eq!(*verdict, Verdict::Drop(dataplane::DropReason::Truncated)),
                _ => assert_eq!(*verdict, Verdict::Transmit(INSIDE), "frame {at}"),
            }
        }
        assert_eq!(rig.flow_count(), 1);
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(at, sent)| at == 50 || *sent == frames[0])
        );
    }
}

#[test]
fn what_is_not_ours_is_left_to_the_kernel_untouched() {
    let mut rig = Rig::new();
    let own = |port| std::net::SocketAddrV4::new(rig::OUTSIDE_ADDRESS, port);
    let elsewhere = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 2, 0, 12), 80);
    let mut ipv6 = vec![0; 60];
    ipv6[..12].copy_from_slice(&from_client(&frame::tcp(client(10, 1), vip(80), SYN))[..12]);
    // No next header, six bytes of it.
    ipv6[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 6, 59, 64]);
    let mut broadcast = from_client(&frame::udp(client(10, 68), vip(53), b"dhcp"));
    broadcast[..6].fill(0xff);
    let cases = [
        (
            "BGP to the port's own address",
            from_client(&frame::tcp(client(10, 5000), own(179), SYN)),
        ),
        (
            "another host's packet",
            from_client(&frame::tcp(client(10, 5000), elsewhere, SYN)),
        ),
        ("IPv6", ipv6),
        ("broadcast", broadcast),
        (
            "a fragment for the kernel",
            from_client(
                &frame::udp(client(10, 5000), own(179), b"x")
                    .with(|packet| packet.fragment = 0x2000),
            ),
        ),
        (
            "OSPF to the port",
            from_client(&frame::Packet::new(
                *client(10, 1).ip(),
                rig::OUTSIDE_ADDRESS,
                Payload::Raw(89, vec![0; 8]),
            )),
        ),
    ];
    for (description, input) in cases {
        assert_eq!(
            rig.try_send(OUTSIDE, input.clone()),
            (Verdict::Kernel, input),
            "{description}"
        );
    }
    assert!(rig.out.is_empty());
    assert_eq!(rig.worker_counts().kernel, 6);
    let foreign = from_target(&frame::tcp(target(21), elsewhere, SYN), 21);
    assert_eq!(
        rig.try_send(INSIDE, foreign.clone()),
        (Verdict::Kernel, foreign)
    );
}
