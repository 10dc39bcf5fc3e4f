//! Frames into a node of two workers: outside and inside port, TCP and UDP service of both families, next hops that answer ARP and
//! neighbour solicitations.
//!
//! An input is a series of steps, each an operation byte and its operands; what is missing at the end reads as zero.
//!
//! | operation (modulo 8) | operands | what happens |
//! |---|---|---|
//! | 0 to 3 | port and repairs, length (2 bytes, little endian), bytes | a frame arrives |
//! | 4 | TCP flags, sequence change | whoever got the last frame answers it |
//! | 5 | kind and code | a router on the way answers it with an ICMP error |
//! | 6 | exponent | time passes, timers run, questions for next hops are answered |
//! | 7 | variant | the tables are swapped, the mode among them |
//!
//! All limits are small, so that each is met. After each step the workers' invariants must hold, and what they send must be correct to the last checksum.

mod packet;
mod peers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    ClientAddress, Counters, DropReason, Emitted, FlowLimits, Ids, Limits, MacAddr, Mode, NextHops,
    Now, Persistence, PersistenceGroup, Policy, Port, PortIndex, PortRange, Protocol, Quota,
    Secret, Segment, ServiceConfig, SourcePrefix, Tables, TargetConfig, Verdict, Worker,
};

use packet::{Packet, is_correct};
use peers::{answered, icmp_error, reply};

pub(crate) use packet::fix_checksums;

/// The client network is beyond the gateway of port 0, the targets are on port 1.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
const PORT_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 3, 0, 11)];
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
pub(crate) const LOCAL_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x100);
pub(crate) const PORT_ADDRESSES6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x11),
];
const PORT_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 10]), MacAddr([2, 0, 0, 0, 0, 11])];
const NEIGHBOUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const MTU: u16 = 1500;
const ETHERNET: usize = 14;
/// Steps of one input; more only repeat what fewer can show.
const STEPS: usize = 256;

/// Repairs of an arriving frame, as bits of its first operand; bit 0 is the port.
pub(crate) const FIX_CHECKSUMS: u8 = 2;
pub(crate) const FIX_MAC: u8 = 4;

