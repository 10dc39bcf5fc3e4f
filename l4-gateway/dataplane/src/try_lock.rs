//! A lock of one bucket, for the few tables that workers share. Whoever is inside stays some ten nanoseconds, unless the kernel
//! takes its CPU away meanwhile. Others wait for [`SPINS`] tries at most, and then do without: a worker never gives its CPU away.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tries that take a microsecond in all.
const SPINS: u32 = 64;

/// Lets one worker at a time change something.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU64);

/// Being inside; the gate opens when it is dropped.
pub(crate) struct Inside<'a>(&'a Gate);

impl Gate {
    /// Goes inside; none if another stays there. Then do without.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        for _ in 0..SPINS {
            let free = self
                .0
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            if free.is_ok() {
                return Some(Inside(self));
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}
