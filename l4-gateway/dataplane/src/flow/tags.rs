//! Comparing ten tags at once. Written as a loop it becomes some forty instructions, for each packet.

/// A bit for each of the tags that is this one.
#[inline]
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) fn hits(tags: &[u16; 10], tag: u16) -> u32 {
    use core::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    };
    // SAFETY: every x86-64 CPU has SSE2, which is all that these need; the loads read the first and the last 16 of the 20 bytes of `tags`,
    // at any alignment.
    let both = unsafe {
        let tag = _mm_set1_epi16(tag as i16);
        let first = _mm_loadu_si128(tags.as_ptr().cast());
        let last = _mm_loadu_si128(tags.as_ptr().add(2).cast());
        let equal = _mm_packs_epi16(_mm_cmpeq_epi16(first, tag), _mm_cmpeq_epi16(last, tag));
        _mm_movemask_epi8(equal) as u32
    };
    both & 0xff | both >> 8 << 2
}

/// A bit for each of the tags that is this one.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn hits(tags: &[u16; 10], tag: u16) -> u32 {
    (0..)
        .zip(tags)
        .fold(0, |hits, (way, held)| hits | u32::from(*held == tag) << way)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_way_has_its_bit() {
        let tags = [7, 0xffff, 0x8000, 1, 7, 0x0700, 0, 7, 0x0fff, 7];
        for (tag, ways) in [
            (7, 0b10_1001_0001),
            (0xffff, 0b10),
            (0x8000, 0b100),
            (0, 0b100_0000),
            (0x0fff, 0b1_0000_0000),
            (2, 0),
        ] {
            assert_eq!(super::hits(&tags, tag), ways, "{tag:#x}");
        }
    }
}
