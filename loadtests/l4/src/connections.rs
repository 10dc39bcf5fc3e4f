//! Whole TCP connections, one after the other in each of many slots, both ends played here and each packet checked in full.
//!
//! ```text
//!   client                gateway                target
//!     SYN ───────────────────────────────────────▶
//!      ◀─────────────────────────────────── SYN, ACK
//!     ACK, then the request ─────────────────────▶
//!      ◀──────────────────────── the answer, with FIN
//!     FIN, ACK ──────────────────────────────────▶
//!      ◀──────────────────────────────────────── ACK      7 packets; the client's port is used again soon after
//! ```

use std::time::Duration;

use dataplane::{Frame, Protocol};

use crate::address::{Addressing, Endpoint};
use crate::flows::{client_initial, target_initial};
use crate::packet::{self, ACK, FIN, PAYLOAD, PROXY, PSH, SYN, Seen, Segment};
use crate::rig::{Generator, Rig, SEND};
use crate::stream::note;

/// Connections under way at once: each has two packets under way at most, and the rings hold 1024.
pub(crate) const AT_ONCE: u32 = 256;
/// Clients' addresses and ports, used in turn: the same one again after so many connections.
pub(crate) const CLIENTS: u32 = 65_536;
/// The first of them, beyond those of flows that streams leave open.
const FIRST: u32 = 1 << 20;
/// When nothing has come for so long, connections under way have failed; long, as what comes later would be taken for a part of others.
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Finished in the time measured, each packet right.
    pub(crate) finished: u64,
    pub(crate) nanoseconds: u64,
    /// Over all of the window: connections that stopped short, and packets that were not what their receiver must get.
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
}

impl Outcome {
    /// Connections a second.
    pub(crate) fn rate(&self) -> f64 {
        self.finished as f64 * 1e9 / self.nanoseconds.max(1) as f64
    }
}

/// Both ends of one connection after another.
#[derive(Clone, Copy)]
struct Slot {
    /// Counts connections; the client's address follows from it and the slot.
    turn: u32,
    stage: Stage,
    /// How the target sees the client, and which target it is.
    local: Endpoint,
    target: Endpoint,
    /// The client's initial sequence number as the target got it.
    initial: u32,
}

/// Which packet is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Syn,
    SynAck,
    AckOfTarget,
    Request,
    Answer,
    Fin,
    LastAck,
    Idle,
}

/// A packet to send: the slot, and what.
type Due = (u32, Segment);

/// Clients and targets of all slots.
pub(crate) struct Players {
    addressing: Addressing,
    slots: Vec<Slot>,
    to_target: Vec<Due>,
    to_client: Vec<Due>,
    outcome: Outcome,
    /// Whether a finished connection is followed by the next.
    go_on: bool,
    /// Whether targets get a PROXY header in front of the request.
    proxy: bool,
    /// Whether they go through a gateway, or come back as they were.
    translated: bool,
}

impl Players {
    pub(crate) fn new(addressing: Addressing, proxy: bool, translated: bool) -> Players {
        let nobody = Endpoint {
            address: 0,
            port: 0,
        };
        let slot = Slot {
            turn: 0,
            stage: Stage::Idle,
            local: nobody,
            target: nobody,
            initial: 0,
        };
        Players {
            addressing,
            slots: vec![slot; AT_ONCE as usize],
            to_target: Vec::new(),
            to_client: Vec::new(),
            outcome: Outcome::default(),
            go_on: true,
            proxy: proxy && translated,
            translated,
        }
    }

