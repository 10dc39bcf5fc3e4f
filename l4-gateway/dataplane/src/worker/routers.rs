//! Whether the routers of the snapshot answer. The first worker asks for all, five times a second each, and tells the others; flows look their
//! next hops up anew when the answer changes.
//!
//! ```text
//!                answer            3 questions in a row without one
//!   (unheard) ------------> up <------------------------------------> down
//!                                        3 answers in a row
//!
//!                16 of the last 32 lost; or down within 32 of its return
//!                        up -----------------------------------> lossy
//!                           <-----------------------------------
//!                                 at most 8 of the last 32 lost
//! ```
//!
//! A router that loses two questions of three never loses three in a row; one that comes and goes is up each time after three answers. Flows that
//! followed it each time would lose more than by any other, so a lossy router has to be good for longer before it is up again. It is still a way:
//! where all routers answer late or not at all (they limit ARP under load), the node has no better one and goes on.

use std::time::Duration;

use super::Worker;
use crate::limits::{
    ROUTER_ANSWERS, ROUTER_INTERVAL, ROUTER_LOSSES, ROUTER_LOSSES_LEFT, ROUTER_MISSES,
    ROUTER_WINDOW,
};
use crate::neighbour::{NeighbourView, ask_for};
use crate::next_hops::{Living, NextHop, RouterState, RouterView};
use crate::{Emitted, Now, Tables};

/// What a worker knows of the routers.
#[derive(Default)]
pub(super) struct Routers {
    /// Of the snapshot, in its order.
    hops: Vec<NextHop>,
    /// In the same order; of the worker that asks.
    watched: Vec<Watched>,
    living: Living,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// When it is asked next, in milliseconds.
    due: u64,
    /// A question waits for its answer.
    asked: bool,
    /// Questions in a row without an answer, and with one.
    misses: u8,
    answers: u8,
    /// The latest questions, a bit each: whether they were lost.
    lost: u32,
    /// How many of those there were.
    questions: u32,
    /// Questions since it came back, if that was less than [`ROUTER_WINDOW`] of them ago.
    back_for: Option<u32>,
    /// It has answered, and does so still.
    known: bool,
    answers_still: bool,
    is_lossy: bool,
    /// Since when it is in its state, and when it last answered; milliseconds.
    since: u64,
    answered: Option<u64>,
}

impl Watched {
    /// What is to be done when it is due: whether it is asked directly, where its MAC is known.
    fn ask(&mut self, now: u64) -> bool {
        if self.asked {
            let before = self.state();
            self.misses = self.misses.saturating_add(1);
            self.answers = 0;
            self.count(true);
            self.note_change(before, now);
        }
        self.asked = true;
        self.due = now + ROUTER_INTERVAL;
        // Its address may have moved to another MAC (VRRP).
        self.misses == 0
    }

    fn heard(&mut self, now: u64) {
        let before = self.state();
        self.misses = 0;
        if std::mem::take(&mut self.asked) {
            self.answers = self.answers.saturating_add(1);
            self.answered = Some(now);
            self.count(false);
        }
        if !self.known {
            self.known = true;
            self.answers_still = true;
            self.lost = 0;
            self.questions = 0;
        }
        self.note_change(before, now);
    }

    fn note_change(&mut self, before: RouterState, now: u64) {
        if self.state() != before {
            self.since = now;
        }
    }

    fn view(&self, now: Now, in_use: bool) -> RouterView {
        let ago = |then: u64| Duration::from_millis(now.millis().saturating_sub(then));
        RouterView {
            state: self.state(),
            since: ago(self.since),
            answered: self.answered.map(ago),
            questions: self.questions,
            lost: self.lost.count_ones(),
            in_use,
        }
    }

