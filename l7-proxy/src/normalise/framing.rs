//! Message length, the other half of request smuggling (RFC 9112 section 6.3). hyper refuses most of it; this holds for every head.

use crate::reason::Reason;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Refuses a head whose length is said twice or in two ways.
///
/// # Errors
/// [`Reason::LengthConflict`].
pub fn check_lengths(headers: &HeaderMap) -> Result<(), Reason> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !digits || lengths.next().is_some() || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Reason::LengthConflict);
    }
    Ok(())
}
