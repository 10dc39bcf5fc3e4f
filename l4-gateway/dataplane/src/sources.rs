//! What the workers know together of clients by source: their connections and how fast they open new ones.
//!
//! Packets of one source come to all workers, so a limit per source can't be kept by each alone. The table is shared: a source is one
//! word of a tag and a count, changed by compare-and-swap, beside the clock of its rate. It is asked for new flows of services with
//! such limits, and told when those end; no other packet comes near it. Places are given out by one worker at a time for each bucket.
//! Who finds another at it tries again, for a bounded number of times (`try_lock.rs`), and then goes without a place.
//!
//! Memory is fixed. A source has one of seven places, by keyed hash, and keeps it as long as it has connections. When others hold all
//! of them, it isn't limited (and that is counted): a flood of forged sources must not lock out true ones, and who was known before
//! the flood stays known.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Now;
use crate::policy::Quota;
use crate::rate::SharedRate;
use crate::try_lock::TryLock;

const WAYS: usize = 7;

/// The low half of a word is the count, the high half the tag; a free word is 0.
const COUNT: u64 = u32::MAX as u64;

/// The table.
#[derive(Debug)]
pub(crate) struct Sources {
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    lock: TryLock,
    words: [AtomicU64; WAYS],
    clocks: [SharedRate; WAYS],
}

/// Which limit a source is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtLimit {
    Connections,
    Rate,
}

/// A source's place, to be given back by [`Sources::leave`] when the connection it was counted for ends. Where only the rate is limited,
/// that is at once: its clock keeps the place for as long as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(pub(crate) u32);

impl Sources {
    /// A table for about this many.
    pub(crate) fn new(sources: u32) -> Self {
        Self {
            buckets: (0..(sources as usize).div_ceil(WAYS).max(1))
                .map(|_| Bucket::default())
                .collect(),
        }
    }

    /// Counts a new connection of the source with this (keyed) hash, unless it is at a limit. None if all places are taken by others.
    /// Of its rate nothing is taken yet: [`Sources::take`].
    pub(crate) fn enter(
        &self,
        hash: u64,
        now: Now,
        limits: Quota,
    ) -> Result<Option<Seat>, AtLimit> {
        let Some((seat, others)) = self.seat(hash, now) else {
            return Ok(None);
        };
        let (bucket, way) = self.place(seat);
        let refused = if limits.connections > 0 && others >= u64::from(limits.connections) {
            Some(AtLimit::Connections)
        } else if limits.per_second > 0 && !bucket.clocks[way].has_one(now, limits.per_second) {
            Some(AtLimit::Rate)
        } else {
            None
        };
        if let Some(refused) = refused {
            self.leave(seat);
            return Err(refused);
        }
        Ok(Some(seat))
    }

    /// Takes one of so many a second for a connection counted there; false if others were faster.
    pub(crate) fn take(&self, seat: Seat, now: Now, per_second: u32) -> bool {
        let (bucket, way) = self.place(seat);
        bucket.clocks[way].take(now, per_second)
    }

    /// A connection counted there has ended.
    pub(crate) fn leave(&self, seat: Seat) {
        let (bucket, way) = self.place(seat);
        let before = bucket.words[way].fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before & COUNT > 0, "a seat is left twice");
    }

    /// Connections counted. Walks everything.
    pub(crate) fn connections(&self) -> u64 {
        let words = self.buckets.iter().flat_map(|bucket| &bucket.words);
        words.map(|word| word.load(Ordering::Relaxed) & COUNT).sum()
    }

    /// Finds a source or gives it a place, and counts one more of it; where, and how many there were.
    fn seat(&self, hash: u64, now: Now) -> Option<(Seat, u64)> {
        let tag = (hash >> 32).max(1) << 32;
        let number = ((hash & COUNT) * self.buckets.len() as u64) >> 32;
        let bucket = self.buckets.get(number as usize)?;
        let seat = |way: usize| Seat(number as u32 * WAYS as u32 + way as u32);
        let joined = |(way, others)| (seat(way), others);
        if let Some(joined) = bucket.join(tag).map(joined) {
            return Some(joined);
        }
        let _guard = bucket.lock.try_lock()?;
        // Another worker may have given it a place just now.
        match bucket.join(tag) {
            Some(place) => Some(joined(place)),
            None => bucket.claim(tag, now).map(|way| (seat(way), 0)),
        }
    }

    fn place(&self, Seat(seat): Seat) -> (&Bucket, usize) {
        (&self.buckets[seat as usize / WAYS], seat as usize % WAYS)
    }
}

impl Bucket {
    /// Counts one more of a source that has a place: which, and how many there were.
    fn join(&self, tag: u64) -> Option<(usize, u64)> {
        let more = |word: u64| {
            let joins = word & !COUNT == tag && word & COUNT < COUNT;
            joins.then_some(word + 1)
        };
        (0..WAYS).find_map(|way| {
            let before = self.words[way].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            Some((way, before.ok()? & COUNT))
        })
    }

