//! A lock of one bucket, for the few tables that workers share. Whoever holds it does so for some ten nanoseconds, unless the kernel
//! takes its CPU away meanwhile. Others try [`LOCK_TRIES`] times at most, and then do without: a worker never gives its CPU away.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LOCK_TRIES;

/// Lets one worker at a time change something.
#[derive(Debug, Default)]
pub(crate) struct TryLock(AtomicU64);

/// The lock is free again when this is dropped.
pub(crate) struct Guard<'a>(&'a TryLock);

impl TryLock {
    /// Takes the lock; none if another holds it all the while. Then do without.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_>> {
        for _ in 0..LOCK_TRIES {
            let free = self
                .0
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            if free.is_ok() {
                return Some(Guard(self));
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}
