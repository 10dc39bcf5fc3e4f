//! The worker's side of a capture: frames as they came in and as they left, copied into a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dataplane::{DropReason, Frame, MAX_BURST, Now, PortIndex, Verdict};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::ends::{self, FrameEnds};
use super::pcapng::Direction;
use crate::filter::Ends;

/// Bytes of copies that may wait for the control side, over all workers.
const WAITING: usize = 8 << 20;

/// What all workers of one capture share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wanted: Ends,
    /// Bytes kept of a frame.
    pub(super) snap: usize,
    waiting: AtomicUsize,
    /// Workers that have their tap in place.
    listening: AtomicUsize,
    /// By port.
    counts: Vec<Count>,
}

/// Frames of a port that matched, and those of them that were not kept.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) matched: AtomicU64,
    pub(super) lost: AtomicU64,
}

impl Shared {
    pub(super) fn new(wanted: Ends, snap: usize, ports: usize) -> Shared {
        Shared {
            wanted,
            snap,
            waiting: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            counts: std::iter::repeat_with(Count::default).take(ports).collect(),
        }
    }

    pub(super) fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// Workers that have their tap in place.
    pub(super) fn listening(&self) -> usize {
        self.listening.load(Ordering::Relaxed)
    }

    /// The control side has written these bytes.
    pub(super) fn written(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn count(&self, port: u16, matched: u64, lost: u64) {
        if let Some(count) = self.counts.get(usize::from(port)) {
            count.matched.fetch_add(matched, Ordering::Relaxed);
            count.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// A flow's frame has ends on each side of the translation, and which is which follows from the side it came from: both are tried. Of a
    /// frame that did not leave, or was made here, only one side is known.
    fn wants(&self, came: Option<FrameEnds>, left: Option<FrameEnds>) -> bool {
        let sides =
            |ends: Option<FrameEnds>| ends.map(|ends| (ends.source, ends.destination)).unzip();
        let (from, to) = sides(came);
        let matches = |client, vip, local, target| self.wanted.matches(client, vip, local, target);
        match left {
            _ if self.wanted.is_any() => true,
            // In a tunnel the target's address is there, but no LocalIP: the source is the port's.
            Some(left) if left.is_outer => matches(from, to, None, Some(left.destination)),
            // As they are go frames of clients to the MAC of their target (DR).
            Some(_) if came == left => matches(from, to, None, None),
            _ => {
                let (source, destination) = sides(left);
                matches(from, to, source, destination) || matches(destination, source, to, from)
            }
        }
    }
}

/// Frames of one burst.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// What was kept of them, one after the other.
    pub(super) bytes: Vec<u8>,
}

/// A frame that was kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) port: PortIndex,
    pub(super) at: Now,
    pub(super) direction: Direction,
    /// On the wire.
    pub(super) length: u32,
    /// Of it, in the batch.
    pub(super) kept: usize,
    pub(super) fate: Fate,
}

/// What became of a frame that did not leave as it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It went on.
    Forwarded,
    /// It was dropped.
    Dropped(DropReason),
    /// It waits for its next hop, and leaves later.
    Held,
    /// It was taken in: ARP replies, and what else is for the node itself.
    Consumed,
    /// It is not for the forwarder.
    Kernel,
    /// It was made here.
    Made,
}

/// A worker's end of a capture.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
    to: mpsc::Sender<Batch>,
    /// The burst as it came in.
    came: Vec<Came>,
    bytes: Vec<u8>,
    at: Now,
    batch: Batch,
}

#[derive(Debug, Clone, Copy)]
struct Came {
    ends: Option<FrameEnds>,
    length: u32,
    start: usize,
    kept: usize,
}

impl Tap {
    pub(super) fn new(shared: Arc<Shared>, to: mpsc::Sender<Batch>) -> Tap {
        Tap {
            bytes: Vec::with_capacity(MAX_BURST * shared.snap.min(2048)),
            shared,
            to,
            came: Vec::with_capacity(MAX_BURST),
            at: Now(0),
            batch: Batch::default(),
        }
    }

    /// The worker has it in place.
    pub(crate) fn begin(&self) {
        self.shared.listening.fetch_add(1, Ordering::Relaxed);
    }

    /// The time of what comes next.
    pub(crate) fn turn(&mut self, now: Now) {
        self.at = now;
    }

    /// Whether nobody wants more.
    pub(crate) fn is_over(&self) -> bool {
        self.to.is_closed()
    }

    /// Frames that are about to be worked on.
    #[cold]
    pub(crate) fn before<F: Frame>(&mut self, now: Now, frames: &[F]) {
        self.turn(now);
        self.came.clear();
        self.bytes.clear();
        for frame in frames {
            let bytes = frame.bytes();
            let kept = bytes.len().min(self.shared.snap);
            self.came.push(Came {
                ends: ends::of(bytes),
                length: bytes.len() as u32,
                start: self.bytes.len(),
                kept,
            });
            self.bytes
                .extend_from_slice(bytes.get(..kept).unwrap_or_default());
        }
    }

