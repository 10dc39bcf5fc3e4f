//! Persistence: which target a source was last sent to, for all workers together.
//!
//! Packets of one source come to all workers (their hash is of the whole tuple), but its new flows must go to one target. So what was
//! chosen for a source is kept where all workers look, one word each. Of two workers that choose for the same source at once, one
//! is first and the other follows it. No packet needs to go to another worker for that, and how they are spread over the workers
//! doesn't matter. Reading needs no lock. Choices are written down by one worker at a time for each bucket; who finds another at it
//! tries again, for a bounded number of times (`try_lock.rs`), and then leaves its own unwritten.
//!
//! Beside each word is the address of its source, for people: it is written when the source gets its place, and read by nobody who forwards.
//!
//! Memory is fixed: a source has one of seven places, by keyed hash; when all are taken, the one used least recently goes.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::Now;
use crate::ids::TargetId;
use crate::try_lock::TryLock;

const WAYS: usize = 7;

/// A word from its lowest bit: the second of its last use (it comes round after 72 h), the target, the tag. A free word is 0. Two
/// sources are taken for one (and share a target, no more) with a chance of one in two million in a full table.
const SECOND_BITS: u32 = 18;
const TARGET_BITS: u32 = 22;
const SECONDS: u64 = (1 << SECOND_BITS) - 1;
const TARGETS: u64 = (1 << TARGET_BITS) - 1;

/// Seconds that the clocks of two workers are never apart: their rounds last milliseconds.
const CLOCKS_APART: u64 = 60;

/// The table.
#[derive(Debug)]
pub(crate) struct Templates {
    buckets: Box<[Bucket]>,
    /// By bucket and place; an IPv4 address is mapped into IPv6. Of use with the word of the same place alone.
    addresses: Box<[[Address; WAYS]]>,
}

/// The two halves of an address.
type Address = [AtomicU64; 2];

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    lock: TryLock,
    words: [AtomicU64; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// One source's choice, read.
#[derive(Clone, Copy)]
struct Template(u64);

impl Template {
    fn new(tag: u64, target: TargetId, now: u64) -> Self {
        let target = u64::from(target.0) & TARGETS;
        Self(tag << (SECOND_BITS + TARGET_BITS) | target << SECOND_BITS | now & SECONDS)
    }

    fn tag(self) -> u64 {
        self.0 >> (SECOND_BITS + TARGET_BITS)
    }

    fn target(self) -> TargetId {
        TargetId((self.0 >> SECOND_BITS & TARGETS) as u32)
    }

    /// Seconds since its last use. What another worker used in a second that has not begun here (each reads the clock once a round) is
    /// used now.
    fn age(self, now: u64) -> u64 {
        match now.wrapping_sub(self.0) & SECONDS {
            age if age > SECONDS - CLOCKS_APART => 0,
            age => age,
        }
    }
}

/// A source that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The first address of it.
    pub(crate) source: IpAddr,
    pub(crate) target: TargetId,
    /// Since its last use.
    pub(crate) age: Duration,
}

/// What a source is known by here, and how long its choice holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Its first address.
    address: IpAddr,
    hash: u64,
    /// Seconds.
    timeout: u64,
}

impl Source {
    /// `hash` is keyed; for `timeout` see [`whole_seconds`].
    pub(crate) fn new(address: IpAddr, hash: u64, timeout: Duration) -> Self {
        Self {
            address,
            hash,
            timeout: whole_seconds(timeout),
        }
    }

    fn tag(self) -> u64 {
        (self.hash >> (SECOND_BITS + TARGET_BITS)).max(1)
    }
}