    /// Gives a source that has none a place that nobody needs, with one counted. Only for who has the lock.
    fn claim(&self, tag: u64, now: Now) -> Option<usize> {
        (0..WAYS).find(|way| {
            let idle = self.words[*way].load(Ordering::Relaxed);
            idle & COUNT == 0
                && self.clocks[*way].is_rested(now)
                // Unless who had it came back this very moment.
                && self.words[*way].compare_exchange(idle, tag | 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    const SECOND: u64 = 1_000_000_000;

    fn hash(source: u64) -> u64 {
        Secret::new(std::array::from_fn(|n| (n as u8).wrapping_mul(37))).hash(source, 0)
    }

    fn limits(connections: u32, per_second: u32) -> Quota {
        Quota {
            connections,
            per_second,
        }
    }

    /// A connection let in, as a worker lets one in: what can be limited is taken, and a seat kept only if connections are.
    fn open(
        sources: &Sources,
        source: u64,
        at: u64,
        limits: Quota,
    ) -> Result<Option<Seat>, AtLimit> {
        let entered = sources.enter(hash(source), Now(at), limits)?;
        if let Some(seat) = entered {
            assert!(limits.per_second == 0 || sources.take(seat, Now(at), limits.per_second));
            if limits.connections == 0 {
                sources.leave(seat);
            }
        }
        Ok(entered)
    }

    #[test]
    fn a_source_has_so_many_connections_at_once_and_another_its_own() {
        let sources = Sources::new(1024);
        let enter = |source| open(&sources, source, 0, limits(3, 0));
        let seats: Vec<Option<Seat>> = (0..3).map(|_| enter(1).unwrap()).collect();
        assert_eq!(enter(1), Err(AtLimit::Connections));
        assert!(matches!(enter(2), Ok(Some(_))));
        sources.leave(seats[0].expect("it was counted"));
        assert_eq!(enter(1), Ok(seats[0]));
        assert_eq!(enter(1), Err(AtLimit::Connections));
        assert_eq!(sources.connections(), 4);
    }

    #[test]
    fn a_source_opens_so_many_a_second_and_refusals_cost_it_nothing() {
        let sources = Sources::new(1024);
        let enter = |at| open(&sources, 1, at, limits(0, 2)).map(|seat| seat.is_some());
        assert_eq!(enter(0), Ok(true));
        assert_eq!(enter(0), Ok(true));
        for tries in 1..50 {
            assert_eq!(enter(tries * SECOND / 100), Err(AtLimit::Rate));
        }
        assert_eq!(enter(SECOND / 2), Ok(true));
        assert_eq!(enter(SECOND / 2), Err(AtLimit::Rate));
        assert_eq!(sources.connections(), 0);
    }

    #[test]
    fn a_connection_that_came_to_nothing_takes_nothing_of_the_rate() {
        let sources = Sources::new(8);
        for _ in 0..10 {
            let seat = sources.enter(hash(1), Now(0), limits(0, 1)).unwrap();
            sources.leave(seat.expect("there is room"));
        }
        let (first, second) = [(); 2]
            .map(|()| sources.enter(hash(1), Now(0), limits(0, 1)).unwrap())
            .into();
        let takes = |seat: Option<Seat>| sources.take(seat.unwrap(), Now(0), 1);
        assert!(takes(first));
        assert!(!takes(second), "of two workers that asked one is slower");
    }

    #[test]
    fn a_connection_at_the_rate_limit_is_not_counted() {
        let sources = Sources::new(8);
        assert!(open(&sources, 1, 0, limits(5, 1)).is_ok());
        assert_eq!(open(&sources, 1, 0, limits(5, 1)), Err(AtLimit::Rate));
        assert_eq!(sources.connections(), 1);
    }

    #[test]
    fn a_full_table_tracks_those_it_knows_and_lets_the_others_pass() {
        let sources = Sources::new(7);
        let enter = |source, at| open(&sources, source, at, limits(1, 0)).unwrap();
        let seats: Vec<Option<Seat>> = (0..7).map(|source| enter(source, 0)).collect();
        for flood in 100..1000 {
            assert_eq!(enter(flood, flood * SECOND), None);
        }
        for source in 0..7 {
            let again = open(&sources, source, 2000 * SECOND, limits(1, 0));
            assert_eq!(again, Err(AtLimit::Connections), "source {source}");
        }
        // A place that comes free goes to the next.
        sources.leave(seats[5].expect("it was counted"));
        assert_eq!(enter(100, 3000 * SECOND), seats[5]);
    }

    #[test]
    fn a_clock_that_runs_keeps_its_place() {
        let sources = Sources::new(7);
        let enter = |source, at| open(&sources, source, at, limits(0, 1)).unwrap();
        for source in 0..7 {
            assert!(enter(source, 0).is_some());
        }
        assert!(enter(99, SECOND - 1).is_none());
        assert!(enter(99, SECOND).is_some());
    }

    #[test]
    fn workers_together_let_in_no_more_than_the_limit_and_lose_no_count() {
        let sources = Sources::new(64);
        let most = AtomicU64::new(0);
        let now_in: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (sources, most, now_in) = (&sources, &most, &now_in);
                scope.spawn(move || {
                    let mut seats = Vec::new();
                    for round in 0..20_000u64 {
                        let source = hash(thread * 20_000 + round) % 16;
                        match sources.enter(hash(source), Now(round), limits(3, 0)) {
                            Ok(Some(seat)) => {
                                let others = now_in[source as usize].fetch_add(1, Ordering::SeqCst);
                                most.fetch_max(others + 1, Ordering::SeqCst);
                                seats.push((source, seat));
                            }
                            Ok(None) => panic!("16 sources have room"),
                            Err(_) => {}
                        }
                        if seats.len() > 6 {
                            let (source, seat) = seats.swap_remove((round % 7) as usize);
                            now_in[source as usize].fetch_sub(1, Ordering::SeqCst);
                            sources.leave(seat);
                        }
                    }
                    for (source, seat) in seats {
                        now_in[source as usize].fetch_sub(1, Ordering::SeqCst);
                        sources.leave(seat);
                    }
                });
            }
        });
        assert_eq!(sources.connections(), 0);
        assert_eq!(most.into_inner(), 3);
    }
}
