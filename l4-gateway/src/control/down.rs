//! Targets that are known to be down, and for how long: after a while their flows are cut, so that clients don't go on speaking to nobody.
//!
//! Nothing is cut where nothing is gained: while no target of the service takes flows, those that are down keep theirs. And a target of which
//! nobody knows isn't down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::gradual::Cutting;

/// What has to be known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) address: SocketAddr,
    /// Up, wanted, of some weight.
    pub(super) takes_flows: bool,
    /// Probes say so.
    pub(super) is_down: bool,
}

/// A service's targets that are down.
#[derive(Debug, Clone, Default)]
pub(super) struct Down {
    /// Since when.
    since: BTreeMap<SocketAddr, Duration>,
    /// Those of `since` that are no longer among the service's targets.
    gone: BTreeSet<SocketAddr>,
    /// At the last look any target took flows.
    others_serve: bool,
    /// Whose flows the snapshot in force has cut, and since when.
    cut: BTreeMap<SocketAddr, Duration>,
}

/// Most targets that are gone, and whose flows wait for another target to take them over; the ones that went down first are forgotten.
const MOST_GONE: usize = 1024;

impl Down {
    /// Looks at all targets there are. Never cuts without `cutting`.
    pub(super) fn look(
        &mut self,
        now: Duration,
        cutting: Option<Cutting>,
        targets: impl Iterator<Item = Health>,
    ) {
        self.others_serve = false;
        let mut down = BTreeSet::new();
        for target in targets {
            self.others_serve |= target.takes_flows;
            if target.is_down {
                down.insert(target.address);
                self.since.entry(target.address).or_insert(now);
            } else {
                self.since.remove(&target.address);
            }
        }
        let is_over = |address: &SocketAddr| {
            cutting.is_none_or(|cutting| is_done(now, cutting, self.cut.get(address)))
        };
        self.since
            .retain(|address, _| down.contains(address) || !is_over(address));
        let gone = |(address, since): (&SocketAddr, &Duration)| {
            (!down.contains(address)).then_some((*since, *address))
        };
        let mut gone: Vec<(Duration, SocketAddr)> = self.since.iter().filter_map(gone).collect();
        gone.sort_unstable();
        let too_many = gone.len().saturating_sub(MOST_GONE);
        for (_, address) in gone.drain(..too_many) {
            self.since.remove(&address);
        }
        self.gone = gone.into_iter().map(|(_, address)| address).collect();
        let before = std::mem::take(&mut self.cut);
        self.cut = self
            .due(now, cutting)
            .map(|address| (address, before.get(&address).copied().unwrap_or(now)))
            .collect();
    }

    /// A target that is down is about to be removed, though nobody may have looked since it went down.
    pub(super) fn removed(&mut self, now: Duration, address: SocketAddr) {
        self.since.entry(address).or_insert(now);
    }

    /// Whether time has changed something since the last look.
    pub(super) fn is_due(&self, now: Duration, cutting: Option<Cutting>) -> bool {
        let ended = |address: &SocketAddr| {
            cutting.is_some_and(|cutting| is_done(now, cutting, self.cut.get(address)))
        };
        !self.due(now, cutting).eq(self.cut.keys().copied()) || self.gone.iter().any(ended)
    }

    /// Whether the flows to a target are to be cut.
    pub(super) fn is_cut(&self, address: SocketAddr) -> bool {
        self.cut.contains_key(&address)
    }

    /// Targets that went down and are gone, while flows to them may be left.
    pub(super) fn gone(&self) -> impl Iterator<Item = SocketAddr> {
        self.gone.iter().copied()
    }

    /// Whether a target is one of those.
    pub(super) fn is_gone(&self, address: SocketAddr) -> bool {
        self.gone.contains(&address)
    }

    /// Those whose time is over, by address.
    fn due(&self, now: Duration, cutting: Option<Cutting>) -> impl Iterator<Item = SocketAddr> {
        let cutting = cutting.filter(|_| self.others_serve);
        let is_due = move |since: Duration| {
            cutting.is_some_and(|cutting| now.saturating_sub(since) >= cutting.after)
        };
        let over = self.since.iter().filter(move |(_, since)| is_due(**since));
        over.map(|(address, _)| *address)
    }
}

