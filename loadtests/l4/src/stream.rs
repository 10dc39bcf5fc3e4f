//! Streams of 64-byte frames over established flows in random order: how many get through in a time, and how long one takes.
//!
//! The load is a closed loop: a bounded number of frames is under way each way, fewer than the rings hold, so that neither end has
//! to drop and what is missing afterwards was lost by the forwarder. The rate is then what it can do without loss.

use std::time::Duration;

use anyhow::{Result, bail};
use dataplane::{Frame, Protocol};
use l4_gateway::dpdk::Mbuf;

use crate::address::{Addressing, Endpoint};
use crate::packet::{self, ACK, Ethernet, PAYLOAD, PSH, SYN, Segment};
use crate::rig::{Generator, Rig, SEND};

/// Frames under way each way; the rings hold 1024.
const WINDOW: usize = 512;
/// What has not come back by then is lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long opening flows may go on without one more; first packets may be dropped while next hops are resolved.
const OPENING: Duration = Duration::from_secs(10);

/// The flows of one protocol through one gateway, and what their targets know of them.
pub(crate) struct Flows {
    pub(crate) addressing: Addressing,
    learned: Vec<Learned>,
}

/// How a target sees a flow.
#[derive(Clone, Copy, Default)]
struct Learned {
    /// Port of the LocalIP; 0 until the flow has been seen.
    port: u16,
    local: u8,
    target: u8,
    /// The client's initial sequence number as the target got it.
    initial: u32,
}

/// Which ways frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// From clients to targets.
    In,
    /// As many from targets to clients.
    Both,
}

/// What a window saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Frames through in the time measured.
    pub(crate) frames: u64,
    pub(crate) nanoseconds: u64,
    /// Sent, over all of the window, and of these not received.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Of the frames that were looked at, those with a wrong address or checksum.
    pub(crate) wrong: u64,
}

impl Counted {
    /// Million frames a second.
    pub(crate) fn mpps(&self) -> f64 {
        self.frames as f64 * 1000.0 / self.nanoseconds.max(1) as f64
    }

    pub(crate) fn add(&mut self, other: &Counted) {
        self.frames += other.frames;
        self.nanoseconds += other.nanoseconds;
        self.sent += other.sent;
        self.lost += other.lost;
        self.wrong += other.wrong;
    }
}

/// One window of a stream.
#[derive(Clone, Copy)]
pub(crate) struct Stream<'a> {
    pub(crate) flows: &'a Flows,
    /// Over the first so many of them.
    pub(crate) count: u32,
    pub(crate) ways: Ways,
    /// Whether it goes through a gateway, whose work is checked, or comes back as it was.
    pub(crate) translated: bool,
}

impl Flows {
    pub(crate) fn new(addressing: Addressing) -> Flows {
        Flows {
            addressing,
            learned: Vec::new(),
        }
    }

    /// Opens flows until there are `count`: each target hears of its flow, TCP shakes hands.
    pub(crate) fn establish(
        &mut self,
        generator: &mut Generator,
        rig: &mut Rig,
        count: u32,
    ) -> Result<()> {
        let first = self.learned.len() as u32;
        self.learned.resize(count as usize, Learned::default());
        let mut left: Vec<u32> = (first..count).collect();
        let mut open = vec![false; left.len()];
        let mut progress = generator.tsc.now().0;
        while !left.is_empty() {
            let before = left.len();
            for batch in left.chunks(SEND) {
                let addressing = self.addressing;
                generator.send(&mut rig.outer, batch.len(), |index, frame, ethernet| {
                    opening(&addressing, batch[index], frame, ethernet);
                });
                let end = generator.tsc.now().0 + 20_000;
                let mut heard = 0;
                while heard < batch.len() && generator.tsc.now().0 < end {
                    heard += self.hear(generator, rig, first, &mut open);
                }
            }
            let end = generator.tsc.now().0 + 5_000_000;
            while generator.tsc.now().0 < end && !open.iter().all(|open| *open) {
                self.hear(generator, rig, first, &mut open);
            }
            left.retain(|flow| !open[(flow - first) as usize]);
            if left.len() < before {
                progress = generator.tsc.now().0;
            } else if generator.tsc.now().0 > progress + OPENING.as_nanos() as u64 {
                bail!("{} of {count} flows could not be opened", left.len());
            }
        }
        Ok(())
    }

