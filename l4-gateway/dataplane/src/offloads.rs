//! Whether wrong checksums are the sign of something other than bad luck: senders that leave them to a NIC that isn't there. Nothing of
//! theirs arrives anywhere, and no counter of a service says why.

use crate::Now;
use crate::wire::transport::Sum;

/// So many checksums that stop behind the pseudo header are no chance: damage looks so once in 65,536 times. As many as a client's SYN and
/// its first two repetitions.
const UNFINISHED: u32 = 3;
/// So many wrong ones of any kind in a second.
const STORM: u32 = 100;

/// Wrong checksums that came to one worker.
#[derive(Debug, Default)]
pub(crate) struct WrongSums {
    unfinished: u32,
    second: u64,
    in_second: u32,
}

impl WrongSums {
    /// Takes note of one; whether it is time to say so.
    pub(crate) fn note(&mut self, now: Now, sum: Sum) -> bool {
        let second = now.millis() / 1000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second = self.in_second.saturating_add(1);
        if sum == Sum::Unfinished {
            self.unfinished = self.unfinished.saturating_add(1);
        }
        self.unfinished >= UNFINISHED && sum == Sum::Unfinished || self.in_second >= STORM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_third_unfinished_sum_is_no_chance_however_late_it_comes() {
        let mut sums = WrongSums::default();
        let noted = [0, 100, 5000].map(|second| sums.note(Now(second * SECOND), Sum::Unfinished));
        assert_eq!(noted, [false, false, true]);
        assert!(!sums.note(Now(5001 * SECOND), Sum::Wrong), "another matter");
    }

    #[test]
    fn damage_is_a_storm_by_its_number_in_a_second() {
        let mut sums = WrongSums::default();
        for second in 0..3 {
            let many = |sums: &mut WrongSums, n| {
                (0..n).fold(false, |_, _| sums.note(Now(second * SECOND), Sum::Wrong))
            };
            assert!(!many(&mut sums, STORM - 1), "second {second}");
        }
        assert!(sums.note(Now(2 * SECOND + 999_999_999), Sum::Wrong));
    }
}
