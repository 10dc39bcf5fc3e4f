//! Established flows: what both ends know of them, how they are opened, and the frames they carry afterwards.
//!
//! A TCP flow is open when its target got the client's ACK: with less the gateway would let it expire soon. Where targets are told of clients
//! by PROXY v2, that ACK carries the first payload: behind its header the numbers of all segments are shifted, which is what a stream shows.

use std::time::Duration;

use anyhow::{Result, bail};
use dataplane::{Frame, Protocol};
use l4_gateway::dpdk::Mbuf;

use crate::address::{Addressing, Endpoint};
use crate::packet::{self, ACK, Ethernet, PAYLOAD, PROXY, PSH, SYN, Seen, Segment};
use crate::rig::{Generator, Rig, SEND};
use crate::stream::{Counted, Stream, Ways};

/// Flows being opened at once. Each has one packet under way, and the rings hold 1024.
const AT_ONCE: usize = 512;
/// After so long without one more open they are asked again; first packets may be dropped while next hops are resolved.
const SILENCE: Duration = Duration::from_millis(20);
/// How long opening flows may go on without one more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The flows of one protocol through one gateway, and what their targets know of them.
pub(crate) struct Flows {
    pub(crate) addressing: Addressing,
    /// Whether targets get a PROXY header in front of a flow's first payload.
    proxy: bool,
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

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its first packet is still to be answered.
    First,
    /// The client's ACK is still to reach the target.
    Ack,
    Open,
}

/// From and to.
pub(crate) type Ends = (Endpoint, Endpoint);

impl Flows {
    pub(crate) fn new(addressing: Addressing, proxy: bool) -> Flows {
        Flows {
            addressing,
            proxy: proxy && addressing.protocol == Protocol::Tcp,
            learned: Vec::new(),
        }
    }

    /// Opens flows until there are `count`: each target hears of its flow, TCP shakes hands. Nothing is under way afterwards.
    pub(crate) fn establish(
        &mut self,
        generator: &mut Generator,
        rig: &mut Rig,
        count: u32,
    ) -> Result<()> {
        let first = self.learned.len() as u32;
        if first < count {
            self.learned.resize(count as usize, Learned::default());
            let stages = vec![Stage::First; (count - first) as usize];
            let mut opening = Opening {
                flows: self,
                first,
                stages,
            };
            opening.open(generator, rig)?;
        }
        // What was asked twice is answered twice, and the second answers would be taken for frames of what is measured next.
        let stream = Stream {
            flows: self,
            count,
            ways: Ways::Both,
            translated: true,
        };
        stream.settle(generator, rig, &mut Counted::default())
    }

    /// Ends and numbers of a frame of the stream: as its sender makes it, or with `translated` as its receiver gets it. None of a flow that
    /// isn't open.
    #[inline]
    pub(crate) fn frame_of(
        &self,
        flow: u32,
        inward: bool,
        translated: bool,
    ) -> Option<(Ends, Segment)> {
        // Looked at only where it matters: in a million flows each look is a cache miss.
        let learned = self.learned.get(flow as usize)?;
        let ends = match inward != translated {
            true => self.client_ends(flow),
            false => self.target_ends(flow, *learned),
        };
        // The one who receives a translated frame gets it as from whom it knows.
        let ends = if translated { (ends.1, ends.0) } else { ends };
        let segment = match self.addressing.protocol {
            Protocol::Udp => Segment::NONE,
            Protocol::Tcp => {
                let target_next = target_initial(flow).wrapping_add(1);
                // A client counts by its own numbers, a target by those that the gateway made of them.
                let client_next = if inward == translated {
                    learned.initial.wrapping_add(1 + self.payload_before(true))
                } else {
                    client_initial(flow).wrapping_add(1 + self.payload_before(false))
                };
                let (sequence, acknowledgment) = if inward {
                    (client_next, target_next)
                } else {
                    (target_next, client_next)
                };
                Segment {
                    sequence,
                    acknowledgment,
                    flags: PSH | ACK,
                    payload: PAYLOAD,
                }
            }
        };
        Some((ends, segment))
    }

    /// Makes a frame of the stream.
    #[inline]
    pub(crate) fn make(
        &self,
        flow: u32,
        inward: bool,
        (frame, ethernet): (&mut Mbuf, &Ethernet),
        stamp: u64,
    ) {
        let Some((ends, segment)) = self.frame_of(flow, inward, false) else {
            return;
        };
        match self.addressing.protocol {
            Protocol::Udp => packet::udp(frame, ethernet, ends, flow, stamp),
            Protocol::Tcp => packet::tcp(frame, ethernet, ends, (flow, stamp), &segment),
        }
    }

