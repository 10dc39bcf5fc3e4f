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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_said_once_in_one_way() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("content-length", "0")], true),
            (&[("content-length", "42")], true),
            (&[("transfer-encoding", "chunked")], true),
            (
                &[("content-length", "42"), ("transfer-encoding", "chunked")],
                false,
            ),
            (
                &[("content-length", "42"), ("transfer-encoding", "identity")],
                false,
            ),
            (&[("content-length", "42"), ("content-length", "42")], false),
            (&[("content-length", "42"), ("content-length", "43")], false),
            (&[("content-length", "42, 42")], false),
            (&[("content-length", "+42")], false),
            (&[("content-length", "-1")], false),
            (&[("content-length", "0x10")], false),
            (&[("content-length", "")], false),
        ];
        for (fields, good) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                headers.append(
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            let expected = if *good {
                Ok(())
            } else {
                Err(Reason::LengthConflict)
            };
            assert_eq!(check_lengths(&headers), expected, "{fields:?}");
        }
    }
}
