//! Frames that wait for something (a next hop, a first fragment): a fixed number of buffers, and queues through them.

use crate::PortIndex;

const END: u16 = u16::MAX;

/// The buffers.
pub(crate) struct Held {
    bytes: Box<[u8]>,
    buffers: Box<[Buffer]>,
    free: u16,
    queues: Box<[Queue]>,
    size: usize,
    per_queue: u16,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Frames in all.
    pub(crate) frames: u16,
    /// Bytes of the longest frame.
    pub(crate) bytes: usize,
    /// Queues.
    pub(crate) queues: u16,
    /// Frames in one queue.
    pub(crate) per_queue: u16,
}

#[derive(Clone, Copy)]
struct Buffer {
    /// Bytes of the frame.
    length: usize,
    /// The next of its queue, or of the free ones.
    next: u16,
    /// When it was filled, milliseconds.
    since: u64,
    /// Where it came in.
    port: PortIndex,
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
    pub(crate) fn new(room: Room) -> Self {
        let count = room.frames.min(END - 1);
        let next = |at: u16| if at + 1 == count { END } else { at + 1 };
        Self {
            bytes: vec![0; usize::from(count) * room.bytes].into_boxed_slice(),
            buffers: (0..count)
                .map(|at| Buffer {
                    length: 0,
                    next: next(at),
                    since: 0,
                    port: PortIndex(0),
                })
                .collect(),
            free: if count == 0 { END } else { 0 },
            queues: vec![EMPTY; usize::from(room.queues)].into_boxed_slice(),
            size: room.bytes,
            per_queue: room.per_queue,
        }
    }

    /// Copies a frame that came in on `port` to the end of a queue; false without room.
    pub(crate) fn push(&mut self, queue: u16, frame: &[u8], port: PortIndex, now: u64) -> bool {
        let queue = &mut self.queues[usize::from(queue)];
        let at = self.free;
        if at == END || queue.count >= self.per_queue || frame.len() > self.size {
            return false;
        }
        let start = usize::from(at) * self.size;
        self.bytes[start..start + frame.len()].copy_from_slice(frame);
        self.free = self.buffers[usize::from(at)].next;
        self.buffers[usize::from(at)] = Buffer {
            length: frame.len(),
            next: END,
            since: now,
            port,
        };
        match queue.last {
            END => queue.first = at,
            last => self.buffers[usize::from(last)].next = at,
        }
        queue.last = at;
        queue.count += 1;
        true
    }

    /// Takes the oldest frame out of a queue into `frame`; where it came in, none if the queue is empty.
    pub(crate) fn pop(&mut self, queue: u16, frame: &mut Vec<u8>) -> Option<PortIndex> {
        let queue = &mut self.queues[usize::from(queue)];
        let at = queue.first;
        let Buffer {
            length, next, port, ..
        } = *self.buffers.get(usize::from(at))?;
        queue.first = next;
        queue.count -= 1;
        if next == END {
            queue.last = END;
        }
        let start = usize::from(at) * self.size;
        frame.clear();
        frame.extend_from_slice(&self.bytes[start..start + length]);
        self.buffers[usize::from(at)].next = self.free;
        self.free = at;
        Some(port)
    }

    /// Takes all frames of a queue out, in order, each with the millisecond it came.
    pub(crate) fn release(&mut self, queue: u16, mut take: impl FnMut(&mut [u8], u64)) {
        let queue = std::mem::replace(&mut self.queues[usize::from(queue)], EMPTY);
        let mut at = queue.first;
        while at != END {
            let Buffer {
                length,
                next,
                since,
                ..
            } = self.buffers[usize::from(at)];
            let start = usize::from(at) * self.size;
            take(&mut self.bytes[start..start + length], since);
            self.buffers[usize::from(at)].next = self.free;
            self.free = at;
            at = next;
        }
    }

    pub(crate) fn count(&self, queue: u16) -> u16 {
        self.queues[usize::from(queue)].count
    }

    pub(crate) fn check_invariants(&self) {
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

#[cfg(test)]
mod tests;