    #[inline]
    fn client_ends(&self, flow: u32) -> Ends {
        (self.addressing.client(flow), self.addressing.vip(flow))
    }

    #[inline]
    fn target_ends(&self, flow: u32, learned: Learned) -> Ends {
        (
            self.addressing.target(flow, u32::from(learned.target)),
            self.addressing
                .local(u32::from(learned.local), learned.port),
        )
    }

    /// Bytes that clients sent before the stream, as clients count them and as targets do.
    #[inline]
    fn payload_before(&self, at_target: bool) -> u32 {
        match (self.proxy, at_target) {
            (false, _) => 0,
            (true, false) => u32::from(PAYLOAD),
            (true, true) => u32::from(PAYLOAD) + PROXY as u32,
        }
    }
}

/// Flows being opened.
struct Opening<'a> {
    flows: &'a mut Flows,
    /// The number of the first of them.
    first: u32,
    /// By number, from the first.
    stages: Vec<Stage>,
}

impl Opening<'_> {
    fn open(&mut self, generator: &mut Generator, rig: &mut Rig) -> Result<()> {
        let count = self.first + self.stages.len() as u32;
        let mut left: Vec<u32> = (self.first..count).collect();
        let mut progress = generator.tsc.now().0;
        let mut passes = 0;
        while !left.is_empty() {
            let before = left.len();
            // An ACK that was lost is sent again; the next time the flow may have expired, and all of it is.
            if passes % 2 == 0 {
                for flow in &left {
                    self.stages[(flow - self.first) as usize] = Stage::First;
                }
            }
            passes += 1;
            let mut under_way = 0;
            for batch in left.chunks(SEND) {
                self.send(generator, rig, true, batch);
                under_way += batch.len();
                under_way = self.wait(generator, rig, under_way, AT_ONCE - SEND);
            }
            self.wait(generator, rig, under_way, 0);
            left.retain(|flow| self.stages[(flow - self.first) as usize] != Stage::Open);
            if left.len() < before {
                progress = generator.tsc.now().0;
            } else if generator.tsc.now().0 > progress + PATIENCE.as_nanos() as u64 {
                bail!("{} of {count} flows could not be opened", left.len());
            }
        }
        Ok(())
    }

    /// Until no more than `limit` flows are being opened; how many are. None of them, if nothing comes any more.
    fn wait(
        &mut self,
        generator: &mut Generator,
        rig: &mut Rig,
        mut under_way: usize,
        limit: usize,
    ) -> usize {
        let mut end = generator.tsc.now().0 + SILENCE.as_nanos() as u64;
        while under_way > limit {
            let opened = self.hear(generator, rig);
            let now = generator.tsc.now().0;
            if opened > 0 {
                end = now + SILENCE.as_nanos() as u64;
            } else if now > end {
                return 0;
            }
            under_way = under_way.saturating_sub(opened);
        }
        under_way
    }

    /// Sends what is next in these flows, at most [`SEND`]: by their clients, or their targets' answers.
    fn send(&self, generator: &mut Generator, rig: &mut Rig, from_clients: bool, flows: &[u32]) {
        let arm = if from_clients {
            &mut rig.outer
        } else {
            &mut rig.inner
        };
        generator.send(arm, flows.len(), |index, frame, ethernet| {
            let flow = flows[index];
            let (ends, segment) = self.next(flow, from_clients);
            match self.flows.addressing.protocol {
                Protocol::Udp => packet::udp(frame, ethernet, ends, flow, 0),
                Protocol::Tcp => packet::tcp(frame, ethernet, ends, (flow, 0), &segment),
            }
        });
    }

    fn next(&self, flow: u32, from_client: bool) -> (Ends, Segment) {
        let (ours, theirs) = (client_initial(flow), target_initial(flow));
        let segment = |sequence, acknowledgment, flags, payload| Segment {
            sequence,
            acknowledgment,
            flags,
            payload,
        };
        if !from_client {
            let learned = self.flows.learned[flow as usize];
            let answer = segment(theirs, learned.initial.wrapping_add(1), SYN | ACK, 0);
            return (self.flows.target_ends(flow, learned), answer);
        }
        let (next, heard) = (ours.wrapping_add(1), theirs.wrapping_add(1));
        let segment = match self.stages[(flow - self.first) as usize] {
            Stage::First => segment(ours, 0, SYN, 0),
            _ if self.flows.proxy => segment(next, heard, PSH | ACK, PAYLOAD),
            _ => segment(next, heard, ACK, 0),
        };
        (self.flows.client_ends(flow), segment)
    }

    /// Takes in what both sides got, and answers it; how many flows are open by it.
    fn hear(&mut self, generator: &mut Generator, rig: &mut Rig) -> usize {
        let protocol = self.flows.addressing.protocol;
        let mut opened = 0;
        generator.receive(&mut rig.inner);
        let mut answers = Vec::new();
        for frame in &generator.received {
            let Some(seen) = packet::read(frame.bytes(), protocol) else {
                continue;
            };
            if let Some(learned) = self.learn(&seen) {
                self.flows.learned[seen.tag as usize] = learned;
                match protocol {
                    Protocol::Tcp => answers.push(seen.tag),
                    Protocol::Udp => opened += self.step(seen.tag, Stage::Open),
                }
            } else if self.is_ack(&seen, frame.bytes()) {
                opened += self.step(seen.tag, Stage::Open);
            }
        }
        generator.done();
        for batch in answers.chunks(SEND) {
            self.send(generator, rig, false, batch);
        }
        generator.receive(&mut rig.outer);
        let mut connected = Vec::new();
        if protocol == Protocol::Tcp {
            for frame in &generator.received {
                let seen = packet::read(frame.bytes(), protocol);
                let Some(seen) = seen.filter(|seen| self.is_answer(seen)) else {
                    continue;
                };
                self.step(seen.tag, Stage::Ack);
                connected.push(seen.tag);
            }
        }
        generator.done();
        for batch in connected.chunks(SEND) {
            self.send(generator, rig, true, batch);
        }
        opened
    }

    /// Moves a flow on, never back; whether it moved.
    fn step(&mut self, flow: u32, to: Stage) -> usize {
        let stage = self.stage(flow).copied();
        let moves = matches!(
            (stage, to),
            (Some(Stage::First), _) | (Some(Stage::Ack), Stage::Open)
        );
        if moves && let Some(stage) = self.stage(flow) {
            *stage = to;
        }
        usize::from(moves)
    }

    fn stage(&mut self, flow: u32) -> Option<&mut Stage> {
        self.stages.get_mut(flow.checked_sub(self.first)? as usize)
    }

    /// What a target learns from a flow's first packet.
    fn learn(&self, seen: &Seen) -> Option<Learned> {
        let addressing = &self.flows.addressing;
        let opens = addressing.protocol == Protocol::Udp || seen.segment.flags == SYN;
        if !opens || seen.tag as usize >= self.flows.learned.len() {
            return None;
        }
        Some(Learned {
            port: seen.from.port,
            local: addressing.local_number(seen.from)? as u8,
            target: addressing.target_number(seen.tag, seen.to)? as u8,
            initial: seen.segment.sequence,
        })
    }

    /// Whether a target got the client's ACK; with a payload, behind the header that names the client.
    fn is_ack(&self, seen: &Seen, frame: &[u8]) -> bool {
        let Some(learned) = self.flows.learned.get(seen.tag as usize) else {
            return false;
        };
        let (client, vip) = self.flows.client_ends(seen.tag);
        let (target, local) = self.flows.target_ends(seen.tag, *learned);
        let expected = Segment {
            sequence: learned.initial.wrapping_add(1),
            acknowledgment: target_initial(seen.tag).wrapping_add(1),
            flags: if self.flows.proxy { PSH | ACK } else { ACK },
            payload: self.flows.payload_before(true) as u16,
        };
        (seen.from, seen.to) == (local, target)
            && seen.segment == expected
            && (!self.flows.proxy || packet::begins_with(frame, &packet::proxy_header(client, vip)))
    }

    /// Whether a frame is the answer to a client's SYN, with the client's own numbers.
    fn is_answer(&self, seen: &Seen) -> bool {
        let (client, vip) = self.flows.client_ends(seen.tag);
        seen.segment.flags == SYN | ACK
            && (seen.tag as usize) < self.flows.learned.len()
            && seen.tag >= self.first
            && (seen.from, seen.to) == (vip, client)
            && seen.segment.acknowledgment == client_initial(seen.tag).wrapping_add(1)
            && seen.segment.sequence == target_initial(seen.tag)
    }
}

