//! Nanoseconds a packet of the pure dataplane: no NIC, no memory but its own.
//!
//! `cargo run --release -p dataplane --example cycles`
//!
//! With arguments only what they name is run, a short round of it, for counting instructions:
//! `valgrind --tool=callgrind --toggle-collect='*measured*' target/release/examples/cycles udp 1000 both`
//! (`in`, `both`, `new` for the first packets of new flows, or `whole` for TCP connections of 7 packets over ports used again and again).
//!
//! Each row forwards 64-byte frames of flows in random order, in bursts of 32; what making the frames costs is measured alone and
//! taken off. Machines are noisy: the median of several rounds is printed with the least and the most.

#![allow(clippy::expect_used, reason = "a bench that can't begin says so")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dataplane::{
    Counters, Emitted, FlowState, Frame, Ids, Learned, Limits, MacAddr, NextHops, Now, Port,
    PortIndex, Protocol, Secret, Segment, ServiceConfig, Tables, TargetConfig, Verdict, Weight,
    Worker,
};

const BURST: usize = 32;
const BURSTS: usize = 20_000;
const ROUNDS: usize = 7;
/// Bursts of a run whose instructions are counted.
const COUNTED_BURSTS: usize = 1000;

/// A frame in a buffer of its own, as an mbuf is.
#[derive(Clone, Copy)]
struct Buffer {
    bytes: [u8; 128],
    length: usize,
}

impl Frame for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
    fn trim(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
    fn make_room(&mut self, at: usize, len: usize) -> bool {
        let fits = at <= self.length && len <= self.bytes.len() - self.length;
        if fits {
            self.bytes.copy_within(at..self.length, at + len);
            self.bytes[at..at + len].fill(0);
            self.length += len;
        }
        fits
    }
    fn cut(&mut self, at: usize, len: usize) -> bool {
        let within = at + len <= self.length;
        if within {
            self.bytes.copy_within(at + len..self.length, at);
            self.length -= len;
        }
        within
    }
}

impl Buffer {
    /// As who a flow's target got its first packet: the LocalIP's port, and the last bytes of the LocalIP and of the target.
    fn local_end(&self) -> (u16, [u8; 4]) {
        let port = u16::from_be_bytes([self.bytes[34], self.bytes[35]]);
        (port, [self.bytes[29], self.bytes[33], 0, 0])
    }

    fn sequence(&self) -> u32 {
        u32::from_be_bytes([
            self.bytes[38],
            self.bytes[39],
            self.bytes[40],
            self.bytes[41],
        ])
    }

    /// Writes the checksum of a TCP segment of 26 bytes.
    fn seal(&mut self) {
        let words = self.bytes[26..60].chunks_exact(2);
        let sum: u32 = words
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let sum = sum + 6 + 26;
        let sum = (sum & 0xffff) + (sum >> 16);
        self.bytes[50..52].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }

    /// Sets the numbers of a TCP segment.
    fn acknowledge(&mut self, sequence: u32, acknowledgment: u32) {
        self.bytes[38..42].copy_from_slice(&sequence.to_be_bytes());
        self.bytes[42..46].copy_from_slice(&acknowledgment.to_be_bytes());
    }
}

