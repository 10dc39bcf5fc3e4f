//! Streams of 64-byte frames over established flows in random order: how many get through in a time, and how long one takes.
//!
//! The load is a closed loop: a bounded number of frames is under way each way, fewer than the rings hold, so that neither end has
//! to drop and what is missing afterwards was lost by the forwarder. The rate is then what it can do without loss.
//!
//! A window begins and ends with nothing under way ([`Stream::settle`]): no frame of another one can be taken for one of it, and what was
//! sent and did not come is lost, however slow the forwarder was.

use std::time::Duration;

use anyhow::{Result, bail};
use dataplane::Frame;

use crate::flows::Flows;
use crate::packet::{self, STREAM};
use crate::rig::{Generator, Rig, SEND};

/// Frames under way each way; the rings hold 1024.
const WINDOW: usize = 512;
/// The same of a paced stream, whose rate doesn't follow what comes back.
const ROOM: u64 = 960;
/// After so long without a frame it is asked whether any is still to come.
const SILENCE: Duration = Duration::from_millis(20);
/// How long a forwarder may let nothing through.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which ways frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    /// From clients to targets.
    In,
    /// As many from targets to clients.
    Both,
}

/// What a window saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Frames through in the time measured.
    pub(crate) frames: u64,
    pub(crate) nanoseconds: u64,
    /// Over all of the window: frames sent, and frames that came.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Of the frames that were looked at, those that were not what their receiver must get.
    pub(crate) wrong: u64,
    /// Of a paced stream: frames that were due and for which there was no room.
    pub(crate) unsent: u64,
    /// Of an unpaced stream: how often the generator looked for work, and how often it had room for another burst.
    pub(crate) turns: u64,
    pub(crate) bursts: u64,
}

impl Counted {
    /// Million frames a second.
    pub(crate) fn mpps(&self) -> f64 {
        self.frames as f64 * 1000.0 / self.nanoseconds.max(1) as f64
    }

    /// Whether the forwarder was done with what it got before the generator had more, most of the time.
    pub(crate) fn is_held_back(&self) -> bool {
        self.bursts * 2 > self.turns
    }

    /// Sent, but did not come.
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Came, but were not sent; or not as what came.
    pub(crate) fn faults(&self) -> u64 {
        self.wrong + self.received.saturating_sub(self.sent)
    }

