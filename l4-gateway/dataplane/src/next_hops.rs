//! The routers of a route, and the state of all routers.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::MOST_NEXT_HOPS;
use crate::port::PortIndex;

/// The routers of a route; none if its destinations are on the port's own segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHops<A> {
    routers: [Option<A>; MOST_NEXT_HOPS],
    sharing: Sharing,
}

/// How flows use several routers that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All of them the first one that answers.
    #[default]
    InOrder,
    /// Each flow one of them, by a hash of its client: when one dies, its flows alone move, and move back when it returns (highest random
    /// weight, Thaler and Ravishankar 1998).
    ByFlow,
}

impl<A: Copy> NextHops<A> {
    /// The destinations are on the segment themselves.
    pub const ON_LINK: Self = Self {
        routers: [None; MOST_NEXT_HOPS],
        sharing: Sharing::InOrder,
    };

    /// One router.
    #[must_use]
    pub fn one(router: A) -> Self {
        let mut one = Self::ON_LINK;
        one.routers[0] = Some(router);
        one
    }

    /// Several routers; none if they are more than [`MOST_NEXT_HOPS`].
    pub fn new(routers: impl IntoIterator<Item = A>, sharing: Sharing) -> Option<Self> {
        let mut several = Self {
            sharing,
            ..Self::ON_LINK
        };
        for (at, router) in routers.into_iter().enumerate() {
            *several.routers.get_mut(at)? = Some(router);
        }
        Some(several)
    }

    /// The routers, in order.
    pub fn iter(&self) -> impl Iterator<Item = A> + use<A> {
        self.routers.into_iter().flatten()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_on_link(&self) -> bool {
        self.routers[0].is_none()
    }

    /// How flows use them.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }
}

/// A router that a snapshot names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The port whose segment it is on.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
}

/// The state of a router that is watched. The later ones are the better to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub enum RouterState {
    /// It has never answered.
    #[default]
    Unheard,
    /// It doesn't answer any more.
    Down,
    /// It answers, but leaves many questions unanswered, or has come and gone lately: used where there is no better one.
    Lossy,
    /// It answers.
    Up,
}

impl RouterState {
    /// The name for people and `/status`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            RouterState::Unheard => "never answered",
            RouterState::Down => "down",
            RouterState::Lossy => "lossy",
            RouterState::Up => "up",
        }
    }

    /// Whether it answers, however badly.
    #[must_use]
    pub fn answers(self) -> bool {
        self >= RouterState::Lossy
    }
}

/// The state of a router, with what it is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterView {
    /// Its state.
    pub state: RouterState,
    /// How long it has been in it.
    pub since: Duration,
    /// How long ago it last answered a question of the watch.
    pub answered: Option<Duration>,
    /// How many of the latest questions were counted: 32, or all so far.
    pub questions: u32,
    /// How many of them were lost.
    pub lost: u32,
    /// Whether flows use it now.
    pub in_use: bool,
}

/// The states of a snapshot's routers, by their place in [`crate::Tables::routers`]: two bits for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Living {
    /// Those that answer.
    answering: u64,
    /// Of those that answer, the ones that are up; of the others, those that answered once.
    better: u64,
}

impl Living {
    /// How many can be told apart: the other bits name the snapshot where workers share them.
    pub(crate) const MOST: usize = 48;

    /// The state of the router at this place.
    #[must_use]
    pub fn state(self, place: usize) -> RouterState {
        let has = |bits: u64| place < Self::MOST && bits >> place & 1 != 0;
        match (has(self.answering), has(self.better)) {
            (false, false) => RouterState::Unheard,
            (false, true) => RouterState::Down,
            (true, false) => RouterState::Lossy,
            (true, true) => RouterState::Up,
        }
    }

    pub(crate) fn set(&mut self, place: usize, state: RouterState) {
        if place < Self::MOST {
            let write =
                |bits: &mut u64, bit: bool| *bits = *bits & !(1 << place) | u64::from(bit) << place;
            write(&mut self.answering, state.answers());
            let is_better = matches!(state, RouterState::Down | RouterState::Up);
            write(&mut self.better, is_better);
        }
    }

