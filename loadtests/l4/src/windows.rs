//! Windows of measuring that nothing disturbs, as far as that can be had: others that take a core, and cores that are far apart. A window that
//! was disturbed is measured again, a few times, and the least disturbed one is kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench_report::Windows;

use crate::distance::Distance;
use crate::peer::{Peer, own_wait};

/// Windows measured again, for each that is wanted.
const RETRIES: usize = 4;
/// How often it is looked how far apart the cores are before the first row: for seconds, to have seen them near if they are far at first.
const LOOKS: u32 = 150;
/// How long a row may wait for cores to come together, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(20);

/// Measures windows, and counts those that were disturbed all the same.
pub(crate) struct Quiet {
    distance: Distance,
    /// What is left of the row's.
    patience: Duration,
    /// Of the row being measured, and of all.
    windows: Windows,
    all: Windows,
}

/// What was wrong with a window; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Disturbance {
    /// Whether the cores were far apart at its begin, its end, or between its parts.
    far: bool,
    /// Nanoseconds that others had of it, if that is more than they may.
    lost: u64,
}

impl Disturbance {
    const NONE: Disturbance = Disturbance {
        far: false,
        lost: 0,
    };
}

/// Looks on while a window is measured.
pub(crate) struct Watch<'a> {
    distance: &'a mut Distance,
    far: bool,
    lost: u64,
}

impl Watch<'_> {
    /// Has a forwarder run while `play` does.
    pub(crate) fn run<T>(&mut self, peer: &Peer, play: impl FnOnce() -> Result<T>) -> Result<T> {
        let waited = || own_wait() + peer.waited();
        let before = waited();
        peer.go()?;
        let result = play()?;
        peer.halt()?;
        self.lost += waited().saturating_sub(before);
        let turn = self.distance.look()?;
        self.far |= self.distance.is_far(turn);
        Ok(result)
    }
}

impl Quiet {
    /// On the calling thread's CPU and another, which has nothing to do now.
    pub(crate) fn beside(cpu: usize) -> Result<Quiet> {
        let mut distance = Distance::to(cpu)?;
        for _ in 0..LOOKS {
            distance.look()?;
            std::thread::sleep(AGAIN);
        }
        Ok(Quiet {
            distance,
            patience: PATIENCE,
            windows: Windows::default(),
            all: Windows::default(),
        })
    }

    /// One window of which others may have `limit` nanoseconds.
    pub(crate) fn measure<T>(
        &mut self,
        limit: f64,
        mut window: impl FnMut(&mut Watch<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut best: Option<(Disturbance, T)> = None;
        for _ in 0..=RETRIES {
            let far = !self.await_near()?;
            let mut watch = Watch {
                distance: &mut self.distance,
                far,
                lost: 0,
            };
            let result = window(&mut watch)?;
            let disturbance = Disturbance {
                far: watch.far,
                lost: if watch.lost as f64 > limit {
                    watch.lost
                } else {
                    0
                },
            };
            if best.as_ref().is_none_or(|(least, _)| disturbance < *least) {
                best = Some((disturbance, result));
            }
            if disturbance == Disturbance::NONE {
                break;
            }
        }
        let (disturbance, result) = best.context("nothing was measured")?;
        self.windows.add(disturbance != Disturbance::NONE);
        self.all.add(disturbance != Disturbance::NONE);
        Ok(result)
    }

    /// Waits until the cores are near each other, as long as the row has patience; whether they are.
    fn await_near(&mut self) -> Result<bool> {
        let began = Instant::now();
        loop {
            let turn = self.distance.look()?;
            let near = !self.distance.is_far(turn);
            if near || began.elapsed() >= self.patience {
                self.patience = self.patience.saturating_sub(began.elapsed());
                return Ok(near);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Counts a window of the yardstick that the generator held back.
    pub(crate) fn held_back(&mut self, held_back: bool) {
        self.windows.held_back += u32::from(held_back);
    }

    /// What the row's windows were like; the next row begins.
    pub(crate) fn take(&mut self) -> Windows {
        self.patience = PATIENCE;
        std::mem::take(&mut self.windows)
    }

    /// How many windows were kept so far, and of these disturbed.
    pub(crate) fn kept(&self) -> (u32, u32) {
        (self.all.kept, self.all.disturbed)
    }

    /// Nanoseconds from core to core and back, at best and at worst so far.
    pub(crate) fn turns(&self) -> (u32, u32) {
        (self.distance.shortest, self.distance.longest)
    }
}
