//! Phase: PROXY. Whose connection it is: the peer's, unless the listener expects a header from that peer.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Listener, Protocol};
use crate::edge::proxy_protocol::{Ends, Header, Malformed, Parse, parse};
use crate::exchange::Entrance;

/// Faults of trusted peers are logged at most this often.
const COMPLAIN: Duration = Duration::from_secs(1);

/// Most bytes looked at in one go. A header with IPv6 addresses has 52, and some extensions fit too.
const CHUNK: usize = 256;

/// The ends of a connection as its client sees it, where the listener expects a header from this peer; `None` when there is nobody, or nothing
/// trustworthy, to serve. `ends` are those of the connection itself. No byte behind the header is taken.
pub(super) async fn find(entrance: &Entrance, stream: &mut TcpStream, ends: Ends) -> Option<Ends> {
    let (listener, peer) = (entrance.listener(), ends.source);
    match header(stream, listener).await {
        Ok(Header {
            ends: Some(ends), ..
        }) => {
            entrance.metrics.proxied();
            Some(ends)
        }
        Ok(Header { ends: None, .. }) => {
            entrance.metrics.not_proxied("direct");
            Some(ends)
        }
        Err(missing) => {
            entrance.metrics.not_proxied(missing.name());
            if missing.is_fault() {
                shared::log_at_most_every!(
                    COMPLAIN,
                    tracing::Level::WARN,
                    listener = listener.name,
                    %peer,
                    problem = missing.name(),
                    "connection closed: its peer is in proxy_protocol.trusted but sent no valid PROXY header"
                );
            }
            None
        }
    }
}

/// What may come where a header is expected that names a client, in the words of the metric.
pub(crate) fn instead_of_headers() -> impl Iterator<Item = &'static str> {
    let missing = [
        Missing::Abandoned,
        Missing::Idle,
        Missing::TimedOut,
        Missing::Cut,
    ];
    let malformed = Malformed::ALL.map(Missing::Malformed);
    let missing = missing.into_iter().chain(malformed);
    std::iter::once("direct").chain(missing.map(Missing::name))
}

/// Why no header was read.
#[derive(Clone, Copy, Debug)]
enum Missing {
    /// Closed before its first byte: port scans and TCP checks do.
    Abandoned,
    /// Silent for as long as a connection may be.
    Idle,
    /// It began and was not complete in time.
    TimedOut,
    /// It began, and the connection ended.
    Cut,
    Malformed(Malformed),
}

impl Missing {
    fn name(self) -> &'static str {
        match self {
            Missing::Abandoned => "abandoned",
            Missing::Idle => "idle",
            Missing::TimedOut => "timeout",
            Missing::Cut => "cut",
            Missing::Malformed(malformed) => malformed.name(),
        }
    }

    /// Whether the peer did something wrong.
    fn is_fault(self) -> bool {
        !matches!(self, Missing::Abandoned | Missing::Idle)
    }
}

/// Reads a header: for its first byte it waits as long as for the client's own, since load balancers (ours does) send both in one segment.
async fn header(stream: &mut TcpStream, listener: &Listener) -> Result<Header, Missing> {
    let patience = match listener.protocol {
        Protocol::Http => listener.idle_timeout,
        Protocol::Https => listener.header_timeout,
    };
    match timeout(patience, stream.peek(&mut [0])).await {
        Err(_) => return Err(Missing::Idle),
        Ok(Ok(0) | Err(_)) => return Err(Missing::Abandoned),
        Ok(Ok(_)) => {}
    }
    match timeout(listener.header_timeout, rest(stream)).await {
        Err(_) => Err(Missing::TimedOut),
        Ok(Err(_)) => Err(Missing::Cut),
        Ok(Ok(header)) => header.map_err(Missing::Malformed),
    }
}

/// Takes exactly the header: looks first, then reads as many bytes as belong to it.
async fn rest(stream: &mut TcpStream) -> io::Result<Result<Header, Malformed>> {
    let mut received = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let before = received.len();
        let seen = stream.peek(&mut chunk).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&chunk[..seen]);
        let (ours, header) = match parse(&received) {
            Ok(Parse::Partial) => (seen, None),
            // What was partial before is complete now, so it ends within this chunk.
            Ok(Parse::Complete(header)) => {
                (header.length.saturating_sub(before).min(seen), Some(header))
            }
            Err(malformed) => return Ok(Err(malformed)),
        };
        stream.read_exact(&mut chunk[..ours]).await?;
        if let Some(header) = header {
            return Ok(Ok(header));
        }
    }
}