    /// Plays for `warm` and then `length`; connections under way at the end are finished.
    pub(crate) fn run(
        &mut self,
        generator: &mut Generator,
        rig: &mut Rig,
        (warm, length): (Duration, Duration),
    ) -> Outcome {
        self.outcome = Outcome::default();
        self.go_on = true;
        let begin = generator.tsc.now().0 + warm.as_nanos() as u64;
        let end = begin + length.as_nanos() as u64;
        for slot in 0..AT_ONCE {
            self.open(slot);
        }
        let mut measured_from = None;
        loop {
            let now = generator.tsc.now().0;
            if now >= end {
                self.outcome.nanoseconds = now - measured_from.unwrap_or(now);
                break;
            }
            if measured_from.is_none() && now >= begin {
                measured_from = Some(now);
                self.outcome.finished = 0;
            }
            self.turn(generator, rig);
        }
        let finished = self.outcome.finished;
        self.go_on = false;
        let mut end = generator.tsc.now().0 + PATIENCE.as_nanos() as u64;
        while generator.tsc.now().0 < end {
            if self.turn(generator, rig) > 0 {
                end = generator.tsc.now().0 + PATIENCE.as_nanos() as u64;
            } else if self.slots.iter().all(|slot| slot.stage == Stage::Idle) {
                break;
            }
        }
        for slot in &mut self.slots {
            if slot.stage != Stage::Idle {
                self.outcome.failed += 1;
                (slot.stage, slot.turn) = (Stage::Idle, slot.turn + 1);
            }
        }
        self.outcome.finished = finished;
        self.outcome
    }

    /// One round: what came, and what follows from it. How many packets came.
    fn turn(&mut self, generator: &mut Generator, rig: &mut Rig) -> usize {
        let mut came = 0;
        for at_target in [true, false] {
            let arm = if at_target {
                &mut rig.inner
            } else {
                &mut rig.outer
            };
            came += generator.receive(arm);
            for frame in &generator.received {
                frame.prefetch();
            }
            for frame in &generator.received {
                match packet::read(frame.bytes(), Protocol::Tcp) {
                    Some(seen)
                        if seen.tag < AT_ONCE && self.take(&seen, frame.bytes(), at_target) => {}
                    _ => {
                        self.outcome.wrong += 1;
                        note(&mut generator.strange, frame.bytes(), at_target);
                    }
                }
            }
            generator.done();
        }
        self.send(generator, rig, true);
        self.send(generator, rig, false);
        came
    }

    fn send(&mut self, generator: &mut Generator, rig: &mut Rig, to_target: bool) {
        let (due, arm) = if to_target {
            (&mut self.to_target, &mut rig.outer)
        } else {
            (&mut self.to_client, &mut rig.inner)
        };
        let (slots, addressing) = (&self.slots, &self.addressing);
        while !due.is_empty() {
            let count = due.len().min(SEND);
            let sent = generator.send(arm, count, |index, frame, ethernet| {
                let (number, segment) = due[index];
                let slot = &slots[number as usize];
                let ends = if to_target {
                    let flow = client_of(number, slot.turn);
                    (addressing.client(flow), addressing.vip(flow))
                } else {
                    (slot.target, slot.local)
                };
                packet::tcp(frame, ethernet, ends, (number, 0), &segment);
            });
            due.drain(..sent);
            if sent < count {
                break;
            }
        }
    }

    fn open(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.stage = Stage::Syn;
        let sequence = client_initial(seed(number, slot.turn));
        self.to_target.push((number, segment(sequence, 0, SYN)));
    }

