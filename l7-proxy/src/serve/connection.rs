//! Phases: TLS, and which HTTP it is. One task per client connection, from its first byte to the last.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::account;
use super::client::{Client, Permit};
use super::framing::{Framing, Violation};
use super::origin;
use super::request;
use super::strict::{StrictStream, Wire};
use super::worker::{Entrance, Worker};
use crate::config::Protocol;
use crate::drain::{Course, Phase};
use crate::metrics::Handshake;
use crate::normalise::Peer;
use crate::proxy_protocol::Ends;
use crate::reason::Reason;
use crate::tls;

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

/// Serves an accepted connection until it ends.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    entrance: Rc<Entrance>,
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut ends = Ends {
        source: peer,
        destination: local,
    };
    let proxied = entrance.listener().proxy_protocol.as_ref();
    if proxied.is_some_and(|proxied| proxied.is_expected_from(peer.ip())) {
        let finding = origin::find(&entrance, &mut stream, ends);
        match before_requests(&worker, finding).await.flatten() {
            Some(told) => ends = told,
            None => return,
        }
    }
    let peer = ends.source;
    let client = Rc::new(Client {
        worker,
        entrance: entrance.clone(),
        peer: Peer::new(peer.ip()),
        local: ends.destination,
        wire: Arc::default(),
        _permit: permit,
    });
    let listener = entrance.listener();
    match (listener.protocol, &entrance.tls) {
        (Protocol::Http, _) => plain(client, stream).await,
        (Protocol::Https, Some(acceptor)) => {
            let metrics = &entrance.metrics;
            match timeout(listener.header_timeout, acceptor.0.accept(stream)).await {
                Err(_) => metrics.handshake(Handshake::TimedOut),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    metrics.handshake(Handshake::Abandoned);
                }
                Ok(Err(error)) => {
                    metrics.handshake(Handshake::Failed);
                    tracing::debug!(listener = listener.name, %peer, %error, "TLS handshake failed");
                }
                Ok(Ok(stream)) => {
                    let session = stream.get_ref().1;
                    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                    metrics.handshake(if resumed {
                        Handshake::Resumed
                    } else {
                        Handshake::Full
                    });
                    if tls::chose_h2(session) {
                        http2(client, stream, BytesMut::new()).await;
                    } else {
                        http1(client, stream, BytesMut::new()).await;
                    }
                }
            }
        }
        // A listener that says https always has an acceptor; without one there is nothing safe to do.
        (Protocol::Https, None) => {}
    }
}

async fn plain(client: Rc<Client>, mut stream: TcpStream) {
    if !client.entrance.listener().http2 {
        return http1(client, stream, BytesMut::new()).await;
    }
    let mut seen = BytesMut::with_capacity(2048);
    let looks_like_h2 = async {
        while seen.len() < PREFACE.len() {
            let known = seen.len();
            if stream.read_buf(&mut seen).await.unwrap_or(0) == 0
                || !PREFACE.starts_with(&seen[..seen.len().min(PREFACE.len())])
            {
                return false;
            }
            debug_assert!(seen.len() > known);
        }
        true
    };
    let listener = client.entrance.listener();
    let looked = timeout(listener.idle_timeout, looks_like_h2);
    match before_requests(&client.worker, looked).await {
        Some(Ok(true)) => http2(client, stream, seen).await,
        Some(Ok(false)) if !seen.is_empty() => http1(client, stream, seen).await,
        Some(Ok(false) | Err(_)) | None => {}
    }
}

/// Waits for what comes before a connection's first request, but not through a drain: `None` when that closes the connection first.
async fn before_requests<T>(worker: &Worker, waiting: impl Future<Output = T>) -> Option<T> {
    let (wire, began) = (Wire::default(), Instant::now());
    let mut watch = Watch::new(worker.course.clone());
    tokio::select! {
        biased;
        done = waiting => Some(done),
        Step::Close | Step::Cut = watch.http1(&wire, began) => None,
    }
}

async fn http1<S>(client: Rc<Client>, stream: S, seen: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let entrance = client.entrance.clone();
    let (wire, peer) = (client.wire.clone(), client.peer.address());
    let course = client.worker.course.clone();
    let stream = StrictStream::new(
        stream,
        Framing::http1(),
        seen,
        entrance.listener(),
        wire.clone(),
    );
    let serving = client.clone();
    let service = service_fn(move |request| request::serve(serving.clone(), request));
    let mut connection = pin!(
        entrance
            .http1
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );

    let began = Instant::now();
    let mut watch = Watch::new(course);
    let result = loop {
        tokio::select! {
            // The connection first: a request that has arrived counts before a drain that has begun.
            biased;
            result = connection.as_mut() => break result,
            step = watch.http1(&wire, began) => match step {
                Step::Close => connection.as_mut().graceful_shutdown(),
                Step::Cut => break Ok(()),
            },
        }
    };
    if let Some(violation) = wire.violation() {
        entrance.metrics.violation(violation);
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
        account::refused(&client, Reason::HeaderTimeout);
    }
    if let Err(error) = result {
        // Only what never became a request; the rest has accounts of its own.
        if error.is_parse_too_large() {
            account::refused(&client, Reason::HeadersTooLarge);
        } else if error.is_parse() {
            let reason = wire
                .violation()
                .map_or(Reason::HeaderInvalid, Violation::reason);
            account::refused(&client, reason);
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
    let course = client.worker.course.clone();
    let listener = entrance.listener();
    let stream = StrictStream::new(stream, Framing::opaque(), seen, listener, wire.clone());
    let service = service_fn(move |request| request::serve(client.clone(), request));
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
enum Step {
    /// Finish what runs, take nothing more.
    Close,
    /// End at once.
    Cut,
}

/// Follows the node's drain for one connection.
struct Watch {
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
    fn new(mut course: watch::Receiver<Course>) -> Watch {
        let late = course.borrow_and_update().draining();
        Watch {
            course,
            closed: false,
            late,
        }
    }

    /// HTTP/1: answers say `Connection: close` during the grace; after it, idle connections are closed.
    async fn http1(&mut self, wire: &Wire, began: Instant) -> Step {
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
            let Course { phase, exiting } = *self.course.borrow_and_update();
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