    pub(crate) fn add(&mut self, other: &Counted) {
        self.frames += other.frames;
        self.nanoseconds += other.nanoseconds;
        self.sent += other.sent;
        self.received += other.received;
        self.wrong += other.wrong;
        self.unsent += other.unsent;
        self.turns += other.turns;
        self.bursts += other.bursts;
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

impl Stream<'_> {
    /// Runs at full speed: `warm` unmeasured, then `length`.
    pub(crate) fn run(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        (warm, length): (Duration, Duration),
    ) -> Result<Counted> {
        self.settle(generator, rig, &mut Counted::default())?;
        let mut counted = Counted::default();
        // Under way: towards targets, towards clients.
        let mut under_way = [0usize; 2];
        let start = generator.tsc.now().0;
        let begin = start + warm.as_nanos() as u64;
        let end = begin + length.as_nanos() as u64;
        let mut heard = start;
        let mut measured_from = None;
        loop {
            let now = generator.tsc.now().0;
            if now >= end {
                let (from, before) = measured_from.unwrap_or((now, counted.received));
                counted.nanoseconds = now - from;
                counted.frames = counted.received - before;
                break;
            }
            if measured_from.is_none() && now >= begin {
                measured_from = Some((now, counted.received));
            }
            let inward = self.take(generator, rig, true, &mut counted);
            under_way[0] = under_way[0].saturating_sub(inward);
            counted.turns += 1;
            if under_way[0] + SEND <= WINDOW {
                counted.bursts += 1;
                under_way[0] += self.put(generator, rig, true, (0, SEND), &mut counted);
            }
            let outward = self.take(generator, rig, false, &mut counted);
            under_way[1] = under_way[1].saturating_sub(outward);
            if inward + outward > 0 {
                heard = now;
            } else if now > heard + SILENCE.as_nanos() as u64 {
                // The forwarder was off its CPU, or lost all that was under way: either shows in the figures.
                self.settle(generator, rig, &mut counted)?;
                (under_way, heard) = ([0; 2], generator.tsc.now().0);
            }
            if self.ways == Ways::Both && under_way[1] + SEND <= WINDOW {
                under_way[1] += self.put(generator, rig, false, (0, SEND), &mut counted);
            }
        }
        self.settle(generator, rig, &mut counted)?;
        Ok(counted)
    }

    /// Sends `rate` frames a second, in, and adds each one's way to `samples`, in nanoseconds: from right before its burst of at most [`SEND`]
    /// is made until it is found received.
    pub(crate) fn paced(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        rate: f64,
        (warm, length): (Duration, Duration),
        samples: &mut Vec<u32>,
    ) -> Result<Counted> {
        self.settle(generator, rig, &mut Counted::default())?;
        let protocol = self.flows.addressing.protocol;
        let mut counted = Counted::default();
        let start = generator.tsc.now().0;
        let begin = start + warm.as_nanos() as u64;
        let end = begin + length.as_nanos() as u64;
        // Of the frames due, those we were too late for. Sending them in one burst would measure ourselves.
        let mut late = 0;
        loop {
            let now = generator.tsc.now().0;
            if now >= end {
                break;
            }
            generator.receive(&mut rig.inner);
            let arrived = generator.tsc.now().0;
            for frame in &generator.received {
                let stamp = packet::stamp(frame.bytes(), protocol);
                if let Some(sent) = stamp.filter(|sent| *sent >= begin) {
                    samples.push(arrived.saturating_sub(sent).min(u64::from(u32::MAX)) as u32);
                }
            }
            self.judge(generator, true, &mut counted);
            counted.received += generator.received.len() as u64;
            generator.done();
            self.take(generator, rig, false, &mut counted);
            let due = ((now - start) as f64 * rate / 1e9) as u64;
            let behind = due.saturating_sub(counted.sent + counted.unsent + late);
            late += behind.saturating_sub(SEND as u64);
            let burst = behind.min(SEND as u64);
            let fits = burst.min(ROOM.saturating_sub(counted.lost()));
            counted.unsent += burst - fits;
            if fits > 0 {
                let stamp = generator.tsc.now().0;
                let sent = self.put(generator, rig, true, (stamp, fits as usize), &mut counted);
                counted.unsent += fits - sent as u64;
            }
        }
        counted.nanoseconds = end - start;
        counted.frames = counted.received;
        self.settle(generator, rig, &mut counted)?;
        Ok(counted)
    }

    /// Has everything come that is under way: sends a frame behind it each way and waits for that, as forwarders keep the order. What comes
    /// until then is looked at, each frame of it, and counted.
    pub(crate) fn settle(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        counted: &mut Counted,
    ) -> Result<()> {
        let protocol = self.flows.addressing.protocol;
        let began = generator.tsc.now().0;
        // What the last frame towards targets, and towards clients, is stamped with; none once it has come.
        let mut last = [Some(began); 2];
        let mut sent = false;
        let mut heard = began;
        while last != [None; 2] {
            let now = generator.tsc.now().0;
            if now > began + PATIENCE.as_nanos() as u64 {
                bail!("the forwarder lets nothing through any more");
            }
            // They may have been dropped, if the ones before them filled a ring.
            if !sent || now > heard + SILENCE.as_nanos() as u64 {
                for (last, inward) in last.iter_mut().zip([true, false]) {
                    if last.is_some() {
                        *last = Some(now);
                        self.send(generator, rig, inward, (now, &[0]));
                    }
                }
                (sent, heard) = (true, now);
            }
            for (last, inward) in last.iter_mut().zip([true, false]) {
                let arm = if inward {
                    &mut rig.inner
                } else {
                    &mut rig.outer
                };
                if generator.receive(arm) > 0 {
                    heard = now;
                }
                for frame in &generator.received {
                    let bytes = frame.bytes();
                    let right = self.is_right(bytes, inward);
                    let stamp = packet::stamp(bytes, protocol);
                    match stamp.filter(|stamp| right && *stamp >= began) {
                        None => {
                            counted.received += 1;
                            counted.wrong += u64::from(!right);
                            if !right {
                                note(&mut generator.strange, bytes, inward);
                            }
                        }
                        stamp if stamp == *last => *last = None,
                        Some(_) => {}
                    }
                }
                generator.done();
            }
        }
        Ok(())
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
        self.judge(generator, inward, counted);
        generator.done();
        counted.received += received as u64;
        received
    }

    /// Of each burst one frame is looked at, and of the others the length: more would make this a bench of our own checks.
    #[inline]
    fn judge(&self, generator: &mut Generator, inward: bool, counted: &mut Counted) {
        for (index, frame) in generator.received.iter().enumerate() {
            let bytes = frame.bytes();
            if bytes.len() != STREAM || (index == 0 && !self.is_right(bytes, inward)) {
                counted.wrong += 1;
                note(&mut generator.strange, bytes, inward);
            }
        }
    }

    /// Whether a frame is what its receiver must get.
    fn is_right(&self, frame: &[u8], inward: bool) -> bool {
        let Some(seen) = packet::read(frame, self.flows.addressing.protocol) else {
            return false;
        };
        let expected = self.flows.frame_of(seen.tag, inward, self.translated);
        expected == Some(((seen.from, seen.to), seen.segment))
    }

    /// Sends a burst from one side, of flows in random order; how many frames went.
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
        let sent = self.send(generator, rig, inward, (stamp, &flows[..count]));
        counted.sent += sent as u64;
        sent
    }