    /// The same routers at their places in another snapshot; new ones haven't answered yet.
    pub(crate) fn moved(self, from: &[NextHop], to: &[NextHop]) -> Self {
        let mut moved = Self::default();
        for (place, hop) in to.iter().enumerate() {
            if let Some(before) = from.iter().position(|known| known == hop) {
                moved.set(place, self.state(before));
            }
        }
        moved
    }
}

/// What the worker that watches routers tells the others, and whoever asks: their states, and of which snapshot they are. One worker writes, and
/// nobody waits: who reads while it does learns nothing.
#[derive(Debug, Default)]
pub(crate) struct SharedLiving {
    /// Odd while the states are written, another number after each time.
    version: AtomicU64,
    states: [AtomicU64; 2],
}

impl SharedLiving {
    pub(crate) fn tell(&self, serial: u64, living: Living) {
        self.version.fetch_add(1, Ordering::SeqCst);
        for (word, bits) in self.states.iter().zip([living.answering, living.better]) {
            word.store(serial << Living::MOST | bits, Ordering::SeqCst);
        }
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// None if another snapshot was meant, or it changes while it is read.
    pub(crate) fn of(&self, serial: u64) -> Option<Living> {
        let version = self.version.load(Ordering::SeqCst);
        let states = self.states.each_ref();
        let [answering, better] = states.map(|word| word.load(Ordering::SeqCst));
        let is_whole = version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version;
        let is_meant = |told: u64| told >> Living::MOST == serial << Living::MOST >> Living::MOST;
        let bits = |told: u64| told & ((1 << Living::MOST) - 1);
        (is_whole && is_meant(answering)).then_some(Living {
            answering: bits(answering),
            better: bits(better),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(last: u8) -> NextHop {
        NextHop {
            port: PortIndex(0),
            address: [10, 0, 0, last].into(),
        }
    }

    #[test]
    fn who_lives_is_carried_over_to_another_snapshot() {
        use RouterState::{Down, Lossy, Unheard, Up};
        let mut living = Living::default();
        living.set(0, Lossy);
        living.set(1, Up);
        let moved = living.moved(&[hop(1), hop(2)], &[hop(3), hop(2), hop(1)]);
        assert_eq!(
            [0, 1, 2, 47, 48, 64].map(|place| moved.state(place)),
            [Unheard, Up, Lossy, Unheard, Unheard, Unheard]
        );
        living.set(1, Down);
        assert_eq!(living.state(1), Down);
    }

    #[test]
    fn what_is_told_of_another_snapshot_counts_for_nothing() {
        let shared = SharedLiving::default();
        let mut living = Living::default();
        living.set(47, RouterState::Up);
        shared.tell(0x1_0007, living);
        assert_eq!(shared.of(0x1_0007), Some(living));
        assert_eq!(shared.of(8), None);
    }

    #[test]
    fn what_is_told_is_read_whole_or_not_at_all() {
        let shared = SharedLiving::default();
        let state = |state| {
            let mut living = Living::default();
            (0..Living::MOST).for_each(|place| living.set(place, state));
            living
        };
        // In both bits the other's complement: a mixture is neither.
        let told = [RouterState::Down, RouterState::Lossy].map(state);
        shared.tell(7, told[0]);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for turn in 0..200_000 {
                    shared.tell(7, told[turn % 2]);
                }
            });
            while !writing.is_finished() {
                if let Some(living) = shared.of(7) {
                    assert!(told.contains(&living), "{living:?}");
                }
            }
            writing.join().unwrap();
        });
        assert_eq!(shared.of(7), Some(told[1]));
    }

    #[test]
    fn no_more_routers_fit_than_there_is_room_for() {
        let routers = |count: u8| NextHops::new(0..count, Sharing::ByFlow);
        let most = routers(MOST_NEXT_HOPS as u8).unwrap();
        assert!(most.iter().eq(0..MOST_NEXT_HOPS as u8));
        assert!(!most.is_on_link());
        assert_eq!(routers(MOST_NEXT_HOPS as u8 + 1), None);
        assert!(routers(0).unwrap().is_on_link());
    }
}
