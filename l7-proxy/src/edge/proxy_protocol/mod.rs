//! The PROXY protocol, version 1 (a line of text) and 2 (binary): who the client of a connection is, told by the load balancer in front of it
//! before the first byte of TLS or HTTP. As specified in haproxy's `doc/proxy-protocol.txt`, whose sections are cited here.
//!
//! Pure: bytes in, header out. The header may arrive byte by byte; [`parse`] says how long it is, so that its reader takes no byte of what
//! follows. It is as strict as the specification allows, since whatever passes becomes the client's address everywhere. Whose headers are read
//! at all is for [`crate::config::ProxyProtocol`] to say.

mod binary;
#[cfg(test)]
mod tests;
mod text;

use std::net::SocketAddr;

/// The longest header taken, in bytes. Addresses need 232 at most; the rest is for extensions, most of which (a client's certificate, say) are
/// of no use here. The specification allows 65,551 and asks senders for far less (section 2.2).
pub const MAX_LENGTH: usize = 4096;

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// The beginning of a header. All of them belong to it; there are fewer than [`MAX_LENGTH`].
    Partial,
    /// A header, perhaps with bytes behind it.
    Complete(Header),
}

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub length: usize,
    /// The connection it tells of; `None` where the ends of the connection itself count: LOCAL (the sender's own, a health check for example),
    /// UNKNOWN, or of a kind that has no IP addresses or is not a stream (section 2.2: fall back to "unspecified").
    pub ends: Option<Ends>,
}

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They begin like neither version.
    NoHeader,
    /// A line of version 1 that is not as section 2.1 has it.
    Line,
    /// Longer than 107 bytes (version 1) or [`MAX_LENGTH`].
    TooLong,
    /// The binary form, but not version 2 of it.
    Version,
    /// Neither LOCAL nor PROXY.
    Command,
    /// An unassigned address family or transport.
    Family,
    /// Too short for its addresses.
    Addresses,
    /// An extension (TLV) that reaches beyond the header, or a checksum of the wrong size or given twice.
    Extension,
    /// The checksum is wrong.
    Checksum,
}

impl Malformed {
    /// All of them.
    pub const ALL: [Malformed; 9] = [
        Malformed::NoHeader,
        Malformed::Line,
        Malformed::TooLong,
        Malformed::Version,
        Malformed::Command,
        Malformed::Family,
        Malformed::Addresses,
        Malformed::Extension,
        Malformed::Checksum,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::NoHeader => "no_header",
            Malformed::Line => "line",
            Malformed::TooLong => "too_long",
            Malformed::Version => "version",
            Malformed::Command => "command",
            Malformed::Family => "family",
            Malformed::Addresses => "addresses",
            Malformed::Extension => "extension",
            Malformed::Checksum => "checksum",
        }
    }
}

/// Reads the header at the beginning of a connection. What is wrong is said at the first byte that shows it.
///
/// # Errors
/// The bytes are not the beginning of any header.
pub fn parse(received: &[u8]) -> Result<Parse, Malformed> {
    if begins(received, text::PREFIX) {
        text::parse(received)
    } else if begins(received, &binary::SIGNATURE) {
        binary::parse(received)
    } else {
        Err(Malformed::NoHeader)
    }
}

/// Whether the bytes, as far as they are there, are those that `mark` begins with. Both marks differ in their first byte.
fn begins(received: &[u8], mark: &[u8]) -> bool {
    received.iter().zip(mark).all(|(byte, mark)| byte == mark)
}