    /// Takes in what both sides got; how many flows are open by it.
    fn hear(
        &mut self,
        generator: &mut Generator,
        rig: &mut Rig,
        first: u32,
        open: &mut [bool],
    ) -> usize {
        let mut opened = 0;
        generator.receive(&mut rig.inner);
        let mut answers = Vec::new();
        for frame in &generator.received {
            let Some((flow, learned)) = self.learn(frame.bytes()) else {
                continue;
            };
            self.learned[flow as usize] = learned;
            match self.addressing.protocol {
                Protocol::Tcp => answers.push(flow),
                Protocol::Udp => opened += mark(open, flow, first),
            }
        }
        generator.done();
        for batch in answers.chunks(SEND) {
            let flows = &*self;
            generator.send(&mut rig.inner, batch.len(), |index, frame, ethernet| {
                flows.target_frame(batch[index], SYN | ACK, frame, ethernet, 0);
            });
        }
        generator.receive(&mut rig.outer);
        let mut opening = Vec::new();
        if self.addressing.protocol == Protocol::Tcp {
            for frame in &generator.received {
                let seen = packet::read(frame.bytes(), Protocol::Tcp);
                let Some(seen) = seen.filter(|seen| self.is_answer(seen)) else {
                    continue;
                };
                opened += mark(open, seen.tag, first);
                opening.push(seen.tag);
            }
        }
        generator.done();
        for batch in opening.chunks(SEND) {
            let flows = &*self;
            generator.send(&mut rig.outer, batch.len(), |index, frame, ethernet| {
                flows.client_frame(batch[index], ACK, frame, ethernet, 0);
            });
        }
        opened
    }

    /// What a target learns from a flow's first packet.
    fn learn(&self, frame: &[u8]) -> Option<(u32, Learned)> {
        let seen = packet::read(frame, self.addressing.protocol)?;
        let opens = self.addressing.protocol == Protocol::Udp || seen.segment.flags == SYN;
        if !opens || seen.tag as usize >= self.learned.len() {
            return None;
        }
        let learned = Learned {
            port: seen.from.port,
            local: self.addressing.local_number(seen.from)? as u8,
            target: self.addressing.target_number(seen.tag, seen.to)? as u8,
            initial: seen.segment.sequence,
        };
        Some((seen.tag, learned))
    }

    /// Whether a frame is the answer to a client's SYN, with the client's own numbers.
    fn is_answer(&self, seen: &packet::Seen) -> bool {
        let (flow, addressing) = (seen.tag, &self.addressing);
        seen.segment.flags == SYN | ACK
            && (flow as usize) < self.learned.len()
            && (seen.from, seen.to) == (addressing.vip(flow), addressing.client(flow))
            && seen.segment.acknowledgment == client_initial(flow).wrapping_add(1)
            && seen.segment.sequence == target_initial(flow)
    }

    #[inline]
    fn client_frame(
        &self,
        flow: u32,
        flags: u8,
        frame: &mut Mbuf,
        ethernet: &Ethernet,
        stamp: u64,
    ) {
        let ends = (self.addressing.client(flow), self.addressing.vip(flow));
        match self.addressing.protocol {
            Protocol::Udp => packet::udp(frame, ethernet, ends, flow, stamp),
            Protocol::Tcp => {
                let segment = Segment {
                    sequence: client_initial(flow).wrapping_add(1),
                    acknowledgment: target_initial(flow).wrapping_add(1),
                    flags,
                    payload: if flags & PSH != 0 { PAYLOAD } else { 0 },
                };
                packet::tcp(frame, ethernet, ends, flow, &segment);
            }
        }
    }

    #[inline]
    fn target_frame(
        &self,
        flow: u32,
        flags: u8,
        frame: &mut Mbuf,
        ethernet: &Ethernet,
        stamp: u64,
    ) {
        let learned = self.learned[flow as usize];
        let ends = self.target_ends(flow, learned);
        match self.addressing.protocol {
            Protocol::Udp => packet::udp(frame, ethernet, ends, flow, stamp),
            Protocol::Tcp => {
                let after_syn = u32::from(flags & SYN == 0);
                let segment = Segment {
                    sequence: target_initial(flow).wrapping_add(after_syn),
                    acknowledgment: learned.initial.wrapping_add(1),
                    flags,
                    payload: if flags & PSH != 0 { PAYLOAD } else { 0 },
                };
                packet::tcp(frame, ethernet, ends, flow, &segment);
            }
        }
    }

