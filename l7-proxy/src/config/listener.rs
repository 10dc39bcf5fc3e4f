//! `[[listeners]]` and `[[certificates]]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Protocol {
    /// The scheme, for `X-Forwarded-Proto` and logs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
        }
    }
}

/// An address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name in logs and metrics.
    pub name: String,
    /// The address and port to listen on.
    pub address: SocketAddr,
    /// Plain or TLS.
    pub protocol: Protocol,
    /// Whether HTTP/2 is spoken: by ALPN on https, by prior knowledge on http.
    pub http2: bool,
    /// From the first byte of a connection, or of the next request on it, until its head is complete; the TLS handshake has the same time.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a request body may pause.
    pub body_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_header_size: usize,
    /// The most header fields in a request.
    pub max_headers: usize,
    /// The most connections at once, over all workers.
    pub max_connections: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
}

/// A certificate chain with its key and the server names it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Server names in lower case: `example.com`, or `*.example.com` for one more label. Empty: those in the certificate.
    pub names: Vec<String>,
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// Whether it also answers clients that name no or an unknown server.
    pub default: bool,
}
