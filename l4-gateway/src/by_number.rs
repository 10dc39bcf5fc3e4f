//! What is noted of each service or target, by its number in the data plane. Numbers are dense, so that a look at 100,000 targets is a walk through a
//! slice: 1 ms, where making a hash map of them anew took 20 ms each second.

use dataplane::{ServiceId, TargetId};

/// What has a number.
pub trait Number {
    /// It.
    fn number(&self) -> usize;
}

impl Number for ServiceId {
    fn number(&self) -> usize {
        self.0 as usize
    }
}

impl Number for TargetId {
    fn number(&self) -> usize {
        self.0 as usize
    }
}

/// A note of each that was in the last round; all others are forgotten, as their numbers are given out again.
#[derive(Debug)]
pub struct ByNumber<T> {
    round: u64,
    notes: Vec<Option<(u64, T)>>,
}

impl<T> Default for ByNumber<T> {
    fn default() -> Self {
        ByNumber {
            round: 0,
            notes: Vec::new(),
        }
    }
}

impl<T> ByNumber<T> {
    /// Begins a round.
    pub fn begin(&mut self) {
        self.round += 1;
    }

    /// Notes something in this round, by what was noted in the one before.
    pub fn note(&mut self, of: &impl Number, note: impl FnOnce(Option<&T>) -> T) {
        let number = of.number();
        if number >= self.notes.len() {
            self.notes.resize_with(number + 1, || None);
        }
        if let Some(place) = self.notes.get_mut(number) {
            let before = place.as_ref().filter(|(round, _)| round + 1 == self.round);
            *place = Some((self.round, note(before.map(|(_, note)| note))));
        }
    }

    /// What was noted in this round.
    pub fn of(&self, of: &impl Number) -> Option<&T> {
        let place = self.notes.get(of.number())?.as_ref();
        place.and_then(|(round, note)| (*round == self.round).then_some(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_in_the_last_round_is_forgotten() {
        let mut notes = ByNumber::default();
        let mut round = |numbers: &[u32]| {
            notes.begin();
            for number in numbers {
                notes.note(&TargetId(*number), |before| before.map_or(1, |n| n + 1));
            }
            [0, 1, 7].map(|number| notes.of(&TargetId(number)).copied())
        };
        assert_eq!(round(&[7]), [None, None, Some(1)]);
        assert_eq!(round(&[0, 7]), [Some(1), None, Some(2)]);
        assert_eq!(round(&[0]), [Some(2), None, None]);
        assert_eq!(round(&[0, 7]), [Some(3), None, Some(1)]);
    }
}
