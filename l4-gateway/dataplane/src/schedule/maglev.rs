//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), weighted.

use std::net::{IpAddr, SocketAddr};

use crate::limits::MAGLEV_SLOTS;

/// The lookup table: places in `targets`. Depends on the targets' addresses and weights alone, not on their order in other
/// lists nor on the process, so that all nodes of a fleet agree.
///
/// Each target walks its own permutation of the slots and takes the next free one whenever it is its turn. Turns come
/// in rounds; in a round a target earns its weight over the greatest weight, and takes a slot for each whole one earned, so
/// that equal weights differ by at most one slot.
pub(super) fn table(targets: &[(SocketAddr, u16)]) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    let greatest = targets
        .iter()
        .map(|(_, weight)| u32::from(*weight))
        .max()
        .unwrap_or(0);
    if greatest == 0 || targets.len() >= usize::from(FREE) {
        return Vec::new();
    }
    let mut walks: Vec<Walk> = targets
        .iter()
        .map(|(address, weight)| Walk::new(*address, u32::from(*weight)))
        .collect();
    let mut table = vec![FREE; MAGLEV_SLOTS];
    let mut taken = 0;
    loop {
        for (place, walk) in walks.iter_mut().enumerate() {
            walk.earned += walk.weight;
            if walk.earned < greatest {
                continue;
            }
            walk.earned -= greatest;
            let slot = walk.by_ref().find(|slot| table[*slot] == FREE);
            if let Some(slot) = slot {
                table[slot] = place as u16;
                taken += 1;
            }
            if taken == MAGLEV_SLOTS {
                return table;
            }
        }
    }
}

/// The slot of a client.
pub(super) fn slot(address: IpAddr, port: u16, slots: usize) -> Option<usize> {
    let hash = mix(name(address, port));
    // The high half, scaled to the table: no division.
    (slots > 0).then_some((((hash >> 32) * slots as u64) >> 32) as usize)
}

/// A target's permutation of the slots, walked for ever: offset + i * skip modulo the (prime) size.
struct Walk {
    next: usize,
    skip: usize,
    weight: u32,
    earned: u32,
}

impl Walk {
    fn new(address: SocketAddr, weight: u32) -> Self {
        let hash =
            mix(name(address.ip(), address.port()) ^ 0x6d61_676c_6576_0000_u64.rotate_left(16));
        let size = MAGLEV_SLOTS as u64;
        Self {
            next: ((hash >> 32) % size) as usize,
            skip: ((hash & 0xffff_ffff) % (size - 1) + 1) as usize,
            weight,
            earned: 0,
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.next;
        self.next = (slot + self.skip) % MAGLEV_SLOTS;
        Some(slot)
    }
}

/// An address and port in one word; an IPv6 address is hashed into it.
fn name(address: IpAddr, port: u16) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()) << 16 | u64::from(port),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            mix(mix((bits >> 64) as u64) ^ bits as u64) ^ u64::from(port)
        }
    }
}

/// The finaliser of SplitMix64 (Steele et al. 2014), applied twice for independence of high and low half. Not keyed: the
/// choice must be the same on every node.
const fn mix(x: u64) -> u64 {
    let mut x = x;
    let mut round = 0;
    while round < 2 {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        round += 1;
    }
    x
}
