//! HTTP/2 clients that take nothing of a response: each holds a stream, a connection to a backend and that backend's attention, and one
//! client can have `max_streams` of them without a byte on the wire. hyper waits for such a client without end, and asks neither
//! the body nor us while it waits; so whoever runs a stream's task also watches it.
//!
//! A stream is cut when its client has not made room for the next piece of its response for the listener's `send_timeout`. Waiting
//! for the backend doesn't count. HTTP/1 has no streams: there the connection's writes are timed (`strict.rs`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::patience::Patience;

/// Largest piece of a body given to hyper at once for a stream that is watched, in bytes: what a client must take within the timeout.
/// The largest frame clients accept unless they say otherwise (RFC 9113 section 4.2), so it costs no frames.
pub(crate) const PIECE: usize = 16 * 1024;

tokio::task_local! {
    static CURRENT: Rc<Stall>;
}

/// Since when a stream's client has had something to take.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    given: Cell<Option<Instant>>,
}

impl Stall {
    /// That of the stream whose task runs now; `None` on HTTP/1.
    pub(crate) fn current() -> Option<Rc<Stall>> {
        CURRENT.try_with(Rc::clone).ok()
    }

    /// The client has taken what it was given, and the next piece is asked for.
    pub(crate) fn taken(&self) {
        self.given.set(None);
    }

    /// A piece was handed over.
    pub(crate) fn given(&self) {
        self.given.set(Some(Instant::now()));
    }
}

/// Runs a stream's task, until its client stalls for `longest`. Then the task is dropped, which resets the stream. True if it was.
pub(crate) async fn watched(task: impl Future, longest: Duration) -> bool {
    let stall = Rc::new(Stall::default());
    let mut task = pin!(CURRENT.scope(stall.clone(), task));
    let mut patience = Patience::default();
    poll_fn(|cx| {
        // Only the task hands pieces over, so nothing has to be timed before it was polled.
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        let until = stall
            .given
            .get()
            .and_then(|since| since.checked_add(longest));
        patience.poll(until, cx).map(|()| true)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::block_on;

    const LONGEST: Duration = Duration::from_millis(50);

    #[test]
    fn a_stream_whose_client_takes_nothing_is_cut() {
        let cut = block_on(watched(
            async {
                Stall::current().expect("watched").given();
                std::future::pending::<()>().await;
            },
            LONGEST,
        ));
        assert!(cut);
    }

    #[test]
    fn a_stream_that_waits_for_its_backend_or_moves_is_left_alone() {
        let cut = block_on(watched(
            async {
                let stall = Stall::current().expect("watched");
                tokio::time::sleep(LONGEST * 3).await;
                for _ in 0..6 {
                    stall.given();
                    tokio::time::sleep(LONGEST / 4).await;
                    stall.taken();
                }
                tokio::time::sleep(LONGEST * 3).await;
            },
            LONGEST,
        ));
        assert!(!cut);
    }

    #[test]
    fn nothing_is_watched_outside_a_stream() {
        assert!(Stall::current().is_none());
    }
}
