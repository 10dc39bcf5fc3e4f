//! Bursts of whatever may come to services of every kind: many frames at a time, with ARP, ICMP, fragments and IPv6 among them.

use std::net::Ipv6Addr;

use super::*;
use crate::DropReason;
use crate::client_address::ClientAddress;
use crate::service::Mode;
use crate::wire::arp::{Arp, Operation};
use crate::wire::{ipv6, u16_at};

/// A service of each kind that treats packets in its own way.
#[derive(Clone, Copy, Debug)]
enum Service {
    Tcp,
    Proxy,
    Toa,
    Direct,
    Tunnel,
    Udp,
    OnePacket,
}

impl Service {
    const ALL: [Self; 7] = [
        Self::Tcp,
        Self::Proxy,
        Self::Toa,
        Self::Direct,
        Self::Tunnel,
        Self::Udp,
        Self::OnePacket,
    ];

    fn port(self) -> u16 {
        80 + self as u16
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Udp | Self::OnePacket => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// Targets answer past the node.
    fn is_one_sided(self) -> bool {
        matches!(self, Self::Direct | Self::Tunnel)
    }

    /// With the port of its targets.
    fn config(self) -> (ServiceConfig, u16) {
        let vip = Ipv4Addr::new(10, 0, 0, 100);
        let mut config = ServiceConfig::new(vip, self.protocol(), self.port());
        match self {
            Self::Tcp | Self::Udp => {}
            Self::Proxy => config.client_address = ClientAddress::ProxyV2,
            Self::Toa => config.client_address = ClientAddress::Toa,
            Self::Direct => config.mode = Mode::Direct,
            Self::Tunnel => config.mode = Mode::Tunnel,
            Self::OnePacket => config.policy.one_packet = true,
        }
        let port = if self.is_one_sided() {
            self.port()
        } else {
            8080
        };
        (config, port)
    }
}

fn all_services(limits: &Limits) -> Tables {
    tables_with(limits, 160, Service::ALL.map(Service::config))
}

struct Connection {
    service: Service,
    client: End,
    /// Once the first packet has arrived there.
    target: Option<End>,
}

/// Two of each service, some of them from clients on the node's own segment, whose MACs nobody tells.
fn connections() -> Vec<Connection> {
    let services = Service::ALL.into_iter().cycle().take(14);
    services
        .zip(1..)
        .map(|(service, host)| {
            let mut client = End::client(host, service.protocol());
            if host > 10 {
                client.addresses[0] = Ipv4Addr::new(10, 2, 0, 50 + host);
            }
            client.ports[1] = service.port();
            Connection {
                service,
                client,
                target: None,
            }
        })
        .collect()
}

/// A frame of a burst.
struct Sent {
    connection: usize,
    flags: u8,
    /// The sequence number behind it.
    behind: u32,
    /// Nothing has come over it on its way.
    is_whole: bool,
    bytes: Vec<u8>,
}

/// What a node made of a burst.
struct Outcome {
    verdicts: Vec<Verdict>,
    frames: Vec<Vec<u8>>,
    emitted: Vec<(PortIndex, Vec<u8>)>,
}

impl Outcome {
    /// Of one frame; there may have been no room for its verdict.
    fn of(&self, at: usize) -> (Option<Verdict>, &[u8]) {
        (self.verdicts.get(at).copied(), &self.frames[at])
    }
}

/// What distinguishes one run from the others.
struct Circumstances {
    seed: u64,
    workers: u16,
    neighbours: u16,
    epochs_used_up: bool,
}

/// Two nodes that get the same, and what happens to them.
struct Run {
    random: Random,
    now: Now,
    limits: Limits,
    tables: Tables,
    nodes: [Node; 2],
    connections: Vec<Connection>,
    /// Of each service, by the port they came in by.
    forwarded: [[u32; 2]; Service::ALL.len()],
}

impl Run {
    fn new(circumstances: &Circumstances) -> Self {
        let limits = Limits {
            flows: 48,
            neighbours: circumstances.neighbours,
            icmp_errors_per_second: 5,
            ..Limits::default()
        };
        let tables = all_services(&limits);
        let nodes = [true, false].map(|short| {
            let mut node = Node::first_of(circumstances.workers, &tables, &limits, short);
            if circumstances.epochs_used_up {
                node.worker.neighbours.use_epochs_up();
            }
            node
        });
        Self {
            random: Random(circumstances.seed),
            now: Now(2),
            limits,
            tables,
            nodes,
            connections: connections(),
            forwarded: [[0; 2]; Service::ALL.len()],
        }
    }

