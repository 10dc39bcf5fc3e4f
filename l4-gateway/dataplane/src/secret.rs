//! Keyed hashing of flow tuples: fast, and not predictable for someone who wants to fill one bucket.

use std::net::IpAddr;

/// The per-process key of the flow hash. All workers of one process use the same, so that they agree on owners.
#[derive(Clone)]
pub struct Secret([u64; 4]);

impl Secret {
    /// Takes 32 random bytes; the caller fetches them from the operating system.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(random.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// Hashes two words. Two folded 64x64->128 multiplications (as in wyhash), each under its own secret words: an input
    /// bit reaches all output bits, and without the secret no set of tuples that collide can be worked out.
    #[inline]
    pub(crate) const fn hash(&self, a: u64, b: u64) -> u64 {
        let [k0, k1, k2, k3] = self.0;
        let x = fold(a ^ k0, b ^ k1);
        fold(x ^ k2, b.rotate_left(32) ^ a ^ k3)
    }

    /// Hashes an address and a word.
    #[inline]
    pub(crate) fn hash_address(&self, address: IpAddr, word: u64) -> u64 {
        match address {
            IpAddr::V4(address) => self.hash(u64::from(address.to_bits()), word),
            IpAddr::V6(address) => self.hash_wide(address.to_bits(), 0, word),
        }
    }

    /// Hashes two wide words and one: each wide one folded under its own secret words, then as [`Secret::hash`].
    #[inline]
    pub(crate) const fn hash_wide(&self, a: u128, b: u128, c: u64) -> u64 {
        let [k0, k1, k2, k3] = self.0;
        let x = fold((a >> 64) as u64 ^ k0, a as u64 ^ k1);
        let y = fold((b >> 64) as u64 ^ k2, b as u64 ^ k3);
        self.hash(x.wrapping_add(y.rotate_left(32)), c)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}
