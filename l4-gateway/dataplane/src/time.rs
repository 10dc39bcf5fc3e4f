//! The time as the forwarder sees it: an argument.

use crate::limits::TICK_NANOSECONDS;

/// Nanoseconds on a monotonic clock whose origin doesn't matter. It may stand still or leap ahead, never step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// The tick this instant falls into; flows keep their deadlines in ticks of [`TICK_NANOSECONDS`].
    pub(crate) const fn tick(self) -> u32 {
        (self.0 / TICK_NANOSECONDS) as u32
    }

    /// When a tick begins.
    pub(crate) const fn of_tick(tick: u32) -> Self {
        Self(tick as u64 * TICK_NANOSECONDS)
    }

    /// Whole milliseconds, for the slower timers (neighbours, rate limits).
    pub(crate) const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// A duration as ticks, rounded up so that nothing expires early; at least one.
pub(crate) fn ticks(duration: std::time::Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(u128::from(TICK_NANOSECONDS));
    u32::try_from(ticks)
        .unwrap_or(u32::MAX / 4)
        .clamp(1, u32::MAX / 4)
}
