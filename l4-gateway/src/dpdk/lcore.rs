//! Closures on EAL's threads.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::eal::Environment;
use super::{DpdkError, Eal};

/// How a closure on an lcore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It returned.
    Returned,
    /// It panicked; the message went to the panic hook.
    Panicked,
}

/// A closure running on a worker lcore.
pub struct Lcore {
    id: u32,
    _environment: Arc<Environment>,
}

type Job = Box<dyn FnOnce() + Send + 'static>;

impl Lcore {
    /// Starts `job` on lcore `id`, which must be one of EAL's and idle.
    ///
    /// # Errors
    /// When EAL has no such lcore or it is busy.
    pub fn launch(
        eal: &Eal,
        id: u32,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<Lcore, DpdkError> {
        let job: Box<Job> = Box::new(Box::new(job));
        let argument = Box::into_raw(job).cast::<c_void>();
        // SAFETY: `enter` takes the box that `argument` points to, exactly once, if and only if the launch succeeds.
        let status = unsafe { dpdk_sys::rte_eal_remote_launch(Some(enter), argument, id) };
        if status != 0 {
            // SAFETY: the launch failed, so the box is still ours.
            drop(unsafe { Box::from_raw(argument.cast::<Job>()) });
            return Err(DpdkError::from_status(
                format!("launch on lcore {id}"),
                status,
            ));
        }
        Ok(Lcore {
            id,
            _environment: eal.environment().clone(),
        })
    }

    /// Whether the closure has ended.
    pub fn has_ended(&self) -> bool {
        // SAFETY: `id` is an lcore of EAL's, as the launch succeeded; the call reads its state.
        let state = unsafe { dpdk_sys::rte_eal_get_lcore_state(self.id) };
        state != dpdk_sys::RUNNING
    }

    /// Waits until the closure has ended.
    pub fn join(self) -> Ended {
        // SAFETY: `id` is an lcore of EAL's, as the launch succeeded.
        match unsafe { dpdk_sys::rte_eal_wait_lcore(self.id) } {
            0 => Ended::Returned,
            _ => Ended::Panicked,
        }
    }
}

unsafe extern "C" fn enter(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` made this pointer from a box and gave it up.
    let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
    // A panic must not unwind into C. The closure is gone afterwards, so nothing can see what it left half done.
    match catch_unwind(AssertUnwindSafe(*job)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}
