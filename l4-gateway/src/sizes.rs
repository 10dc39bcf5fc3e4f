//! How much memory frames take, worked out from the ports and workers.

use crate::config::{Config, PortConfig};
use crate::devices::{ETHERNET, LEAST_ROOM, devices};
use crate::dpdk::Pool;
use crate::worker::LANE_WAITING;

/// Frames that a worker's ring of redirected frames holds.
pub(crate) const REDIRECT_RING: u32 = 2048;
/// Descriptors of an exception port: the kernel's traffic is small.
pub(crate) const EXCEPTION_DESCRIPTORS: u16 = 256;
/// Bytes of an ordinary page.
const PAGE: u64 = 4096;

/// How much memory the ports and workers need.
pub(crate) struct Sizes {
    /// Frame buffers.
    pub(crate) frames: u32,
    /// Bytes for data in each.
    pub(crate) room: u16,
    /// Memory with ordinary pages: of the frames, and of all.
    pub(crate) frames_mebibytes: u32,
    pub(crate) mebibytes: u32,
    /// Memory with hugepages, where frames lie close together.
    pub(crate) packed_mebibytes: u32,
}

impl Sizes {
    pub(crate) fn of(config: &Config) -> Sizes {
        let workers = u32::from(config.workers.count());
        let of_port = |port: &PortConfig| {
            let exception = if port.exception.is_some() {
                2 * u32::from(EXCEPTION_DESCRIPTORS)
            } else {
                0
            };
            // Both rings of each queue full, what each worker collects in a round, and what the kernel's side holds.
            2 * u32::from(port.queues) * u32::from(port.descriptors)
                + workers * LANE_WAITING as u32
                + exception
        };
        let in_flight: u32 = config.ports.iter().map(of_port).sum::<u32>()
            + workers * (REDIRECT_RING + Pool::CACHE * 2);
        // One less than a power of two is what the pool's ring holds best.
        let frames = config
            .eal
            .frames
            .unwrap_or(in_flight.next_power_of_two().max(8192) - 1);
        let slot = |port: &PortConfig| {
            let devices = devices(port);
            let sizes = devices
                .iter()
                .filter_map(|device| device.argument("framesz"));
            let largest = sizes.filter_map(|size| size.parse().ok()).max();
            largest.unwrap_or(0).max(port.mtu + ETHERNET)
        };
        let room = config
            .ports
            .iter()
            .map(slot)
            .max()
            .unwrap_or(0)
            .max(LEAST_ROOM);
        // The mbuf itself, its headroom, the pool's bookkeeping: without hugepages no frame shares a page with another. Then what EAL
        // and the drivers take.
        let frame = u64::from(room) + 128 + 128 + 128;
        let packed = u64::from(frames) * frame;
        let bytes = u64::from(frames) * frame.next_multiple_of(PAGE);
        let with_rest = |bytes: u64| ((bytes + (48 << 20)) >> 20) as u32;
        Sizes {
            frames,
            room,
            frames_mebibytes: (bytes >> 20) as u32,
            mebibytes: with_rest(bytes),
            packed_mebibytes: with_rest(packed),
        }
    }
}
