//! What a worker lets others see. One writer each, any number of readers, nobody waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A worker's pulse and the counters of its loop; what it forwarded is in [`dataplane::Counters`].
///
/// Aligned to a pair of cache lines, so that two workers never write the same one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerState {
    heartbeat: AtomicU64,
    busy: AtomicU64,
    idle: AtomicU64,
    asleep: AtomicU64,
    counts: [AtomicU64; LoopCount::ALL.len()],
    stop: AtomicBool,
}

/// What the loop counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopCount {
    /// Frames sent.
    Transmitted,
    /// Frames dropped because the device took no more.
    TransmitFull,
    /// Frames dropped because another worker's ring was full.
    RedirectFull,
    /// Own frames not sent because no buffer was free.
    NoBuffer,
    /// Frames dropped because they came in more pieces than fit a buffer.
    Unreadable,
    /// Frames dropped because their VLAN tag was another than the port's, or lacking.
    OtherVlan,
    /// Frames handed to the exception port.
    ToKernel,
    /// Frames that came from the exception port.
    FromKernel,
    /// Frames left to the kernel's own copy, or nobody, as there is no exception port.
    LeftToKernel,
    /// Events that nobody could be told of in time.
    EventsLost,
}

impl LoopCount {
    /// All of them.
    pub const ALL: [LoopCount; 10] = [
        LoopCount::Transmitted,
        LoopCount::TransmitFull,
        LoopCount::RedirectFull,
        LoopCount::NoBuffer,
        LoopCount::Unreadable,
        LoopCount::OtherVlan,
        LoopCount::ToKernel,
        LoopCount::FromKernel,
        LoopCount::LeftToKernel,
        LoopCount::EventsLost,
    ];

    /// The name for metrics, in snake case.
    pub fn label(self) -> &'static str {
        match self {
            LoopCount::Transmitted => "transmitted",
            LoopCount::TransmitFull => "transmit_full",
            LoopCount::RedirectFull => "redirect_full",
            LoopCount::NoBuffer => "no_buffer",
            LoopCount::Unreadable => "unreadable",
            LoopCount::OtherVlan => "other_vlan",
            LoopCount::ToKernel => "to_kernel",
            LoopCount::FromKernel => "from_kernel",
            LoopCount::LeftToKernel => "left_to_kernel",
            LoopCount::EventsLost => "events_lost",
        }
    }
}

/// How a worker's time was spent, in nanoseconds since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// In rounds that had frames.
    pub busy: u64,
    /// In rounds without.
    pub idle: u64,
    /// Asleep (`poll = "adaptive"`).
    pub asleep: u64,
}

impl Times {
    /// Busy time as a share of all time since `earlier`, 0.0 to 1.0.
    pub fn busy_share_since(&self, earlier: &Times) -> f64 {
        let busy = self.busy.saturating_sub(earlier.busy);
        let rest = (self.idle + self.asleep).saturating_sub(earlier.idle + earlier.asleep);
        if busy + rest == 0 {
            0.0
        } else {
            busy as f64 / (busy + rest) as f64
        }
    }
}

impl WorkerState {
    /// Rounds turned since the start; 0 until the first one ended.
    pub fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }

    /// How its time was spent.
    pub fn times(&self) -> Times {
        Times {
            busy: self.busy.load(Ordering::Relaxed),
            idle: self.idle.load(Ordering::Relaxed),
            asleep: self.asleep.load(Ordering::Relaxed),
        }
    }

    /// One of its counters.
    pub fn count(&self, count: LoopCount) -> u64 {
        self.counts[count as usize].load(Ordering::Relaxed)
    }

    /// Asks the worker to leave its loop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn beat(&self) {
        bump(&self.heartbeat, 1);
    }

    #[inline]
    pub(super) fn add(&self, count: LoopCount, n: u64) {
        if n > 0 {
            bump(&self.counts[count as usize], n);
        }
    }

    #[inline]
    pub(super) fn spent(&self, worked: bool, nanoseconds: u64) {
        bump(if worked { &self.busy } else { &self.idle }, nanoseconds);
    }

    #[inline]
    pub(super) fn slept(&self, nanoseconds: u64) {
        bump(&self.asleep, nanoseconds);
    }
}

/// Only the worker writes, so load and store are enough and cheaper than a locked add.
#[inline]
fn bump(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}
