//! Frames handed from lcore to lcore, without locks.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use super::eal::Environment;
use super::{DpdkError, Eal, Mbuf};

/// Makes a ring for up to `capacity` frames, from any number of senders to one receiver.
///
/// # Errors
/// When EAL's memory can't hold it or the name is taken.
pub fn ring(eal: &Eal, name: &str, capacity: u32) -> Result<(RingSender, RingReceiver), DpdkError> {
    let what = || format!("ring {name} for {capacity} frames");
    let label =
        CString::new(name).map_err(|_| DpdkError::new(what(), "the name holds a zero byte"))?;
    let flags = dpdk_sys::RING_F_SC_DEQ | dpdk_sys::RING_F_EXACT_SZ;
    // SAFETY: `label` outlives the call and EAL is initialised; -1 is SOCKET_ID_ANY.
    let raw = unsafe { dpdk_sys::rte_ring_create(label.as_ptr(), capacity, -1, flags) };
    let raw = NonNull::new(raw).ok_or_else(|| DpdkError::from_status(what(), -1))?;
    let inner = Arc::new(Ring {
        raw,
        _environment: eal.environment().clone(),
    });
    Ok((RingSender(inner.clone()), RingReceiver(inner)))
}

struct Ring {
    raw: NonNull<dpdk_sys::rte_ring>,
    _environment: Arc<Environment>,
}

// SAFETY: the ring was made multi-producer; its single consumer is the one `RingReceiver`, which needs `&mut self`.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: no sender and no receiver is left; the receiver emptied the ring when it went.
        unsafe { dpdk_sys::rte_ring_free(self.raw.as_ptr()) }
    }
}

/// The sending side; clones share the ring.
#[derive(Clone)]
pub struct RingSender(Arc<Ring>);

impl RingSender {
    /// Moves frames from the front of `frames` into the ring; what stays in `frames` did not fit. Returns how many went.
    #[inline]
    pub fn send(&self, frames: &mut Vec<Mbuf>) -> usize {
        let count = frames.len() as u32;
        // SAFETY: `Mbuf` is a transparent non-null pointer, so the vector is an array of `count` mbuf pointers.
        let sent = unsafe {
            dpdk_sys::weir_ring_enqueue_burst(
                self.0.raw.as_ptr(),
                frames.as_mut_ptr().cast(),
                count,
            )
        } as usize;
        forget_front(frames, sent);
        sent
    }
}

/// The receiving side.
pub struct RingReceiver(Arc<Ring>);

impl RingReceiver {
    /// Appends up to the spare capacity of `into`; returns how many came.
    #[inline]
    pub fn receive(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let spare = into.spare_capacity_mut();
        // SAFETY: `spare` has room for that many mbuf pointers and the ring holds only mbufs whose owner gave them up in `send`; this is
        // the single consumer.
        let received = unsafe {
            dpdk_sys::weir_ring_dequeue_burst(
                self.0.raw.as_ptr(),
                spare.as_mut_ptr().cast(),
                spare.len() as u32,
            )
        } as usize;
        // SAFETY: exactly `received` entries behind the length were written.
        unsafe { into.set_len(into.len() + received) };
        received
    }

    /// Frames waiting.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the ring is alive; the count is a snapshot.
        unsafe { dpdk_sys::weir_ring_count(self.0.raw.as_ptr()) as usize }
    }

    /// Whether no frame is waiting.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for RingReceiver {
    fn drop(&mut self) {
        let mut left = Vec::with_capacity(64);
        while self.receive(&mut left) > 0 {
            left.clear();
        }
    }
}

/// Takes the first `count` frames out of the vector without freeing them: somebody else owns them now.
#[inline]
pub(super) fn forget_front(frames: &mut Vec<Mbuf>, count: usize) {
    let left = frames.len() - count;
    // SAFETY: `count` <= length (DPDK never takes more than offered); the kept ones are moved to the front, each exactly once, and the
    // length then covers only those.
    unsafe {
        let start = frames.as_mut_ptr();
        std::ptr::copy(start.add(count), start, left);
        frames.set_len(left);
    }
}
