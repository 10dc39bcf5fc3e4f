//! What one worker thread serves with: the snapshot, its own balancers, its own connections to backends, its part of the log.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use metrics::Counter;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::stall::watched;
use crate::access_log::Buffer;
use crate::balance::{Balancer, Tried};
use crate::config::Listener;
use crate::drain::Course;
use crate::metrics::{ListenerMetrics, UpstreamsMetrics};
use crate::route::UpstreamId;
use crate::snapshot::Snapshot;
use crate::upstream::Pool;

/// Most bytes a connection buffers of what is read ahead, and of what waits for a slow reader.
const BUFFER: usize = 64 * 1024;

/// Flow-control windows towards HTTP/2 clients, in bytes: how much of an upload may wait in memory.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Streams a client may open and reset before the connection is ended (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 64;

/// hyper keeps up to this many header fields on the stack; only more need a setting of their own.
const INLINE_HEADERS: usize = 100;

/// One worker thread's view.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) log: RefCell<Option<Buffer>>,
    pub(crate) upstreams: UpstreamsMetrics,
    pub(crate) course: watch::Receiver<Course>,
    balancers: Box<[RefCell<Balancer>]>,
}

impl Worker {
    /// Worker number `index`.
    pub(crate) fn new(
        index: usize,
        snapshot: Arc<Snapshot>,
        log: Option<Buffer>,
        course: watch::Receiver<Course>,
    ) -> Worker {
        let balancers = snapshot
            .upstreams()
            .iter()
            .map(|upstream| RefCell::new(Balancer::new(upstream.clone(), index)))
            .collect();
        Worker {
            upstreams: UpstreamsMetrics::new(&snapshot),
            snapshot,
            pool: Rc::new(Pool::default()),
            log: RefCell::new(log),
            course,
            balancers,
        }
    }

    /// The backend for a request's next try, as an index into its upstream's backends.
    pub(crate) fn choose(&self, upstream: UpstreamId, tried: &Tried) -> Option<usize> {
        self.balancers.get(upstream.0)?.borrow_mut().choose(tried)
    }

    /// Housekeeping, about once a second.
    pub(crate) fn tick(&self) {
        self.pool.expire();
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.flush();
        }
    }
}

/// A listener as one worker sees it.
#[derive(Debug)]
pub(crate) struct Entrance {
    snapshot: Arc<Snapshot>,
    index: usize,
    pub(crate) tls: Option<Tls>,
    pub(crate) http1: http1::Builder,
    pub(crate) http2: http2::Builder<StreamExecutor>,
    pub(crate) metrics: ListenerMetrics,
    /// Connections open on this listener, over all workers.
    pub(crate) open: Arc<AtomicUsize>,
}

/// Hides the acceptor's lack of `Debug`.
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Entrance {
    /// Listener number `index` of the snapshot. `open` is shared by all workers.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        index: usize,
        tls: Option<TlsAcceptor>,
        open: Arc<AtomicUsize>,
    ) -> Option<Entrance> {
        let listener = snapshot.config.listeners.get(index)?;
        Some(Entrance {
            tls: tls.map(Tls),
            http1: http1(listener),
            http2: http2(listener),
            metrics: ListenerMetrics::new(listener),
            open,
            snapshot,
            index,
        })
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.snapshot.config.listeners[self.index]
    }
}

/// Never `pipeline_flush(true)`: it lifts the cap on what waits to be written, so that a slow reader would buffer a whole body.
fn http1(listener: &Listener) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper starts this when it begins to wait for a request; the time for a head that has begun is kept by `StrictStream`.
        .header_read_timeout(listener.idle_timeout)
        .max_header_size(listener.max_header_size)
        .max_buf_size(BUFFER.max(listener.max_header_size));
    if listener.max_headers != INLINE_HEADERS {
        builder.max_headers(listener.max_headers);
    }
    builder
}

fn http2(listener: &Listener) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor {
        send_timeout: listener.send_timeout,
        slow_readers: ListenerMetrics::slow_readers(&listener.name),
    });
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(listener.max_header_size).unwrap_or(u32::MAX))
        .max_concurrent_streams(listener.max_streams)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER);
    builder
}

/// Runs HTTP/2 streams, which hyper spawns, on this worker's thread, as long as their clients take their responses.
#[derive(Clone)]
pub(crate) struct StreamExecutor {
    send_timeout: Duration,
    slow_readers: Counter,
}

impl std::fmt::Debug for StreamExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamExecutor")
            .field("send_timeout", &self.send_timeout)
            .finish_non_exhaustive()
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
{
    fn execute(&self, stream: F) {
        let StreamExecutor {
            send_timeout,
            slow_readers,
        } = self.clone();
        actix_rt::spawn(async move {
            if watched(stream, send_timeout).await {
                slow_readers.increment(1);
            }
        });
    }
}
