//! Frames that wait for a next hop: a fixed number of buffers, a queue through them for each neighbour.

use crate::limits::Limits;

const END: u16 = u16::MAX;

/// The buffers.
pub(super) struct Held {
    bytes: Box<[u8]>,
    buffers: Box<[Buffer]>,
    free: u16,
    /// By neighbour.
    queues: Box<[Queue]>,
    size: usize,
    per_neighbour: u16,
}

#[derive(Clone, Copy)]
struct Buffer {
    /// Bytes of the frame.
    length: usize,
    /// The next of its queue, or of the free ones.
    next: u16,
    /// When it was filled, milliseconds.
    since: u64,
}

#[derive(Clone, Copy)]
struct Queue {
    first: u16,
    last: u16,
    count: u16,
}

const EMPTY: Queue = Queue {
    first: END,
    last: END,
    count: 0,
};

impl Held {
    pub(super) fn new(limits: &Limits, neighbours: u16) -> Self {
        let count = limits.held_frames.min(END - 1);
        let next = |at: u16| if at + 1 == count { END } else { at + 1 };
        Self {
            bytes: vec![0; usize::from(count) * limits.held_bytes].into_boxed_slice(),
            buffers: (0..count)
                .map(|at| Buffer {
                    length: 0,
                    next: next(at),
                    since: 0,
                })
                .collect(),
            free: if count == 0 { END } else { 0 },
            queues: vec![EMPTY; usize::from(neighbours)].into_boxed_slice(),
            size: limits.held_bytes,
            per_neighbour: limits.held_per_neighbour,
        }
    }

    /// Copies a frame to the end of a neighbour's queue; false without room.
    pub(super) fn push(&mut self, neighbour: u16, frame: &[u8], now: u64) -> bool {
        let queue = &mut self.queues[usize::from(neighbour)];
        let at = self.free;
        if at == END || queue.count >= self.per_neighbour || frame.len() > self.size {
            return false;
        }
        let start = usize::from(at) * self.size;
        self.bytes[start..start + frame.len()].copy_from_slice(frame);
        self.free = self.buffers[usize::from(at)].next;
        self.buffers[usize::from(at)] = Buffer {
            length: frame.len(),
            next: END,
            since: now,
        };
        match queue.last {
            END => queue.first = at,
            last => self.buffers[usize::from(last)].next = at,
        }
        queue.last = at;
        queue.count += 1;
        true
    }

    /// Takes all frames of a neighbour out, in order, each with the millisecond it came.
    pub(super) fn release(&mut self, neighbour: u16, mut take: impl FnMut(&mut [u8], u64)) {
        let queue = std::mem::replace(&mut self.queues[usize::from(neighbour)], EMPTY);
        let mut at = queue.first;
        while at != END {
            let Buffer {
                length,
                next,
                since,
            } = self.buffers[usize::from(at)];
            let start = usize::from(at) * self.size;
            take(&mut self.bytes[start..start + length], since);
            self.buffers[usize::from(at)].next = self.free;
            self.free = at;
            at = next;
        }
    }

    pub(super) fn count(&self, neighbour: u16) -> u16 {
        self.queues[usize::from(neighbour)].count
    }

    pub(super) fn check_invariants(&self) {
        let mut seen = 0;
        let mut free = self.free;
        while free != END {
            seen += 1;
            assert!(seen <= self.buffers.len(), "the free buffers are a ring");
            free = self.buffers[usize::from(free)].next;
        }
        let waiting: usize = self
            .queues
            .iter()
            .map(|queue| usize::from(queue.count))
            .sum();
        assert_eq!(seen + waiting, self.buffers.len(), "buffers of held frames");
    }
}
