//! Time for the fast path: the CPU's time stamp counter as nanoseconds.

use dataplane::Now;

/// A monotonic clock over the TSC, cheap enough to read once a burst. All copies of one value agree.
#[derive(Debug, Clone, Copy)]
pub struct Tsc {
    start: u64,
    /// Nanoseconds per cycle as a 32.32 fixed-point number.
    scale: u64,
}

impl Tsc {
    /// Starts counting at one second, so that `now - timeout` in tables never goes below zero for short timeouts.
    pub(super) fn start() -> Tsc {
        // SAFETY: EAL is initialised (only `Eal` calls this), so the frequency has been measured.
        let hz = unsafe { dpdk_sys::rte_get_tsc_hz() }.max(1);
        let scale = ((1_000_000_000u128 << 32) / u128::from(hz)) as u64;
        Tsc {
            start: read().wrapping_sub(hz),
            scale,
        }
    }

    /// The cycles that pass in so many nanoseconds.
    pub fn cycles(&self, nanoseconds: u64) -> u64 {
        ((u128::from(nanoseconds) << 32) / u128::from(self.scale.max(1))) as u64
    }

    /// Nanoseconds since one second before the start.
    #[inline]
    pub fn now(&self) -> Now {
        let cycles = read().wrapping_sub(self.start);
        Now(((u128::from(cycles) * u128::from(self.scale)) >> 32) as u64)
    }
}

#[inline]
fn read() -> u64 {
    // SAFETY: reads a register, touches no memory.
    unsafe { dpdk_sys::weir_rdtsc() }
}
