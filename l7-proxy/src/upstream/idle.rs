//! Idle connections to one backend: last in, first out, so that the ones in use stay warm and the rest age out. Pure: the caller
//! brings the time.

use std::collections::VecDeque;
use std::time::Instant;

use super::KeepAlive;

/// The idle connections of one backend, oldest at the front.
#[derive(Debug)]
pub struct Idle<C> {
    entries: VecDeque<Entry<C>>,
}

#[derive(Debug)]
struct Entry<C> {
    connection: C,
    born: Instant,
    since: Instant,
}

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Idle {
            entries: VecDeque::new(),
        }
    }
}

impl<C> Idle<C> {
    /// Keeps a connection made at `born`. Over the limit, the one idle longest goes.
    pub fn put(&mut self, connection: C, born: Instant, now: Instant, keep: KeepAlive) {
        if keep.idle == 0 || now.saturating_duration_since(born) >= keep.max_age {
            return;
        }
        while self.entries.len() >= keep.idle {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            connection,
            born,
            since: now,
        });
    }

    /// The connection used last that is still `usable`. What is not usable is dropped on the way.
    pub fn take(
        &mut self,
        now: Instant,
        keep: KeepAlive,
        usable: impl Fn(&C) -> bool,
    ) -> Option<C> {
        while let Some(entry) = self.entries.pop_back() {
            if entry.fresh(now, keep) && usable(&entry.connection) {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Drops what is too old, no longer `usable`, or over a limit that has been lowered.
    pub fn expire(&mut self, now: Instant, keep: KeepAlive, usable: impl Fn(&C) -> bool) {
        self.entries
            .retain(|entry| entry.fresh(now, keep) && usable(&entry.connection));
        let over = self.entries.len().saturating_sub(keep.idle);
        self.entries.drain(..over);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<C> Entry<C> {
    fn fresh(&self, now: Instant, keep: KeepAlive) -> bool {
        now.saturating_duration_since(self.since) < keep.idle_timeout
            && now.saturating_duration_since(self.born) < keep.max_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KEEP: KeepAlive = KeepAlive {
        idle: 2,
        idle_timeout: Duration::from_secs(10),
        max_age: Duration::from_secs(100),
    };

    #[test]
    fn the_connection_used_last_is_taken_first() {
        let start = Instant::now();
        let mut idle = Idle::default();
        idle.put('a', start, start, KEEP);
        idle.put('b', start, start, KEEP);
        assert_eq!(idle.take(start, KEEP, |_| true), Some('b'));
        assert_eq!(idle.take(start, KEEP, |_| true), Some('a'));
        assert_eq!(idle.take(start, KEEP, |_| true), None);
    }

    #[test]
    fn over_the_limit_the_longest_idle_goes() {
        let start = Instant::now();
        let mut idle = Idle::default();
        for name in ['a', 'b', 'c'] {
            idle.put(name, start, start, KEEP);
        }
        assert_eq!(idle.len(), 2);
        assert_eq!(idle.take(start, KEEP, |_| true), Some('c'));
        assert_eq!(idle.take(start, KEEP, |_| true), Some('b'));
    }

    #[test]
    fn idle_and_old_and_unusable_connections_are_not_reused() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::default();
        idle.put('a', start, start, KEEP);
        assert_eq!(idle.take(later(10), KEEP, |_| true), None);
        idle.put('b', start, later(95), KEEP);
        assert_eq!(idle.take(later(101), KEEP, |_| true), None);
        idle.put('c', start, later(100), KEEP);
        assert!(idle.is_empty());
        idle.put('d', start, start, KEEP);
        assert_eq!(idle.take(start, KEEP, |_| false), None);
        idle.put('e', start, start, KEEP);
        idle.expire(later(10), KEEP, |_| true);
        assert!(idle.is_empty());
    }
    #[test]
    fn a_lowered_limit_closes_those_idle_longest() {
        let start = Instant::now();
        let mut idle = Idle::default();
        idle.put('a', start, start, KEEP);
        idle.put('b', start, start, KEEP);
        let fewer = KeepAlive { idle: 1, ..KEEP };
        idle.expire(start, fewer, |_| true);
        assert_eq!(idle.len(), 1);
        idle.put('c', start, start, fewer);
        assert_eq!(idle.len(), 1);
        assert_eq!(idle.take(start, fewer, |_| true), Some('c'));
    }
}
