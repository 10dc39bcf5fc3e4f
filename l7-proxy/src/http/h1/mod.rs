//! HTTP/1.1 as spoken to backends (RFC 9112): requests written, responses read. It opens no socket: it writes to, and is given what was read
//! from, the one that `upstream/link.rs` has.
//!
//! hyper does this as well, and does it for clients. Towards backends its channel between two tasks, the copy of the head for a retry and the map a
//! head goes through on its way out were a third of what a request cost in user space.

mod body;
mod request;
mod response;

pub(crate) use body::{Decoder, Piece};
pub(crate) use request::{Outgoing, write_field};
pub use response::InvalidResponse;
pub(crate) use response::{MAX_HEAD, Received, read_head};

/// Whether there is an empty line behind a line's end: what ends a head, or a trailer section. Whoever reads in small pieces looks for it before parsing
/// all there is once more.
pub(crate) fn has_empty_line(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', text)
        .any(|end| matches!(text.get(end + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}
