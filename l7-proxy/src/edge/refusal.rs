//! Connections beyond `max_connections`: told so in their own protocol, at less cost than a request's, and only so many at a time.
//!
//! An answer that is sent before the client has said anything is no answer to it (Go's client takes it for a stray one and asks again), and
//! closing with bytes unread makes the kernel reset the connection, which may overtake the answer. So a refusal waits a moment for
//! the first bytes, and for the end. What is beyond [`MOST`] is closed without a byte: a flood must not cost more by being refused.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use shared::telemetry::AtMostEvery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::origin;
use crate::config::Protocol;
use crate::edge::proxy_protocol::Ends;
use crate::exchange::{self, Entrance, Worker};

/// Most connections that are being told at once, by listener and worker.
const MOST: usize = 64;

/// Time for a connection's first bytes and PROXY header, and then for its end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most bytes taken of what the client sends before it has read the answer.
const MOST_READ: usize = 64 * 1024;

/// Of those told, the access log has one in this time, by listener and worker: a client that is not served doesn't set the log's pace.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// The node's own log says that a listener is full this often.
const COMPLAIN: Duration = Duration::from_secs(10);

const HTTP1: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 24\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    503 Service Unavailable\n";

/// SETTINGS, and a GOAWAY that says no stream was looked at: ENHANCE_YOUR_CALM (RFC 9113 sections 3.4, 6.8 and 7).
const HTTP2: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b";

/// A fatal alert, internal_error: there is none for "come back later" (RFC 8446 section 6.2). A handshake would cost what the limit is to save.
const TLS: &[u8] = b"\x15\x03\x03\x00\x02\x02\x50";

/// How HTTP/2 with prior knowledge begins, and no HTTP/1 request (RFC 9113 section 3.4).
const PREFACE: [u8; 4] = *b"PRI ";

/// The refusals of one accept loop.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    under_way: Rc<Cell<usize>>,
    log: Rc<AtMostEvery>,
}

/// Counts one refusal until dropped.
struct UnderWay(Rc<Cell<usize>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Refusals {
    /// Turns a connection away. It has been counted as one over the limit.
    pub(super) fn turn_away(
        &self,
        worker: &Rc<Worker>,
        entrance: &Rc<Entrance>,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) {
        let listener = entrance.listener();
        shared::log_at_most_every!(
            COMPLAIN,
            tracing::Level::WARN,
            listener = listener.name,
            max_connections = listener.max_connections,
            "the listener is full: connections are turned away"
        );
        if self.under_way.get() >= MOST {
            return;
        }
        self.under_way.set(self.under_way.get() + 1);
        let slot = UnderWay(self.under_way.clone());
        let (worker, entrance, log) = (worker.clone(), entrance.clone(), self.log.clone());
        actix_rt::spawn(async move {
            let told = timeout(PATIENCE, answer(&entrance, &mut stream, peer)).await;
            if let Ok(Some(client)) = told {
                let logged = log.pass(LOG_EVERY).is_some();
                exchange::turned_away(&worker, &entrance, client.ip(), logged);
                let _ = timeout(PATIENCE, hang_up(&mut stream)).await;
            }
            drop(slot);
        });
    }
}

/// Answers whoever says something. The client, if it was one.
async fn answer(
    entrance: &Entrance,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let listener = entrance.listener();
    let proxied = listener.proxy_protocol.as_ref();
    let mut client = peer;
    if proxied.is_some_and(|proxied| proxied.is_expected_from(peer.ip())) {
        let ends = Ends {
            source: peer,
            destination: stream.local_addr().ok()?,
        };
        client = origin::find(entrance, stream, ends).await?.source;
    }
    let mut first = [0; PREFACE.len()];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    let answer = match listener.protocol {
        Protocol::Https => TLS,
        Protocol::Http if listener.http2 && first == PREFACE => HTTP2,
        Protocol::Http => HTTP1,
    };
    stream.write_all(answer).await.ok()?;
    Some(client)
}

/// Ends our side, and takes what is still sent until the client ends its own.
async fn hang_up(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0; 2048];
    let mut taken = 0;
    while let Ok(read @ 1..) = stream.read(&mut scrap).await {
        taken += read;
        if taken > MOST_READ {
            return;
        }
    }
}
