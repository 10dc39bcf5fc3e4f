//! The expiry wheel: a ring of lists, one a tick, through the flows' own entries.
//!
//! It is lazy: a packet only moves the deadline in its flow. When the hand reaches a flow's slot, the deadline decides whether
//! it goes or is put where its deadline lies now, at most one turn ahead. So no packet touches the wheel, and a deadline that
//! moved closer (a connection that closed) is noticed within a turn.

use super::index::NONE;
use super::table::FlowTable;
use crate::limits::WHEEL_SLOTS;

/// The wheel.
pub(crate) struct Wheel {
    heads: Box<[u32; WHEEL_SLOTS]>,
    /// The tick whose slot is worked on; all before it are done.
    hand: Option<u32>,
    /// What is left of that slot.
    rest: u32,
}

/// What to do with a flow the hand has reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Its deadline has passed.
    Expired(u32),
    /// It was removed before; its entry can be used again now.
    Removed(u32),
    /// It lives on and is on the wheel, and keeps its source at its target.
    Persists(u32),
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            heads: Box::new([NONE; WHEEL_SLOTS]),
            hand: None,
            rest: NONE,
        }
    }

    /// Puts a flow on the wheel.
    pub(crate) fn insert(&mut self, flows: &mut FlowTable, number: u32, now: u32) {
        let hand = *self.hand.get_or_insert(now);
        let flow = flows.get_mut(number);
        // Never into the slot in work, at most one turn ahead.
        let ahead = flow
            .deadline
            .saturating_sub(hand)
            .clamp(1, WHEEL_SLOTS as u32 - 1);
        let head = &mut self.heads[hand.wrapping_add(ahead) as usize % WHEEL_SLOTS];
        flow.next = *head;
        *head = number;
    }

    /// The next flow that is due by `now`; it is off the wheel then. Looks at no more than `budget` flows and takes what it
    /// looked at off the budget.
    pub(crate) fn next_due(
        &mut self,
        flows: &mut FlowTable,
        now: u32,
        budget: &mut usize,
    ) -> Option<Due> {
        let mut hand = *self.hand.get_or_insert(now);
        loop {
            while self.rest != NONE {
                if *budget == 0 {
                    return None;
                }
                *budget -= 1;
                let number = self.rest;
                let flow = flows.get_mut(number);
                self.rest = std::mem::replace(&mut flow.next, NONE);
                flows.prefetch(self.rest);
                let flow = flows.get(number);
                if !flow.is_alive() {
                    return Some(Due::Removed(number));
                }
                if flow.deadline <= now {
                    return Some(Due::Expired(number));
                }
                let persists = flow.is_persistent();
                self.insert(flows, number, now);
                if persists {
                    return Some(Due::Persists(number));
                }
            }
            if hand >= now {
                return None;
            }
            // After a leap of more than a turn, every slot is due once, not once a turn.
            hand = (hand + 1).max(now.saturating_sub(WHEEL_SLOTS as u32 - 1));
            self.hand = Some(hand);
            self.rest = std::mem::replace(&mut self.heads[hand as usize % WHEEL_SLOTS], NONE);
        }
    }

    /// Calls `visit` for each flow on the wheel. Walks everything.
    pub(crate) fn each(&self, flows: &FlowTable, mut visit: impl FnMut(u32)) {
        for head in self.heads.iter().chain([&self.rest]) {
            let mut at = *head;
            while at != NONE {
                visit(at);
                at = flows.get(at).next;
            }
        }
    }
}
