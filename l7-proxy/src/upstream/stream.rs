//! A backend's byte stream with a bound on what may come before a response head.
//!
//! hyper bounds one head, but skips interim responses (1xx) without end: a backend that sends nothing else would keep a worker busy
//! until the response timeout, and every other connection of that worker waiting.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may arrive from the sending of a request to the end of its response head, interim responses and what is read ahead of the
/// body included. Twice what hyper buffers for one head, and room for the read that ends it.
const BEFORE_BODY: usize = 256 * 1024;

const UNLIMITED: usize = usize::MAX;

/// How much may still arrive before the response head is complete. Atomic, because hyper's upgrades want `Send`.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    fn new() -> Allowance {
        Allowance(Arc::new(AtomicUsize::new(BEFORE_BODY)))
    }

    /// A request is about to be sent.
    pub(crate) fn renew(&self) {
        self.0.store(BEFORE_BODY, Ordering::Relaxed);
    }

    /// Its response head is here: the body may be of any length.
    pub(crate) fn lift(&self) {
        self.0.store(UNLIMITED, Ordering::Relaxed);
    }

    /// Whether the backend sent more than it may before a response head.
    pub(crate) fn exceeded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        if left != UNLIMITED {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

/// The stream to a backend.
#[derive(Debug)]
pub(crate) struct BackendStream<S> {
    inner: S,
    allowance: Allowance,
}

impl<S> BackendStream<S> {
    pub(crate) fn new(inner: S) -> (BackendStream<S>, Allowance) {
        let allowance = Allowance::new();
        let stream = BackendStream {
            inner,
            allowance: allowance.clone(),
        };
        (stream, allowance)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BackendStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.exceeded() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData)));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.allowance.spend(buf.filled().len() - before);
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BackendStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
