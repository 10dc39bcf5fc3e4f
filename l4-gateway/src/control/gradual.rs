//! Targets that come and go by degrees: a target that comes up gets its share of new flows little by little (slow start), and the
//! flows of one that takes no new ones any more may be cut after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A full share, in the parts that a share is made of. While a target of a service grows, all its weights are multiplied by this: the
/// greatest weight a target can have still fits 16 bits.
pub(super) const FULL: u16 = 60;

/// Steps from nothing to a full share: each is a snapshot, and moves clients of schedulers that hash.
const STEPS: u32 = 20;

/// How a service's targets come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pace {
    /// How long a share grows; zero for not at all.
    pub(super) slow_start: Duration,
    /// When flows of a target that takes no new ones are cut; never without one.
    pub(super) cut: Option<Cutting>,
}

/// When flows of a target that takes no new ones are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cutting {
    /// Counted from when that began.
    pub(super) after: Duration,
    /// A target that is gone stays in the snapshot for so long then: ample for the workers to do it.
    pub(super) takes: Duration,
}

impl Cutting {
    /// Whether the flows of a target left at `since` have been cut by now.
    pub(super) fn is_done(self, now: Duration, since: Duration) -> bool {
        now.saturating_sub(since) >= self.after + self.takes
    }
}

/// What has to be known of a target in order to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) address: SocketAddr,
    /// Up, wanted, of some weight.
    pub(super) takes_flows: bool,
    /// Weight 0 or draining: somebody wants it to be left, up or down.
    pub(super) is_left: bool,
}

/// Where in their coming and going a service's targets are.
#[derive(Debug, Clone, Default)]
pub(super) struct Gradual {
    /// Targets that take flows, and since when, if we saw that begin; none before the first look.
    serving: Option<BTreeMap<SocketAddr, Option<Duration>>>,
    /// All targets that were there at the last look.
    present: BTreeSet<SocketAddr>,
    /// Targets that have weight 0, drain or were removed, and since when.
    left: BTreeMap<SocketAddr, Duration>,
    /// Those of `left` that are no longer among the service's targets.
    gone: Vec<SocketAddr>,
    /// What the snapshot in force was made of.
    applied: Differing,
}

/// Targets that differ from those that just serve: their share, and whether they are cut.
type Differing = BTreeMap<SocketAddr, (u16, bool)>;

impl Gradual {
    /// Looks at all targets there are.
    pub(super) fn look(&mut self, now: Duration, pace: Pace, targets: impl Iterator<Item = Seen>) {
        if pace == Pace::default() {
            *self = Self::default();
            return;
        }
        let targets: Vec<Seen> = targets.collect();
        let before = self.serving.take();
        let began = |address: &SocketAddr| match &before {
            // What serves at the first look is taken to have served before.
            None => None,
            Some(before) => before.get(address).copied().unwrap_or(Some(now)),
        };
        let serving = targets.iter().filter(|target| target.takes_flows);
        self.serving = Some(
            serving
                .map(|target| (target.address, began(&target.address)))
                .collect(),
        );
        let present: BTreeSet<SocketAddr> = targets.iter().map(|target| target.address).collect();
        let vanished = self.present.difference(&present);
        for address in vanished {
            self.left.entry(*address).or_insert(now);
        }
        for target in &targets {
            if target.is_left {
                self.left.entry(target.address).or_insert(now);
            } else {
                self.left.remove(&target.address);
            }
        }
        match pace.cut {
            None => self.left.clear(),
            Some(cutting) => self.left.retain(|address, since| {
                present.contains(address) || !cutting.is_done(now, *since)
            }),
        }
        self.gone = self
            .left
            .keys()
            .filter(|address| !present.contains(address))
            .copied()
            .collect();
        self.present = present;
        self.applied = self.state(now, pace);
    }

    /// Whether time has changed something since the last look.
    pub(super) fn is_due(&self, now: Duration, pace: Pace) -> bool {
        let ended = |address| {
            let since = self.left.get(address);
            let cut = since.zip(pace.cut);
            cut.is_some_and(|(since, cutting)| cutting.is_done(now, *since))
        };
        self.applied != self.state(now, pace) || self.gone.iter().any(ended)
    }

    /// Whether any target's share is less than full.
    pub(super) fn grows(&self) -> bool {
        self.applied.values().any(|(share, _)| *share < FULL)
    }

    /// A target's share, of [`FULL`].
    pub(super) fn share(&self, address: SocketAddr) -> u16 {
        self.applied.get(&address).map_or(FULL, |(share, _)| *share)
    }

    /// Whether the flows to a target are to be cut.
    pub(super) fn is_cut(&self, address: SocketAddr) -> bool {
        self.applied.get(&address).is_some_and(|(_, cut)| *cut)
    }

    /// Targets that are gone, while flows to them may be left.
    pub(super) fn gone(&self) -> &[SocketAddr] {
        &self.gone
    }

    fn state(&self, now: Duration, pace: Pace) -> Differing {
        let growing = self
            .serving
            .iter()
            .flatten()
            .filter_map(|(address, since)| {
                let share = share(now.saturating_sub((*since)?), pace.slow_start);
                (share < FULL).then_some((*address, (share, false)))
            });
        let cut = self.left.iter().filter_map(|(address, since)| {
            let cut = now.saturating_sub(*since) >= pace.cut?.after;
            cut.then_some((*address, (FULL, true)))
        });
        growing.chain(cut).collect()
    }
}

