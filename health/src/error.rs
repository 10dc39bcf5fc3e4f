//! What can go wrong in the binary.

use std::io;
use std::net::SocketAddr;

/// Why the observer could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin listener's address is taken or not this host's.
    #[error("can't listen on {0} (admin.listen): {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The kernel refused signal handlers.
    #[error("can't take over signals: {0}")]
    Signals(#[source] io::Error),
    /// Metrics are recorded by somebody else in this process.
    #[error("can't record metrics: {0}")]
    Metrics(String),
}