    /// One burst, and what both ends make of what arrived.
    fn turn(&mut self, turn: usize) {
        self.change_surroundings();
        let port = self.random.below(2) as u16;
        let burst = self.burst(port);
        let frames: Vec<_> = burst.iter().map(|sent| sent.bytes.clone()).collect();
        let room = match self.random.below(8) {
            0 => self.random.below(burst.len() + 1),
            _ => burst.len(),
        };
        let is_handed_over = self.random.below(4) == 0;
        let [short, long] = self.nodes.each_mut().map(|node| {
            let (tables, now, port) = (&self.tables, self.now, PortIndex(port));
            let outcome = node.carry_out(tables, now, port, frames.clone(), room, is_handed_over);
            if turn.is_multiple_of(8) {
                node.worker.tick(tables, now, &mut node.out);
            }
            outcome
        });
        for (at, sent) in burst.iter().enumerate() {
            let bytes = &sent.bytes;
            assert_eq!(
                short.of(at),
                long.of(at),
                "turn {turn}, frame {at}: {bytes:02x?}"
            );
        }
        assert_eq!(short.emitted, long.emitted, "turn {turn}");
        if turn.is_multiple_of(16) {
            self.compare_nodes();
        }
        for (at, sent) in burst.iter().enumerate() {
            if let Some(Verdict::Transmit(_)) = short.verdicts.get(at) {
                self.arrives(port, sent, &short.frames[at]);
            }
        }
    }

    /// Snapshots and time go on, and next hops are mostly heard of.
    fn change_surroundings(&mut self) {
        if self.random.below(150) == 0 {
            self.tables = all_services(&self.limits);
        }
        self.now.0 += match self.random.below(60) {
            0 => 3_000_000_000 * self.random.below(40) as u64,
            _ => self.random.below(1_000_000) as u64,
        };
        if self.random.below(4) > 0 {
            for node in &mut self.nodes {
                node.learn_next_hops(self.now);
            }
        }
    }

    /// Few frames or more than the worker takes at a time.
    fn burst(&mut self, port: u16) -> Vec<Sent> {
        let count = match self.random.below(10) {
            0 => 60 + self.random.below(75),
            _ => 1 + self.random.below(10),
        };
        (0..count).filter_map(|_| self.frame(port)).collect()
    }

    /// None if it would be of a target that has heard nothing yet.
    fn frame(&mut self, port: u16) -> Option<Sent> {
        let random = &mut self.random;
        let index = random.below(self.connections.len());
        let connection = &mut self.connections[index];
        let end = if port == 0 {
            &mut connection.client
        } else {
            connection.target.as_mut()?
        };
        let (flags, options, payload) = segment(port, random);
        if port == 0 && flags & tcp::SYN != 0 && random.below(3) == 0 {
            end.sequence = random.below(1 << 31) as u32;
        }
        let takes_a_number = flags & (tcp::SYN | tcp::FIN) != 0;
        let mut bytes = end.frame(flags, options, payload);
        let behind = end
            .sequence
            .wrapping_add(payload as u32 + u32::from(takes_a_number));
        if random.below(4) == 0 {
            end.sequence = behind;
        }
        let is_whole = !disturb(&mut bytes, port, random);
        Some(Sent {
            connection: index,
            flags,
            behind,
            is_whole,
            bytes,
        })
    }

