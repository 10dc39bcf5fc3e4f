//! Phases: TLS, and which HTTP it is. One task per client connection, from its first byte to the last.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::conversation;
use super::origin;
use super::strict::{Input, StrictStream};
use super::tls;
use crate::config::Protocol;
use crate::edge::proxy_protocol::Ends;
use crate::exchange::{self, Client, Course, Entrance, Permit, Phase, Worker};
use crate::http::{Framing, Peer, Wire};
use crate::observe::metrics::Handshake;
use crate::observe::reason::Reason;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that was accepted but carried no request yet is not closed by a drain before it is this old: its first request may be
/// under way, and clients don't repeat a request lost on a new connection.
const SETTLING: Duration = Duration::from_secs(2);

/// How long an HTTP/2 client without requests under way may take to acknowledge our GOAWAY. Behind an L4 node that died there is nobody left
/// to do so.
const LINGER: Duration = Duration::from_secs(2);

/// Clients' faults are logged at most this often.
const COMPLAIN: Duration = Duration::from_secs(1);

/// A connection that speaks a protocol, until it ends. Boxed, and begun where the stages before it end: a connection that lies idle has the room of its
/// own stage, not of the largest.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Serves an accepted connection until it ends.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    entrance: Rc<Entrance>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) {
    let serving = Box::pin(begin(worker, entrance, stream, peer, permit)).await;
    if let Some(serving) = serving {
        serving.await;
    }
}

/// The stages of a connection before its protocol is known; none if it ends in one of them.
async fn begin(
    worker: Rc<Worker>,
    entrance: Rc<Entrance>,
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) -> Option<Serving> {
    let local = stream.local_addr().ok()?;
    stream.set_nodelay(true).ok()?;
    let mut ends = Ends {
        source: peer,
        destination: local,
    };
    let proxied = entrance.listener().proxy_protocol.as_ref();
    if proxied.is_some_and(|proxied| proxied.is_expected_from(peer.ip())) {
        let finding = origin::find(&entrance, &mut stream, ends);
        ends = before_requests(&entrance, finding).await.flatten()?;
    }
    let client = Rc::new(Client {
        worker,
        entrance: entrance.clone(),
        peer: Peer::new(ends.source.ip()),
        local: ends.destination,
        wire: Arc::default(),
        stayed: RefCell::default(),
        _permit: permit,
    });
    match (entrance.listener().protocol, &entrance.tls) {
        (Protocol::Http, _) => plain(client, stream).await,
        (Protocol::Https, Some(config)) => secure(client, stream, config, ends.source).await,
        // A listener that says https always has TLS settings; without them there is nothing safe to do.
        (Protocol::Https, None) => None,
    }
}

async fn secure(
    client: Rc<Client>,
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    peer: SocketAddr,
) -> Option<Serving> {
    let listener = client.entrance.listener();
    let metrics = &client.entrance.metrics;
    let stream = match timeout(listener.header_timeout, tls::accept(config, stream)).await {
        Err(_) => {
            metrics.handshake(Handshake::TimedOut);
            return None;
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            metrics.handshake(Handshake::Abandoned);
            return None;
        }
        Ok(Err(error)) => {
            metrics.handshake(Handshake::Failed);
            tracing::debug!(listener = listener.name, %peer, %error, "TLS handshake failed");
            return None;
        }
        Ok(Ok(stream)) => stream,
    };
    let session = stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    metrics.handshake(if resumed {
        Handshake::Resumed
    } else {
        Handshake::Full
    });
    let is_h2 = tls::chose_h2(session);
    Some(if is_h2 {
        Box::pin(http2(client, stream, BytesMut::new()))
    } else {
        Box::pin(http1(client, stream, BytesMut::new(), None))
    })
}

