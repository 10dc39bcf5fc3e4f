//! Bytes both ways after an upgrade (WebSocket and the like), until both sides have closed, nothing moves for too long, or the
//! node's drain ends.
//!
//! A tunnel begins only after the backend answered 101: until then both sides speak HTTP (see `exchange/upgrade.rs`).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep_until};

/// Bytes buffered in each direction. WebSocket frames are small; thousands of idle tunnels must stay cheap.
const BUFFER: usize = 8 * 1024;

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides closed.
    Closed,
    /// Nothing moved either way for the idle timeout.
    Idle,
    /// The node stopped it: its drain ended.
    Stopped,
    /// One side broke off.
    Broken,
}

impl End {
    /// The word in logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Idle => "idle",
            End::Stopped => "stopped",
            End::Broken => "broken",
        }
    }
}

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Bytes from the client to the backend.
    pub received: u64,
    /// Bytes from the backend to the client.
    pub sent: u64,
    /// Why it ended.
    pub end: End,
}

/// Copies between `client` and `backend`. A side that closes its half has that passed on; the other half goes on.
pub async fn run<C, B>(
    client: C,
    mut backend: B,
    idle: Duration,
    stop: impl Future<Output = ()>,
) -> Passed
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Moved {
        received: Cell::new(0),
        sent: Cell::new(0),
        last: Cell::new(Instant::now()),
    };
    let mut client = Watched {
        inner: client,
        moved: &moved,
    };
    let end = tokio::select! {
        result = copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER) => match result {
            Ok(_) => End::Closed,
            Err(_) => End::Broken,
        },
        () = moved.stands_still(idle) => End::Idle,
        () = stop => End::Stopped,
    };
    Passed {
        received: moved.received.get(),
        sent: moved.sent.get(),
        end,
    }
}

/// Counts, and when something last moved.
struct Moved {
    received: Cell<u64>,
    sent: Cell<u64>,
    last: Cell<Instant>,
}

impl Moved {
    async fn stands_still(&self, idle: Duration) {
        loop {
            let until = self.last.get() + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn add(&self, counter: &Cell<u64>, bytes: usize) {
        if bytes > 0 {
            counter.set(counter.get() + bytes as u64);
            self.last.set(Instant::now());
        }
    }
}

/// The client's side, which sees every byte of both directions.
struct Watched<'m, S> {
    inner: S,
    moved: &'m Moved,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.moved
            .add(&self.moved.received, buf.filled().len() - before);
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            self.moved.add(&self.moved.sent, written);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::block_on;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn a_half_closed_side_still_receives() {
        block_on(async {
            let (mut user, client) = duplex(64);
            let (mut app, backend) = duplex(64);
            let tunnel = run(
                client,
                backend,
                Duration::from_secs(5),
                std::future::pending(),
            );
            let ends = async {
                user.write_all(b"ask").await.expect("write");
                user.shutdown().await.expect("shutdown");
                let mut asked = String::new();
                app.read_to_string(&mut asked).await.expect("read");
                app.write_all(b"answer").await.expect("write");
                drop(app);
                let mut answered = String::new();
                user.read_to_string(&mut answered).await.expect("read");
                (asked, answered)
            };
            let (passed, (asked, answered)) = tokio::join!(tunnel, ends);
            assert_eq!((asked.as_str(), answered.as_str()), ("ask", "answer"));
            assert_eq!(
                passed,
                Passed {
                    received: 3,
                    sent: 6,
                    end: End::Closed
                }
            );
        });
    }

    #[test]
    fn a_tunnel_in_which_nothing_moves_ends() {
        block_on(async {
            let (_user, client) = duplex(64);
            let (_app, backend) = duplex(64);
            let passed = run(
                client,
                backend,
                Duration::from_millis(20),
                std::future::pending(),
            )
            .await;
            assert_eq!(passed.end, End::Idle);
        });
    }

    #[test]
    fn a_stopped_tunnel_ends_at_once() {
        block_on(async {
            let (_user, client) = duplex(64);
            let (_app, backend) = duplex(64);
            let passed = run(
                client,
                backend,
                Duration::from_secs(60),
                std::future::ready(()),
            )
            .await;
            assert_eq!(passed.end, End::Stopped);
        });
    }
}
