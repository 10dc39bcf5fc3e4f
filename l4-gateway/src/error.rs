//! What can go wrong when a node starts.

use dataplane::TablesError;
use shared::lifecycle::StartError;

use crate::dpdk::DpdkError;

/// Why the node can't forward.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What every process needs is not to be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// The configuration passed its checks, but the data plane can't be built from it.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A random key for the flow hash could not be read.
    #[error("/dev/urandom: {0}")]
    Random(std::io::Error),
    /// A worker ended by a panic.
    #[error("worker {0} panicked")]
    WorkerPanicked(u16),
    /// A port whose interface was deleted, and is there again: nothing but a new process opens it.
    #[error("ended, to be started again: interface {interface} of port {port} was replaced")]
    InterfaceReplaced {
        /// The port's name.
        port: String,
        /// The interface's, as the configuration has it.
        interface: String,
    },
}
