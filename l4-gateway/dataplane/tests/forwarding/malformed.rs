//! Frames that are truncated, contradictory or hostile: each is dropped for its own reason, which is counted, and nothing
//! else happens.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane::{DropReason, MacAddr, Now, Protocol, Verdict};

use super::frame::{self, ACK, FIN, Packet, Payload, RST, SYN, checksum};
use super::rig::{self, OUTSIDE, Rig, client, from_client, vip};

/// Changes bytes of the IP header and makes its checksum right again.
fn with_ip(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame[14..]);
    frame[24..26].fill(0);
    let header = 14 + (usize::from(frame[14] & 15) * 4).clamp(20, frame.len() - 14);
    let sum = checksum(&frame[14..header]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn syn() -> Packet {
    frame::tcp(client(10, 40_000), vip(80), SYN)
}

fn query() -> Packet {
    frame::udp(client(10, 5353), vip(53), b"query")
}

fn from(source: Ipv4Addr) -> Vec<u8> {
    from_client(&frame::tcp(SocketAddrV4::new(source, 40_000), vip(80), SYN))
}

fn cases() -> Vec<(&'static str, Vec<u8>, DropReason)> {
    use DropReason::*;
    let good = || from_client(&syn());
    let options =
        |options: &[u8]| from_client(&query().with(|packet| packet.options = options.to_vec()));
    let flags = |flags| from_client(&frame::tcp(client(10, 40_000), vip(80), flags));
    vec![
        ("nothing", vec![], Truncated),
        ("half an Ethernet header", good()[..13].to_vec(), Truncated),
        ("an Ethernet header alone", good()[..14].to_vec(), Truncated),
        ("half an IP header", good()[..33].to_vec(), Truncated),
        (
            "an IP header alone, its length beyond",
            good()[..34].to_vec(),
            BadIpHeader,
        ),
        ("one byte short", good()[..53].to_vec(), BadIpHeader),
        (
            "from a group",
            from_client(&syn()).tap(|frame| frame[6] |= 1),
            BadSource,
        ),
        (
            "from ourselves",
            syn().macs(rig::OUTSIDE_MAC, rig::OUTSIDE_MAC).frame(),
            BadSource,
        ),
        (
            "to another station",
            syn().macs(rig::ROUTER_MAC, frame::mac(99)).frame(),
            OtherMac,
        ),
        (
            "IP version 6 in an IPv4 frame",
            with_ip(good(), |ip| ip[0] = 0x65),
            BadIpHeader,
        ),
        (
            "header length 4",
            with_ip(good(), |ip| ip[0] = 0x44),
            BadIpHeader,
        ),
        (
            "header length beyond total length",
            with_ip(good(), |ip| ip[0] = 0x4f),
            BadIpHeader,
        ),
        (
            "total length 0",
            with_ip(good(), |ip| ip[2..4].fill(0)),
            BadIpHeader,
        ),
        (
            "total length below the header",
            with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 19])),
            BadIpHeader,
        ),
        (
            "total length beyond the frame",
            with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 41])),
            BadIpHeader,
        ),
        (
            "a wrong header checksum",
            good().tap(|frame| frame[24] ^= 1),
            BadIpChecksum,
        ),
        (
            "a header checksum of zero",
            good().tap(|frame| frame[24..26].fill(0)),
            BadIpChecksum,
        ),
        (
            "an option of length 0",
            options(&[7, 0, 0, 0]),
            BadIpOptions,
        ),
        (
            "an option of length 1",
            options(&[7, 1, 0, 0]),
            BadIpOptions,
        ),
        (
            "an option beyond the header",
            options(&[7, 5, 0, 0]),
            BadIpOptions,
        ),
        (
            "an option without length",
            options(&[1, 1, 1, 7]),
            BadIpOptions,
        ),
        (
            "a loose source route",
            options(&[131, 3, 4, 0]),
            BadIpOptions,
        ),
        (
            "a strict source route behind a NOP",
            options(&[1, 137, 3, 4]),
            BadIpOptions,
        ),
        (
            "a fragment of GRE",
            from_client(
                &Packet::new(*client(10, 1).ip(), rig::VIP, Payload::Raw(47, vec![0; 8]))
                    .with(|packet| packet.fragment = 0x2000),
            ),
            Fragment,
        ),
        (
            "a fragment not cut at eights",
            from_client(&query().with(|packet| packet.fragment = 0x2000)),
            BadFragment,
        ),
        (
            "TCP cut within its header",
            with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 39])),
            BadTcp,
        ),
        (
            "TCP of no byte",
            with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 20])),
            BadTcp,
        ),
        (
            "data offset 4",
            good().tap(|frame| frame[46] = 0x40),
            BadTcp,
        ),
        (
            "data offset beyond the segment",
            good().tap(|frame| frame[46] = 0x60),
            BadTcp,
        ),
        ("no flag", flags(0), BadTcpFlags),
        ("PSH and URG alone", flags(0x28), BadTcpFlags),
        ("SYN and FIN", flags(SYN | FIN), BadTcpFlags),
        ("SYN and RST", flags(SYN | RST), BadTcpFlags),
        ("a Christmas tree", flags(0xff), BadTcpFlags),
        (
            "UDP cut within its header",
            with_ip(from_client(&query()), |ip| {
                ip[2..4].copy_from_slice(&[0, 27])
            }),
            BadUdp,
        ),
        (
            "UDP length 7",
            from_client(&query()).tap(|frame| frame[39] = 7),
            BadUdp,
        ),
        (
            "UDP length beyond the packet",
            from_client(&query()).tap(|frame| frame[39] = 14),
            BadUdp,
        ),
        (
            "a damaged SYN",
            good().tap(|frame| frame[38] ^= 1),
            BadTransportChecksum,
        ),
        (
            "ICMP of 7 bytes",
            from_client(&raw(1, &[8, 0, 0xf7, 0xff, 0, 0, 0])),
            BadIcmp,
        ),
        (
            "ICMP with a wrong checksum",
            from_client(&raw(1, &[8, 0, 0, 0, 0, 0, 0, 0])),
            BadIcmp,
        ),
        (
            "an ICMP timestamp request",
            from_client(&icmp(13, &[0; 12])),
            IcmpIgnored,
        ),
        (
            "an echo reply nobody waits for",
            from_client(&icmp(0, b"hello")),
            IcmpIgnored,
        ),
        (
            "a redirect",
            from_client(&icmp(5, &query().ip())),
            IcmpIgnored,
        ),
        (
            "an ICMP error that quotes nothing",
            from_client(&icmp(3, &[])),
            BadIcmp,
        ),
        (
            "an ICMP error that quotes half a header",
            from_client(&icmp(3, &query().ip()[..27])),
            BadIcmp,
        ),
        (
            "an ICMP error about IPv6",
            from_client(&icmp(3, &[0x60; 60])),
            BadIcmp,
        ),
        (
            "a quote whose header length is 0",
            from_client(&icmp(3, &[0x40; 60])),
            BadIcmp,
        ),
        (
            "an ICMP error about nobody's flow",
            from_client(&icmp(3, &reversed().ip())),
            IcmpNoFlow,
        ),
        (
            "an ICMP error about someone else",
            from_client(&icmp(3, &query().ip())),
            IcmpNoFlow,
        ),
        (
            "an ICMP error about a later fragment",
            from_client(&icmp(
                3,
                &reversed().with(|packet| packet.fragment = 9).ip(),
            )),
            IcmpNoFlow,
        ),
        (
            "an ICMP error about GRE",
            from_client(&icmp(
                3,
                &Packet::new(rig::VIP, *client(10, 1).ip(), Payload::Raw(47, vec![0; 8])).ip(),
            )),
            IcmpNoFlow,
        ),
        ("SCTP to a VIP", from_client(&raw(132, &[0; 12])), NoService),
        ("from 0.0.0.0", from(Ipv4Addr::UNSPECIFIED), MartianSource),
        ("from loopback", from(Ipv4Addr::LOCALHOST), MartianSource),
        (
            "from multicast",
            from(Ipv4Addr::new(224, 0, 0, 1)),
            MartianSource,
        ),
        (
            "from the broadcast address",
            from(Ipv4Addr::BROADCAST),
            MartianSource,
        ),
        (
            "from the VIP itself (a land attack)",
            from(rig::VIP),
            MartianSource,
        ),
        ("from our LocalIP", from(rig::LOCAL_IP), MartianSource),
        ("an RST of no flow", flags(RST), NoFlow),
        ("ARP cut short", arp(|_| {})[..41].to_vec(), Truncated),
        ("ARP over IEEE 802", arp(|frame| frame[15] = 6), BadArp),
        (
            "ARP for IPv6",
            arp(|frame| frame[16..18].copy_from_slice(&[0x86, 0xdd])),
            BadArp,
        ),
        (
            "ARP with addresses of 8 bytes",
            arp(|frame| frame[18] = 8),
            BadArp,
        ),
        ("an ARP operation of 3", arp(|frame| frame[21] = 3), BadArp),
        (
            "ARP from a group address",
            arp(|frame| frame[22] = 1),
            BadArp,
        ),
        (
            "ARP from no address",
            arp(|frame| frame[22..28].fill(0)),
            BadArp,
        ),
        (
            "ACK of no flow where the service is silent",
            from_client(&frame::tcp(client(10, 1), vip(81), ACK)),
            NoFlow,
        ),
    ]
}

