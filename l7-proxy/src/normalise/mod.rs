//! From what a client sent to one meaning: the same host and path are validated, routed and forwarded.
//!
//! Everything here works on header maps and request heads; nothing reads a socket.

mod forwarded;
mod framing;
mod hop_by_hop;
mod host;
mod path;

pub use forwarded::{ClientFacts, Forwarding, Peer};
pub use framing::{check_lengths, response_length_is_clear};
pub use hop_by_hop::{Upgrade, strip_request, strip_response};
pub use host::Host;
pub(crate) use host::canonical_name;
pub use path::Path;

use crate::reason::Reason;
use http::request::Parts;
use std::net::SocketAddr;

/// Where a request is going, in the one form that is routed and forwarded.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host the client asked for.
    pub host: Host,
    /// The path and query.
    pub path: Path,
}

impl Target {
    /// Reads the target of a request head that arrived on the socket address `local`, which stands in for the host of an HTTP/1.0
    /// request that names none (RFC 9112 section 3.3).
    ///
    /// # Errors
    /// The reason to refuse the request with.
    pub fn of(parts: &Parts, local: SocketAddr) -> Result<Target, Reason> {
        if parts.method == http::Method::CONNECT {
            return Err(Reason::MethodRefused);
        }
        check_lengths(&parts.headers)?;
        let host = Host::of(parts, local)?;
        let path = Path::of(parts)?;
        Ok(Target { host, path })
    }
}
