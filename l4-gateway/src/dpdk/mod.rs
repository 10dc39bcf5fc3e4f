//! DPDK with Rust's rules: what one thread may use has one owner, what was received is freed once, and nothing outlives
//! the environment (EAL) it came from. But for the process's allocator ([`crate::heap`]), the only unsafe code of this crate is in here.
//!
//! ```text
//! Eal --opens--> Port --starts--> RxQueue, TxQueue   one owner each, moved to one lcore
//!     --makes--> Pool --allocates--> Mbuf            freed when dropped, on whichever thread
//!     --makes--> RingSender/RingReceiver             frames from lcore to lcore
//!     --runs---> Lcore                               a closure on an EAL thread
//! ```
//!
//! [`Interface`] is the kernel's, below a port of DPDK's: it says what the driver doesn't.

mod bond;
mod eal;
mod interface;
mod lcore;
mod link;
mod mbuf;
mod mempool;
mod port;
mod ring;
mod runtime_directory;
mod spread;
mod tsc;

pub use bond::Member;
pub use eal::{Device, Eal, EalSettings, Memory};
pub use interface::{Interface, has_carrier, merges};
pub use lcore::{Ended, Lcore};
pub use link::{Link, link_changed};
pub use mbuf::Mbuf;
pub use mempool::Pool;
pub use port::{Port, PortSettings, PortStats, RxQueue, StartedPort, TxQueue};
pub use ring::{RingReceiver, RingSender, ring};
pub use spread::RssKey;
pub use tsc::Tsc;

/// What DPDK refused to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("DPDK: {what}: {why}")]
pub struct DpdkError {
    /// The operation and the thing it was done to.
    pub what: String,
    /// DPDK's reason.
    pub why: String,
}

impl DpdkError {
    fn new(what: impl Into<String>, why: impl Into<String>) -> DpdkError {
        DpdkError {
            what: what.into(),
            why: why.into(),
        }
    }

    /// From a negative errno as most of DPDK's functions return it; -1 means "look at rte_errno".
    fn from_status(what: impl Into<String>, status: i32) -> DpdkError {
        let errno = if status == -1 { eal::errno() } else { -status };
        DpdkError::new(what, eal::describe(errno))
    }
}
