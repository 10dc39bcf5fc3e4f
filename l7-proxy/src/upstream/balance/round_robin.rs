//! Smooth weighted round robin, as nginx describes it: at every turn each candidate gains its weight, the richest is chosen and pays
//! the sum of the gains. Weights 5, 1, 1 give a a b a c a a, never five in a row and a gap.

/// The credit of every backend. Credits of candidates that could not take part in a turn stay as they are, so that a backend coming
/// back does not get a burst.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    credit: Box<[i64]>,
}

impl Turns {
    pub(super) fn new(backends: usize) -> Turns {
        Turns {
            credit: vec![0; backends].into_boxed_slice(),
        }
    }

    /// Those of another generation, in the order of this one; `None` begins without credit. What came or left may have left the sum
    /// uneven, which the first turns settle. A credit counts up to the `total` of the weights, the most one can come by with them: what is owed by
    /// greater weights would be paid in a burst.
    pub(super) fn continued(credits: impl Iterator<Item = Option<i64>>, total: i64) -> Turns {
        Turns {
            credit: credits
                .map(|credit| credit.unwrap_or_default().clamp(-total, total))
                .collect(),
        }
    }

    /// What the backend at `index` is owed.
    pub(super) fn credit(&self, index: usize) -> Option<i64> {
        self.credit.get(index).copied()
    }

    /// The next index among those `eligible`; the lowest index wins a tie.
    pub(super) fn next(
        &mut self,
        weight: impl Fn(usize) -> u32,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0i64;
        let mut best: Option<usize> = None;
        for index in 0..self.credit.len() {
            if !eligible(index) {
                continue;
            }
            let gain = i64::from(weight(index));
            total += gain;
            self.credit[index] += gain;
            if best.is_none_or(|leader| self.credit[index] > self.credit[leader]) {
                best = Some(index);
            }
        }
        if let Some(chosen) = best {
            self.credit[chosen] -= total;
        }
        best
    }
}
