//! A connection, and what is only of interest to it once in a while.
//!
//! What else a connection waits for (a drain, a timer) comes a thousand times less often than its bytes. Polled in one `select!` with them, both are asked
//! about it each time: some 800 instructions a request. Here it has a waker of its own, and is asked only once that was used.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Which of the two came first.
pub(super) enum First<A, B> {
    Main(A),
    Aside(B),
}

/// Waits for `main`, and for `aside` where that comes first. If both are there at once, `main` is first.
pub(super) async fn first_of<A: Future, B: Future>(
    mut main: Pin<&mut A>,
    mut aside: Pin<&mut B>,
) -> First<A::Output, B::Output> {
    let mut bell: Option<(Arc<Bell>, Waker)> = None;
    poll_fn(move |cx| {
        if let Poll::Ready(output) = main.as_mut().poll(cx) {
            return Poll::Ready(First::Main(output));
        }
        let (bell, waker) = match &mut bell {
            Some(both) if both.0.task.will_wake(cx.waker()) => both,
            other => {
                let bell = Arc::new(Bell {
                    task: cx.waker().clone(),
                    rung: AtomicBool::new(true),
                });
                let waker = Waker::from(bell.clone());
                other.insert((bell, waker))
            }
        };
        if bell.rung.swap(false, Ordering::AcqRel) {
            let mut cx = Context::from_waker(waker);
            return aside.as_mut().poll(&mut cx).map(First::Aside);
        }
        Poll::Pending
    })
    .await
}

/// Wakes a task, and tells it by whom it was woken.
struct Bell {
    task: Waker,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::task::noop_waker;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn what_is_aside_is_asked_only_when_it_has_called() {
        let (main, aside) = (Notify::new(), Notify::new());
        let asked = Cell::new(0);
        let mut notified = pin!(aside.notified());
        let counted = poll_fn(|cx| {
            asked.set(asked.get() + 1);
            notified.as_mut().poll(cx)
        });
        let (mut main_future, mut counted) = (pin!(main.notified()), pin!(counted));
        let mut both = pin!(first_of(main_future.as_mut(), counted.as_mut()));
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(both.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(asked.get(), 1);
        // Another task asks: the aside has to know whom to wake.
        let other = Waker::from(Arc::new(Bell {
            task: noop_waker(),
            rung: AtomicBool::new(false),
        }));
        let mut cx = Context::from_waker(&other);
        assert!(both.as_mut().poll(&mut cx).is_pending());
        assert_eq!(asked.get(), 2);
        aside.notify_one();
        let done = both.as_mut().poll(&mut cx);
        assert!(matches!(done, Poll::Ready(First::Aside(()))));
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn what_is_aside_wakes_the_task_and_comes_second() {
        let (main, aside) = (Notify::new(), Notify::new());
        let (mut waited, mut called) = (pin!(main.notified()), pin!(aside.notified()));
        let mut both = pin!(first_of(waited.as_mut(), called.as_mut()));
        let task = Arc::new(Bell {
            task: noop_waker(),
            rung: AtomicBool::new(false),
        });
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(both.as_mut().poll(&mut cx).is_pending());
        assert!(!task.rung.load(Ordering::Acquire));
        aside.notify_one();
        assert!(task.rung.load(Ordering::Acquire));
        main.notify_one();
        let done = both.as_mut().poll(&mut cx);
        assert!(matches!(done, Poll::Ready(First::Main(()))));
    }
}
