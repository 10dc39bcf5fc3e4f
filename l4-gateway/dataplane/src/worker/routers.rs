//! Whether the routers of the snapshot answer. The first worker asks for all, five times a second each, and tells the others; flows look their
//! next hops up anew when the answer changes.
//!
//! ```text
//!            answer                 3 questions without one
//!   (new) ------------> lives <------------------------------> dead
//!                                 3 answers in a row
//! ```

use super::Worker;
use crate::limits::{ROUTER_ANSWERS, ROUTER_INTERVAL, ROUTER_MISSES};
use crate::neighbour::ask_for;
use crate::next_hops::{Living, NextHop};
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
    /// Questions in a row without an answer, and with one since it died.
    misses: u8,
    answers: u8,
    /// It has answered once, and lives.
    known: bool,
    lives: bool,
}

impl Watched {
    /// What is to be done when it is due: whether it is asked directly, where its MAC is known.
    fn ask(&mut self, now: u64) -> bool {
        if self.asked {
            self.misses = self.misses.saturating_add(1);
            self.answers = 0;
            self.lives &= self.misses < ROUTER_MISSES;
        }
        self.asked = true;
        self.due = now + ROUTER_INTERVAL;
        // Its address may have moved to another MAC (VRRP).
        self.misses == 0
    }

    fn heard(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.answers = self.answers.saturating_add(1);
        }
        self.misses = 0;
        self.lives |= !self.known || self.answers >= ROUTER_ANSWERS;
        self.known = true;
    }
}

impl Routers {
    /// Which of them live, for [`crate::tables::Net::way`].
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
                ..Watched::default()
            };
            self.watched = hops.iter().map(|hop| before(hop).unwrap_or(new)).collect();
        }
        self.hops.clear();
        self.hops.extend_from_slice(hops);
    }

    /// Whether a router has left as many questions in a row unanswered as let it count as dead.
    pub(super) fn is_silent(&self, who: NextHop) -> bool {
        let place = self.hops.iter().position(|hop| *hop == who);
        let watched = place.and_then(|place| self.watched.get(place));
        watched.is_some_and(|watched| watched.misses >= ROUTER_MISSES)
    }

    /// A router is there, by the MAC in use.
    pub(super) fn heard(&mut self, who: NextHop) {
        if self.watched.is_empty() {
            return;
        }
        let place = self.hops.iter().position(|hop| *hop == who);
        if let Some(watched) = place.and_then(|place| self.watched.get_mut(place)) {
            watched.heard();
        }
    }
}

impl Worker {
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
            living.set(place, watched.lives);
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

    /// Asked at each interval from 0 on; whether it lives after each.
    fn lives(answers: &[bool]) -> Vec<bool> {
        let mut watched = Watched::default();
        let asked = (0..).step_by(ROUTER_INTERVAL as usize).zip(answers);
        asked
            .map(|(now, answers)| {
                assert!(now >= watched.due);
                watched.ask(now);
                if *answers {
                    watched.heard();
                }
                watched.lives
            })
            .collect()
    }

    #[test]
    fn the_first_answer_counts_three_misses_too_and_then_three_answers() {
        let (yes, no) = (true, false);
        assert_eq!(lives(&[no, no, yes]), [no, no, yes]);
        // The third miss is known when the fourth question is asked.
        let answers = [yes, no, no, no, no, yes, yes, no, yes, yes, yes];
        assert_eq!(
            lives(&answers),
            [yes, yes, yes, yes, no, no, no, no, no, no, yes]
        );
        assert_eq!(lives(&[yes, no, no, yes, no, no, yes]), [yes; 7]);
    }

    #[test]
    fn who_speaks_unasked_lives_on_but_does_not_come_back() {
        let mut watched = Watched::default();
        watched.ask(0);
        watched.heard();
        for now in 1..10 {
            watched.ask(now);
            watched.asked = false;
            watched.heard();
        }
        assert!(watched.lives);
        for now in 10..14 {
            watched.ask(now);
        }
        assert!(!watched.lives);
        watched.heard();
        for _ in 0..10 {
            watched.heard();
        }
        assert!(!watched.lives);
    }
}