    /// Judges it by one more question.
    fn count(&mut self, is_lost: bool) {
        self.lost = self.lost << 1 | u32::from(is_lost);
        self.questions = (self.questions + 1).min(ROUTER_WINDOW);
        let losses = self.lost.count_ones();
        let back_for = self.back_for.map(|questions| questions + 1);
        self.back_for = back_for.filter(|questions| *questions < ROUTER_WINDOW);
        if self.answers_still && self.misses >= ROUTER_MISSES {
            self.answers_still = false;
            self.is_lossy |= self.back_for.is_some();
        } else if self.known && !self.answers_still && self.answers >= ROUTER_ANSWERS {
            self.answers_still = true;
            self.back_for = Some(0);
            // What it lost while it was down is no more than that.
            if !self.is_lossy {
                (self.lost, self.questions) = (0, 0);
            }
        } else if self.answers_still && losses >= ROUTER_LOSSES {
            self.is_lossy = true;
        }
        self.is_lossy &= losses > ROUTER_LOSSES_LEFT || !self.answers_still;
    }

    fn state(&self) -> RouterState {
        match (self.known, self.answers_still, self.is_lossy) {
            (false, ..) => RouterState::Unheard,
            (true, false, _) => RouterState::Down,
            (true, true, true) => RouterState::Lossy,
            (true, true, false) => RouterState::Up,
        }
    }
}

impl Routers {
    /// Their states, for [`crate::tables::Net::way`].
    pub(super) fn living(&self) -> Living {
        self.living
    }

    /// Takes over a snapshot. Of new routers the neighbour table asks first, as of all next hops.
    pub(super) fn follow(&mut self, tables: &Tables, now: Now, watches: bool) {
        let hops = tables.routers();
        self.living = self.living.moved(&self.hops, hops);
        if watches {
            let before = |hop: &NextHop| {
                let place = self.hops.iter().position(|known| known == hop);
                place.and_then(|place| self.watched.get(place)).copied()
            };
            let new = Watched {
                due: now.millis() + ROUTER_INTERVAL,
                since: now.millis(),
                ..Watched::default()
            };
            self.watched = hops.iter().map(|hop| before(hop).unwrap_or(new)).collect();
        }
        self.hops.clear();
        self.hops.extend_from_slice(hops);
    }

    /// Whether a router has left as many questions in a row unanswered as make it down.
    pub(super) fn is_silent(&self, who: NextHop) -> bool {
        let place = self.hops.iter().position(|hop| *hop == who);
        let watched = place.and_then(|place| self.watched.get(place));
        watched.is_some_and(|watched| watched.misses >= ROUTER_MISSES)
    }

    /// A router is there, by the MAC in use.
    pub(super) fn heard(&mut self, who: NextHop, now: Now) {
        if self.watched.is_empty() {
            return;
        }
        let place = self.hops.iter().position(|hop| *hop == who);
        if let Some(watched) = place.and_then(|place| self.watched.get_mut(place)) {
            watched.heard(now.millis());
        }
    }
}

impl Worker {
    /// How many next hops it has room for.
    #[must_use]
    pub fn neighbour_places(&self) -> usize {
        self.neighbours.places()
    }

    /// The next hops that it knows in `count` places from `first` on; those of the first worker with the state of routers.
    #[must_use]
    pub fn neighbours_in(
        &self,
        tables: &Tables,
        now: Now,
        first: usize,
        count: usize,
    ) -> Vec<NeighbourView> {
        let Routers {
            hops,
            watched,
            living,
        } = &self.routers;
        let in_use = tables.routers_in_use(*living);
        let mut found: Vec<NeighbourView> = self.neighbours.view_in(now, first, count).collect();
        for neighbour in &mut found {
            let is_it =
                |hop: &NextHop| (hop.port, hop.address) == (neighbour.port, neighbour.address);
            if let Some(place) = hops.iter().position(is_it)
                && let Some(watched) = watched.get(place)
            {
                neighbour.router = Some(watched.view(now, in_use.contains(&place)));
            }
        }
        found
    }