    /// A packet has reached its receiver: judges it, answers it; whether it was right.
    fn take(&mut self, seen: &Seen, frame: &[u8], at_target: bool) -> bool {
        let number = seen.tag;
        let slot = &mut self.slots[number as usize];
        let flow = client_of(number, slot.turn);
        let (client, vip) = (self.addressing.client(flow), self.addressing.vip(flow));
        let (ours, theirs) = (
            client_initial(seed(number, slot.turn)),
            target_initial(seed(number, slot.turn)),
        );
        let payload = u32::from(PAYLOAD);
        // What the target got of the client's stream by its first segment: more than was sent, with a PROXY header.
        let header = if self.proxy { PROXY as u16 } else { 0 };
        let request = payload + u32::from(header);
        let request_at = if at_target { request } else { payload };
        // Where each side is behind its SYN, its payload and its FIN, in the numbers of whoever receives the packet.
        let (client_at, target_at) = if at_target {
            (slot.initial, theirs)
        } else {
            (ours, theirs)
        };
        let after = |initial: u32, n: u32| initial.wrapping_add(n);
        let data = |sequence, acknowledgment, flags| Segment {
            payload: PAYLOAD,
            ..segment(sequence, acknowledgment, flags)
        };
        let expected = match slot.stage {
            Stage::Syn => segment(seen.segment.sequence, 0, SYN),
            Stage::SynAck => segment(target_at, after(client_at, 1), SYN | ACK),
            Stage::AckOfTarget => segment(after(client_at, 1), after(target_at, 1), ACK),
            Stage::Request => Segment {
                payload: PAYLOAD + header,
                ..data(after(client_at, 1), after(target_at, 1), PSH | ACK)
            },
            Stage::Answer => data(
                after(target_at, 1),
                after(client_at, 1 + payload),
                FIN | PSH | ACK,
            ),
            Stage::Fin => segment(
                after(client_at, 1 + request_at),
                after(target_at, 2 + payload),
                FIN | ACK,
            ),
            Stage::LastAck => segment(
                after(target_at, 2 + payload),
                after(client_at, 2 + payload),
                ACK,
            ),
            Stage::Idle => return false,
        };
        let right_side = at_target
            == matches!(
                slot.stage,
                Stage::Syn | Stage::AckOfTarget | Stage::Request | Stage::Fin
            );
        let right_ends = match slot.stage {
            Stage::Syn if self.translated => {
                self.addressing.local_number(seen.from).is_some()
                    && self.addressing.target_number(flow, seen.to).is_some()
            }
            Stage::Syn => (seen.from, seen.to) == (client, vip) && seen.segment.sequence == ours,
            _ if at_target => (seen.from, seen.to) == (slot.local, slot.target),
            _ => (seen.from, seen.to) == (vip, client),
        };
        let right_header = !self.proxy
            || slot.stage != Stage::Request
            || packet::begins_with(frame, &packet::proxy_header(client, vip));
        if !right_side || !right_ends || !right_header || seen.segment != expected {
            return false;
        }
        match slot.stage {
            Stage::Syn => {
                (slot.local, slot.target) = (seen.from, seen.to);
                slot.initial = seen.segment.sequence;
                slot.stage = Stage::SynAck;
                let answer = segment(theirs, after(slot.initial, 1), SYN | ACK);
                self.to_client.push((number, answer));
            }
            Stage::SynAck => {
                slot.stage = Stage::AckOfTarget;
                let (sequence, acknowledgment) = (after(ours, 1), after(theirs, 1));
                let ack = segment(sequence, acknowledgment, ACK);
                let request = data(sequence, acknowledgment, PSH | ACK);
                self.to_target.push((number, ack));
                self.to_target.push((number, request));
            }
            Stage::AckOfTarget => slot.stage = Stage::Request,
            Stage::Request => {
                slot.stage = Stage::Answer;
                let answer = data(
                    after(theirs, 1),
                    after(slot.initial, 1 + request),
                    FIN | PSH | ACK,
                );
                self.to_client.push((number, answer));
            }
            Stage::Answer => {
                slot.stage = Stage::Fin;
                let fin = segment(
                    after(ours, 1 + payload),
                    after(theirs, 2 + payload),
                    FIN | ACK,
                );
                self.to_target.push((number, fin));
            }
            Stage::Fin => {
                slot.stage = Stage::LastAck;
                let last = segment(
                    after(theirs, 2 + payload),
                    after(slot.initial, 2 + request),
                    ACK,
                );
                self.to_client.push((number, last));
            }
            Stage::LastAck => {
                slot.turn += 1;
                slot.stage = Stage::Idle;
                self.outcome.finished += 1;
                if self.go_on {
                    self.open(number);
                }
            }
            Stage::Idle => {}
        }
        true
    }
}

fn segment(sequence: u32, acknowledgment: u32, flags: u8) -> Segment {
    Segment {
        sequence,
        acknowledgment,
        flags,
        payload: 0,
    }
}

/// The client's number in a slot's turn: each slot has as many as another.
fn client_of(slot: u32, turn: u32) -> u32 {
    FIRST + slot + (turn % (CLIENTS / AT_ONCE)) * AT_ONCE
}

/// What a connection's initial sequence numbers are made of.
fn seed(slot: u32, turn: u32) -> u32 {
    turn.wrapping_mul(AT_ONCE).wrapping_add(slot)
}