struct Bench {
    tables: Tables,
    worker: Worker,
    out: Emitted,
    now: Now,
    random: u64,
    /// The source of answers, by flow: LocalIP port and target.
    local: Vec<(u16, [u8; 4])>,
    /// How much higher than its client a flow's target counts.
    shifts: Vec<u32>,
    protocol: Protocol,
    /// How many were measured.
    bursts: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [protocol, flows, way] = arguments.as_slice() {
        let protocol = match protocol.as_str() {
            "udp" => Protocol::Udp,
            "tcp" => Protocol::Tcp,
            other => panic!("expected udp or tcp, got {other}"),
        };
        let flows = flows.parse().expect("a number of flows");
        let returning = if way == "both" { 2 } else { 0 };
        let mut bench = Bench::new(protocol, flows);
        match way.as_str() {
            "new" => bench.open(flows),
            "whole" => bench.connect(flows),
            _ => {
                bench.time(flows, returning, Some(COUNTED_BURSTS));
            }
        }
        println!("{} packets measured", bench.bursts * BURST);
        return;
    }
    println!(
        "{:<8} {:>9} {:<9} {:>8} {:>8} {:>8}",
        "protocol", "flows", "way", "median", "least", "most"
    );
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for flows in [1000u32, 100_000, 1_000_000] {
            let mut bench = Bench::new(protocol, flows);
            for (way, returning) in [("in", 0), ("both", 2)] {
                let mut rounds: Vec<f64> =
                    (0..ROUNDS).map(|_| bench.round(flows, returning)).collect();
                rounds.sort_by(f64::total_cmp);
                let (median, least, most) = (rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
                println!(
                    "{protocol:<8?} {flows:>9} {way:<9} {median:>8.1} {least:>8.1} {most:>8.1}"
                );
            }
        }
    }
}

/// Nanoseconds this process spent on a CPU: others on the machine may slow it down, but aren't counted.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat")
        .expect("Linux tells the time spent on a CPU");
    text.split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .expect("the first field is nanoseconds")
}

impl Bench {
    fn new(protocol: Protocol, flows: u32) -> Self {
        let limits = Limits {
            flows: flows.max(1 << 20),
            ..Limits::default()
        };
        let mut builder = Tables::builder();
        for index in 0..2u8 {
            builder.port(Port {
                index: PortIndex(u16::from(index)),
                mac: MacAddr([2, 0, 0, 0, 0, index]),
                ipv4: Some(Segment {
                    address: Ipv4Addr::new(10, 2 + index, 0, 11),
                    prefix: 24,
                    gateways: match index {
                        0 => NextHops::one(Ipv4Addr::new(10, 2, 0, 1)),
                        _ => NextHops::ON_LINK,
                    },
                }),
                ipv6: None,
                mtu: 1500,
                answers: true,
                announce_every: None,
                hears_kernel: false,
            });
        }
        for last in 0..4 {
            builder.local_ip(Ipv4Addr::new(10, 3, 0, 100 + last));
        }
        let mut service = ServiceConfig::new(Ipv4Addr::new(10, 0, 0, 100), protocol, 80);
        for last in 0..16 {
            let address = SocketAddr::from((Ipv4Addr::new(10, 3, 0, 20 + last), 80));
            service.targets.push(TargetConfig {
                address,
                weight: 1,
                up: true,
                draining: false,
                cut: false,
            });
        }
        builder.service(service);
        let tables = builder
            .build(&mut Ids::new(&limits), None)
            .expect("the bench's own configuration");
        let counters = Arc::new(Counters::new(1, &limits));
        let worker = Worker::new(0, 1, &limits, Secret::new([1; 32]), counters);
        let mut bench = Self {
            tables,
            worker,
            out: Emitted::new(),
            now: Now(1),
            random: 1,
            local: Vec::new(),
            shifts: Vec::new(),
            protocol,
            bursts: 0,
        };
        bench.worker.tick(&bench.tables, bench.now, &mut bench.out);
        let gateway = (0, Ipv4Addr::new(10, 2, 0, 1));
        for (port, address) in (0..16)
            .map(|last| (1, Ipv4Addr::new(10, 3, 0, 20 + last)))
            .chain([gateway])
        {
            let learned = Learned {
                port: PortIndex(port),
                address: address.into(),
                mac: MacAddr([2, 0, 0, 0, 1, 0]),
                weight: Weight::Claim,
            };
            bench.worker.learn(bench.now, learned, &mut bench.out);
        }
        // That the router lives is taken note of before there are flows, which would look their next hops up anew.
        bench.worker.tick(&bench.tables, bench.now, &mut bench.out);
        for flow in 0..flows {
            let mut frames = [bench.client_frame(flow, 2)];
            bench.send(0, &mut frames);
            let [frame] = frames;
            bench.local.push(frame.local_end());
            bench.shifts.push(frame.sequence());
            if protocol == Protocol::Tcp {
                let mut frames = [bench.target_frame(flow, 0x12)];
                bench.send(1, &mut frames);
                let mut frames = [bench.client_frame(flow, 0x10)];
                bench.send(0, &mut frames);
            }
        }
        let are_open = match protocol {
            Protocol::Tcp => FlowState::Established,
            Protocol::Udp => FlowState::Udp,
        };
        let open = bench.worker.flows(bench.now);
        let open = open.filter(|flow| flow.state == are_open).count();
        assert_eq!(open, flows as usize);
        bench
    }

