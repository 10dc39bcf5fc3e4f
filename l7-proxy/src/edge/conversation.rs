//! HTTP/1 on a client's connection, and the pauses between its requests.
//!
//! ```text
//!   converse: hyper, its buffers, a request ── nothing for REST_AFTER ──▶ rest: the stream alone
//!      ▲                                                                   │
//!      └───────────────────────────── input ───────────────────────────────┘
//! ```
//!
//! hyper keeps 8 KiB to read into, and the room of a request, for as long as it has a connection. Most connections are idle most of the time, so one that is
//! gets another hyper when its next request comes. One that is in use is looked at once a second, which also ends one that is idle for too long and can't
//! rest, as something came that is no request.

use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant as Clock, sleep, sleep_until};

use super::aside::{First, first_of};
use super::connection::{Step, Watch};
use super::strict::{Input, StrictStream};
use crate::exchange::{self, Client};

/// A connection without a request for so long rests, or for twice as long at most.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Serves the connection to its end; no result where a drain or its idle time ended it.
pub(super) async fn hold<S>(
    client: &Rc<Client>,
    mut stream: StrictStream<S>,
) -> Option<hyper::Result<()>>
where
    S: AsyncRead + AsyncWrite + Input + Unpin + Send + 'static,
{
    let mut watch = Watch::new(client.entrance.course.clone());
    let began = Instant::now();
    loop {
        // Boxed, to give the room back.
        let conversation = Box::pin(converse(client, stream, &mut watch, began)).await;
        let (paused, since) = match conversation {
            ControlFlow::Break(result) => return result,
            ControlFlow::Continue(paused) => paused,
        };
        stream = paused;
        let until = Clock::from_std(since) + client.entrance.listener().idle_timeout;
        tokio::select! {
            biased;
            () = stream.input() => {}
            step = watch.http1(&client.wire, began) => {
                if let Step::Close = step {
                    // A client that has left is none of our concern.
                    let _ = stream.shutdown().await;
                }
                return None;
            }
            () = sleep_until(until) => return None,
        }
    }
}

/// Has hyper serve the connection until it is over; or until it pauses, from a moment on in which something came for the last time.
async fn converse<S>(
    client: &Rc<Client>,
    stream: StrictStream<S>,
    watch: &mut Watch,
    began: Instant,
) -> ControlFlow<Option<hyper::Result<()>>, (StrictStream<S>, Instant)>
where
    S: AsyncRead + AsyncWrite + Input + Unpin + Send + 'static,
{
    let wire = &client.wire;
    let serving = client.clone();
    let service = service_fn(move |request| exchange::serve(serving.clone(), request));
    let http1 = &client.entrance.http1;
    let connection = http1.serve_connection(TokioIo::new(stream), service);
    let mut connection = connection.with_upgrades();
    let mut is_closing = false;
    let requests = || (wire.requests(), wire.active());
    let (mut since, mut seen) = (Instant::now(), requests());
    let idle_timeout = client.entrance.listener().idle_timeout;
    let pause = REST_AFTER.min(idle_timeout / 2);
    loop {
        let look = async {
            tokio::select! {
                biased;
                step = watch.http1(wire, began) => Some(step),
                () = sleep(pause) => None,
            }
        };
        // The connection first: a request that has arrived counts before a drain that has begun.
        let first = first_of(Pin::new(&mut connection), pin!(look)).await;
        match first {
            First::Main(result) => return ControlFlow::Break(Some(result)),
            First::Aside(Some(Step::Close)) => {
                is_closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            First::Aside(Some(Step::Cut)) => return ControlFlow::Break(None),
            First::Aside(None) => {
                if requests() != seen || wire.active() > 0 {
                    (since, seen) = (Instant::now(), requests());
                } else if wire.is_at_rest() && !is_closing {
                    break;
                } else if since.elapsed() >= idle_timeout {
                    return ControlFlow::Break(None);
                }
            }
        }
    }
    match connection.into_parts() {
        Some(parts) => {
            // Empty lines in front of a request line mean nothing (RFC 9112 section 2.2).
            debug_assert!(
                parts.read_buf.iter().all(|byte| b"\r\n".contains(byte)),
                "a request would be lost"
            );
            ControlFlow::Continue((parts.io.into_inner(), since))
        }
        // It has left HTTP.
        None => ControlFlow::Break(Some(Ok(()))),
    }
}