impl Templates {
    /// A table for about this many sources.
    pub(crate) fn new(sources: u32) -> Self {
        let buckets = (sources as usize).div_ceil(WAYS).max(1);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            addresses: (0..buckets).map(|_| Default::default()).collect(),
        }
    }

    /// The sources that are remembered, in no order.
    pub(crate) fn remembered(&self, now: Now) -> impl Iterator<Item = Remembered> {
        let now = seconds(now);
        let places = self.buckets.iter().zip(&self.addresses);
        let places = places.flat_map(|(bucket, addresses)| bucket.words.iter().zip(addresses));
        places.filter_map(move |(word, address)| {
            let template = Template(word.load(Ordering::Acquire));
            let [high, low] = address.each_ref().map(|half| half.load(Ordering::Relaxed));
            // A place that another source got meanwhile tells nothing of either.
            fence(Ordering::Acquire);
            let again = Template(word.load(Ordering::Relaxed));
            let is_whole = template.0 != 0
                && (template.tag(), template.target()) == (again.tag(), again.target());
            let address = u128::from(high) << 64 | u128::from(low);
            is_whole.then(|| Remembered {
                source: Ipv6Addr::from_bits(address).to_canonical(),
                target: template.target(),
                age: Duration::from_secs(template.age(now)),
            })
        })
    }

    /// The target a source is to stay with, if it was sent to one within its timeout.
    pub(crate) fn find(&self, source: Source, now: Now) -> Option<TargetId> {
        let (_, template) = self.bucket(source)?.find(source.tag())?;
        (template.age(seconds(now)) <= source.timeout).then(|| template.target())
    }

    /// Notes that a source used its target at `used`, now or earlier. If that `is_it` no more, as the source has been sent to another meanwhile,
    /// or has used it since, nothing changes.
    pub(crate) fn refresh(
        &self,
        source: Source,
        is_it: impl Fn(TargetId) -> bool,
        used: Now,
        now: Now,
    ) {
        let (tag, used, now) = (source.tag(), seconds(used), seconds(now));
        let Some(bucket) = self.bucket(source) else {
            return;
        };
        if let Some((way, template)) = bucket.find(tag)
            && is_it(template.target())
            && template.age(now) > now.saturating_sub(used)
        {
            let fresh = Template::new(tag, template.target(), used).0;
            // Who was faster has noted the same, or something newer.
            let _ = bucket.words[way].compare_exchange(
                template.0,
                fresh,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Takes `chosen` down for a source, unless another worker was faster with a target that is `usable`: the target to go to.
    pub(crate) fn settle(
        &self,
        source: Source,
        chosen: TargetId,
        now: Now,
        usable: impl Fn(TargetId) -> bool,
    ) -> TargetId {
        let (tag, now) = (source.tag(), seconds(now));
        let number = self.number(source);
        let place = self.buckets.get(number).zip(self.addresses.get(number));
        let Some((bucket, addresses)) = place.filter(|_| u64::from(chosen.0) <= TARGETS) else {
            return chosen;
        };
        let Some(_guard) = bucket.lock.try_lock() else {
            return chosen;
        };
        let way = match bucket.find(tag) {
            Some((_, other)) if other.age(now) <= source.timeout && usable(other.target()) => {
                return other.target();
            }
            Some((way, _)) => way,
            None => {
                let way = bucket.oldest(now);
                // Nobody takes the address of one for that of another: the place is free until it has both.
                bucket.words[way].store(0, Ordering::Relaxed);
                fence(Ordering::Release);
                write(&addresses[way], source.address);
                way
            }
        };
        bucket.words[way].store(Template::new(tag, chosen, now).0, Ordering::Release);
        chosen
    }

    fn bucket(&self, source: Source) -> Option<&Bucket> {
        self.buckets.get(self.number(source))
    }

    fn number(&self, source: Source) -> usize {
        (((source.hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }
}

impl Bucket {
    fn find(&self, tag: u64) -> Option<(usize, Template)> {
        self.each().find(|(_, template)| template.tag() == tag)
    }

    /// A free place, else the one whose last use is longest ago.
    fn oldest(&self, now: u64) -> usize {
        let rank = |template: Template| match template.0 {
            0 => u64::MAX,
            _ => template.age(now),
        };
        self.each()
            .max_by_key(|(_, template)| rank(*template))
            .map_or(0, |(way, _)| way)
    }

    fn each(&self) -> impl Iterator<Item = (usize, Template)> {
        let read = |word: &AtomicU64| Template(word.load(Ordering::Relaxed));
        self.words.iter().map(read).enumerate()
    }
}

fn write(address: &Address, source: IpAddr) {
    let bits = match source {
        IpAddr::V4(source) => source.to_ipv6_mapped().to_bits(),
        IpAddr::V6(source) => source.to_bits(),
    };
    address[0].store((bits >> 64) as u64, Ordering::Relaxed);
    address[1].store(bits as u64, Ordering::Relaxed);
}

/// How long a choice holds after its last use: a timeout rounded up to seconds, of which fewer than [`SECONDS`] make sense.
pub(crate) fn whole_seconds(timeout: Duration) -> u64 {
    let seconds = timeout.as_millis().div_ceil(1000);
    u64::try_from(seconds).unwrap_or(SECONDS).min(SECONDS / 2)
}

fn seconds(now: Now) -> u64 {
    now.0 / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::Secret;

    const SECOND: u64 = 1_000_000_000;
    const ANY: fn(TargetId) -> bool = |_| true;

    fn address(n: u64) -> IpAddr {
        match n % 2 {
            0 => IpAddr::from([10, 0, 0, n as u8]),
            _ => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)).into(),
        }
    }

    fn source(n: u64) -> Source {
        Source::new(
            address(n),
            Secret::new(std::array::from_fn(|n| (n as u8).wrapping_mul(41))).hash(n, 0),
            Duration::from_secs(60),
        )
    }

    #[test]
    fn a_source_stays_with_its_target_until_the_timeout_has_passed_since_its_last_use() {
        let templates = Templates::new(1024);
        let at = |seconds: u64| Now(seconds * SECOND);
        assert_eq!(templates.find(source(1), at(0)), None);
        assert_eq!(
            templates.settle(source(1), TargetId(7), at(10), ANY),
            TargetId(7)
        );
        assert_eq!(templates.find(source(1), at(70)), Some(TargetId(7)));
        assert_eq!(templates.find(source(1), at(71)), None);
        templates.refresh(source(1), |target| target == TargetId(7), at(69), at(69));
        assert_eq!(templates.find(source(1), at(129)), Some(TargetId(7)));
        assert_eq!(templates.find(source(2), at(129)), None);
    }

    #[test]
    fn a_use_that_is_noted_late_counts_from_when_it_was() {
        let templates = Templates::new(1024);
        let at = |seconds: u64| Now(seconds * SECOND);
        templates.settle(source(1), TargetId(7), at(10), ANY);
        templates.refresh(source(1), |target| target == TargetId(7), at(20), at(60));
        assert_eq!(templates.find(source(1), at(80)), Some(TargetId(7)));
        assert_eq!(templates.find(source(1), at(81)), None);
        // One long past takes nothing away from one since.
        templates.refresh(source(1), |target| target == TargetId(7), at(90), at(90));
        templates.refresh(source(1), |target| target == TargetId(7), at(5), at(95));
        assert_eq!(templates.find(source(1), at(150)), Some(TargetId(7)));
    }

    #[test]
    fn use_of_a_former_target_does_not_bring_it_back() {
        let templates = Templates::new(1024);
        templates.settle(source(1), TargetId(7), Now(0), ANY);
        let down = |target| target != TargetId(7);
        assert_eq!(
            templates.settle(source(1), TargetId(8), Now(SECOND), down),
            TargetId(8)
        );
        templates.refresh(
            source(1),
            |target| target == TargetId(7),
            Now(2 * SECOND),
            Now(2 * SECOND),
        );
        assert_eq!(
            templates.find(source(1), Now(3 * SECOND)),
            Some(TargetId(8))
        );
    }

    #[test]
    fn whoever_chooses_second_follows_the_first() {
        let templates = Templates::new(1024);
        let settle = |target, at| templates.settle(source(1), TargetId(target), Now(at), ANY);
        assert_eq!(settle(1, 0), TargetId(1));
        assert_eq!(settle(2, SECOND), TargetId(1));
        assert_eq!(settle(2, 62 * SECOND), TargetId(2), "the first is too old");
    }

    /// Each worker reads the clock once a round.
    #[test]
    fn a_worker_whose_clock_is_behind_finds_what_another_settled() {
        let templates = Templates::new(1024);
        templates.settle(source(1), TargetId(7), Now(100 * SECOND), ANY);
        let behind = Now(99 * SECOND);
        assert_eq!(templates.find(source(1), behind), Some(TargetId(7)));
        let settled = templates.settle(source(1), TargetId(8), behind, ANY);
        assert_eq!(settled, TargetId(7));
        templates.refresh(source(1), |target| target == TargetId(7), behind, behind);
        assert_eq!(
            templates.find(source(1), Now(160 * SECOND)),
            Some(TargetId(7))
        );
    }

    #[test]
    fn a_full_table_forgets_who_was_there_least_recently() {
        let templates = Templates::new(7);
        for n in 0..7 {
            templates.settle(source(n), TargetId(n as u32), Now(n * SECOND), ANY);
        }
        templates.refresh(
            source(0),
            |target| target == TargetId(0),
            Now(7 * SECOND),
            Now(7 * SECOND),
        );
        templates.settle(source(100), TargetId(100), Now(9 * SECOND), ANY);
        for n in 0..7 {
            let expected = (n != 1).then_some(TargetId(n as u32));
            assert_eq!(
                templates.find(source(n), Now(9 * SECOND)),
                expected,
                "source {n}"
            );
        }
        let mut listed: Vec<_> = templates.remembered(Now(9 * SECOND)).collect();
        listed.sort_by_key(|remembered| remembered.target);
        let expected = [(0, 2), (2, 7), (3, 6), (4, 5), (5, 4), (6, 3), (100, 0)];
        let expected = expected.map(|(n, age)| Remembered {
            source: address(n),
            target: TargetId(n as u32),
            age: Duration::from_secs(age),
        });
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_target_whose_number_does_not_fit_is_not_remembered() {
        let templates = Templates::new(8);
        let target = TargetId(1 << TARGET_BITS);
        assert_eq!(templates.settle(source(1), target, Now(0), ANY), target);
        assert_eq!(templates.find(source(1), Now(0)), None);
    }

    #[test]
    fn workers_that_choose_at_once_agree() {
        let templates = Templates::new(4096);
        let barrier = Barrier::new(4);
        let choices: Vec<Vec<TargetId>> = std::thread::scope(|scope| {
            let choose = |thread: u32| {
                let (templates, barrier) = (&templates, &barrier);
                scope.spawn(move || {
                    let choose = |n| {
                        barrier.wait();
                        templates.settle(source(n), TargetId(thread), Now(0), ANY)
                    };
                    (0..1000).map(choose).collect()
                })
            };
            let threads: Vec<_> = (0..4).map(choose).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        // Where the kernel takes a thread's CPU away while it has the lock, the others go without for once.
        let agreed = |n: &usize| {
            let noted = templates.find(source(*n as u64), Now(0));
            choices.iter().all(|choices| Some(choices[*n]) == noted)
        };
        let agreed = (0..1000).filter(agreed).count();
        assert!(agreed >= 900, "{agreed} of 1000");
    }
}