async fn plain(client: Rc<Client>, mut stream: TcpStream) -> Option<Serving> {
    if !client.entrance.listener().http2 {
        return Some(Box::pin(http1(client, stream, BytesMut::new(), None)));
    }
    let listener = client.entrance.listener();
    let mut seen = BytesMut::with_capacity(2048);
    let mut began = None;
    let looks_like_h2 = async {
        while seen.len() < PREFACE.len() {
            let first = stream.read_buf(&mut seen);
            // Like any head, it has its time from its first byte on.
            let left = match began {
                None => listener.idle_timeout,
                Some(began) => listener
                    .header_timeout
                    .saturating_sub(Instant::elapsed(&began)),
            };
            match timeout(left, first).await {
                Ok(Ok(read)) if read > 0 => began.get_or_insert_with(Instant::now),
                _ => return false,
            };
            if !PREFACE.starts_with(&seen[..seen.len().min(PREFACE.len())]) {
                return false;
            }
        }
        true
    };
    match before_requests(&client.entrance, looks_like_h2).await {
        Some(true) => Some(Box::pin(http2(client, stream, seen))),
        // Too slow or cut short, it is no HTTP/2 and answered as a head of HTTP/1 is.
        Some(false) if !seen.is_empty() => Some(Box::pin(http1(client, stream, seen, began))),
        Some(false) | None => None,
    }
}

/// Waits for what comes before a connection's first request, but not through a drain: `None` when that closes the connection first.
async fn before_requests<T>(entrance: &Entrance, waiting: impl Future<Output = T>) -> Option<T> {
    let (wire, began) = (Wire::default(), Instant::now());
    let mut watch = Watch::new(entrance.course.clone());
    tokio::select! {
        biased;
        done = waiting => Some(done),
        Step::Close | Step::Cut = watch.http1(&wire, began) => None,
    }
}

async fn http1<S>(client: Rc<Client>, stream: S, seen: BytesMut, began: Option<Instant>)
where
    S: AsyncRead + AsyncWrite + Input + Unpin + Send + 'static,
{
    let entrance = client.entrance.clone();
    let (wire, peer) = (client.wire.clone(), client.peer.address());
    let stream = StrictStream::new(
        stream,
        Framing::http1(),
        seen,
        began.map(tokio::time::Instant::from_std),
        entrance.listener(),
        wire.clone(),
    );
    let result = conversation::hold(&client, stream).await;
    if matches!(result, Some(Ok(())))
        && let Some(stayed) = client.stayed.take()
        && let Ok(stream) = stayed.await
    {
        // Nothing is left to say on it, and a client that left is none of our concern.
        let _ = TokioIo::new(stream).shutdown().await;
    }
    if let Some(violation) = wire.violation() {
        entrance.metrics.violation(violation.name());
        shared::log_at_most_every!(
            COMPLAIN,
            tracing::Level::INFO,
            listener = entrance.listener().name,
            %peer,
            violation = violation.name(),
            "request refused: its framing is ambiguous"
        );
    }
    if wire.slow_reader() {
        entrance.metrics.slow_readers.increment(1);
    }
    if wire.slow_head() {
        entrance.metrics.slow_heads.increment(1);
        exchange::refused(&client, Reason::HeaderTimeout);
    }
    if let Some(Err(error)) = result {
        // Only what never became a request; the rest has accounts of its own.
        if error.is_parse_too_large() {
            exchange::refused(&client, Reason::HeadersTooLarge);
        } else if error.is_parse() {
            let reason = match wire.violation() {
                Some(violation) => violation.reason(),
                None if wire.cut_head() => Reason::RequestCut,
                None => Reason::HeaderInvalid,
            };
            exchange::refused(&client, reason);
        }
        tracing::debug!(listener = entrance.listener().name, %peer, %error, "connection ended");
    }
}

