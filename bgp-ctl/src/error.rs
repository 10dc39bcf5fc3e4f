//! Everything that can go wrong at the edges of this crate, in words for the log and for `status`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use crate::tcp_options::MAX_MD5_KEY;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A password file can't be read.
    #[error("password_file {}: {source}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A password file holds something else than a key.
    #[error("password_file {}: expected one line of 1 to {MAX_MD5_KEY} bytes", .0.display())]
    Password(PathBuf),
    /// A socket option can't be set.
    #[error("{option}: {source}")]
    SocketOption {
        /// Which one.
        option: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The configured source address is not ours.
    #[error("local_address {address}: {source}")]
    LocalAddress {
        /// The address.
        address: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
    /// A neighbour can't be reached.
    #[error("connect to {remote}: {source}")]
    Connect {
        /// The neighbour.
        remote: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// An address can't be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A connection is not one of IPv4.
    #[error("the connection has no IPv4 address of ours")]
    NoLocalAddress,
    /// The neighbour closed the connection.
    #[error("the neighbour closed the connection")]
    Closed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The neighbour takes nothing (RFC 9687).
    #[error("send hold timer expired: the neighbour took nothing for {0:?}")]
    SendHold(Duration),
}

impl Error {
    /// For `map_err`: a socket option and what the system said.
    pub(crate) fn option(option: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::SocketOption { option, source }
    }
}
