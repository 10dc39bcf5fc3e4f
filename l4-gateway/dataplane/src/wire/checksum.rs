//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// One's complement sum of big-endian words; an odd last byte counts as the high half of a word.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total: u64 = 0;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_be_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(*last) << 8;
    }
    fold(total)
}

/// The checksum to write over bytes whose checksum field is zero.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 3.1, RFC 768).
pub(crate) fn pseudo_header(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    length: u16,
) -> u16 {
    let total = u64::from(u32::from_be_bytes(source))
        + u64::from(u32::from_be_bytes(destination))
        + u64::from(protocol)
        + u64::from(length);
    fold(total)
}

/// Adds one's complement sums.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

#[inline]
fn fold(total: u64) -> u16 {
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    total as u16
}

/// How the sum under a checksum changes: of `~old + new` over all replaced words (RFC 1624, equation 3). Deltas add up, and
/// the reverse replacement is the complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delta(u16);

impl Delta {
    /// Nothing replaced.
    pub(crate) const NONE: Delta = Delta(0);

    /// One word replaced.
    #[inline]
    pub(crate) fn word(old: u16, new: u16) -> Self {
        Self(fold(u64::from(!old) + u64::from(new)))
    }

    /// One double word replaced.
    #[inline]
    pub(crate) fn double(old: u32, new: u32) -> Self {
        Self(fold(u64::from(!old) + u64::from(new)))
    }

    /// One double word replaced that starts at an odd offset: its bytes sit in the other halves of the words.
    #[inline]
    pub(crate) fn double_at(offset: usize, old: u32, new: u32) -> Self {
        let Self(delta) = Self::double(old, new);
        Self(if offset.is_multiple_of(2) {
            delta
        } else {
            delta.swap_bytes()
        })
    }

    /// Both replacements.
    #[inline]
    pub(crate) fn and(self, other: Delta) -> Self {
        Self(fold(u64::from(self.0) + u64::from(other.0)))
    }

    /// The replacement undone.
    #[inline]
    pub(crate) fn reversed(self) -> Self {
        Self(!self.0)
    }

    /// The checksum after the replacement.
    #[inline]
    pub(crate) fn apply(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + u64::from(self.0))
    }

    /// The UDP checksum after the replacement: 0 means there is none and stays (RFC 768), a computed 0 is sent as 0xffff.
    #[inline]
    pub(crate) fn apply_udp(self, checksum: u16) -> u16 {
        match checksum {
            0 => 0,
            checksum => match self.apply(checksum) {
                0 => 0xffff,
                updated => updated,
            },
        }
    }
}
