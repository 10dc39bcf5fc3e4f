//! A hash index from keyed 64-bit hashes to small numbers: buckets of one cache line, memory fixed at the start.
//!
//! A bucket holds ten tags (16 hash bits each, 0 is free) and ten numbers. The bucket that a search for a hash begins at is its home. A full
//! bucket overflows into the next one and counts how many entries passed it by, so that a search ends at the first bucket nothing passed, and
//! removal needs no tombstones (the scheme of F14). Keys aren't stored: the caller compares what the number stands for.
//!
//! A few entries whose homes are all over the memory would each cost a cache line and the translation of an address of their own. So a resizable
//! index has only as many homes as its entries need: twice as many once they are crowded, half as many once they are sparse. As
//! entries come one home after the other is split into two, as they go two after two are merged (as in linear hashing, Litwin 1980, but a
//! doubling is finished long before the next begins, so that buckets are filled evenly). Halfway through a doubling:
//!
//! ```text
//!   0 .. whole        whole .. 2 * whole        2 * whole .. 2 * coarse        2 * coarse .. all buckets
//!   homes as before   no homes                  two for one of before          not used yet
//! ```
//!
//! Only where a search begins depends on that. Entries overflow into any bucket, home or not, and those that overflowed are found again when
//! their home is split by going on as a search does.

use super::prefetch::prefetch;
use super::tags;

/// No number.
pub(crate) const NONE: u32 = u32::MAX;

const WAYS: usize = 10;

/// Entries a bucket holds on average when the index is full: low enough that few buckets overflow (about 4 % at 6 of 10).
const LOAD: usize = 6;

/// Entries a bucket of a resizable index holds on average when it begins to grow, as long as it can.
const CROWDED: usize = 5;

/// Buckets hashes are spread over at least.
const LEAST: usize = 64;

/// A count of passed-by entries that reached this is no longer exact and stays: searches walk on, nothing is lost.
const STUCK: u16 = u16::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; WAYS],
    passed: u16,
    numbers: [u32; WAYS],
}

const EMPTY: Bucket = Bucket {
    tags: [0; WAYS],
    passed: 0,
    numbers: [NONE; WAYS],
};

const _: () = assert!(size_of::<Bucket>() == 64);

/// The index.
pub(crate) struct Index {
    buckets: Box<[Bucket]>,
    /// Entries.
    held: usize,
    /// Homes there are when none is split; each may be split into two.
    coarse: usize,
    /// Homes below this are whole, the others are split. Never 0: then there are twice as many, all whole.
    whole: usize,
    /// The least there can be of them.
    least: usize,
}

/// A home to be split into two, or two to be merged into one. Numbers are those of the whole homes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resize {
    Split(usize),
    Merge(usize),
}

impl Resize {
    /// The homes whose entries move.
    pub(crate) fn homes(self) -> std::ops::Range<usize> {
        match self {
            Resize::Split(home) => home..home + 1,
            Resize::Merge(home) => 2 * home..2 * home + 2,
        }
    }

    /// What most likely comes after it.
    pub(crate) fn next(self) -> Self {
        match self {
            Resize::Split(home) => Resize::Split(home.saturating_sub(1)),
            Resize::Merge(home) => Resize::Merge(home + 1),
        }
    }
}

impl Index {
    /// An index for this many entries, spread over all of it.
    pub(crate) fn new(entries: usize) -> Self {
        Self::over(entries.div_ceil(LOAD).max(1), 0)
    }

    /// An index for as many, whose owner asks with each entry that comes and goes whether it is to be resized.
    pub(crate) fn resizable(entries: usize) -> Self {
        let buckets = entries.div_ceil(LOAD).max(1);
        let doublings = (buckets / LEAST).checked_ilog2().unwrap_or(0);
        Self::over(buckets.div_ceil(1 << doublings), doublings)
    }

    fn over(least: usize, doublings: u32) -> Self {
        Self {
            buckets: vec![EMPTY; least << doublings].into_boxed_slice(),
            held: 0,
            coarse: least,
            whole: least,
            least,
        }
    }

    /// Starts loading the bucket a search for this hash begins at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// The number most likely meant, without comparing keys: the first in the home bucket with the tag, or [`NONE`].
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> u32 {
        let bucket = &self.buckets[self.home(hash)];
        match bucket.hits(tag(hash)) {
            0 => NONE,
            hits => bucket.numbers[hits.trailing_zeros() as usize % WAYS],
        }
    }