    #[inline]
    fn target_ends(&self, flow: u32, learned: Learned) -> (Endpoint, Endpoint) {
        (
            self.addressing.target(flow, u32::from(learned.target)),
            self.addressing
                .local(u32::from(learned.local), learned.port),
        )
    }
}

impl Stream<'_> {
    /// Runs at full speed: `warm` unmeasured, then `length`.
    pub(crate) fn run(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        warm: Duration,
        length: Duration,
    ) -> Counted {
        let mut counted = Counted::default();
        // Under way: towards targets, towards clients.
        let mut under_way = [0usize; 2];
        let (mut received, mut heard) = (0, generator.tsc.now().0);
        let begin = generator.tsc.now().0 + warm.as_nanos() as u64;
        let end = begin + length.as_nanos() as u64;
        let mut measured_from = None;
        loop {
            let now = generator.tsc.now().0;
            if now >= end {
                counted.nanoseconds = now - measured_from.unwrap_or(now);
                break;
            }
            if measured_from.is_none() && now >= begin {
                measured_from = Some(now);
                counted.frames = 0;
            }
            let back = self.take(generator, rig, true, &mut counted);
            under_way[0] = under_way[0].saturating_sub(back);
            received += back;
            if under_way[0] + SEND <= WINDOW {
                under_way[0] += self.put(generator, rig, true, (0, SEND), &mut counted);
            }
            let returned = self.take(generator, rig, false, &mut counted);
            under_way[1] = under_way[1].saturating_sub(returned);
            received += returned;
            if back + returned > 0 {
                heard = now;
            } else if now > heard + PATIENCE.as_nanos() as u64 {
                // All that is under way was lost, or the forwarder was off its CPU: either shows in the figures.
                (under_way, heard) = ([0; 2], now);
            }
            if self.ways == Ways::Both && under_way[1] + SEND <= WINDOW {
                under_way[1] += self.put(generator, rig, false, (0, SEND), &mut counted);
            }
        }
        let frames = counted.frames;
        received += self.drain(generator, rig, under_way[0] + under_way[1], &mut counted);
        counted.frames = frames;
        counted.lost = counted.sent.saturating_sub(received as u64);
        counted
    }

    /// Sends `rate` frames a second, in, and adds each one's way to `samples`, in nanoseconds.
    pub(crate) fn paced(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        rate: f64,
        (warm, length): (Duration, Duration),
        samples: &mut Vec<u32>,
    ) -> Counted {
        let mut counted = Counted::default();
        let start = generator.tsc.now().0;
        let begin = start + warm.as_nanos() as u64;
        let end = begin + length.as_nanos() as u64;
        let mut received = 0;
        loop {
            let now = generator.tsc.now().0;
            if now >= end {
                break;
            }
            generator.receive(&mut rig.inner);
            let arrived = generator.tsc.now().0;
            for frame in &generator.received {
                if let Some(sent) = packet::stamp(frame.bytes()).filter(|sent| *sent >= begin) {
                    samples.push(arrived.saturating_sub(sent).min(u64::from(u32::MAX)) as u32);
                }
            }
            received += generator.received.len() as u64;
            generator.done();
            generator.receive(&mut rig.outer);
            generator.done();
            let due = ((now - start) as f64 * rate / 1e9) as u64;
            // What could not be sent in time is not made up for in one burst: that would measure ourselves.
            let behind = due.saturating_sub(counted.sent + counted.frames) as usize;
            if behind > SEND {
                counted.frames += (behind - SEND) as u64;
            }
            let burst = behind.min(SEND);
            if burst > 0 {
                let stamp = generator.tsc.now().0;
                self.put(generator, rig, true, (stamp, burst), &mut counted);
            }
        }
        let under_way = counted.sent.saturating_sub(received) as usize;
        received += self.drain(generator, rig, under_way, &mut counted) as u64;
        counted.lost = counted.sent.saturating_sub(received);
        counted.nanoseconds = end - start;
        counted.frames = received;
        counted
    }

    /// Receives on one side; how many frames.
    #[inline]
    fn take(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        inward: bool,
        counted: &mut Counted,
    ) -> usize {
        let arm = if inward {
            &mut rig.inner
        } else {
            &mut rig.outer
        };
        let received = generator.receive(arm);
        if received == 0 {
            return 0;
        }
        // One frame of each burst is looked at, or this would be a bench of our own checks.
        if let Some(frame) = generator.received.first() {
            counted.wrong += u64::from(!self.is_right(frame.bytes(), inward));
        }
        generator.done();
        counted.frames += received as u64;
        received
    }

    /// Whether a frame is what its receiver must get.
    fn is_right(&self, frame: &[u8], inward: bool) -> bool {
        let Some(seen) = packet::read(frame, self.flows.addressing.protocol) else {
            return false;
        };
        let Some(learned) = self.flows.learned.get(seen.tag as usize) else {
            return false;
        };
        let (target, local) = self.flows.target_ends(seen.tag, *learned);
        let addressing = &self.flows.addressing;
        let (client, vip) = (addressing.client(seen.tag), addressing.vip(seen.tag));
        let tcp = addressing.protocol == Protocol::Tcp;
        let (expected, sequence) = match (self.translated, inward) {
            (true, true) => ((local, target), learned.initial),
            (true, false) => ((vip, client), target_initial(seen.tag)),
            (false, true) => ((client, vip), client_initial(seen.tag)),
            (false, false) => ((target, local), target_initial(seen.tag)),
        };
        (seen.from, seen.to) == expected
            && (!tcp || seen.segment.sequence == sequence.wrapping_add(1))
    }

    /// Sends a burst from one side; how many frames went.
    #[inline]
    fn put(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        inward: bool,
        (stamp, count): (u64, usize),
        counted: &mut Counted,
    ) -> usize {
        let mut flows = [0; SEND];
        for flow in &mut flows[..count] {
            *flow = generator.order.next(self.count);
        }
        let sent = if inward {
            generator.send(&mut rig.outer, count, |index, frame, ethernet| {
                let flow = flows[index];
                self.flows
                    .client_frame(flow, PSH | ACK, frame, ethernet, stamp);
            })
        } else {
            generator.send(&mut rig.inner, count, |index, frame, ethernet| {
                let flow = flows[index];
                self.flows
                    .target_frame(flow, PSH | ACK, frame, ethernet, stamp);
            })
        };
        counted.sent += sent as u64;
        sent
    }

    /// Waits for what is under way, until nothing comes any more; how much came.
    fn drain(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        under_way: usize,
        counted: &mut Counted,
    ) -> usize {
        let patience = PATIENCE.as_nanos() as u64;
        let mut end = generator.tsc.now().0 + patience;
        let mut came = 0;
        while came < under_way && generator.tsc.now().0 < end {
            let back = self.take(generator, rig, true, counted)
                + self.take(generator, rig, false, counted);
            if back > 0 {
                came += back;
                end = generator.tsc.now().0 + patience;
            }
        }
        came
    }
}

