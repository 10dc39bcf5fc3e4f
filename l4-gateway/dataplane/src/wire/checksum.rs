//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// One's complement sum of big-endian words; an odd last byte counts as the high half of a word. Summed as the bytes lie in memory:
/// that is the sum with its own bytes swapped (RFC 1071 2 B), so that they are swapped once, at the end.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total: u64 = 0;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// The checksum to write over bytes whose checksum field is zero.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The sum of the pseudo header of a payload of this length, bytes, between these addresses (RFC 9293 3.1, RFC 8200 8.1).
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, length: u16) -> u16 {
    fold(u64::from(sum(addresses)) + u64::from(protocol) + u64::from(length))
}

/// Adds one's complement sums.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

/// Sixteen bits by end-around carry: first both halves, then both quarters, whose sum is in the upper one after the addition.
#[inline]
fn fold(total: u64) -> u16 {
    let (half, carry) = ((total >> 32) as u32).overflowing_add(total as u32);
    let half = half.wrapping_add(u32::from(carry));
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
}

/// How the sum under a checksum changes: of `~old + new` over all replaced words (RFC 1624, equation 3), as their bytes lie in
/// memory. Deltas add up; they are folded once, at the end (2^30 of them fit).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delta(u64);

impl Delta {
    /// Nothing replaced.
    pub(crate) const NONE: Delta = Delta(0);

    /// One word replaced.
    #[inline]
    pub(crate) fn word(old: u16, new: u16) -> Self {
        Self(u64::from(!old.to_be()) + u64::from(new.to_be()))
    }

    /// One double word replaced.
    #[inline]
    pub(crate) fn double(old: u32, new: u32) -> Self {
        Self::bytes(old.to_be_bytes(), new.to_be_bytes())
    }

    /// Four bytes replaced.
    #[inline]
    pub(crate) fn bytes(old: [u8; 4], new: [u8; 4]) -> Self {
        Self(u64::from(!u32::from_ne_bytes(old)) + u64::from(u32::from_ne_bytes(new)))
    }

    /// Sixteen bytes replaced.
    #[inline]
    pub(crate) fn wide(old: [u8; 16], new: [u8; 16]) -> Self {
        let doubles = |bytes: [u8; 16]| {
            let wide = u128::from_ne_bytes(bytes);
            let (high, low) = ((wide >> 64) as u64, wide as u64);
            (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
        };
        // The complements of four double words, at once.
        Self(4 * u64::from(u32::MAX) - doubles(old) + doubles(new))
    }

    /// Bytes added behind an even number of others.
    pub(crate) fn added(bytes: &[u8]) -> Self {
        Self(u64::from(sum(bytes).to_be()))
    }

    /// Bytes taken away behind an even number of others.
    pub(crate) fn removed(bytes: &[u8]) -> Self {
        Self(u64::from(!sum(bytes).to_be()))
    }

    /// The replacement at this offset: at an odd one, bytes sit in the other halves of the words.
    #[inline]
    pub(crate) fn at(self, offset: usize) -> Self {
        if offset.is_multiple_of(2) {
            self
        } else {
            Self(u64::from(fold(self.0).swap_bytes()))
        }
    }

    /// Both replacements.
    #[inline]
    pub(crate) fn and(self, other: Delta) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the replacement.
    #[cfg(test)]
    pub(crate) fn apply(self, checksum: u16) -> u16 {
        u16::from_be(self.fold_into(checksum.to_be()))
    }

    /// Brings the checksum at an offset up to date; the caller has checked that it is there.
    #[inline]
    pub(crate) fn apply_at(self, bytes: &mut [u8], at: usize) {
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = self.fold_into(u16::from_ne_bytes(*place)).to_ne_bytes();
        }
    }

    /// Brings a UDP checksum up to date: 0 means there is none and stays (RFC 768), a computed 0 is sent as 0xffff.
    #[inline]
    pub(crate) fn apply_udp_at(self, bytes: &mut [u8], at: usize) {
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut)
            && *place != [0, 0]
        {
            *place = self.fold_never_zero(*place);
        }
    }

    /// Brings a checksum up to date under which all may be zero, as in the answer to an empty ping. Equation 3 then gives 0, which is wrong;
    /// everywhere else 0xffff is as right as 0, so it is written always.
    #[inline]
    pub(crate) fn apply_bare_at(self, bytes: &mut [u8], at: usize) {
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = self.fold_never_zero(*place);
        }
    }

    #[inline]
    fn fold_never_zero(self, checksum: [u8; 2]) -> [u8; 2] {
        match self.fold_into(u16::from_ne_bytes(checksum)) {
            0 => [0xff; 2],
            updated => updated.to_ne_bytes(),
        }
    }

    /// Of a checksum as it lies in memory.
    #[inline]
    fn fold_into(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }
}