    /// The number under this hash that `is` agrees to.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            if let Some(way) = bucket.way(tag(hash), &mut is) {
                return Some(bucket.numbers[way]);
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a number; false when every bucket is full, which can't happen within the entries it was made for.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) -> bool {
        let home = self.home(hash);
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            let free = bucket.hits(0).trailing_zeros() as usize;
            if free < WAYS {
                bucket.tags[free] = tag(hash);
                bucket.numbers[free] = number;
                self.held += 1;
                self.each_passed(home, at, |passed| *passed = passed.saturating_add(1));
                return true;
            }
            at = self.after(at);
        }
        false
    }

    /// Removes a number that was inserted under this hash; false if it isn't there. Under several hashes with one tag a number's
    /// entries are alike: whichever goes, those left are found by the others, and the counts of passed-by entries agree.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) -> bool {
        let home = self.home(hash);
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            if let Some(way) = bucket.way(tag(hash), |held| held == number) {
                bucket.tags[way] = 0;
                bucket.numbers[way] = NONE;
                self.held -= 1;
                self.each_passed(home, at, |passed| {
                    if *passed != STUCK {
                        *passed -= 1;
                    }
                });
                return true;
            }
            if bucket.passed == 0 {
                return false;
            }
            at = self.after(at);
        }
        false
    }

    /// What to do after entries came, if there are too many for the homes there are.
    #[inline]
    pub(crate) fn crowded(&self) -> Option<Resize> {
        let grows = self.held > CROWDED * self.coarse && self.coarse < self.buckets.len();
        grows.then(|| Resize::Split(self.whole - 1))
    }

    /// What to do after entries went, if there are too few for the homes there are: a quarter of what makes them crowded, so that
    /// nothing goes to and fro.
    #[inline]
    pub(crate) fn sparse(&self) -> Option<Resize> {
        let room = CROWDED * self.coarse;
        if self.whole < self.coarse {
            (2 * self.held < room).then_some(Resize::Merge(self.whole))
        } else {
            (4 * self.held < room && self.coarse > self.least).then_some(Resize::Merge(0))
        }
    }

    /// Adds to `entries` the hashes and numbers of all entries with this home. `hashes` tells the hashes a number is held under.
    pub(crate) fn at_home(
        &self,
        home: usize,
        hashes: impl Fn(u32) -> [Option<u64>; 2],
        entries: &mut Vec<(u64, u32)>,
    ) {
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for (held, number) in bucket.tags.into_iter().zip(bucket.numbers) {
                if held == 0 {
                    continue;
                }
                for hash in hashes(number).into_iter().flatten() {
                    // Two hashes of a number may be alike in tag and home: then each is met twice.
                    let here = tag(hash) == held && self.home(hash) == home;
                    if here && !entries.contains(&(hash, number)) {
                        entries.push((hash, number));
                    }
                }
            }
            if bucket.passed == 0 {
                return;
            }
            at = self.after(at);
        }
    }

    /// Splits or merges homes, whose entries are these.
    pub(crate) fn resize(&mut self, step: Resize, entries: &[(u64, u32)]) {
        for (hash, number) in entries {
            let removed = self.remove(*hash, *number);
            debug_assert!(removed, "an entry is where its home is");
        }
        match step {
            Resize::Split(home) => self.whole = home,
            Resize::Merge(home) => {
                if home == 0 && self.whole == self.coarse {
                    self.coarse /= 2;
                }
                self.whole = home + 1;
            }
        }
        if self.whole == 0 {
            self.coarse *= 2;
            self.whole = self.coarse;
        }
        for (hash, number) in entries {
            let placed = self.insert(*hash, *number);
            debug_assert!(placed, "there was room for it before");
        }
    }

    /// Starts loading a home's bucket.
    pub(crate) fn prefetch_home(&self, home: usize) {
        if let Some(bucket) = self.buckets.get(home) {
            prefetch(bucket);
        }
    }

    /// The numbers in a home's bucket.
    pub(crate) fn numbers(&self, home: usize) -> impl Iterator<Item = u32> {
        self.buckets
            .get(home)
            .into_iter()
            .flat_map(|bucket| bucket.numbers)
    }

    /// Entries held. Walks everything, and panics unless their count is right.
    pub(crate) fn count(&self) -> usize {
        let tags = self.buckets.iter().flat_map(|bucket| bucket.tags);
        let count = tags.filter(|tag| *tag != 0).count();
        assert_eq!(count, self.held, "entries of the index");
        count
    }

    /// Buckets hashes are spread over, and all there are.
    #[cfg(test)]
    pub(crate) fn spread(&self) -> (usize, usize) {
        (2 * self.coarse - self.whole, self.buckets.len())
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The low half of the hash, scaled to the homes. (The tag takes the top 16 bits, [`crate::steer`] those below.)
    #[inline]
    fn home(&self, hash: u64) -> usize {
        let half = (((hash & 0xffff_ffff) * self.coarse as u64) >> 31) as usize;
        let home = half / 2;
        if home < self.whole { home } else { half }
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            0
        } else {
            at + 1
        }
    }

    /// The counts of the buckets from `home` up to, but not including, `end`.
    fn each_passed(&mut self, home: usize, end: usize, change: impl Fn(&mut u16)) {
        let mut at = home;
        while at != end {
            change(&mut self.buckets[at].passed);
            at = self.after(at);
        }
    }
}

impl Bucket {
    /// The way with this tag whose number `is` agrees to.
    #[inline]
    fn way(&self, tag: u16, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut hits = self.hits(tag);
        while hits != 0 {
            let way = hits.trailing_zeros() as usize % WAYS;
            if is(self.numbers[way]) {
                return Some(way);
            }
            hits &= hits - 1;
        }
        None
    }

    /// A bit for each way with this tag.
    #[inline]
    fn hits(&self, tag: u16) -> u32 {
        tags::hits(&self.tags, tag)
    }
}

#[inline]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

#[cfg(test)]
mod tests;
