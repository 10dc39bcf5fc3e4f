//! The heap of the process. Flow tables are read in random order, so with 4 KiB pages nearly every packet misses the TLB too: large
//! allocations get large pages, where the kernel has them to give (`transparent_hugepage` set to `madvise` or `always`). Memory that
//! is never written still costs nothing, but in steps of a large page: the first write takes 2 MiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// Bytes from which an allocation counts as large.
const LARGE: usize = 4 << 20;
/// A large page of x86-64 and of AArch64 with 4 KiB pages, bytes.
const PAGE: usize = 2 << 20;

/// The system's allocator for small things; for large ones, memory of their own that begins at a large page.
pub struct Heap;

// SAFETY: small layouts go to `System` unchanged, both ways; a large one is a mapping of its own, at least as long as asked for and
// aligned to `PAGE`, which `is_large` has compared with the layout's. Whether a layout is large follows from it alone, so that each
// allocation returns to where it came from. Nothing in here allocates by itself or panics.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            map(layout.size())
        } else {
            // SAFETY: the caller's promises are those that `System` asks for.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            // The kernel gives zeros, and only when they are touched.
            map(layout.size())
        } else {
            // SAFETY: as in `alloc`.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: `map` made this mapping with this length, and its owner gives it up.
            unsafe { libc::munmap(memory.cast(), length(layout.size())) };
        } else {
            // SAFETY: as in `alloc`.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

/// Whole large pages for this many bytes. A layout's size is at most `isize::MAX`, so nothing overflows.
fn length(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

/// Zeros, beginning at a large page; null if there is no memory.
fn map(size: usize) -> *mut u8 {
    let length = length(size);
    // SAFETY: a new private mapping anywhere, which touches no other.
    let memory = unsafe {
        libc::mmap(
            null_mut(),
            length + PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return null_mut();
    }
    let memory = memory.cast::<u8>();
    let before = memory.align_offset(PAGE);
    let after = PAGE - before;
    // SAFETY: `before + length + after` bytes are mapped at `memory`; what is given back lies before and behind the part kept. The
    // advice changes no content; that it is refused where there are no large pages costs speed only.
    unsafe {
        let kept = memory.add(before);
        if before > 0 {
            libc::munmap(memory.cast(), before);
        }
        if after > 0 {
            libc::munmap(kept.add(length).cast(), after);
        }
        libc::madvise(kept.cast(), length, libc::MADV_HUGEPAGE);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_is_zero_aligned_to_large_pages_and_given_back() {
        for size in [LARGE, LARGE + 1, 3 * LARGE + 4096] {
            let layout = Layout::from_size_align(size, 64).unwrap();
            // SAFETY: the layout is not empty, the memory is `size` bytes long, and given back once.
            unsafe {
                let memory = Heap.alloc_zeroed(layout);
                assert!(!memory.is_null() && memory.align_offset(PAGE) == 0);
                assert_eq!((*memory, *memory.add(size - 1)), (0, 0));
                memory.add(size - 1).write(1);
                let grown = Heap.realloc(memory, layout, 2 * size);
                assert_eq!(*grown.add(size - 1), 1, "growing keeps what was there");
                Heap.dealloc(grown, Layout::from_size_align(2 * size, 64).unwrap());
            }
        }
        let small = Layout::from_size_align(LARGE - 1, 64).unwrap();
        assert!(!is_large(small));
    }
}