/// Whether the workers have had their time to end the flows of a target, if they have been cut since `begun`. Until another target serves they
/// are not, however long that takes.
fn is_done(now: Duration, cutting: Cutting, begun: Option<&Duration>) -> bool {
    begun.is_some_and(|begun| now.saturating_sub(*begun) >= cutting.takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Option<Cutting> = Some(Cutting {
        after: Duration::from_secs(30),
        takes: Duration::from_secs(60),
    });
    const AT_ONCE: Option<Cutting> = Some(Cutting {
        after: Duration::ZERO,
        takes: Duration::from_secs(60),
    });

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 3, 0, n], 80))
    }

    fn well(n: u8) -> Health {
        Health {
            address: target(n),
            takes_flows: true,
            is_down: false,
        }
    }

    fn down(n: u8) -> Health {
        Health {
            takes_flows: false,
            is_down: true,
            ..well(n)
        }
    }

    /// Of weight 0, or nobody knows.
    fn idle(n: u8) -> Health {
        Health {
            takes_flows: false,
            ..well(n)
        }
    }

    #[test]
    fn flows_of_a_target_that_stays_down_are_cut_when_the_time_has_come() {
        let mut state = Down::default();
        state.look(secs(10), AFTER, [well(1), well(2)].into_iter());
        assert!(!state.is_due(secs(5000), AFTER));
        state.look(secs(20), AFTER, [well(1), down(2)].into_iter());
        assert!(!state.is_cut(target(2)) && !state.is_due(secs(49), AFTER));
        assert!(state.is_due(secs(50), AFTER));
        state.look(secs(50), AFTER, [well(1), down(2)].into_iter());
        assert!(state.is_cut(target(2)) && !state.is_cut(target(1)));
        assert!(!state.is_due(secs(5000), AFTER), "as long as it is there");
        state.look(secs(60), AFTER, [well(1), well(2)].into_iter());
        assert!(!state.is_cut(target(2)), "it is up again");
    }

    #[test]
    fn a_target_that_comes_up_in_time_keeps_its_flows_and_its_time_begins_anew() {
        for between in [well(2), idle(2)] {
            let mut state = Down::default();
            state.look(secs(20), AFTER, [well(1), down(2)].into_iter());
            state.look(secs(49), AFTER, [well(1), between].into_iter());
            state.look(secs(50), AFTER, [well(1), down(2)].into_iter());
            assert!(!state.is_due(secs(79), AFTER), "{between:?}");
            assert!(state.is_due(secs(80), AFTER), "{between:?}");
        }
    }

    #[test]
    fn nothing_is_cut_while_no_target_takes_flows() {
        let mut state = Down::default();
        state.look(secs(20), AT_ONCE, [idle(1), down(2)].into_iter());
        assert!(!state.is_cut(target(2)) && !state.is_due(secs(5000), AT_ONCE));
        state.look(secs(5000), AT_ONCE, [well(1), down(2)].into_iter());
        assert!(state.is_cut(target(2)));
        state.look(secs(5001), AT_ONCE, [down(1), down(2)].into_iter());
        assert!(!state.is_cut(target(1)) && !state.is_cut(target(2)));
    }

    #[test]
    fn a_target_that_is_removed_while_down_stays_until_its_flows_were_cut() {
        let mut seen = Down::default();
        seen.look(secs(20), AFTER, [well(1), down(2)].into_iter());
        let mut unseen = Down::default();
        unseen.look(secs(10), AFTER, [well(1), well(2)].into_iter());
        unseen.removed(secs(20), target(2));
        for mut state in [seen, unseen] {
            state.look(secs(21), AFTER, [well(1)].into_iter());
            assert!(state.gone().eq([target(2)]) && !state.is_cut(target(2)));
            assert!(state.is_due(secs(50), AFTER));
            state.look(secs(50), AFTER, [well(1)].into_iter());
            assert!(state.is_cut(target(2)));
            assert!(!state.is_due(secs(109), AFTER) && state.is_due(secs(110), AFTER));
            state.look(secs(110), AFTER, [well(1)].into_iter());
            assert!(state.gone().next().is_none());
            assert!(!state.is_due(secs(5000), AFTER));
        }
        // One that was well is only removed.
        let mut state = Down::default();
        state.look(secs(10), AFTER, [well(1), well(2)].into_iter());
        state.look(secs(20), AFTER, [well(1)].into_iter());
        assert!(state.gone().next().is_none());
    }

    #[test]
    fn a_target_that_is_gone_waits_for_another_to_take_its_flows_over() {
        let mut known = Down::default();
        known.look(secs(0), AT_ONCE, [down(1)].into_iter());
        known.look(secs(10), AT_ONCE, [].into_iter());
        known.look(secs(1000), AT_ONCE, [].into_iter());
        assert!(known.is_gone(target(1)) && !known.is_cut(target(1)));
        known.look(secs(1001), AT_ONCE, [well(2)].into_iter());
        assert!(known.is_gone(target(1)) && known.is_cut(target(1)));
        assert!(!known.is_due(secs(1060), AT_ONCE));
        assert!(
            known.is_due(secs(1061), AT_ONCE),
            "the workers had their time"
        );
        known.look(secs(1061), AT_ONCE, [well(2)].into_iter());
        assert!(!known.is_gone(target(1)) && !known.is_cut(target(1)));
    }

    #[test]
    fn targets_that_come_and_go_while_none_serves_do_not_pile_up() {
        let mut known = Down::default();
        for n in 0..MOST_GONE as u64 + 10 {
            let address = SocketAddr::from(([10, 3, (n >> 8) as u8, n as u8], 80));
            let health = Health { address, ..down(1) };
            known.look(secs(n), AT_ONCE, [health].into_iter());
        }
        known.look(secs(5000), AT_ONCE, [].into_iter());
        assert_eq!(known.gone().count(), MOST_GONE);
        assert!(!known.is_gone(target(9)), "the oldest are forgotten");
    }

    #[test]
    fn without_a_time_to_cut_nothing_is_cut_or_kept() {
        let mut state = Down::default();
        state.look(secs(20), None, [well(1), down(2)].into_iter());
        assert!(!state.is_due(secs(5000), None));
        state.look(secs(5000), None, [well(1)].into_iter());
        assert!(state.gone().next().is_none());
    }
}