fn raw(protocol: u8, payload: &[u8]) -> Packet {
    Packet::new(
        *client(10, 1).ip(),
        rig::VIP,
        Payload::Raw(protocol, payload.to_vec()),
    )
}

fn icmp(kind: u8, data: &[u8]) -> Packet {
    frame::icmp(*client(10, 1).ip(), rig::VIP, kind, 1, 0, data)
}

/// What the VIP would have sent to a client.
fn reversed() -> Packet {
    frame::udp(vip(53), client(10, 5354), b"answer")
}

fn arp(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let sender = (rig::ROUTER_MAC, rig::GATEWAY);
    frame::arp(
        1,
        MacAddr::BROADCAST,
        sender,
        (MacAddr::default(), rig::OUTSIDE_ADDRESS),
    )
    .tap(change)
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Vec<u8> {}

fn rig() -> Rig {
    let mut services = rig::services();
    let mut silent = services[0].clone();
    (silent.ports, silent.unknown_segment) = (81.into(), dataplane::UnknownSegment::Drop);
    services.push(silent);
    Rig::with(&rig::small(), &services).resolved()
}

#[test]
fn each_malformed_frame_is_dropped_for_its_own_reason() {
    for (description, input, expected) in cases() {
        let mut rig = rig();
        let before = rig.worker_counts();
        assert_eq!(rig.dropped(OUTSIDE, input), expected, "{description}");
        assert!(rig.out.is_empty(), "{description}: nothing is sent");
        assert_eq!(rig.flow_count(), 0, "{description}");
        let after = rig.worker_counts();
        assert_eq!(
            (after.dropped, after.frames_in),
            (before.dropped + 1, before.frames_in + 1),
            "{description}"
        );
    }
}

/// What it sends by an interface that it shares passes the port too: probes, answers, questions for next hops.
#[test]
fn frames_of_the_nodes_own_kernel_are_left_to_it_where_they_are_heard() {
    let mut ports = rig::ports();
    ports[0].hears_kernel = true;
    let mut rig =
        Rig::from(&rig::small(), &rig::builder(&ports, &rig::services()), 0, 1).resolved();
    let own = |frame: Vec<u8>| frame.tap(|frame| frame[6..12].copy_from_slice(&rig::OUTSIDE_MAC.0));
    let from_group = |frame: Vec<u8>| frame.tap(|frame| frame[6] |= 1);
    for (description, input) in [
        ("a SYN that comes back", own(from_client(&syn()))),
        (
            "a probe on its way to a target",
            syn().macs(rig::OUTSIDE_MAC, rig::ROUTER_MAC).frame(),
        ),
        ("a question for a next hop", own(arp(|_| {}))),
        ("options", {
            let query = query().with(|packet| packet.options = vec![1; 4]);
            own(from_client(&query))
        }),
    ] {
        let before = rig.worker_counts();
        assert_eq!(
            rig.try_send(OUTSIDE, input.clone()),
            (Verdict::Kernel, input.clone()),
            "{description}"
        );
        let after = rig.worker_counts();
        assert_eq!(
            (after.kernel, after.dropped),
            (before.kernel + 1, before.dropped),
            "{description}"
        );
        // Nobody has a group's address, and the other port doesn't hear the kernel.
        assert_eq!(
            rig.dropped(OUTSIDE, from_group(input)),
            DropReason::BadSource,
            "{description}"
        );
    }
    let reflected = syn().macs(rig::INSIDE_MAC, rig::INSIDE_MAC).frame();
    assert_eq!(rig.dropped(rig::INSIDE, reflected), DropReason::BadSource);
    assert!(rig.out.is_empty() && rig.flow_count() == 0);
}

#[test]
fn malformed_frames_in_a_burst_leave_the_others_alone() {
    let mut rig = rig();
    let mut frames = Vec::new();
    for (_, input, _) in cases() {
        frames.push(input);
        frames.push(from_client(&query()));
    }
    let mut verdicts = vec![Verdict::Kernel; frames.len()];
    rig.worker.burst(
        &rig.tables,
        rig.now,
        OUTSIDE,
        &mut frames,
        &mut verdicts,
        &mut rig.out,
    );
    for ((description, _, expected), pair) in cases().iter().zip(verdicts.chunks(2)) {
        assert_eq!(
            pair,
            [Verdict::Drop(*expected), Verdict::Transmit(rig::INSIDE)],
            "{description}"
        );
    }
    assert_eq!(rig.flow_count(), 1);
}

#[test]
fn every_reason_to_drop_a_frame_before_its_flow_is_covered_above() {
    let covered: Vec<DropReason> = cases().into_iter().map(|(_, _, reason)| reason).collect();
    for reason in DropReason::ALL {
        if covered.contains(reason) {
            continue;
        }
        let found = ELSEWHERE
            .iter()
            .find(|(_, reasons)| reasons.contains(reason));
        let (tests, _) = found.unwrap_or_else(|| panic!("no test for {reason:?}"));
        assert!(
            expects(tests, *reason),
            "the file said to test {reason:?} names it nowhere"
        );
    }
}

/// The tests of reasons that take more than one frame, by the text of their file.
const ELSEWHERE: [(&str, &[DropReason]); 11] = [
    (
        include_str!("client_address.rs"),
        &[DropReason::ClientAddress],
    ),
    (
        include_str!("ipv6.rs"),
        &[DropReason::BadExtensionHeader, DropReason::UdpUnchecked],
    ),
    (include_str!("ndp.rs"), &[DropReason::BadNdp]),
    (
        include_str!("fragments.rs"),
        &[DropReason::FragmentOverlap, DropReason::FragmentNoRoom],
    ),
    (include_str!("placement.rs"), &[DropReason::WrongPort]),
    (
        include_str!("icmp.rs"),
        &[DropReason::PathMtu, DropReason::IcmpRate],
    ),
    (include_str!("local_ports.rs"), &[DropReason::PortExhausted]),
    (include_str!("floods.rs"), &[DropReason::FlowTableFull]),
    (
        include_str!("limits.rs"),
        &[
            DropReason::Denied,
            DropReason::ServiceConnections,
            DropReason::ServiceRate,
            DropReason::SourceConnections,
            DropReason::SourceRate,
            DropReason::TargetLimits,
        ],
    ),
    (
        include_str!("refusals.rs"),
        &[
            DropReason::NoTarget,
            DropReason::TtlExpired,
            DropReason::TooBig,
            DropReason::NoRoute,
        ],
    ),
    (include_str!("neighbours.rs"), &[DropReason::Unresolved]),
];

/// Whether the code of some tests names a reason, other than to import it.
fn expects(tests: &str, reason: DropReason) -> bool {
    let name = format!("{reason:?}");
    let code = tests.lines().map(str::trim_start);
    code.filter(|line| !line.starts_with("use ") && !line.starts_with("//"))
        .flat_map(|line| line.split(|letter: char| !letter.is_alphanumeric()))
        .any(|word| word == name)
}

#[test]
fn the_reference_names_every_reason_in_order() {
    const PAGE: &str = include_str!("../../../../deploy/reference/l4-gateway.md");
    let table = PAGE
        .split_once("## Dropped frames")
        .map_or("", |(_, rest)| rest);
    let named: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(label, _)| label)
        .collect();
    let labels: Vec<&str> = DropReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    assert_eq!(named, labels);
}

