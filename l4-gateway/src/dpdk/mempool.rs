//! Where frames live.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use super::eal::Environment;
use super::{DpdkError, Eal, Mbuf};

/// A pool of equally large frame buffers, shared by all lcores.
#[derive(Clone)]
pub struct Pool {
    raw: NonNull<dpdk_sys::rte_mempool>,
    /// Keeps EAL, which owns the memory, alive.
    _environment: Arc<Environment>,
}

// SAFETY: DPDK's mempools are made for use from many threads at once; the pointer stays valid while `_environment` lives.
unsafe impl Send for Pool {}
// SAFETY: as above; every operation offered by reference is one that DPDK documents as thread-safe.
unsafe impl Sync for Pool {}

impl Pool {
    /// Frames that each lcore may keep in its own cache.
    pub const CACHE: u32 = 256;

    /// A pool of `frames` buffers with `room` bytes for data each, headroom not counted.
    ///
    /// # Errors
    /// When EAL's memory can't hold it (see `[eal] memory`) or the name is taken.
    pub fn new(eal: &Eal, name: &str, frames: u32, room: u16) -> Result<Pool, DpdkError> {
        let what = || format!("pool {name} of {frames} frames of {room} bytes");
        let label =
            CString::new(name).map_err(|_| DpdkError::new(what(), "the name holds a zero byte"))?;
        let size = room
            .checked_add(dpdk_sys::RTE_PKTMBUF_HEADROOM as u16)
            .ok_or_else(|| {
                DpdkError::new(what(), "frames of more than 65407 bytes do not fit an mbuf")
            })?;
        let cache = if frames >= Pool::CACHE * 4 {
            Pool::CACHE
        } else {
            0
        };
        // SAFETY: `label` outlives the call, EAL is initialised (proved by `eal`), the sizes are plain numbers; -1 is SOCKET_ID_ANY.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(label.as_ptr(), frames, cache, 0, size, -1)
        };
        let raw = NonNull::new(raw).ok_or_else(|| DpdkError::from_status(what(), -1))?;
        eal.environment().remember_pool(raw);
        Ok(Pool {
            raw,
            _environment: eal.environment().clone(),
        })
    }

    /// An empty frame, or `None` when all are in use.
    #[inline]
    pub fn allocate(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive; what comes back is null or an mbuf that nobody else holds.
        let raw = unsafe { dpdk_sys::weir_mbuf_alloc(self.raw.as_ptr()) };
        // SAFETY: as above.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Appends `count` empty frames to `into`, taken in one step: all of them, or none when fewer are left.
    #[inline]
    pub fn allocate_burst(&self, into: &mut Vec<Mbuf>, count: u16) -> bool {
        into.reserve(usize::from(count));
        let spare = into.spare_capacity_mut();
        // SAFETY: the pool is alive, and `spare` has room for `count` pointers, which is what an `Mbuf` is.
        let status = unsafe {
            dpdk_sys::weir_mbuf_alloc_bulk(
                self.raw.as_ptr(),
                spare.as_mut_ptr().cast(),
                u32::from(count),
            )
        };
        if status == 0 {
            // SAFETY: `count` mbufs were written behind the length, and nobody else holds them.
            unsafe { into.set_len(into.len() + usize::from(count)) };
        }
        status == 0
    }

    /// Frames now held by ports, rings and workers.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is alive; the count is a snapshot and may be taken from any thread.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.raw.as_ptr()
    }
}