    /// The same frames with what was decided about them; they came in on `port`.
    #[cold]
    pub(crate) fn after<F: Frame>(&mut self, port: PortIndex, frames: &[F], verdicts: &[Verdict]) {
        let came = std::mem::take(&mut self.came);
        let bytes = std::mem::take(&mut self.bytes);
        for ((came, frame), verdict) in came.iter().zip(frames).zip(verdicts) {
            let (out, fate) = match *verdict {
                Verdict::Transmit(out) => (Some(out), Fate::Forwarded),
                // Its owner captures it.
                Verdict::Redirect(_) => continue,
                Verdict::Drop(reason) => (None, Fate::Dropped(reason)),
                Verdict::Held => (None, Fate::Held),
                Verdict::Consumed => (None, Fate::Consumed),
                Verdict::Kernel => (None, Fate::Kernel),
            };
            let left = out.and_then(|_| ends::of(frame.bytes()));
            if !self.shared.wants(came.ends, left) {
                continue;
            }
            let before = bytes.get(came.start..came.start + came.kept);
            self.keep(
                port,
                Direction::In,
                came.length,
                before.unwrap_or_default(),
                fate,
            );
            if let Some(out) = out {
                self.keep_whole(out, Direction::Out, frame.bytes(), Fate::Forwarded);
            }
        }
        self.came = came;
        self.bytes = bytes;
        self.hand_over();
    }

    /// Frames that leave without having come in with the burst.
    #[cold]
    pub(crate) fn made<'f>(&mut self, frames: impl Iterator<Item = (PortIndex, &'f [u8])>) {
        for (port, bytes) in frames {
            if self.shared.wants(None, ends::of(bytes)) {
                self.keep_whole(port, Direction::Out, bytes, Fate::Made);
            }
        }
        self.hand_over();
    }

    fn keep_whole(&mut self, port: PortIndex, direction: Direction, bytes: &[u8], fate: Fate) {
        let kept = bytes.get(..self.shared.snap).unwrap_or(bytes);
        self.keep(port, direction, bytes.len() as u32, kept, fate);
    }

    fn keep(
        &mut self,
        port: PortIndex,
        direction: Direction,
        length: u32,
        bytes: &[u8],
        fate: Fate,
    ) {
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.records.push(Record {
            port,
            at: self.at,
            direction,
            length,
            kept: bytes.len(),
            fate,
        });
    }

    fn hand_over(&mut self) {
        if self.batch.records.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        for record in &batch.records {
            self.shared.count(record.port.0, 1, 0);
        }
        let bytes = batch.bytes.len();
        // Workers may pass the bound together, by a burst each.
        if self.shared.waiting.load(Ordering::Relaxed) >= WAITING {
            return self.lose(&batch);
        }
        self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        match self.to.try_send(batch) {
            Err(TrySendError::Full(batch)) => {
                self.shared.written(bytes);
                self.lose(&batch);
            }
            // A capture that has ended misses nothing.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
        }
    }

    fn lose(&self, batch: &Batch) {
        for record in &batch.records {
            self.shared.count(record.port.0, 0, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn between(source: &str, destination: &str) -> FrameEnds {
        FrameEnds {
            source: at(source),
            destination: at(destination),
            is_outer: false,
        }
    }

    /// Which of the four ends show a frame, each asked for alone by the addresses in `wanted`.
    fn shown(wanted: [&str; 4], came: Option<FrameEnds>, left: Option<FrameEnds>) -> [bool; 4] {
        let one = |place: usize| {
            let end = |at: usize| (at == place).then(|| wanted[at].parse().unwrap());
            let wanted = Ends {
                client: end(0),
                vip: end(1),
                local: end(2),
                target: end(3),
            };
            Shared::new(wanted, 64, 1).wants(came, left)
        };
        [0, 1, 2, 3].map(one)
    }

    const FLOW: [&str; 4] = [
        "10.1.0.7:4000",
        "10.0.0.100:80",
        "10.3.0.100:1024",
        "10.3.0.21:80",
    ];
    const CLIENT_SIDE: [&str; 2] = ["10.1.0.7:4000", "10.0.0.100:80"];

    #[test]
    fn a_translated_frame_is_found_by_each_end_whichever_way_it_goes() {
        let [client, vip, local, target] = FLOW;
        let (outside, inside) = (between(client, vip), between(local, target));
        assert_eq!(shown(FLOW, Some(outside), Some(inside)), [true; 4]);
        let (inside, outside) = (between(target, local), between(vip, client));
        assert_eq!(shown(FLOW, Some(inside), Some(outside)), [true; 4]);
        // Dropped: only the side it came from is known.
        assert_eq!(shown(FLOW, Some(inside), None), [false, false, true, true]);
        assert_eq!(shown(FLOW, None, Some(outside)), [true, true, false, false]);
    }

    #[test]
    fn a_frame_that_goes_on_as_it_is_has_a_client_and_a_vip_only() {
        let [client, vip] = CLIENT_SIDE;
        let same = Some(between(client, vip));
        assert_eq!(shown(FLOW, same, same), [true, true, false, false]);
        assert_eq!(
            shown([client, vip, client, vip], same, same),
            [true, true, false, false]
        );
        assert_eq!(shown([vip, client, vip, client], same, same), [false; 4]);
    }

    #[test]
    fn a_tunnelled_frame_is_found_by_its_target_and_not_by_the_ports_address() {
        let [client, vip] = CLIENT_SIDE;
        let outer = FrameEnds {
            is_outer: true,
            ..between("10.3.0.11:0", "10.4.0.5:0")
        };
        let wanted = [client, vip, "10.3.0.11", "10.4.0.5:80"];
        let came = Some(between(client, vip));
        assert_eq!(shown(wanted, came, Some(outer)), [true, true, false, true]);
        let pieces = shown(wanted, None, Some(outer));
        assert_eq!(pieces, [false, false, false, true]);
    }
}