    fn send<const N: usize>(&mut self, port: u16, frames: &mut [Buffer; N]) {
        let mut verdicts = [Verdict::Kernel; N];
        self.worker.burst(
            &self.tables,
            self.now,
            PortIndex(port),
            frames,
            &mut verdicts,
            &mut self.out,
        );
        assert!(
            matches!(verdicts[0], Verdict::Transmit(_)),
            "{:?}",
            verdicts[0]
        );
        self.out.clear();
    }

    /// Nanoseconds a packet of one round; of each three bursts, `returning` are answers.
    fn round(&mut self, flows: u32, returning: usize) -> f64 {
        let seed = self.random;
        let made = self.time(flows, returning, None);
        self.random = seed;
        (self.time(flows, returning, Some(BURSTS)) - made) / (BURST * BURSTS) as f64
    }

    fn time(&mut self, flows: u32, returning: usize, forward: Option<usize>) -> f64 {
        let mut frames = [self.client_frame(0, 0x10); BURST];
        let mut verdicts = [Verdict::Kernel; BURST];
        let start = cpu_time();
        for burst in 0..forward.unwrap_or(BURSTS) {
            let back = burst % 4 < returning;
            for frame in &mut frames {
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let flow = (((self.random >> 32) * u64::from(flows)) >> 32) as u32;
                *frame = if back {
                    self.target_frame(flow, 0x10)
                } else {
                    self.client_frame(flow, 0x10)
                };
            }
            if forward.is_some() {
                self.measured(u16::from(back), &mut frames, &mut verdicts);
                if burst % 64 == 0 {
                    self.worker.tick(&self.tables, self.now, &mut self.out);
                }
                self.out.clear();
            }
            std::hint::black_box((&frames, &verdicts));
        }
        (cpu_time() - start) as f64
    }

    /// First packets of flows beyond the `first`.
    fn open(&mut self, first: u32) {
        for burst in 0..COUNTED_BURSTS as u32 {
            let next = first + burst * BURST as u32;
            self.play(
                0,
                std::array::from_fn(|index| self.client_frame(next + index as u32, 2)),
            );
        }
    }

    /// Whole connections, each the first `flows` of them again and again. Segments carry 6 bytes.
    fn connect(&mut self, flows: u32) {
        let mut next = 0;
        while self.bursts < COUNTED_BURSTS {
            let numbers: [u32; BURST] = std::array::from_fn(|index| next + index as u32);
            next = (next + BURST as u32) % (flows - flows % BURST as u32);
            let syns = self.play(0, numbers.map(|flow| self.client_frame(flow, 0x02)));
            for (flow, syn) in numbers.into_iter().zip(&syns) {
                self.local[flow as usize] = syn.local_end();
                self.shifts[flow as usize] = syn.sequence();
            }
            self.play(1, numbers.map(|flow| self.target_frame(flow, 0x12)));
            self.play(0, numbers.map(|flow| self.client_frame(flow, 0x10)));
            self.play(0, numbers.map(|flow| self.client_frame(flow, 0x18)));
            let heard = |bench: &Self, flow: u32| bench.shifts[flow as usize].wrapping_add(7);
            let answer = numbers.map(|flow| {
                let mut frame = self.target_frame(flow, 0x19);
                frame.acknowledge(1, heard(self, flow));
                frame
            });
            self.play(1, answer);
            let fin = numbers.map(|flow| {
                let mut frame = self.client_frame(flow, 0x11);
                frame.acknowledge(7, 8);
                frame
            });
            self.play(0, fin);
            let last = numbers.map(|flow| {
                let mut frame = self.target_frame(flow, 0x10);
                frame.acknowledge(8, heard(self, flow).wrapping_add(7));
                frame
            });
            self.play(1, last);
        }
        let closed = self.worker.flows(self.now);
        let closed = closed.filter(|flow| flow.state == FlowState::TimeWait);
        assert_eq!(closed.count(), (flows - flows % BURST as u32) as usize);
    }

