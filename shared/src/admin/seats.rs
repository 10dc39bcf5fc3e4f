//! Who is connected to the admin listener: a bounded number, and a newcomer always gets in.
//!
//! When all seats are taken, the client that has let the listener wait longest gives way to a new one: it has sent nothing, or taken nothing of its answer,
//! since. One whose request is being answered, or whose capture runs, keeps its seat: there the client waits for us. But while somebody
//! waits for a seat, answers are the last on their connections, so that those who ask without a pause don't keep theirs.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::telemetry::monotonic;

/// The seats of one listener.
#[derive(Clone)]
pub(super) struct Seats(Arc<Shared>);

struct Shared {
    room: Mutex<Room>,
    /// Somebody has left, or is waited for again.
    changed: Notify,
}

impl Seats {
    pub(super) fn new(most: usize) -> Seats {
        Seats(Arc::new(Shared {
            room: Mutex::new(Room::new(most)),
            changed: Notify::new(),
        }))
    }

    /// A seat, at the expense of another client if there is no free one. Waits while all are being worked for.
    pub(super) async fn take(&self) -> Seat {
        loop {
            if let Some(number) = self.room().enter(monotonic()) {
                return Seat {
                    seats: self.clone(),
                    number,
                };
            }
            self.0.changed.notified().await;
        }
    }

    /// Whether a client waits for a seat, as all others are being worked for.
    pub(super) fn are_wanted(&self) -> bool {
        self.room().is_wanted
    }

    /// Nothing behind the lock is ever left half changed.
    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's seat; free again when it is dropped.
pub(super) struct Seat {
    seats: Seats,
    number: u64,
}

impl Seat {
    /// How the client is made to give way, should it have to.
    pub(super) fn gives_way_by(&self, abort: AbortHandle) {
        self.seats.room().abort_by(self.number, abort);
    }

    /// Something was sent or taken.
    fn moved(&self) {
        self.seats.room().moved(self.number, monotonic());
    }

    /// The client waits for us until this is dropped.
    pub(super) fn work(self: &Arc<Seat>) -> Work {
        self.seats.room().works(self.number, true, monotonic());
        Work(self.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.room().leave(self.number);
        self.seats.0.changed.notify_one();
    }
}

/// Something is done for a client.
pub(super) struct Work(Arc<Seat>);

impl Drop for Work {
    fn drop(&mut self) {
        let Work(seat) = self;
        seat.seats.room().works(seat.number, false, monotonic());
        seat.seats.0.changed.notify_one();
    }
}

/// A client's connection; what passes is told to its seat.
pub(super) struct Seated {
    pub(super) stream: TcpStream,
    pub(super) seat: Arc<Seat>,
}

impl Seated {
    fn told<T>(&self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.seat.moved();
        }
        done
    }
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(context, into);
        self.told(done)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.told(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Who sits where. Times come from outside.
struct Room {
    most: usize,
    next: u64,
    /// Somebody waits.
    is_wanted: bool,
    sitting: BTreeMap<u64, Sitting>,
}

struct Sitting {
    /// When it last sent or took something, or was answered.
    since: Duration,
    works: bool,
    abort: Option<AbortHandle>,
}

impl Room {
    fn new(most: usize) -> Room {
        Room {
            most,
            next: 0,
            is_wanted: false,
            sitting: BTreeMap::new(),
        }
    }

    /// The number of a seat that is taken now; `None` while all others are being worked for.
    fn enter(&mut self, now: Duration) -> Option<u64> {
        self.is_wanted = false;
        if self.sitting.len() >= self.most {
            let idle = self.sitting.iter().filter(|(_, sitting)| !sitting.works);
            // Of several since the same moment the first that came.
            let longest = idle.min_by_key(|(_, sitting)| sitting.since);
            let Some(number) = longest.map(|(number, _)| *number) else {
                self.is_wanted = true;
                return None;
            };
            let abort = self.sitting.remove(&number).and_then(|left| left.abort);
            if let Some(abort) = abort {
                abort.abort();
            }
            crate::log_at_most_every!(
                Duration::from_secs(10),
                tracing::Level::WARN,
                "admin listener: {} connections are open; the one that was idle longest gave way to a new one",
                self.most
            );
        }
        let number = self.next;
        self.next += 1;
        self.sitting.insert(
            number,
            Sitting {
                since: now,
                works: false,
                abort: None,
            },
        );
        Some(number)
    }

    fn abort_by(&mut self, number: u64, abort: AbortHandle) {
        match self.sitting.get_mut(&number) {
            Some(sitting) => sitting.abort = Some(abort),
            // It had to give way already.
            None => abort.abort(),
        }
    }

    fn moved(&mut self, number: u64, now: Duration) {
        if let Some(sitting) = self.sitting.get_mut(&number) {
            sitting.since = now;
        }
    }

    fn works(&mut self, number: u64, works: bool, now: Duration) {
        if let Some(sitting) = self.sitting.get_mut(&number) {
            sitting.works = works;
            sitting.since = now;
        }
    }

    fn leave(&mut self, number: u64) {
        self.sitting.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seats(room: &Room) -> Vec<u64> {
        room.sitting.keys().copied().collect()
    }

    #[test]
    fn who_was_idle_longest_gives_way() {
        let mut room = Room::new(3);
        for second in 0..3 {
            assert_eq!(room.enter(at(second)), Some(second));
        }
        room.moved(0, at(5));
        assert_eq!(room.enter(at(6)), Some(3));
        assert_eq!(seats(&room), [0, 2, 3]);
        room.leave(2);
        assert_eq!(room.enter(at(7)), Some(4));
        assert_eq!(seats(&room), [0, 3, 4]);
    }

    #[test]
    fn who_is_being_worked_for_stays() {
        let mut room = Room::new(2);
        room.enter(at(0));
        room.enter(at(1));
        room.works(0, true, at(1));
        assert_eq!(room.enter(at(2)), Some(2));
        assert_eq!(seats(&room), [0, 2]);
        assert!(!room.is_wanted);
        room.works(2, true, at(3));
        assert_eq!(room.enter(at(4)), None);
        assert!(room.is_wanted);
        room.works(0, false, at(5));
        assert_eq!(room.enter(at(6)), Some(3));
        assert_eq!(seats(&room), [2, 3]);
        assert!(!room.is_wanted);
    }

    #[test]
    fn who_gave_way_changes_nothing_any_more() {
        let mut room = Room::new(1);
        room.enter(at(0));
        room.enter(at(1));
        room.moved(0, at(2));
        room.works(0, true, at(2));
        room.leave(0);
        assert_eq!(seats(&room), [1]);
    }
}