/// The share of a target that has served for so long: at least a step.
fn share(served: Duration, slow_start: Duration) -> u16 {
    if served >= slow_start {
        return FULL;
    }
    let steps = (served.as_micros() * u128::from(STEPS)).checked_div(slow_start.as_micros());
    let steps = steps.unwrap_or_default().max(1) as u16;
    FULL / STEPS as u16 * steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 3, 0, n], 80))
    }

    fn serves(n: u8) -> Seen {
        Seen {
            address: target(n),
            takes_flows: true,
            is_left: false,
        }
    }

    fn down(n: u8) -> Seen {
        Seen {
            takes_flows: false,
            ..serves(n)
        }
    }

    fn left(n: u8) -> Seen {
        Seen {
            is_left: true,
            ..down(n)
        }
    }

    const PACE: Pace = Pace {
        slow_start: Duration::from_secs(100),
        cut: Some(Cutting {
            after: Duration::from_secs(30),
            takes: Duration::from_secs(60),
        }),
    };

    #[test]
    fn a_share_grows_in_twenty_steps() {
        let shares: Vec<u16> = [0, 4, 5, 9, 10, 50, 95, 99, 100, 1000]
            .iter()
            .map(|seconds| share(secs(*seconds), secs(100)))
            .collect();
        assert_eq!(shares, [3, 3, 3, 3, 6, 30, 57, 57, 60, 60]);
        assert_eq!(share(Duration::ZERO, Duration::ZERO), FULL);
    }

    #[test]
    fn who_comes_up_later_grows_and_who_was_there_at_the_start_does_not() {
        let mut gradual = Gradual::default();
        gradual.look(secs(10), PACE, [serves(1), down(2)].into_iter());
        assert!(!gradual.grows());
        gradual.look(
            secs(20),
            PACE,
            [serves(1), serves(2), serves(3)].into_iter(),
        );
        let shares = |gradual: &Gradual| [1, 2, 3].map(|n| gradual.share(target(n)));
        assert_eq!(shares(&gradual), [60, 3, 3]);
        assert!(!gradual.is_due(secs(29), PACE));
        assert!(gradual.is_due(secs(30), PACE));
        // Down and up again begins anew.
        gradual.look(secs(70), PACE, [serves(1), serves(2), down(3)].into_iter());
        assert_eq!(shares(&gradual), [60, 30, 60]);
        gradual.look(
            secs(71),
            PACE,
            [serves(1), serves(2), serves(3)].into_iter(),
        );
        assert_eq!(shares(&gradual), [60, 30, 3]);
        assert!(gradual.is_due(secs(200), PACE));
        gradual.look(
            secs(200),
            PACE,
            [serves(1), serves(2), serves(3)].into_iter(),
        );
        assert!(!gradual.grows());
        assert!(!gradual.is_due(secs(1000), PACE));
    }

    #[test]
    fn flows_of_a_target_that_is_left_are_cut_when_the_time_has_come() {
        let mut gradual = Gradual::default();
        gradual.look(secs(10), PACE, [serves(1), serves(2)].into_iter());
        gradual.look(secs(20), PACE, [serves(1), left(2)].into_iter());
        assert!(!gradual.is_cut(target(2)));
        assert!(!gradual.is_due(secs(49), PACE));
        assert!(gradual.is_due(secs(50), PACE));
        gradual.look(secs(50), PACE, [serves(1), left(2)].into_iter());
        assert!(gradual.is_cut(target(2)) && !gradual.is_cut(target(1)));
        assert!(!gradual.is_due(secs(5000), PACE), "as long as it is there");
        gradual.look(secs(60), PACE, [serves(1), serves(2)].into_iter());
        assert!(!gradual.is_cut(target(2)), "it is wanted again");
    }

    #[test]
    fn a_target_that_is_gone_stays_until_its_flows_were_cut() {
        let mut gradual = Gradual::default();
        gradual.look(secs(10), PACE, [serves(1), serves(2)].into_iter());
        gradual.look(secs(20), PACE, [serves(1)].into_iter());
        assert_eq!(gradual.gone(), [target(2)]);
        assert!(gradual.is_due(secs(50), PACE));
        gradual.look(secs(50), PACE, [serves(1)].into_iter());
        assert!(gradual.is_cut(target(2)));
        assert!(!gradual.is_due(secs(109), PACE));
        assert!(gradual.is_due(secs(110), PACE));
        gradual.look(secs(110), PACE, [serves(1)].into_iter());
        assert_eq!(gradual.gone(), []);
        assert!(!gradual.is_due(secs(5000), PACE));
    }

    #[test]
    fn a_target_that_is_down_keeps_its_flows() {
        let mut gradual = Gradual::default();
        gradual.look(secs(10), PACE, [serves(1)].into_iter());
        gradual.look(secs(20), PACE, [down(1)].into_iter());
        assert!(!gradual.is_due(secs(5000), PACE));
        // Until it is removed.
        gradual.look(secs(5000), PACE, [].into_iter());
        assert!(gradual.is_due(secs(5030), PACE));
    }

    #[test]
    fn without_a_time_to_cut_nothing_is_cut_or_kept() {
        let never = Pace { cut: None, ..PACE };
        let mut gradual = Gradual::default();
        gradual.look(secs(10), never, [serves(1), serves(2)].into_iter());
        gradual.look(secs(20), never, [left(1)].into_iter());
        assert_eq!(gradual.gone(), []);
        assert!(!gradual.is_due(secs(5000), never));
    }
}
