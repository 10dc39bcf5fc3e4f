//! Which worker a packet belongs to, from the packet alone: whatever queue it came in on, the answer is the same.

use crate::family::Family;
use crate::flow::Tuple;
use crate::ports::PortPool;
use crate::tables::Tables;

/// The owner of a packet's flow. A packet to a LocalIP carries it in its destination port, which the owner chose so; any other
/// is a client's, and its keyed hash decides.
#[inline]
pub(crate) fn owner<V: Family>(tables: &Tables, tuple: &Tuple<V>, hash: u64, workers: u16) -> u16 {
    if tables.net::<V>().is_local_ip(tuple.destination) {
        PortPool::owner(tuple.destination_port, workers)
    } else {
        // Bits that neither pick the bucket nor make the tag, or each worker would use a part of its index only.
        ((((hash >> 32) & 0xffff) * u64::from(workers)) >> 16) as u16
    }
}
