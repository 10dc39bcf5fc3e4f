//! What one worker thread serves with: the current generation of the configuration, its own connections to backends, its part of the log.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use metrics::Counter;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::course::Course;
use super::generation::Generation;
use super::snapshot::Snapshot;
use crate::config::Listener;
use crate::http::watched;
use crate::observe::access_log::Buffer;
use crate::observe::metrics::ListenerMetrics;
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
    index: usize,
    current: RefCell<Rc<Generation>>,
    pool: Pool,
    pub(crate) log: RefCell<Option<Buffer>>,
}

impl Worker {
    /// Worker number `index`.
    pub(crate) fn new(index: usize, snapshot: Arc<Snapshot>, log: Option<Buffer>) -> Worker {
        let pool = Pool::default();
        let generation = Generation::new(snapshot, index, &pool, None);
        Worker {
            index,
            current: RefCell::new(Rc::new(generation)),
            pool,
            log: RefCell::new(log),
        }
    }

    /// The generation that requests beginning now are served by.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        self.current.borrow().clone()
    }

    /// Serves requests that begin from now on by another snapshot. Those under way are finished by the one they began with.
    pub(crate) fn adopt(&self, snapshot: Arc<Snapshot>) {
        let before = self.generation();
        let next = Generation::new(snapshot, self.index, &self.pool, Some(&before));
        self.pool.retain(&next.shelves());
        self.current.replace(Rc::new(next));
    }

    /// Logs requests that end from now on elsewhere, or not at all.
    pub(crate) fn log_to(&self, log: Option<Buffer>) {
        self.log.replace(log);
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
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) http1: http1::Builder,
    pub(crate) http2: http2::Builder<StreamExecutor>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Connections open on this listener, over all workers.
    pub(crate) open: Arc<AtomicUsize>,
    /// Where the drain of this listener stands: the node's, or its own when it leaves the configuration.
    pub(crate) course: watch::Receiver<Course>,
}

impl Entrance {
    /// Listener number `index` of the snapshot. `open` is shared by all workers.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        index: usize,
        tls: Option<Arc<ServerConfig>>,
        open: Arc<AtomicUsize>,
        course: watch::Receiver<Course>,
    ) -> Option<Entrance> {
        let listener = snapshot.config.listeners.get(index)?;
        let metrics = snapshot.listeners().get(index)?;
        Some(Entrance {
            tls,
            http1: http1(listener),
            http2: http2(listener, metrics),
            metrics: metrics.clone(),
            open,
            course,
            snapshot,
            index,
        })
    }

    /// The metrics of this listener in a generation of the configuration, which may have it no more.
    pub(crate) fn metrics_in<'g>(&self, snapshot: &'g Snapshot) -> Option<&'g ListenerMetrics> {
        snapshot.listener(self.index, &self.listener().name)
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.snapshot.config.listeners[self.index]
    }
}

/// Never `pipeline_flush(true)`: it lifts the cap on what waits to be written, so that a slow reader would buffer a whole body.
fn http1(listener: &Listener) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The time between requests is kept by `edge/conversation.rs`, that for a head that has begun by `StrictStream`. A timer that is set and
        // cleared for each request, and another look for input because of it, are 1,000 instructions.
        .header_read_timeout(None)
        .max_header_size(listener.max_header_size)
        .max_buf_size(BUFFER.max(listener.max_header_size));
    if listener.max_headers != INLINE_HEADERS {
        builder.max_headers(listener.max_headers);
    }
    builder
}

fn http2(listener: &Listener, metrics: &ListenerMetrics) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor {
        send_timeout: listener.send_timeout,
        slow_readers: metrics.slow_readers.clone(),
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
        // Several kilobytes, which a task would move a few times before and after it runs.
        let stream = Box::pin(stream);
        actix_rt::spawn(async move {
            if watched(stream, send_timeout).await {
                slow_readers.increment(1);
            }
        });
    }
}
