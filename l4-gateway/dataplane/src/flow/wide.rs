//! The addresses of IPv6 flows: a cache line each, beside the entries. The memory comes zeroed from the operating system, so that
//! pages which no IPv6 flow touched cost nothing.

use std::net::Ipv6Addr;

use super::entry::Addresses;
use super::prefetch::prefetch;

/// Words of a line: client, VIP, target, LocalIP, each as in memory.
const WORDS: usize = 4;
const _: () = assert!(WORDS * size_of::<u128>() == 64);

/// The lines, by the flows' numbers.
pub(crate) struct Wide {
    words: Box<[u128]>,
    /// Words before the first cache line that begins in `words`.
    skip: usize,
}

impl Wide {
    pub(super) fn new(flows: usize) -> Self {
        // Not a vector of lines: only of plain numbers does the standard library know that zeroed memory is right.
        let words = vec![0u128; flows * WORDS + WORDS - 1].into_boxed_slice();
        let skip = words.as_ptr().align_offset(64).min(WORDS - 1);
        Self { words, skip }
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Addresses<Ipv6Addr> {
        let [client, vip, target, local] = *self.line(number);
        Addresses {
            client: address(client),
            vip: address(vip),
            target: address(target),
            local: address(local),
        }
    }

    pub(crate) fn set(&mut self, number: u32, addresses: &Addresses<Ipv6Addr>) {
        let start = self.skip + number as usize * WORDS;
        let Addresses {
            client,
            vip,
            target,
            local,
        } = *addresses;
        let line =
            [client, vip, target, local].map(|address| u128::from_ne_bytes(address.octets()));
        self.words[start..start + WORDS].copy_from_slice(&line);
    }

    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        if let Some(line) = self.words.get(self.skip + number as usize * WORDS) {
            prefetch(line);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    #[inline]
    fn line(&self, number: u32) -> &[u128; WORDS] {
        // Numbers come from the table, whose size this has.
        &self.words[self.skip..].as_chunks().0[number as usize]
    }
}

#[inline]
fn address(word: u128) -> Ipv6Addr {
    Ipv6Addr::from(word.to_ne_bytes())
}
