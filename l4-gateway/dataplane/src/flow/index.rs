//! A hash index from keyed 64-bit hashes to small numbers: buckets of one cache line, memory fixed at the start.
//!
//! A bucket holds ten tags (16 hash bits each, 0 is free) and ten numbers. A full bucket overflows into the next one and counts
//! how many entries passed it by, so that a search ends at the first bucket nothing passed, and removal needs no tombstones (the
//! scheme of F14). Keys aren't stored: the caller compares what the number stands for.

use super::prefetch::prefetch;
use super::tags;

/// No number.
pub(crate) const NONE: u32 = u32::MAX;

const WAYS: usize = 10;

/// Entries a bucket holds on average when the index is full: low enough that few buckets overflow (about 4 % at 6 of 10).
const LOAD: usize = 6;

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
}

impl Index {
    /// An index for this many entries.
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            buckets: vec![EMPTY; entries.div_ceil(LOAD).max(1)].into_boxed_slice(),
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

    /// Entries held. Walks everything.
    pub(crate) fn count(&self) -> usize {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.tags)
            .filter(|tag| *tag != 0)
            .count()
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The low half of the hash, scaled to the buckets. (The tag takes the top 16 bits, [`crate::steer`] those below.)
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
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
