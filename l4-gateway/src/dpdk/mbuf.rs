//! One frame.

use std::ptr::NonNull;

use dataplane::Frame;

/// A frame in a DPDK buffer, in one segment. Dropping it gives the buffer back to its pool.
#[repr(transparent)]
pub struct Mbuf(NonNull<dpdk_sys::rte_mbuf>);

// SAFETY: the holder is the only one who touches the buffer, and pools take buffers back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `raw` must be a valid mbuf with a reference count of one that nothing else uses from now on.
    #[inline]
    pub(super) unsafe fn from_raw(raw: NonNull<dpdk_sys::rte_mbuf>) -> Mbuf {
        Mbuf(raw)
    }

    /// The DPDK port by which the frame came in; a number only, so a frame can carry it over a ring.
    #[inline]
    pub fn port(&self) -> u16 {
        self.get(dpdk_sys::WEIR_MBUF_PORT)
    }

    /// Says by which DPDK port the frame came in, of a copy of one that did.
    pub fn set_port(&mut self, port: u16) {
        self.set(dpdk_sys::WEIR_MBUF_PORT, port);
    }

    /// Makes the frame one segment if it is not: the rest of this type reads only the first.
    ///
    /// Returns false when the first segment has no room for the others.
    #[inline]
    pub(super) fn linearise(&mut self) -> bool {
        let segments: u16 = self.get(dpdk_sys::WEIR_MBUF_NB_SEGS);
        // SAFETY: a valid mbuf that is ours alone, by the invariant of `from_raw`.
        segments == 1 || unsafe { dpdk_sys::weir_mbuf_linearize(self.0.as_ptr()) == 0 }
    }

    /// Drops all of them in one step.
    #[inline]
    pub fn free_burst(frames: &mut Vec<Mbuf>) {
        let count = frames.len() as u32;
        // SAFETY: an `Mbuf` is a transparent pointer, so the vector is an array of `count` mbufs that are ours alone; the vector
        // forgets them below.
        unsafe {
            dpdk_sys::rte_pktmbuf_free_bulk(frames.as_mut_ptr().cast(), count);
            frames.set_len(0);
        }
    }

    /// Replaces the content, e.g. of a fresh frame. False when `content` does not fit.
    #[inline]
    pub fn fill(&mut self, content: &[u8]) -> bool {
        let offset: u16 = self.get(dpdk_sys::WEIR_MBUF_DATA_OFF);
        let size: u16 = self.get(dpdk_sys::WEIR_MBUF_BUF_LEN);
        if content.len() > usize::from(size) - usize::from(offset) {
            return false;
        }
        // SAFETY: the bytes from the data start to the end of the buffer are ours alone and as many as `content` at least, as just
        // checked; `content` is borrowed, so it isn't among them.
        unsafe {
            self.start()
                .copy_from_nonoverlapping(content.as_ptr(), content.len())
        };
        self.set_length(content.len() as u16);
        true
    }

    /// Starts loading the first line of the frame, to read it soon.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing architecturally and can't fault.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                self.start().cast(),
            );
        }
    }

    /// Starts taking the first line of the frame from the cores that have it, to write it soon.
    #[inline]
    pub fn prefetch_to_write(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // By its name: `_mm_prefetch` to write becomes one to read in a build for any x86-64.
        // SAFETY: as above; CPUs that DPDK runs on (SSE4.2) have this instruction or take it for one that does nothing.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) self.start(), options(readonly, nostack, preserves_flags));
        }
    }

    #[inline]
    fn get<T: Copy>(&self, offset: dpdk_sys::weir_mbuf_offset) -> T {
        // SAFETY: the offsets are computed by the C compiler from this release's `struct rte_mbuf`, `T` is always the field's type
        // (private function, types beside the offsets in shim.h), and the mbuf is valid while we hold it.
        unsafe {
            self.0
                .as_ptr()
                .cast::<u8>()
                .add(offset as usize)
                .cast::<T>()
                .read()
        }
    }

    #[inline]
    fn set<T: Copy>(&mut self, offset: dpdk_sys::weir_mbuf_offset, value: T) {
        // SAFETY: as in `get`; nobody else reads the mbuf meanwhile because we hold it mutably.
        unsafe {
            self.0
                .as_ptr()
                .cast::<u8>()
                .add(offset as usize)
                .cast::<T>()
                .write(value)
        }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let buffer: *mut u8 = self.get(dpdk_sys::WEIR_MBUF_BUF_ADDR);
        let offset: u16 = self.get(dpdk_sys::WEIR_MBUF_DATA_OFF);
        // SAFETY: `data_off` is kept within `buf_len` by DPDK and by the methods below.
        unsafe { buffer.add(usize::from(offset)) }
    }

    #[inline]
    fn set_length(&mut self, length: u16) {
        self.set(dpdk_sys::WEIR_MBUF_DATA_LEN, length);
        self.set(dpdk_sys::WEIR_MBUF_PKT_LEN, u32::from(length));
    }

    #[inline]
    fn length(&self) -> u16 {
        self.get(dpdk_sys::WEIR_MBUF_DATA_LEN)
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `data_len` bytes from the data start lie inside the buffer and were written by the driver or by us; the borrow of self
        // keeps the buffer from being freed or changed.
        unsafe { std::slice::from_raw_parts(self.start(), usize::from(self.length())) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and mutable: the buffer is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start(), usize::from(self.length())) }
    }

    #[inline]
    fn trim(&mut self, length: usize) {
        if length < usize::from(self.length()) {
            self.set_length(length as u16);
        }
    }

    /// Moves what stands before the room into the headroom, or else what stands behind it into the tailroom.
    fn make_room(&mut self, at: usize, room: usize) -> bool {
        let length = usize::from(self.length());
        let headroom = usize::from(self.get::<u16>(dpdk_sys::WEIR_MBUF_DATA_OFF));
        let size = usize::from(self.get::<u16>(dpdk_sys::WEIR_MBUF_BUF_LEN));
        if at > length || room > size - length {
            return false;
        }
        let start = self.start();
        if room <= headroom {
            // SAFETY: from `room` bytes before the frame, which is in the headroom, to `at` bytes into it all is ours alone and inside
            // the buffer; the new start is as far below the old one as the frame grows.
            unsafe {
                start.sub(room).copy_from(start, at);
                start.sub(room).add(at).write_bytes(0, room);
            }
            self.set(dpdk_sys::WEIR_MBUF_DATA_OFF, (headroom - room) as u16);
        } else if room <= size - headroom - length {
            // SAFETY: from `at` bytes into the frame to `room` bytes behind it, which is in the tailroom, all is ours alone and inside
            // the buffer.
            unsafe {
                start.add(at + room).copy_from(start.add(at), length - at);
                start.add(at).write_bytes(0, room);
            }
        } else {
            return false;
        }
        self.set_length((length + room) as u16);
        true
    }

    /// Moves what stands before the bytes over them.
    #[inline]
    fn cut(&mut self, at: usize, count: usize) -> bool {
        let length = usize::from(self.length());
        if at.checked_add(count).is_none_or(|end| end > length) {
            return false;
        }
        let offset: u16 = self.get(dpdk_sys::WEIR_MBUF_DATA_OFF);
        let start = self.start();
        // SAFETY: `at` bytes from the start and as many `count` bytes further on lie inside the frame, as just checked, which is ours alone.
        unsafe { start.add(count).copy_from(start, at) };
        // No more than the length, which 16 bits hold.
        self.set(dpdk_sys::WEIR_MBUF_DATA_OFF, offset + count as u16);
        self.set_length((length - count) as u16);
        true
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: ours alone, and not used after this.
        unsafe { dpdk_sys::weir_mbuf_free(self.0.as_ptr()) }
    }
}