    #[inline]
    fn send(
        &self,
        generator: &mut Generator,
        rig: &mut Rig,
        inward: bool,
        (stamp, flows): (u64, &[u32]),
    ) -> usize {
        if inward {
            generator.send(&mut rig.outer, flows.len(), |index, frame, ethernet| {
                self.flows
                    .make(flows[index], true, (frame, ethernet), stamp);
            })
        } else {
            generator.send(&mut rig.inner, flows.len(), |index, frame, ethernet| {
                self.flows
                    .make(flows[index], false, (frame, ethernet), stamp);
            })
        }
    }
}

/// Keeps the first frame that was not what its receiver must get.
#[cold]
pub(crate) fn note(strange: &mut Option<String>, frame: &[u8], at_target: bool) {
    strange.get_or_insert_with(|| {
        let receiver = if at_target { "target" } else { "client" };
        let bytes: String = frame
            .iter()
            .take(96)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{} bytes to a {receiver}: {bytes}", frame.len())
    });
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

#[cfg(test)]
mod tests {
    use dataplane::Protocol;

    use super::*;
    use crate::packet::{ACK, SYN, Segment};

    const CASES: [(Protocol, bool); 3] = [
        (Protocol::Udp, false),
        (Protocol::Tcp, false),
        (Protocol::Tcp, true),
    ];

    #[test]
    fn a_frame_is_right_only_where_it_must_arrive_as_it_must_be() {
        for (protocol, proxy) in CASES {
            let flows = Flows::open_already(protocol, proxy);
            let stream = |translated| Stream {
                flows: &flows,
                count: 10,
                ways: Ways::Both,
                translated,
            };
            for (inward, translated) in [(true, true), (true, false), (false, true), (false, false)]
            {
                let (ends, segment) = flows.frame_of(3, inward, translated).unwrap();
                let bytes = packet::bytes_of(protocol, ends, 3, &segment);
                let case = format!("{protocol:?} {proxy} {inward} {translated}");
                assert!(stream(translated).is_right(&bytes, inward), "{case}");
                assert!(!stream(translated).is_right(&bytes, !inward), "{case}");
                // What came through as it was sent, where it had to be translated; and the other way round.
                assert!(!stream(!translated).is_right(&bytes, inward), "{case}");
                // The number of another flow, and of none.
                for tag in [4, 10] {
                    let bytes = packet::bytes_of(protocol, ends, tag, &segment);
                    assert!(!stream(translated).is_right(&bytes, inward), "{case} {tag}");
                }
                for at in 14..bytes.len() {
                    let mut changed = bytes;
                    changed[at] ^= 1;
                    assert!(
                        !stream(translated).is_right(&changed, inward),
                        "{case} {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_opening_a_flow_is_no_frame_of_its_stream() {
        let flows = Flows::open_already(Protocol::Tcp, false);
        let stream = Stream {
            flows: &flows,
            count: 10,
            ways: Ways::Both,
            translated: true,
        };
        for (inward, flags) in [(true, SYN), (true, ACK), (false, SYN | ACK)] {
            let (ends, segment) = flows.frame_of(3, inward, true).unwrap();
            let late = Segment {
                sequence: segment.sequence.wrapping_sub(u32::from(flags & SYN != 0)),
                flags,
                payload: 0,
                ..segment
            };
            let bytes = packet::bytes_of(Protocol::Tcp, ends, 3, &late);
            assert!(!stream.is_right(&bytes, inward), "{flags:#x}");
        }
    }

    #[test]
    fn windows_tell_what_was_lost_from_what_was_never_sent() {
        let mut counted = Counted {
            frames: 5,
            nanoseconds: 1000,
            sent: 10,
            received: 8,
            ..Counted::default()
        };
        assert_eq!(
            (counted.mpps(), counted.lost(), counted.faults()),
            (5.0, 2, 0)
        );
        counted.received = 11;
        assert_eq!((counted.lost(), counted.faults()), (0, 1));
        let mut total = counted;
        total.add(&counted);
        assert_eq!((total.frames, total.sent, total.received), (10, 20, 22));
    }
}
