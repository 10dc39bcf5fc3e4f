//! What can go wrong when a node starts.

use dataplane::TablesError;

use crate::dpdk::DpdkError;

/// Why the node can't forward.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// The configuration passed its checks, but the data plane can't be built from it.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A random key for the flow hash could not be read.
    #[error("/dev/urandom: {0}")]
    Random(std::io::Error),
    /// The process's signals could not be taken over.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// The admin listener could not be opened.
    #[error("admin listener {address}: {error}")]
    Admin {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A worker ended by a panic.
    #[error("worker {0} panicked")]
    WorkerPanicked(u16),
}
