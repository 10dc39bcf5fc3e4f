//! A client connection's byte stream with [`Framing`] in front of the HTTP parser.
//!
//! What the scanner refuses is replaced by bytes the parser refuses too ([`POISON`]), so the client gets its 400 in its turn, behind
//! the answers to what it sent before. The stream also times a head that arrives too slowly (answering 408), holds back what
//! follows an upgrade request until that is settled, and closes so that the last answer is not lost to a reset.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::framing::{Framing, Leaving, Scan, Violation};
use crate::config::Listener;

/// Invalid wherever HTTP/1 may be: NUL in a head, a chunk's size or end, and trailers; LF in a chunk extension. The empty line makes the
/// parser look at once.
const POISON: &[u8] = b"\0\n\r\n\r\n";

const TIMEOUT_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long, and for how many bytes, a closed connection is still read so that the kernel need not reset it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// What a connection's stream, its driver and its requests tell each other. Atomics, because hyper's upgrades want `Send`.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    violation: AtomicU8,
    leaving: AtomicU8,
    leaving_waker: AtomicWaker,
    active: AtomicUsize,
    requests: AtomicUsize,
    slow_head: AtomicBool,
    slow_reader: AtomicBool,
}

const UNDECIDED: u8 = 0;
const TUNNEL: u8 = 1;
const HTTP: u8 = 2;

impl Wire {
    /// Marks a request as running until the guard is dropped.
    pub(crate) fn request(self: &Arc<Wire>) -> Running {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Requests running now.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Requests seen since the connection began.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
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
pub(crate) struct Running(Arc<Wire>);

impl Running {
    pub(crate) fn wire(&self) -> &Arc<Wire> {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's stream, scanned.
#[derive(Debug)]
pub(crate) struct StrictStream<S> {
    inner: S,
    wire: Arc<Wire>,
    framing: Framing,
    /// Bytes read from the client and not yet given to the parser.
    held: BytesMut,
    poison: Poison,
    head_timeout: Duration,
    head_timer: Option<Pin<Box<Sleep>>>,
    send_timeout: Duration,
    /// Runs while the client takes nothing.
    send_timer: Option<Pin<Box<Sleep>>>,
    tunnel: bool,
    closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug)]
enum Poison {
    None,
    Left(&'static [u8]),
    Given,
}

#[derive(Debug)]
struct Closing {
    timer: Pin<Box<Sleep>>,
    read: usize,
}

impl<S> StrictStream<S> {
    /// `seen` are bytes already read from `inner`.
    pub(crate) fn new(
        inner: S,
        framing: Framing,
        seen: BytesMut,
        listener: &Listener,
        wire: Arc<Wire>,
    ) -> StrictStream<S> {
        StrictStream {
            inner,
            wire,
            framing,
            held: seen,
            poison: Poison::None,
            head_timeout: listener.header_timeout,
            head_timer: None,
            send_timeout: listener.send_timeout,
            send_timer: None,
            tunnel: false,
            closing: None,
        }
    }

    /// Scans what was just filled into `buf` from `from` on, keeping back what the parser must not see yet.
    fn pass(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        let keep = match self.framing.scan(&buf.filled()[from..]) {
            Scan::Passed => return,
            Scan::Held(keep) => {
                // Only what came behind this head; what was held before it comes after.
                let mut held = BytesMut::from(&buf.filled()[from + keep..]);
                held.extend_from_slice(&self.held);
                self.held = held;
                keep
            }
            Scan::Violated(keep, violation) => {
                self.wire
                    .violation
                    .store(violation as u8, Ordering::Relaxed);
                self.poison = Poison::Left(POISON);
                self.held.clear();
                keep
            }
        };
        buf.set_filled(from + keep);
    }

    /// Passes on the outcome of a write, unless the client has taken nothing for too long. In a tunnel one direction may rest for as
    /// long as the other moves, and the tunnel times that itself.
    fn sending<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() || self.tunnel {
            self.send_timer = None;
            return poll;
        }
        let timeout = self.send_timeout;
        ready!(
            self.send_timer
                .get_or_insert_with(|| Box::pin(sleep(timeout)))
                .as_mut()
                .poll(cx)
        );
        self.wire.slow_reader.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    fn head_expired(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.framing.mid_head() || self.wire.active() > 0 {
            self.head_timer = None;
            return false;
        }
        let timeout = self.head_timeout;
        self.head_timer
            .get_or_insert_with(|| Box::pin(sleep(timeout)))
            .as_mut()
            .poll(cx)
            .is_ready()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.poison {
                Poison::None => {}
                Poison::Left(rest) => {
                    let taken = rest.len().min(buf.remaining());
                    buf.put_slice(&rest[..taken]);
                    this.poison = if taken == rest.len() {
                        Poison::Given
                    } else {
                        Poison::Left(&rest[taken..])
                    };
                    return Poll::Ready(Ok(()));
                }
                // The parser has all it needs to refuse; it closes once it has answered.
                Poison::Given => return Poll::Pending,
            }
            if this.framing.undecided() {
                this.wire.leaving_waker.register(cx.waker());
                match this.wire.leaving.swap(UNDECIDED, Ordering::AcqRel) {
                    TUNNEL => {
                        this.tunnel = true;
                        this.framing.decide(Leaving::Tunnel);
                    }
                    HTTP => this.framing.decide(Leaving::Http),
                    _ => return Poll::Pending,
                }
            }
            let from = buf.filled().len();
            if this.held.is_empty() {
                if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
                    result?;
                    if buf.filled().len() == from {
                        return Poll::Ready(Ok(()));
                    }
                } else if this.head_expired(cx) {
                    this.wire.slow_head.store(true, Ordering::Relaxed);
                    // Nothing else is being written: no request is running. A client that can't take 80 bytes goes without.
                    let _ = Pin::new(&mut this.inner).poll_write(cx, TIMEOUT_ANSWER)?;
                    let _ = Pin::new(&mut this.inner).poll_flush(cx)?;
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
                } else {
                    return Poll::Pending;
                }
            } else {
                let taken = this.held.len().min(buf.remaining());
                buf.put_slice(&this.held[..taken]);
                this.held.advance(taken);
            }
            this.pass(buf, from);
            if !this.framing.mid_head() {
                this.head_timer = None;
            }
            if buf.filled().len() > from {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.sending(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.sending(cx, poll)
    }

    /// Closes our side, then reads on for a moment: closing a socket with unread data sends a reset, which can take the last
    /// answer from the client.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            let poll = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.sending(cx, poll))?;
        }
        let closing = this.closing.get_or_insert_with(|| Closing {
            timer: Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)),
            read: 0,
        });
        let mut scratch = [0_u8; 4096];
        loop {
            if closing.read > LINGER_BYTES || closing.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => closing.read += buf.filled().len(),
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.sending(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