    /// Both ends mostly hear what was sent from the other.
    fn arrives(&mut self, port: u16, sent: &Sent, rewritten: &[u8]) {
        let connection = &mut self.connections[sent.connection];
        self.forwarded[connection.service as usize][usize::from(port)] += 1;
        if !sent.is_whole || self.random.below(4) == 0 {
            return;
        }
        if port == 1 {
            connection.client.acknowledgment = sent.behind;
        } else if connection.service.is_one_sided() {
            // What its target says doesn't come here.
        } else if connection.service.protocol() == Protocol::Udp || sent.flags & tcp::SYN != 0 {
            connection.target = Some(connection.client.other(rewritten));
        } else if let Some(target) = &mut connection.target {
            target.acknowledgment = connection.client.other(rewritten).acknowledgment;
        }
    }

    fn compare_nodes(&self) {
        let flows = |node: &Node| -> Vec<String> {
            let flows = node.worker.flows.iter();
            flows.map(|flow| format!("{flow:?}")).collect()
        };
        let [short, long] = &self.nodes;
        assert_eq!(flows(short), flows(long));
        for node in &self.nodes {
            node.worker.check_invariants();
        }
    }

    /// That both nodes have counted the same, and something of each kind.
    fn compare_counts(&self) {
        self.compare_nodes();
        let [short, long] = self.nodes.each_ref().map(|node| &node.counters);
        assert_eq!(short.worker(0), long.worker(0));
        for id in (0..).map(ServiceId).take(Service::ALL.len()) {
            assert_eq!(short.service(id), long.service(id));
        }
        for id in (0..).map(TargetId).take(2 * Service::ALL.len()) {
            assert_eq!(short.target(id), long.target(id));
        }
        for reason in DropReason::ALL {
            let [short, long] = [short, long].map(|counters| counters.dropped(0, *reason));
            assert_eq!(short, long, "{reason:?}");
            assert!(short > 0 || !REASONS.contains(reason), "no {reason:?}");
        }
        for service in Service::ALL {
            let [from_clients, from_targets] = self.forwarded[service as usize];
            assert!(from_clients > 100, "{service:?}: {from_clients}");
            let answers = if service.is_one_sided() { 0 } else { 50 };
            assert!(from_targets >= answers, "{service:?}: {from_targets}");
        }
        let counts = short.worker(0);
        assert!(counts.held > 0 && counts.kernel > 0 && counts.segments_disbelieved > 0);
        let [took, never] = self.nodes.each_ref().map(|node| node.worker.went_short_way);
        assert_eq!(never, 0);
        assert!(
            took * 6 > counts.transmitted,
            "{took} of {}",
            counts.transmitted
        );
    }
}

/// Why frames of every run are dropped, among other reasons.
const REASONS: &[DropReason] = &[
    DropReason::Truncated,
    DropReason::OtherMac,
    DropReason::BadIpHeader,
    DropReason::BadIpChecksum,
    DropReason::BadFragment,
    DropReason::BadTcpFlags,
    DropReason::NoFlow,
    DropReason::TtlExpired,
    DropReason::ClientAddress,
    DropReason::TooBig,
    DropReason::Unresolved,
];

impl Node {
    /// A burst with room for so many verdicts.
    fn carry_out(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        mut frames: Vec<Vec<u8>>,
        room: usize,
        is_handed_over: bool,
    ) -> Outcome {
        let mut verdicts = vec![Verdict::Kernel; room];
        let carry_out = if is_handed_over {
            Worker::handed_over
        } else {
            Worker::burst
        };
        let (worker, out) = (&mut self.worker, &mut self.out);
        carry_out(worker, tables, now, port, &mut frames, &mut verdicts, out);
        Outcome {
            verdicts,
            frames,
            emitted: self.said(),
        }
    }
}

/// Flags, options and bytes of payload of what the end behind `port` may send, sensible or not.
fn segment(port: u16, random: &mut Random) -> (u8, &'static [u8], usize) {
    const NONSENSE: [u8; 5] = [
        0,
        tcp::RST,
        tcp::FIN,
        tcp::SYN | tcp::FIN,
        tcp::SYN | tcp::RST | tcp::ACK,
    ];
    const PUSH: u8 = 8;
    match random.below(14) {
        0 if port == 0 => (tcp::SYN, MSS, 0),
        1 | 2 if port == 0 => (tcp::ACK | PUSH, &[], random.below(20)),
        0..=2 => (tcp::SYN | tcp::ACK, MSS, 0),
        3 => (tcp::SYN | tcp::ACK, &[], random.below(8)),
        4 => (tcp::ACK, SACK, random.below(30)),
        5 => (tcp::ACK, TIMESTAMPS, random.below(30)),
        6 | 7 => (tcp::ACK, &[], random.below(140)),
        8 | 9 => (tcp::FIN | tcp::ACK, &[], random.below(3)),
        10 if random.below(4) == 0 => (tcp::RST | tcp::ACK, &[], 0),
        11 => (NONSENSE[random.below(NONSENSE.len())], &[], 0),
        _ => (tcp::ACK | PUSH, &[], random.below(60)),
    }
}

/// Spoils a few frames and makes something else of others; whether it did.
fn disturb(frame: &mut Vec<u8>, port: u16, random: &mut Random) -> bool {
    match random.below(40) {
        0 => *frame = question(port),
        1 => make_echo(frame),
        2 => make_ipv6(frame),
        3 => make_fragment(frame),
        4 => add_ip_option(frame),
        5..=7 => spoil(frame, random),
        _ => return false,
    }
    true
}

/// A neighbour asks for the LocalIP.
fn question(port: u16) -> Vec<u8> {
    let question = Arp {
        operation: Operation::Request,
        sender_mac: OTHERS,
        sender: Ipv4Addr::new(10, 2 + port as u8, 0, 77),
        target_mac: MacAddr::default(),
        target: Ipv4Addr::new(10, 3, 0, 100),
    };
    question.frame(MacAddr::BROADCAST).to_vec()
}

/// An ICMP echo request of the same length.
fn make_echo(frame: &mut [u8]) {
    frame[PROTOCOL] = ipv4::ICMP;
    mend_checksum(frame, TRANSPORT);
    let end = ETHERNET_HEADER + usize::from(u16_at(frame, TOTAL_LENGTH));
    let message = &mut frame[TRANSPORT..end];
    message[..4].copy_from_slice(&[8, 0, 0, 0]);
    let sum = checksum::checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The same behind an IPv6 header, to an address that is not the node's.
fn make_ipv6(frame: &mut Vec<u8>) {
    let [source, destination] = [1, 2].map(|host| Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, host));
    let payload = frame.len() - TRANSPORT;
    let header = ipv6::header(source, destination, frame[PROTOCOL], payload, 64);
    frame[ETHER_TYPE..ETHERNET_HEADER].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    frame.splice(ETHERNET_HEADER..TRANSPORT, header);
}

/// The first of several, if its length allows.
fn make_fragment(frame: &mut [u8]) {
    frame[FRAGMENTATION] = 0x20;
    mend_checksum(frame, TRANSPORT);
}

fn add_ip_option(frame: &mut Vec<u8>) {
    const NOP: u8 = 1;
    frame.splice(TRANSPORT..TRANSPORT, [NOP; 4]);
    frame[ETHERNET_HEADER] += 1;
    frame[TOTAL_LENGTH + 1] += 4;
    mend_checksum(frame, TRANSPORT + 4);
}

fn run(circumstances: &Circumstances) -> Run {
    let mut run = Run::new(circumstances);
    for turn in 0..1500 {
        run.turn(turn);
    }
    run.compare_counts();
    run
}

#[test]
fn bursts_are_carried_out_alike_both_ways() {
    let run = run(&Circumstances {
        seed: 1,
        workers: 1,
        neighbours: 64,
        epochs_used_up: false,
    });
    assert_eq!(run.nodes[0].counters.worker(0).redirected, 0);
}

#[test]
fn bursts_are_carried_out_alike_where_other_workers_have_flows_too() {
    let run = run(&Circumstances {
        seed: 2,
        workers: 3,
        neighbours: 64,
        epochs_used_up: false,
    });
    assert!(run.nodes[0].counters.worker(0).redirected > 1000);
}

#[test]
fn bursts_are_carried_out_alike_while_neighbours_make_room_for_one_another() {
    for (seed, epochs_used_up) in [(3, false), (4, true)] {
        run(&Circumstances {
            seed,
            workers: 1,
            neighbours: 6,
            epochs_used_up,
        });
    }
}