#[inline]
pub(crate) fn client_initial(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}

#[inline]
pub(crate) fn target_initial(number: u32) -> u32 {
    number.wrapping_mul(0x85eb_ca77).wrapping_add(7)
}

#[cfg(test)]
impl Flows {
    /// Ten flows that are open, each with another LocalIP, port, target and initial sequence number.
    pub(crate) fn open_already(protocol: Protocol, proxy: bool) -> Flows {
        let addressing = Addressing {
            protocol,
            services: 1,
            targets: 16,
        };
        let learned = |flow: u8| Learned {
            port: 30_000 + u16::from(flow),
            local: flow % 8,
            target: flow,
            initial: u32::MAX - u32::from(flow) * 10,
        };
        Flows {
            learned: (0..10).map(learned).collect(),
            ..Flows::new(addressing, proxy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(flows: &mut Flows) -> Opening<'_> {
        Opening {
            first: 0,
            stages: vec![Stage::First; 10],
            flows,
        }
    }

    #[test]
    fn a_flow_is_open_once_its_target_got_the_clients_ack() {
        for proxy in [false, true] {
            let mut flows = Flows::open_already(Protocol::Tcp, proxy);
            let mut opening = opening(&mut flows);
            assert_eq!(opening.next(3, true).1.flags, SYN);
            assert_eq!(opening.step(3, Stage::Ack), 1);
            let (ends, ack) = opening.next(3, true);
            assert_eq!(ends, opening.flows.client_ends(3));
            assert_eq!((ack.flags & SYN, ack.payload > 0), (0, proxy));
            // The answer to a SYN that was sent twice doesn't take it back, nor is it counted.
            assert_eq!(opening.step(3, Stage::Ack), 0);
            assert_eq!(opening.step(3, Stage::Open), 1);
            assert_eq!(opening.step(3, Stage::Ack), 0);
            assert_eq!(opening.stages[3], Stage::Open);
            // Flows that were opened before are none of its business.
            opening.first = 4;
            assert_eq!(opening.step(3, Stage::Open), 0);
        }
    }

    #[test]
    fn an_ack_counts_with_the_numbers_and_the_header_of_its_client() {
        for proxy in [false, true] {
            let mut flows = Flows::open_already(Protocol::Tcp, proxy);
            let opening = opening(&mut flows);
            let (client, vip) = opening.flows.client_ends(3);
            let learned = opening.flows.learned[3];
            let (target, local) = opening.flows.target_ends(3, learned);
            let seen = Seen {
                from: local,
                to: target,
                tag: 3,
                segment: Segment {
                    sequence: learned.initial.wrapping_add(1),
                    acknowledgment: target_initial(3).wrapping_add(1),
                    flags: if proxy { PSH | ACK } else { ACK },
                    payload: if proxy { PAYLOAD + PROXY as u16 } else { 0 },
                },
            };
            let frame = |header: &[u8]| {
                let mut frame = vec![0; 54];
                frame[46] = 0x50;
                frame.extend(header);
                frame.extend([0; PAYLOAD as usize]);
                frame
            };
            let header = packet::proxy_header(client, vip);
            assert!(opening.is_ack(&seen, &frame(&header)));
            let mut other = header;
            other[19] ^= 1;
            assert_eq!(opening.is_ack(&seen, &frame(&other)), !proxy);
            let from_elsewhere = Seen { from: vip, ..seen };
            assert!(!opening.is_ack(&from_elsewhere, &frame(&header)));
            let of_client = Segment {
                sequence: client_initial(3).wrapping_add(1),
                ..seen.segment
            };
            let untranslated = Seen {
                segment: of_client,
                ..seen
            };
            assert!(!opening.is_ack(&untranslated, &frame(&header)));
        }
    }

    #[test]
    fn behind_a_header_both_ends_count_on_in_their_own_numbers() {
        let flows = Flows::open_already(Protocol::Tcp, true);
        let frame = |inward, translated| flows.frame_of(3, inward, translated).unwrap();
        let initial = flows.learned[3].initial;
        let sent = u32::from(PAYLOAD);
        let got = sent + PROXY as u32;
        let numbers = |segment: Segment| (segment.sequence, segment.acknowledgment);
        let (ours, theirs) = (client_initial(3), target_initial(3));
        let next = |initial: u32, n: u32| initial.wrapping_add(1 + n);
        assert_eq!(
            numbers(frame(true, false).1),
            (next(ours, sent), next(theirs, 0))
        );
        assert_eq!(
            numbers(frame(true, true).1),
            (next(initial, got), next(theirs, 0))
        );
        assert_eq!(
            numbers(frame(false, false).1),
            (next(theirs, 0), next(initial, got))
        );
        assert_eq!(
            numbers(frame(false, true).1),
            (next(theirs, 0), next(ours, sent))
        );
        assert_eq!(flows.frame_of(10, true, true), None, "not one of the flows");
    }
}