    /// One burst that has to be forwarded; as it was forwarded.
    fn play(&mut self, port: u16, mut frames: [Buffer; BURST]) -> [Buffer; BURST] {
        let mut verdicts = [Verdict::Kernel; BURST];
        self.measured(port, &mut frames, &mut verdicts);
        let sent = |verdict: &Verdict| matches!(verdict, Verdict::Transmit(_));
        assert!(verdicts.iter().all(sent), "{verdicts:?}");
        self.out.clear();
        frames
    }

    /// One burst; a function of its own, so that a profiler can tell it from the making of frames.
    #[inline(never)]
    fn measured(
        &mut self,
        port: u16,
        frames: &mut [Buffer; BURST],
        verdicts: &mut [Verdict; BURST],
    ) {
        self.now.0 += 1000;
        self.bursts += 1;
        self.worker.burst(
            &self.tables,
            self.now,
            PortIndex(port),
            frames,
            verdicts,
            &mut self.out,
        );
    }

    fn client_frame(&self, flow: u32, flags: u8) -> Buffer {
        let source = Ipv4Addr::from_bits(0x0b00_0000 + flow / 16);
        let mut frame = self.frame(
            0,
            source,
            1024 + (flow % 16) as u16,
            Ipv4Addr::new(10, 0, 0, 100),
            80,
            flags,
        );
        match self.protocol {
            Protocol::Tcp if flags & 0x10 != 0 => frame.acknowledge(1, 1),
            // No flow begins without.
            Protocol::Tcp => frame.seal(),
            Protocol::Udp => {}
        }
        frame
    }

    fn target_frame(&self, flow: u32, flags: u8) -> Buffer {
        let (port, [local, target, ..]) = self.local[flow as usize];
        let mut frame = self.frame(
            1,
            Ipv4Addr::new(10, 3, 0, target),
            80,
            Ipv4Addr::new(10, 3, 0, local),
            port,
            flags,
        );
        if self.protocol == Protocol::Tcp {
            let of_syn = u32::from(flags & 2 == 0);
            frame.acknowledge(of_syn, self.shifts[flow as usize].wrapping_add(1));
        }
        frame
    }

    #[inline]
    fn frame(
        &self,
        port: u8,
        source: Ipv4Addr,
        sport: u16,
        destination: Ipv4Addr,
        dport: u16,
        flags: u8,
    ) -> Buffer {
        let mut bytes = [0; 128];
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, port, 2, 0, 0, 0, 1, 0, 8, 0]);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, self.protocol as u8]);
        bytes[26..30].copy_from_slice(&source.octets());
        bytes[30..34].copy_from_slice(&destination.octets());
        let mut sum = 0x4500 + 46 + 0x4000 + self.protocol as u32;
        for address in [source.to_bits(), destination.to_bits()] {
            sum += (address >> 16) + (address & 0xffff);
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        bytes[34..36].copy_from_slice(&sport.to_be_bytes());
        bytes[36..38].copy_from_slice(&dport.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => bytes[46..48].copy_from_slice(&[0x50, flags]),
            Protocol::Udp => bytes[38..40].copy_from_slice(&[0, 26]),
        }
        Buffer { bytes, length: 60 }
    }
}
