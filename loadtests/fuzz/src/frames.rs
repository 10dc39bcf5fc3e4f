//! Frames into a node of two workers: outside and inside port, TCP and UDP service, next hops that answer ARP.
//!
//! An input is a series of steps, each an operation byte and its operands; what is missing at the end reads as zero.
//!
//! | operation (modulo 8) | operands | what happens |
//! |---|---|---|
//! | 0 to 3 | port and repairs, length (2 bytes, little endian), bytes | a frame arrives |
//! | 4 | TCP flags, sequence change | whoever got the last frame answers it |
//! | 5 | kind and code | a router on the way answers it with an ICMP error |
//! | 6 | exponent | time passes, timers run, ARP requests are answered |
//! | 7 | variant | the tables are swapped |
//!
//! All limits are small, so that each is met. After each step the workers' invariants must hold, and what they send must be correct to the last checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dataplane::{
    Counters, DropReason, Emitted, Ids, Limits, MacAddr, Now, Port, PortIndex, Protocol, Secret,
    Segment, ServiceConfig, Tables, TargetConfig, Verdict, Worker,
};

/// The client network is beyond the gateway of port 0, the targets are on port 1.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
const PORT_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 3, 0, 11)];
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
            services: 4,
            targets: 8,
            local_ips: 2,
            neighbours: 8,
            // So few that they run out.
            first_port: 50_000,
            last_port: 50_015,
            held_frames: 4,
            held_per_neighbour: 2,
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
        if let Verdict::Redirect(worker) = verdicts[0] {
            assert_eq!(worker, 1, "there is no other worker");
            let worker = &mut self.workers[1];
            worker.handed_over(
                &self.tables,
                self.now,
                at,
                &mut frames,
                &mut verdicts,
                &mut self.out,
            );
            assert!(
                !matches!(verdicts[0], Verdict::Redirect(_)),
                "redirected twice"
            );
        }
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

    fn pass(&mut self, nanoseconds: u64) {
        self.now = Now(self.now.0.saturating_add(nanoseconds));
        for worker in &mut self.workers {
            worker.tick(&self.tables, self.now, &mut self.out);
        }
        for (port, request) in self.check_emitted() {
            for worker in &mut self.workers {
                let mut verdicts = [Verdict::Consumed];
                let mut frames = [arp_reply(&request)];
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

    /// Looks at what the workers made themselves; the ARP requests among it.
    fn check_emitted(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        let mut requests = Vec::new();
        for (port, frame) in self.out.frames() {
            // Frames that waited for a next hop may have come in with wrong checksums.
            check_sent(port.0, frame, false);
            if frame[12..14] == [8, 6] && frame[21] == 1 {
                requests.push((port, frame.to_vec()));
            }
        }
        self.out.clear();
        requests
    }
}

/// 2001:db8:`network`::`last`, numbered like the IPv4 networks.
const fn ipv6(network: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, last)
}

/// One of eight states of the same services: bit 0 takes the first target down, bit 1 drains the second, bit 2 leaves none.
fn tables(variant: u8, ids: &mut Ids, previous: Option<&Tables>) -> Tables {
    let target = |address: IpAddr, index: u8| TargetConfig {
        address: SocketAddr::new(address, 8080),
        weight: 1,
        up: index != 0 || variant & 1 == 0,
        draining: index == 1 && variant & 2 != 0,
        cut: false,
    };
    let hosts: [[IpAddr; 2]; 2] = [
        [21, 22].map(|last| Ipv4Addr::new(10, 3, 0, last).into()),
        [21, 22].map(|last| ipv6(3, last).into()),
    ];
    let mut builder = Tables::builder();
    for (index, (mac, address)) in PORT_MACS.into_iter().zip(PORT_ADDRESSES).enumerate() {
        builder.port(Port {
            index: PortIndex(index as u16),
            mac,
            ipv4: Some(Segment {
                address,
                prefix: 24,
                gateway: (index == 0).then_some(Ipv4Addr::new(10, 2, 0, 1)),
            }),
            ipv6: Some(Segment {
                address: ipv6(2 + index as u16, 11),
                prefix: 64,
                gateway: (index == 0).then_some(ipv6(2, 1)),
            }),
            mtu: MTU,
            answers: true,
        });
    }
    builder.local_ip(LOCAL_IP);
    builder.local_ip(ipv6(3, 100));
    let vips: [IpAddr; 2] = [VIP.into(), ipv6(0, 100).into()];
    for (vip, [first, second]) in vips.into_iter().zip(hosts) {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let mut service = ServiceConfig::new(vip, protocol, port);
            if variant & 4 == 0 {
                service.targets = vec![target(first, 0), target(second, 1)];
            }
            builder.service(service);
        }
    }
    match builder.build(ids, previous) {
        Ok(tables) => tables,
        Err(error) => panic!("the tables are right: {error}"),
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
    if frame[12..14] == [8, 0] {
        let header = usize::from(frame[ETHERNET] & 15) * 4;
        assert!(
            sum_is_right(&frame[ETHERNET..ETHERNET + header]),
            "the IP header's checksum is wrong"
        );
        assert!(frame[ETHERNET + 8] > 0, "sent with no time to live");
        if whole {
            assert!(
                is_correct(frame),
                "a correct packet went out with a wrong checksum"
            );
        }
    }
}

/// Whether a frame holds an IPv4 packet whose lengths and checksums are right.
fn is_correct(frame: &[u8]) -> bool {
    let Some((packet, header)) = packet_of(frame) else {
        return false;
    };
    let payload = &packet[header..];
    sum_is_right(&packet[..header])
        && match packet[9] {
            6 if payload.len() >= 20 => transport_sum(packet, header) == 0xffff,
            17 if payload.len() >= 8 => {
                let length = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
                length == payload.len()
                    && (payload[6..8] == [0, 0] || transport_sum(packet, header) == 0xffff)
            }
            1 if payload.len() >= 8 => sum_is_right(payload),
            _ => false,
        }
}

/// The IPv4 packet of a frame, cut to its total length, and its header's length.
fn packet_of(frame: &[u8]) -> Option<(&[u8], usize)> {
    let packet = frame.get(ETHERNET..).filter(|packet| packet.len() >= 20)?;
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let ipv4 = frame[12..14] == [8, 0] && packet[0] >> 4 == 4 && (20..=total).contains(&header);
    ipv4.then_some((packet.get(..total)?, header))
}

/// Computes the checksums anew; a UDP checksum of 0 stays, as it says that there is none.
pub(crate) fn fix_checksums(frame: &mut [u8]) {
    let Some((packet, header)) = packet_of(frame) else {
        return;
    };
    let total = packet.len();
    let place = match packet[9] {
        6 if total >= header + 20 => Some(16),
        17 if total >= header + 8 && packet[header + 6..header + 8] != [0, 0] => Some(6),
        1 if total >= header + 8 => Some(2),
        _ => None,
    };
    let packet = &mut frame[ETHERNET..ETHERNET + total];
    packet[10..12].fill(0);
    let sum = !sum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    if let Some(place) = place {
        let at = header + place;
        packet[at..at + 2].fill(0);
        let sum = match packet[9] {
            1 => !self::sum(&packet[header..], 0),
            _ => !transport_sum(packet, header),
        };
        let sum = if sum == 0 && packet[9] == 17 {
            0xffff
        } else {
            sum
        };
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn transport_sum(packet: &[u8], header: usize) -> u16 {
    let length = (packet.len() - header) as u32;
    sum(
        &packet[header..],
        u32::from(sum(&packet[12..20], 0)) + u32::from(packet[9]) + length,
    )
}

fn sum_is_right(bytes: &[u8]) -> bool {
    sum(bytes, 0) == 0xffff
}

/// The ones' complement sum of RFC 1071.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What the receiver of `frame` sends back: all ends swapped. TCP gets `flags` and acknowledges; its sequence moves by `change`.
fn answered(mut frame: Vec<u8>, port: u16, flags: u8, change: u8) -> Vec<u8> {
    frame[..6].copy_from_slice(&PORT_MACS[usize::from(port)].0);
    frame[6..12].copy_from_slice(&NEIGHBOUR_MAC.0);
    let Some((packet, header)) = packet_of(&frame) else {
        return frame;
    };
    let (protocol, total) = (packet[9], packet.len());
    let packet = &mut frame[ETHERNET..ETHERNET + total];
    packet[8] = 64;
    let (source, destination) = packet[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    let payload = &mut packet[header..];
    if (protocol == 6 && payload.len() >= 20) || (protocol == 17 && payload.len() >= 8) {
        let (source, destination) = payload[..4].split_at_mut(2);
        source.swap_with_slice(destination);
    }
    if protocol == 6 && payload.len() >= 20 {
        let (sequence, acknowledged) = payload[4..12].split_at_mut(4);
        sequence.swap_with_slice(acknowledged);
        payload[7] = payload[7].wrapping_add(change);
        payload[13] = flags;
    }
    fix_checksums(&mut frame);
    frame
}

/// An ICMP error about `frame` from a router at 10.9.9.9: kind 3, 11 or 12 and a code, with as much of the packet as RFC 792 asks.
fn icmp_error(frame: &[u8], port: u16, choice: u8) -> Vec<u8> {
    let Some((packet, header)) = packet_of(frame) else {
        return frame.to_vec();
    };
    let kind = [3, 11, 12, 5][usize::from(choice >> 6)];
    let quote = &packet[..packet
        .len()
        .min(header + if choice & 32 == 0 { 8 } else { 64 })];
    let mut error = Vec::new();
    error.extend(PORT_MACS[usize::from(port)].0);
    error.extend(NEIGHBOUR_MAC.0);
    error.extend([8, 0]);
    let total = (20 + 8 + quote.len()) as u16;
    error.extend([0x45, 0]);
    error.extend(total.to_be_bytes());
    error.extend([0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9]);
    error.extend(&packet[12..16]);
    error.extend([kind, choice & 15, 0, 0, 0, 0, 5, 0]);
    error.extend(quote);
    fix_checksums(&mut error);
    error
}

fn arp_reply(request: &[u8]) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&NEIGHBOUR_MAC.0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&NEIGHBOUR_MAC.0);
    reply[28..32].copy_from_slice(&request[38..42]);
    reply[32..38].copy_from_slice(&request[22..28]);
    reply[38..42].copy_from_slice(&request[28..32]);
    reply
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
    fn checksums_are_by_the_book() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0),
            0xddf2
        );
    }
}