    /// Asks the routers that are due, or takes over what the worker that asks has found out.
    pub(super) fn watch_routers(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        if self.routers.hops.is_empty() {
            return;
        }
        let shared = &self.counters.shared().living;
        if self.index != 0 {
            if let Some(living) = shared.of(self.serial)
                && living != self.routers.living
            {
                self.routers.living = living;
                self.neighbours.next_epoch();
            }
            return;
        }
        let before = self.routers.living;
        let Routers {
            hops,
            watched,
            living,
        } = &mut self.routers;
        for (place, (hop, watched)) in hops.iter().zip(watched).enumerate() {
            if now.millis() >= watched.due {
                let directly = watched.ask(now.millis());
                let known = self
                    .neighbours
                    .mac_of(hop.port, hop.address)
                    .filter(|_| directly);
                ask_for(tables, *hop, known, out, &self.cells);
            }
            living.set(place, watched.state());
        }
        let living = *living;
        shared.tell(self.serial, living);
        if living != before {
            self.neighbours.next_epoch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: bool = true;
    const NO: bool = false;

    /// Asked at each interval from 0 on; its state after each.
    fn states(answers: impl IntoIterator<Item = bool>) -> Vec<RouterState> {
        let mut watched = Watched::default();
        let asked = (0..).step_by(ROUTER_INTERVAL as usize).zip(answers);
        asked
            .map(|(now, answers)| {
                assert!(now >= watched.due);
                watched.ask(now);
                if answers {
                    watched.heard(now);
                }
                watched.state()
            })
            .collect()
    }

    /// Runs of the same answers, and of the same states.
    fn run<T: Copy>(parts: &[(usize, T)]) -> Vec<T> {
        parts
            .iter()
            .flat_map(|(times, what)| vec![*what; *times])
            .collect()
    }

    #[test]
    fn the_first_answer_counts_three_misses_too_and_then_three_answers() {
        use RouterState::{Down, Unheard, Up};
        assert_eq!(states([NO, NO, YES]), [Unheard, Unheard, Up]);
        assert_eq!(states([NO; 100]), [Unheard; 100]);
        // The third miss is known when the fourth question is asked.
        let answers = [YES, NO, NO, NO, NO, YES, YES, NO, YES, YES, YES];
        let expected = run(&[(4, Up), (6, Down), (1, Up)]);
        assert_eq!(states(answers), expected);
        assert_eq!(states([YES, NO, NO, YES, NO, NO, YES]), [Up; 7]);
    }

    #[test]
    fn one_that_was_away_for_long_is_back_after_three_answers() {
        use RouterState::{Down, Up};
        let answers = run(&[(50, YES), (200, NO), (50, YES)]);
        let expected = run(&[(53, Up), (199, Down), (48, Up)]);
        assert_eq!(states(answers), expected);
    }

    #[test]
    fn half_of_a_window_lost_makes_it_lossy_until_three_quarters_are_answered() {
        use RouterState::{Lossy, Up};
        let flapping = [NO, NO, YES].into_iter().cycle().take(3 * 50);
        let answers = run(&[(40, YES)]).into_iter().chain(flapping);
        let found = states(answers.chain([YES; 60]));
        // Two of three: the sixteenth is known after eight rounds.
        let expected = run(&[(63, Up), (145, Lossy), (42, Up)]);
        assert_eq!(found, expected);
        // A third lost is no reason.
        let answers = [YES, YES, NO].into_iter().cycle().take(300);
        assert_eq!(states(answers), [Up; 300]);
    }

    #[test]
    fn one_that_dies_soon_after_its_return_must_be_good_for_longer() {
        use RouterState::{Down, Lossy, Up};
        let found = states(run(&[(40, YES), (10, NO), (10, YES), (10, NO), (40, YES)]));
        let expected = [
            (43, Up),
            (9, Down),
            (11, Up),
            (9, Down),
            // Ten were lost, and eight may be.
            (21, Lossy),
            (17, Up),
        ];
        assert_eq!(found, run(&expected));
        // Later that is forgotten.
        let found = states(run(&[(40, YES), (10, NO), (40, YES), (10, NO), (5, YES)]));
        let expected = [(43, Up), (9, Down), (41, Up), (9, Down), (3, Up)];
        assert_eq!(found, run(&expected));
    }

    #[test]
    fn who_speaks_unasked_lives_on_but_does_not_come_back() {
        let mut watched = Watched::default();
        watched.ask(0);
        watched.heard(0);
        for now in 1..10 {
            watched.ask(now);
            watched.asked = false;
            watched.heard(now);
        }
        assert_eq!(watched.state(), RouterState::Up);
        for now in 10..14 {
            watched.ask(now);
        }
        assert_eq!(watched.state(), RouterState::Down);
        for now in 14..25 {
            watched.heard(now);
        }
        assert_eq!(watched.state(), RouterState::Down);
    }
}
