//! A capture: frames on both sides of the translation, for a filter by flow, as a pcapng stream.
//!
//! ```text
//!   worker: Tap ── copies (bounded queue, losses counted) ──▶ write (control side) ── pcapng ──▶ admin listener ──▶ command
//! ```
//!
//! Each port is an interface of the capture. A frame is matched before it is rewritten and after, so that one filter shows a packet as it came in and as it
//! left; what was dropped is kept with the reason as its comment. Workers that have no tap pay one branch a burst.

pub(crate) mod ends;
mod pcapng;
mod tap;

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane::Now;
use serde::{Deserialize, Serialize};
use shared::admin::{CommandError, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::filter::{End, Ends};
use crate::forwarder::Forwarder;
use crate::range;
use crate::worker::Question;

pub(crate) use pcapng::{Blocks, Tally};
pub(crate) use tap::Tap;
use tap::{Batch, Fate, Shared};

/// Bursts with frames that matched that may wait to be written.
const BATCHES: usize = 4096;
/// Pieces of the stream that may wait for whoever reads it.
const PIECES: usize = 16;
/// A piece is sent when it has grown to this many bytes, or nothing more waits.
const PIECE: usize = 64 << 10;
/// How long workers may take to begin, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);

/// Frames that may be asked for, both sides counted.
pub(crate) const PACKETS: RangeInclusive<u64> = 1..=1_000_000;
/// Bytes of frames that may be asked for.
pub(crate) const BYTES: RangeInclusive<u64> = 1..=1 << 30;
/// Seconds that may be asked for: the admin listener ends a connection after ten minutes.
pub(crate) const SECONDS: RangeInclusive<u64> = 1..=300;
/// Bytes that may be kept of a frame.
pub(crate) const SNAP: RangeInclusive<usize> = 64..=65_535;

/// What is to be captured, and how much at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) client: Option<End>,
    pub(crate) vip: Option<End>,
    pub(crate) local: Option<End>,
    pub(crate) target: Option<End>,
    /// Frames, both sides counted.
    pub(crate) packets: u64,
    /// Bytes of frames.
    pub(crate) bytes: u64,
    pub(crate) seconds: u64,
    /// Bytes kept of a frame.
    pub(crate) snap: usize,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            client: None,
            vip: None,
            local: None,
            target: None,
            packets: 10_000,
            bytes: 64 << 20,
            seconds: 60,
            snap: 256,
        }
    }
}

impl Request {
    /// # Errors
    /// Which bound is out of its range.
    pub(crate) fn check(&self) -> Result<(), String> {
        range::check("packets", self.packets, &PACKETS)?;
        range::check("bytes", self.bytes, &BYTES)?;
        range::check("seconds", self.seconds, &SECONDS)?;
        range::check("snap", self.snap, &SNAP)
    }
}

/// Whether a capture runs: there is one at a time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Captures(Arc<AtomicBool>);

impl Captures {
    /// Begins a capture. It ends at its bounds, or when nobody reads the stream any more.
    ///
    /// # Errors
    /// When one runs already, the request makes no sense, or a worker has too many questions waiting.
    pub(crate) fn begin(
        &self,
        forwarder: &Forwarder,
        names: Vec<String>,
        request: &Request,
    ) -> Result<Stream, CommandError> {
        request.check().map_err(CommandError::Invalid)?;
        let running = Place::claim(&self.0)
            .ok_or_else(|| CommandError::Refused("a capture is running already".into()))?;
        let wanted = Ends {
            client: request.client,
            vip: request.vip,
            local: request.local,
            target: request.target,
        };
        let shared = Arc::new(Shared::new(wanted, request.snap, names.len()));
        let (tap, batches) = mpsc::channel(BATCHES);
        let workers = forwarder.questions();
        for (worker, questions) in workers.iter().enumerate() {
            let tap = Tap::new(shared.clone(), tap.clone());
            questions
                .try_send(Question::Capture(Box::new(tap)))
                .map_err(|_| {
                    CommandError::Failed(format!("worker {worker} has too many questions waiting"))
                })?;
        }
        let (pieces, stream) = mpsc::channel(PIECES);
        let writer = Writer {
            file: pcapng::header(
                concat!("l4-gateway ", env!("CARGO_PKG_VERSION")),
                &names,
                request.snap as u32,
            ),
            pieces,
            shared,
            workers: workers.len(),
            origin: unix_nanoseconds().wrapping_sub(forwarder.now().0),
            packets_left: request.packets,
            bytes_left: request.bytes,
        };
        let deadline = Instant::now() + Duration::from_secs(request.seconds);
        tokio::spawn(async move {
            writer.run(batches, deadline).await;
            drop(running);
        });
        Ok(Stream {
            content_type: "application/x-pcapng",
            pieces: stream,
        })
    }
}

