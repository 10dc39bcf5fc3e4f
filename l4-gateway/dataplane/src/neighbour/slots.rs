//! Which slots of the next hops are in use.
//!
//! Flows remember slots. One that is given up may still be remembered, so it rests: it is not another neighbour's before all flows have
//! been told to look theirs up anew, which is done for as many as possible at a time. There are several times as many slots as may be in
//! use for that.

/// Slots by number, all of them free at first.
pub(super) struct Slots {
    live: Vec<u16>,
    free: Vec<u16>,
    resting: Vec<u16>,
    by_slot: Box<[Place]>,
}

#[derive(Clone, Copy)]
struct Place {
    /// Where it is in `live`, or [`NOT_LIVE`].
    live: u16,
    /// In `resting`; such a one may live again.
    rested: bool,
}

const NOT_LIVE: u16 = u16::MAX;

impl Slots {
    pub(super) fn new(count: u16) -> Self {
        let place = Place {
            live: NOT_LIVE,
            rested: false,
        };
        Self {
            live: Vec::with_capacity(usize::from(count)),
            free: (0..count).rev().collect(),
            resting: Vec::with_capacity(usize::from(count)),
            by_slot: vec![place; usize::from(count)].into_boxed_slice(),
        }
    }

    /// Those in use, in no order.
    pub(super) fn live(&self) -> &[u16] {
        &self.live
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a free one.
    pub(super) fn take(&mut self) -> Option<u16> {
        let slot = self.free.pop()?;
        self.revive(slot);
        Some(slot)
    }

    /// Whether nobody else has got one since it was given up.
    pub(super) fn rests(&self, slot: u16) -> bool {
        let Place { live, rested } = self.by_slot[usize::from(slot)];
        rested && live == NOT_LIVE
    }

    /// Takes one that rests, for whom it was before.
    pub(super) fn revive(&mut self, slot: u16) {
        let place = &mut self.by_slot[usize::from(slot)];
        debug_assert!(place.live == NOT_LIVE, "a slot is taken twice");
        place.live = self.live.len() as u16;
        self.live.push(slot);
    }

    /// Gives one up.
    pub(super) fn rest(&mut self, slot: u16) {
        let place = &mut self.by_slot[usize::from(slot)];
        debug_assert!(place.live != NOT_LIVE, "a slot is given up twice");
        let at = std::mem::replace(&mut place.live, NOT_LIVE);
        if !std::mem::replace(&mut place.rested, true) {
            self.resting.push(slot);
        }
        self.live.swap_remove(usize::from(at));
        if let Some(moved) = self.live.get(usize::from(at)) {
            self.by_slot[usize::from(*moved)].live = at;
        }
    }

    /// Nobody remembers a slot any more: all that rest are free.
    pub(super) fn forgotten(&mut self) {
        for slot in self.resting.drain(..) {
            let place = &mut self.by_slot[usize::from(slot)];
            place.rested = false;
            if place.live == NOT_LIVE {
                self.free.push(slot);
            }
        }
    }

    /// Panics if the parts contradict each other.
    pub(super) fn check_invariants(&self) {
        for (at, slot) in (0u16..).zip(&self.live) {
            assert_eq!(self.by_slot[usize::from(*slot)].live, at);
        }
        let is_live = |slot: &u16| self.by_slot[usize::from(*slot)].live != NOT_LIVE;
        let resting = self.resting.iter().filter(|slot| !is_live(slot)).count();
        assert!(!self.free.iter().any(is_live));
        assert_eq!(
            self.live.len() + self.free.len() + resting,
            self.by_slot.len(),
            "each slot is in use, free or at rest"
        );
    }
}
