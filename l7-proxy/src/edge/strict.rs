//! A client connection's byte stream with [`Framing`] in front of the HTTP parser.
//!
//! What the scanner refuses is replaced by bytes the parser refuses too ([`POISON`]), so the client gets its 400 in its turn, behind
//! the answers to what it sent before. The stream also times a head that arrives too slowly (answering 408), holds back what
//! follows an upgrade request until that is settled, keeps from the parser that a client sends no more while it may wait for its answer, and
//! closes so that the last answer is not lost to a reset.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::config::Listener;
use crate::http::{Framing, Leaving, Scan, Wire};

/// Invalid wherever HTTP/1 may be: NUL in a head, a chunk's size or end, and trailers; LF in a chunk extension. The empty line makes the
/// parser look at once.
const POISON: &[u8] = b"\0\n\r\n\r\n";

const TIMEOUT_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long, and for how many bytes, a closed connection is still read so that the kernel need not reset it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

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
    /// When the first byte came, where the stream was looked at before it came here.
    head_began: Option<Instant>,
    head_timer: Option<Pin<Box<Sleep>>>,
    half_closed_timeout: Duration,
    /// Runs once the client has sent its last byte, while an answer is outstanding and nothing is sent.
    half_closed: Option<Pin<Box<Sleep>>>,
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
    /// `seen` are bytes already read from `inner`, the first of them at `began`.
    pub(crate) fn new(
        inner: S,
        framing: Framing,
        seen: BytesMut,
        began: Option<Instant>,
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
            head_began: began,
            head_timer: None,
            half_closed_timeout: listener.half_closed_timeout,
            half_closed: None,
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
                if let Some(number) = self.framing.about_server() {
                    self.wire.asks_about_server(number);
                }
                // Only what came behind this head; what was held before it comes after.
                let mut held = BytesMut::from(&buf.filled()[from + keep..]);
                held.extend_from_slice(&self.held);
                self.held = held;
                keep
            }
            Scan::Violated(keep, violation) => {
                self.wire.violated(violation);
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
        self.wire.rests(false);
        let timeout = self.send_timeout;
        ready!(
            self.send_timer
                .get_or_insert_with(|| Box::pin(sleep(timeout)))
                .as_mut()
                .poll(cx)
        );
        self.wire.reads_slowly();
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// The client has sent its last byte. True when that is to be told to the parser: at once if no answer is outstanding, else only when the
    /// client is given up. One that has closed its sending side may well be waiting for its answer; one that is gone looks the same
    /// until something is sent to it.
    fn ended(&mut self, cx: &mut Context<'_>) -> bool {
        if self.tunnel || !self.framing.between_requests() || !self.wire.outlives_input(cx) {
            return true;
        }
        let timeout = self.half_closed_timeout;
        self.half_closed
            .get_or_insert_with(|| Box::pin(sleep(timeout)))
            .as_mut()
            .poll(cx)
            .is_ready()
    }

    /// Whether the parser may be replaced by another, now that all that was read was given to it.
    fn is_at_rest(&self) -> bool {
        self.framing.between_requests()
            && self.send_timer.is_none()
            && self.half_closed.is_none()
            && !self.tunnel
    }

    fn head_expired(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.framing.mid_head() || self.wire.active() > 0 {
            self.head_timer = None;
            return false;
        }
        let (began, timeout) = (self.head_began.take(), self.head_timeout);
        self.head_timer
            .get_or_insert_with(|| {
                Box::pin(sleep_until(began.unwrap_or_else(Instant::now) + timeout))
            })
            .as_mut()
            .poll(cx)
            .is_ready()
    }
}

/// A stream whose input can be waited for without room to read it into.
pub(crate) trait Input {
    /// Ready when there is something to read, the end or an error among it, or may be.
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Input for TcpStream {
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl Input for TlsStream<TcpStream> {
    /// What the session has taken off the socket and not given to the parser is part of a record, which is not whole yet.
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().0.poll_read_ready(cx).map(drop)
    }
}

impl<S: Input> StrictStream<S> {
    /// Waits for input, with no more room than that takes.
    pub(crate) async fn input(&mut self) {
        self.held = BytesMut::new();
        poll_fn(|cx| self.inner.poll_input(cx)).await;
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
                let leaving = ready!(this.wire.poll_leaving(cx));
                this.tunnel |= leaving == Leaving::Tunnel;
                this.framing.decide(leaving);
            }
            let from = buf.filled().len();
            if this.held.is_empty() {
                if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
                    result?;
                    if buf.filled().len() == from {
                        if this.framing.mid_head() {
                            this.wire.cuts_head();
                            this.poison = Poison::Left(POISON);
                            continue;
                        }
                        if this.ended(cx) {
                            return Poll::Ready(Ok(()));
                        }
                        return Poll::Pending;
                    }
                } else if this.head_expired(cx) {
                    this.wire.sends_head_slowly();
                    // Nothing else is being written: no request is running. A client that can't take 80 bytes goes without.
                    let _ = Pin::new(&mut this.inner).poll_write(cx, TIMEOUT_ANSWER)?;
                    let _ = Pin::new(&mut this.inner).poll_flush(cx)?;
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
                } else {
                    this.wire.rests(this.is_at_rest());
                    return Poll::Pending;
                }
            } else {
                let taken = this.held.len().min(buf.remaining());
                buf.put_slice(&this.held[..taken]);
                this.held.advance(taken);
            }
            this.wire.rests(false);
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
        self.half_closed = None;
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
        this.wire.rests(false);
        if this.closing.is_none() {
            let poll = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.sending(cx, poll))?;
        }
        let closing = this.closing.get_or_insert_with(|| Closing {
            timer: Box::pin(sleep(LINGER)),
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
        self.half_closed = None;
        self.sending(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
