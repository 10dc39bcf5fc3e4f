//! A wait whose end keeps moving away, as long as things go well.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for one wait after the other. It is made at the first, and set anew only when it fires or would fire too late: the runtime's timers are not
/// touched by a wait that ends well.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready when `until` has passed; never without one.
    pub(crate) fn poll(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until else {
            return Poll::Pending;
        };
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use test_support::block_on;

    #[test]
    fn it_ends_when_the_latest_wait_ends() {
        block_on(async {
            let begin = Instant::now();
            let mut patience = Patience::default();
            let mut wait = async |milliseconds| {
                let until = begin + Duration::from_millis(milliseconds);
                poll_fn(|cx| patience.poll(Some(until), cx)).await;
                Instant::now() >= until
            };
            assert!(wait(20).await);
            assert!(wait(40).await, "after it has fired");
            let ended = tokio::time::timeout(Duration::from_millis(5), wait(500)).await;
            assert!(ended.is_err(), "a wait that goes well");
            assert!(wait(600).await, "a later end than it was set for");
            let ended = tokio::time::timeout(Duration::from_millis(5), wait(60_000)).await;
            assert!(ended.is_err());
            assert!(wait(700).await, "an earlier end than it was set for");
            assert!(begin.elapsed() < Duration::from_secs(30));
        });
    }

    #[test]
    fn without_an_end_it_never_ends() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Patience::default().poll(None, &mut cx).is_pending());
    }
}
