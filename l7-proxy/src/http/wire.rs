//! What a client connection's stream, its driver and its requests tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::framing::{Leaving, Violation};

/// What a connection's stream, its driver and its requests tell each other. Atomics, because hyper's upgrades want `Send`.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    violation: AtomicU8,
    leaving: AtomicU8,
    leaving_waker: AtomicWaker,
    active: AtomicUsize,
    requests: AtomicUsize,
    slow_head: AtomicBool,
    cut_head: AtomicBool,
    /// Which request asks about the server; 0 for none.
    about_server: AtomicUsize,
    /// The client has sent its last byte, and the connection waits for the end of its last request.
    input_over: AtomicBool,
    last_request: AtomicWaker,
    slow_reader: AtomicBool,
    /// All that came is a part of requests that were read, and all that was to be sent is sent.
    at_rest: AtomicBool,
}

const UNDECIDED: u8 = 0;
const TUNNEL: u8 = 1;
const HTTP: u8 = 2;

impl Wire {
    /// Marks a request as running until the guard is dropped.
    pub(crate) fn request(self: &Arc<Wire>) -> Running {
        self.active.fetch_add(1, Ordering::Relaxed);
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        Running {
            wire: self.clone(),
            number: before + 1,
        }
    }

    /// Requests running now.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Requests seen since the connection began.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a request still runs although the client has sent its last byte. The task is woken when none does any more.
    pub(crate) fn outlives_input(&self, cx: &mut Context<'_>) -> bool {
        self.last_request.register(cx.waker());
        self.input_over.store(true, Ordering::Relaxed);
        self.active() > 0
    }

    /// Settles what follows a request that asked to leave HTTP. For that request only: on another's behalf it would settle one that
    /// waits behind it.
    pub(crate) fn decide(&self, leaving: Leaving) {
        let code = if leaving == Leaving::Tunnel {
            TUNNEL
        } else {
            HTTP
        };
        self.leaving.store(code, Ordering::Release);
        self.leaving_waker.wake();
    }

    /// What follows the request that asked to leave HTTP, once that is settled. Each answer is given once.
    pub(crate) fn poll_leaving(&self, cx: &mut Context<'_>) -> Poll<Leaving> {
        self.leaving_waker.register(cx.waker());
        match self.leaving.swap(UNDECIDED, Ordering::AcqRel) {
            TUNNEL => Poll::Ready(Leaving::Tunnel),
            HTTP => Poll::Ready(Leaving::Http),
            _ => Poll::Pending,
        }
    }

    /// The request with this number, counted from 1, asks about the server as a whole; what follows it waits for [`Wire::decide`].
    pub(crate) fn asks_about_server(&self, number: usize) {
        self.about_server.store(number, Ordering::Relaxed);
    }

    /// The scanner refused something.
    pub(crate) fn violated(&self, violation: Violation) {
        self.violation.store(violation as u8, Ordering::Relaxed);
    }

    /// The client took too long over a head.
    pub(crate) fn sends_head_slowly(&self) {
        self.slow_head.store(true, Ordering::Relaxed);
    }

    /// The client took nothing for too long.
    pub(crate) fn reads_slowly(&self) {
        self.slow_reader.store(true, Ordering::Relaxed);
    }

    /// The client sent part of a head and then nothing more.
    pub(crate) fn cuts_head(&self) {
        self.cut_head.store(true, Ordering::Relaxed);
    }

    /// Whether the stream waits for a request with nothing left to send.
    pub(crate) fn rests(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Ordering::Relaxed);
    }

    /// True between requests: none runs, nothing of the next has come, nothing is left to send.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.active() == 0 && self.at_rest.load(Ordering::Relaxed)
    }

    /// True when the client stopped sending in the middle of a head.
    pub(crate) fn cut_head(&self) -> bool {
        self.cut_head.load(Ordering::Relaxed)
    }

    /// What the scanner refused, if it did.
    pub(crate) fn violation(&self) -> Option<Violation> {
        Violation::from_code(self.violation.load(Ordering::Relaxed))
    }

    /// True when the client took too long over a head and was answered 408.
    pub(crate) fn slow_head(&self) -> bool {
        self.slow_head.load(Ordering::Relaxed)
    }

    /// True when the client took nothing of what was sent to it for too long.
    pub(crate) fn slow_reader(&self) -> bool {
        self.slow_reader.load(Ordering::Relaxed)
    }
}

/// A running request of a connection.
#[derive(Debug)]
pub(crate) struct Running {
    wire: Arc<Wire>,
    number: usize,
}

impl Running {
    /// Whether it asks about the server as a whole, by a URI without a path.
    pub(crate) fn is_about_server(&self) -> bool {
        self.wire.about_server.load(Ordering::Relaxed) == self.number
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.wire.active.fetch_sub(1, Ordering::Relaxed);
        if self.wire.input_over.load(Ordering::Relaxed) {
            self.wire.last_request.wake();
        }
    }
}