#[test]
fn a_frame_cut_anywhere_or_with_any_byte_changed_never_panics() {
    let mut rig = rig();
    let opened = rig.establish(client(10, 40_000), 1000);
    let established = from_client(
        &frame::tcp(client(10, 40_000), vip(80), ACK)
            .seq(1001, 9001)
            .data(b"data"),
    );
    let sack = frame::tcp(rig::target(21), rig::local(opened.local_port), ACK)
        .tcp_options(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    let quoted = frame::tcp(rig::local(opened.local_port), rig::target(21), ACK);
    let error = frame::icmp(*rig::target(21).ip(), rig::LOCAL_IP, 3, 1, 0, &quoted.ip());
    let samples = [
        (OUTSIDE, established),
        (OUTSIDE, from_client(&syn())),
        (OUTSIDE, from_client(&query())),
        (OUTSIDE, arp(|_| {})),
        (rig::INSIDE, rig::from_target(&sack, 21)),
        (rig::INSIDE, rig::from_target(&error, 21)),
    ];
    for (port, sample) in samples {
        for at in 0..sample.len() {
            rig.try_send(port, sample[..at].to_vec());
            for value in [
                0,
                1,
                0x7f,
                0x80,
                0xff,
                sample[at] ^ 1,
                sample[at].wrapping_add(1),
            ] {
                let changed = sample.clone().tap(|frame| frame[at] = value);
                rig.try_send(port, changed.clone());
                if at >= 14 && sample[12..14] == [8, 0] {
                    rig.try_send(port, with_ip(changed, |_| {}));
                }
            }
        }
    }
    rig.now = Now(rig.now.0 + 1);
    let counts = rig.service_counts(80, Protocol::Tcp);
    assert!(counts.flows_active >= 1, "the established flow is alive");
}