/// Holds the place of the one capture.
struct Place(Arc<AtomicBool>);

impl Place {
    fn claim(place: &Arc<AtomicBool>) -> Option<Place> {
        (!place.swap(true, Ordering::AcqRel)).then(|| Place(place.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Turns what the workers copied into a file.
struct Writer {
    /// What was not sent yet.
    file: Vec<u8>,
    pieces: mpsc::Sender<bytes::Bytes>,
    shared: Arc<Shared>,
    workers: usize,
    /// Nanoseconds of Unix time at the origin of the workers' clock.
    origin: u64,
    packets_left: u64,
    bytes_left: u64,
}

impl Writer {
    /// Ends when nobody reads, or with statistics at the bounds.
    async fn run(mut self, mut batches: mpsc::Receiver<Batch>, deadline: Instant) {
        // The header says that the capture has begun.
        let begun = async {
            while self.shared.listening() < self.workers {
                sleep(POLL).await;
            }
        };
        let _a_worker_that_stands_still_is_done_without = timeout(PATIENCE, begun).await;
        if !self.send().await {
            return;
        }
        while self.packets_left > 0 && self.bytes_left > 0 {
            let batch = tokio::select! {
                batch = timeout_at(deadline, batches.recv()) => batch,
                () = self.pieces.closed() => return,
            };
            let Ok(Some(batch)) = batch else { break };
            self.shared.written(batch.bytes.len());
            self.write(&batch);
            if (self.file.len() >= PIECE || batches.is_empty()) && !self.send().await {
                return;
            }
        }
        // The workers see it at their next tick; what comes until then is neither written nor lost.
        batches.close();
        let at = unix_nanoseconds();
        for (interface, count) in (0..).zip(self.shared.counts()) {
            let matched = count.matched.load(Ordering::Relaxed);
            let lost = count.lost.load(Ordering::Relaxed);
            pcapng::statistics(&mut self.file, interface, at, matched, lost);
        }
        self.send().await;
    }

    fn write(&mut self, batch: &Batch) {
        let mut rest = batch.bytes.as_slice();
        for record in &batch.records {
            let Some((bytes, after)) = rest.split_at_checked(record.kept) else {
                return debug_assert!(false, "a batch holds what its records say");
            };
            rest = after;
            if self.packets_left == 0 || self.bytes_left == 0 {
                return;
            }
            self.packets_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
            let packet = pcapng::Packet {
                interface: u32::from(record.port.0),
                at: self.unix(record.at),
                direction: record.direction,
                length: record.length,
                bytes,
                comment: comment(record.fate),
            };
            pcapng::packet(&mut self.file, &packet);
        }
    }

    fn unix(&self, at: Now) -> u64 {
        self.origin.wrapping_add(at.0)
    }

    /// Whether somebody still reads.
    async fn send(&mut self) -> bool {
        let piece = std::mem::take(&mut self.file);
        self.pieces.send(piece.into()).await.is_ok()
    }
}

fn comment(fate: Fate) -> Option<Cow<'static, str>> {
    Some(match fate {
        Fate::Forwarded => return None,
        Fate::Dropped(reason) => format!("dropped: {}", reason.label()).into(),
        Fate::Held => "held until its next hop is known".into(),
        Fate::Consumed => "taken in".into(),
        Fate::Kernel => "left to the kernel".into(),
        Fate::Made => "sent by the gateway itself".into(),
    })
}

fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // 2554 is far, and a clock before 1970 is wrong anyway.
    since.map_or(0, |since| since.as_nanos() as u64)
}