async fn http2<S>(client: Rc<Client>, stream: S, seen: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let entrance = client.entrance.clone();
    let (wire, peer) = (client.wire.clone(), client.peer.address());
    let course = entrance.course.clone();
    let listener = entrance.listener();
    let stream = StrictStream::new(
        stream,
        Framing::opaque(),
        seen,
        None,
        listener,
        wire.clone(),
    );
    let service = service_fn(move |request| exchange::serve(client.clone(), request));
    let mut connection = pin!(
        entrance
            .http2
            .serve_connection(TokioIo::new(stream), service)
    );

    let began = Instant::now();
    let mut watch = Watch::new(course);
    let mut idle = pin!(idle(&wire, listener.idle_timeout));
    let closing = Cell::new(false);
    let result = loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => break result,
            step = watch.http2(&wire, began) => match step {
                Step::Close => {
                    closing.set(true);
                    connection.as_mut().graceful_shutdown();
                }
                Step::Cut => break Ok(()),
            },
            () = idle.as_mut(), if !closing.get() => {
                closing.set(true);
                connection.as_mut().graceful_shutdown();
            }
            () = lingering(&wire), if closing.get() => break Ok(()),
        }
    };
    if wire.slow_reader() {
        entrance.metrics.slow_readers.increment(1);
    }
    if let Err(error) = result {
        tracing::debug!(listener = listener.name, %peer, %error, "connection ended");
    }
}

/// Ends once no request has run for `longest`.
async fn idle(wire: &Wire, longest: Duration) {
    loop {
        let before = wire.requests();
        sleep(longest).await;
        if wire.active() == 0 && wire.requests() == before {
            return;
        }
    }
}

/// Ends once a client had time to answer our GOAWAY and nothing runs: it does not close, or is no longer there.
async fn lingering(wire: &Wire) {
    loop {
        sleep(LINGER).await;
        if wire.active() == 0 {
            return;
        }
    }
}

/// What a drain asks of a connection.
pub(super) enum Step {
    /// Finish what runs, take nothing more.
    Close,
    /// End at once.
    Cut,
}

/// Follows the node's drain for one connection.
pub(super) struct Watch {
    course: watch::Receiver<Course>,
    closed: bool,
    /// It came during a drain: closed after its answer, but cut only with the process.
    late: bool,
}

/// How much longer a young connection without a request is left alone.
fn settling(wire: &Wire, began: Instant) -> Option<Duration> {
    SETTLING
        .checked_sub(began.elapsed())
        .filter(|_| wire.requests() == 0)
        .map(|left| left.min(LOOK))
}

/// How often a draining connection that carried no request yet is looked at again.
const LOOK: Duration = Duration::from_millis(100);

impl Watch {
    pub(super) fn new(mut course: watch::Receiver<Course>) -> Watch {
        let late = course.borrow_and_update().draining();
        Watch {
            course,
            closed: false,
            late,
        }
    }

    /// HTTP/1: answers say `Connection: close` during the grace; after it, idle connections are closed.
    pub(super) async fn http1(&mut self, wire: &Wire, began: Instant) -> Step {
        self.wait(Phase::Closing, |_| settling(wire, began)).await
    }

    /// HTTP/2: GOAWAY as soon as the drain begins, but in its grace not before a connection has carried a request.
    async fn http2(&mut self, wire: &Wire, began: Instant) -> Step {
        self.wait(Phase::Grace, |phase| match phase {
            Phase::Grace if wire.requests() == 0 => Some(LOOK),
            _ => settling(wire, began),
        })
        .await
    }

    async fn wait(&mut self, from: Phase, not_yet: impl Fn(Phase) -> Option<Duration>) -> Step {
        loop {
            let Course { phase, exiting, .. } = *self.course.borrow_and_update();
            if phase == Phase::Serving {
                // A drain that was cancelled: connections that were not closed go on, and the next drain finds them open.
                self.late = false;
            }
            if phase == Phase::Ended && (exiting || !self.late) {
                return Step::Cut;
            }
            if phase >= from && !self.closed {
                match not_yet(phase) {
                    None => {
                        self.closed = true;
                        return Step::Close;
                    }
                    Some(again) => {
                        sleep(again).await;
                        continue;
                    }
                }
            }
            if self.course.changed().await.is_err() {
                // The supervisor is gone, so is the process, nearly.
                std::future::pending::<()>().await;
            }
        }
    }
}