/// Runs one input.
pub(crate) fn run(data: &[u8]) {
    let mut node = Node::new();
    let mut input = Input(data);
    for _ in 0..STEPS {
        let Some(operation) = input.next() else { break };
        node.step(operation % 8, &mut input);
        node.workers.iter().for_each(Worker::check_invariants);
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

struct Node {
    ids: Ids,
    tables: Tables,
    workers: Vec<Worker>,
    now: Now,
    out: Emitted,
    /// What was sent last, and where.
    last: Option<(u16, Vec<u8>)>,
}

impl Node {
    fn new() -> Node {
        let limits = Limits {
            flows: 16,
            services: 8,
            // Those of FULLNAT have ports of their own.
            targets: 32,
            local_ips: 2,
            neighbours: 12,
            // So few that they run out.
            first_port: 50_000,
            last_port: 50_015,
            fragmented_packets: 4,
            early_fragments: 4,
            early_fragments_per_packet: 2,
            held_frames: 4,
            held_per_neighbour: 2,
            sources: 14,
            ..Limits::default()
        };
        let counters = Arc::new(Counters::new(2, &limits));
        let mut ids = Ids::new(&limits);
        let tables = tables(0, &mut ids, None);
        let worker = |index| {
            Worker::new(
                index,
                2,
                &limits,
                Secret::new([7; 32]),
                Arc::clone(&counters),
            )
        };
        let mut node = Node {
            ids,
            tables,
            workers: vec![worker(0), worker(1)],
            now: Now(1_000_000_000),
            out: Emitted::new(),
            last: None,
        };
        for _ in 0..3 {
            node.pass(1_000_000);
        }
        node
    }

    fn step(&mut self, operation: u8, input: &mut Input<'_>) {
        match operation {
            0..=3 => {
                let choice = input.byte();
                let length = u16::from_le_bytes([input.byte(), input.byte()]);
                let mut frame = input.bytes(usize::from(length) % 2048);
                let port = u16::from(choice & 1);
                if choice & FIX_MAC != 0 && frame.len() >= ETHERNET {
                    frame[..6].copy_from_slice(&PORT_MACS[usize::from(port)].0);
                    frame[6..12].copy_from_slice(&NEIGHBOUR_MAC.0);
                }
                if choice & FIX_CHECKSUMS != 0 {
                    fix_checksums(&mut frame);
                }
                self.arrive(port, frame);
            }
            4 => {
                let (flags, change) = (input.byte(), input.byte());
                if let Some((port, frame)) = self.last.clone() {
                    self.arrive(port, answered(frame, port, flags, change));
                }
            }
            5 => {
                let kind = input.byte();
                if let Some((port, frame)) = self.last.clone() {
                    self.arrive(port, icmp_error(&frame, port, kind));
                }
            }
            6 => self.pass(1 << (input.byte() % 44)),
            _ => {
                let variant = input.byte();
                self.tables = tables(variant, &mut self.ids, Some(&self.tables));
            }
        }
    }

    fn arrive(&mut self, port: u16, frame: Vec<u8>) {
        let good = is_correct(&frame);
        let mut frames = [frame];
        let mut verdicts = [Verdict::Consumed];
        let at = PortIndex(port);
        self.workers[0].burst(
            &self.tables,
            self.now,
            at,
            &mut frames,
            &mut verdicts,
            &mut self.out,
        );
        // A fragment goes to the worker that tracks its packet, and from there to the one that owns its flow.
        let mut hops = 0;
        while let Verdict::Redirect(worker) = verdicts[0] {
            assert!(hops < 2, "redirected a third time");
            hops += 1;
            self.workers[usize::from(worker)].handed_over(
                &self.tables,
                self.now,
                at,
                &mut frames,
                &mut verdicts,
                &mut self.out,
            );
        }
        self.hand_over();
        let [frame] = frames;
        match verdicts[0] {
            Verdict::Transmit(to) => {
                check_sent(to.0, &frame, good);
                self.last = Some((to.0, frame));
            }
            Verdict::Drop(reason) => assert!(DropReason::ALL.contains(&reason)),
            Verdict::Redirect(_) | Verdict::Kernel | Verdict::Held | Verdict::Consumed => {}
        }
        self.check_emitted();
    }

    /// Gives frames that waited with one worker to the other.
    fn hand_over(&mut self) {
        let handed: Vec<_> = self
            .out
            .handovers()
            .map(|(to, port, frame)| (to, port, frame.to_vec()))
            .collect();
        let mut out = Emitted::new();
        for (worker, port, frame) in handed {
            let (mut frames, mut verdicts) = ([frame], [Verdict::Consumed]);
            self.workers[usize::from(worker)].handed_over(
                &self.tables,
                self.now,
                port,
                &mut frames,
                &mut verdicts,
                &mut out,
            );
            assert!(!matches!(verdicts[0], Verdict::Redirect(_)), "a third time");
            if let Verdict::Transmit(to) = verdicts[0] {
                check_sent(to.0, &frames[0], false);
            }
            assert_eq!(out.handovers().count(), 0, "handed over twice");
        }
        for (port, frame) in out.frames() {
            check_sent(port.0, frame, false);
        }
    }

    fn pass(&mut self, nanoseconds: u64) {
        self.now = Now(self.now.0.saturating_add(nanoseconds));
        for worker in &mut self.workers {
            worker.tick(&self.tables, self.now, &mut self.out);
        }
        for (port, request) in self.check_emitted() {
            for worker in &mut self.workers {
                let mut verdicts = [Verdict::Consumed];
                let mut frames = [reply(&request)];
                worker.handed_over(
                    &self.tables,
                    self.now,
                    port,
                    &mut frames,
                    &mut verdicts,
                    &mut self.out,
                );
            }
        }
        self.check_emitted();
    }

    /// Looks at what the workers made themselves; the questions for next hops among it.
    fn check_emitted(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        let mut requests = Vec::new();
        for (port, frame) in self.out.frames() {
            // Frames that waited for a next hop may have come in with wrong checksums.
            check_sent(port.0, frame, false);
            let solicits = frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135;
            if frame[12..14] == [8, 6] && frame[21] == 1 || solicits {
                requests.push((port, frame.to_vec()));
            }
        }
        self.out.clear();
        requests
    }
}

/// One of 256 states of the same services: bit 0 takes the first target down, bit 1 drains the second, bit 2 leaves none; bits 3 and 4
/// say how targets learn a client's address, both that they see it (DR, or with bit 6 a tunnel); bit 5 limits and keeps sources at their targets, bit 6 schedules datagrams one by one, bit 7 ends
/// the flows of the second target. Beside a service of one port, each VIP and protocol has one of a range.
fn tables(variant: u8, ids: &mut Ids, previous: Option<&Tables>) -> Tables {
    let mode = match (variant >> 3 & 3, variant & 64) {
        (3, 0) => Mode::Direct,
        (3, _) => Mode::Tunnel,
        _ => Mode::FullNat,
    };
    let target = |address: IpAddr, port: u16, index: u8| TargetConfig {
        address: SocketAddr::new(address, port),
        weight: 1,
        up: index != 0 || variant & 1 == 0,
        draining: index == 1 && variant & 2 != 0,
        cut: index == 1 && variant & 128 != 0,
    };
    let mut builder = Tables::builder();
    for (index, mac) in PORT_MACS.into_iter().enumerate() {
        builder.port(Port {
            index: PortIndex(index as u16),
            mac,
            ipv4: Some(Segment {
                address: PORT_ADDRESSES[index],
                prefix: 24,
                gateways: match index {
                    0 => NextHops::one(Ipv4Addr::new(10, 2, 0, 1)),
                    _ => NextHops::ON_LINK,
                },
            }),
            ipv6: Some(Segment {
                address: PORT_ADDRESSES6[index],
                prefix: 64,
                gateways: match index {
                    0 => NextHops::one(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
                    _ => NextHops::ON_LINK,
                },
            }),
            mtu: MTU,
            answers: true,
            announce_every: None,
            hears_kernel: false,
        });
    }
    builder.local_ip(LOCAL_IP).local_ip(LOCAL_IP6);
    let behind = |last: u8| {
        let wide = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, u16::from(last));
        [Ipv4Addr::new(10, 3, 0, last).into(), wide.into()]
    };
    let (first, second): ([IpAddr; 2], [IpAddr; 2]) = (behind(21), behind(22));
    let range = PortRange::new(8000, 8099).unwrap_or(PortRange::ALL);
    for (protocol, ports) in [
        (Protocol::Tcp, PortRange::from(80)),
        (Protocol::Udp, PortRange::from(53)),
        (Protocol::Tcp, range),
        (Protocol::Udp, range),
    ] {
        for (family, vip) in [IpAddr::V4(VIP), IpAddr::V6(VIP6)].into_iter().enumerate() {
            let mut service = ServiceConfig::new(vip, protocol, ports);
            service.mode = mode;
            let target_port = match ports.single() {
                Some(_) if mode == Mode::FullNat => 8080,
                _ => ports.kept_by_target(),
            };
            service.client_address = match variant >> 3 & 3 {
                1 => ClientAddress::ProxyV2,
                2 => ClientAddress::Toa,
                _ => ClientAddress::None,
            };
            if variant & 4 == 0 {
                service.targets = vec![
                    target(first[family], target_port, 0),
                    target(second[family], target_port, 1),
                ];
            }
            service.policy = policy(variant, vip);
            builder.service(service);
        }
    }
    match builder.build(ids, previous) {
        Ok(tables) => tables,
        Err(error) => panic!("the tables are right: {error}"),
    }
}

fn policy(variant: u8, vip: IpAddr) -> Policy {
    let quota = |connections| Quota {
        connections,
        per_second: 2 * connections,
    };
    let limits = FlowLimits {
        service: quota(6),
        target: quota(4),
        source: quota(2),
        source_prefix: SourcePrefix { v4: 24, v6: 64 },
    };
    let persistence = Persistence {
        timeout: Duration::from_secs(5),
        prefix: SourcePrefix::default(),
        group: Some(PersistenceGroup::new(vip, "all")),
    };
    let limited = variant & 32 != 0;
    Policy {
        limits: if limited {
            limits
        } else {
            FlowLimits::default()
        },
        persistence: limited.then_some(persistence),
        one_packet: variant & 64 != 0,
        ..Policy::default()
    }
}

/// Holds a frame that leaves to what every receiver expects. `whole` if its TCP, UDP or ICMP checksum must be right, too.
fn check_sent(port: u16, frame: &[u8], whole: bool) {
    assert!(port < 2, "sent to a port that is not there");
    assert!(
        frame.len() >= ETHERNET + 20,
        "a runt is sent: {} bytes",
        frame.len()
    );
    assert!(
        frame.len() <= ETHERNET + usize::from(MTU),
        "longer than the link takes"
    );
    assert_eq!(
        frame[6..12],
        PORT_MACS[usize::from(port)].0,
        "sent from another's MAC"
    );
    if let Some(packet) = Packet::of(frame) {
        assert!(
            packet.header_is_right(),
            "the IP header's checksum is wrong"
        );
        assert!(packet.hops() > 0, "sent with no time to live");
        // One in front of all others is the node's.
        let told = packet.addresses_told();
        assert!(
            matches!(told[..], [] | [20]),
            "an address by somebody else goes to a target: {told:?}"
        );
    }
    if whole {
        assert!(
            is_correct(frame),
            "a correct packet went out with a wrong checksum"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_goes_through() {
        // The harness must reach the forwarder, or fuzzing it would prove nothing.
        let mut node = Node::new();
        let syn = &crate::seeds::of("frames")[0];
        let mut input = Input(syn);
        let mut sent = Vec::new();
        while let Some(operation) = input.next() {
            node.last = if operation % 8 == 4 { node.last } else { None };
            node.step(operation % 8, &mut input);
            sent.push(node.last.as_ref().map(|(port, _)| *port));
        }
        assert_eq!(
            sent,
            [Some(1), Some(0), Some(1), Some(0)],
            "SYN, SYN+ACK, ACK with data, its answer"
        );
    }

    #[test]
    fn a_conversation_of_ipv6_goes_through() {
        let sent = |seed: &[u8]| {
            let mut node = Node::new();
            let mut input = Input(seed);
            let mut sent = Vec::new();
            while let Some(operation) = input.next() {
                node.last = if operation % 8 <= 3 { None } else { node.last };
                node.step(operation % 8, &mut input);
                sent.push(node.last.as_ref().map(|(port, _)| *port));
            }
            sent
        };
        let [conversation, errors] = crate::seeds::ipv6_conversations();
        assert_eq!(
            sent(&conversation),
            [Some(1), Some(0), Some(1), Some(0)],
            "SYN, SYN+ACK, ACK with data, its answer"
        );
        assert_eq!(
            sent(&errors),
            [Some(1), Some(0)],
            "a datagram, an error about it"
        );
    }
}