/// Numbers in random order, each as likely as another (the generator of Knuth's MMIX).
pub(crate) struct Order(u64);

impl Order {
    pub(crate) fn new() -> Order {
        Order(0x9e37_79b9_7f4a_7c15)
    }

    /// One below `count`.
    #[inline]
    pub(crate) fn next(&mut self, count: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(count)) >> 32) as u32
    }
}

fn opening(addressing: &Addressing, flow: u32, frame: &mut Mbuf, ethernet: &Ethernet) {
    let ends = (addressing.client(flow), addressing.vip(flow));
    match addressing.protocol {
        Protocol::Udp => packet::udp(frame, ethernet, ends, flow, 0),
        Protocol::Tcp => {
            let segment = Segment {
                sequence: client_initial(flow),
                acknowledgment: 0,
                flags: SYN,
                payload: 0,
            };
            packet::tcp(frame, ethernet, ends, flow, &segment);
        }
    }
}

fn mark(open: &mut [bool], flow: u32, first: u32) -> usize {
    let place = flow
        .checked_sub(first)
        .and_then(|place| open.get_mut(place as usize));
    place.map_or(0, |open| usize::from(!std::mem::replace(open, true)))
}

#[inline]
pub(crate) fn client_initial(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

#[inline]
pub(crate) fn target_initial(number: u32) -> u32 {
    number.wrapping_mul(0x85eb_ca77).wrapping_add(7)
}
