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

/// Whether a response says its length in one way that is the same to every reader: one plain Content-Length, or `chunked` alone, or
/// neither. hyper believes the last coding and passes the rest on, so a body would be cut at a length that isn't its own, or reach
/// the client in a coding it never hears of.
pub fn response_length_is_clear(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return check_lengths(headers).is_ok();
    };
    coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked")
        && codings.next().is_none()
        && !headers.contains_key(CONTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_its_length_in_one_way() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked ")], true),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "xchunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
            ),
            (
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                false,
            ),
            (&[("content-length", "5"), ("content-length", "6")], false),
            (&[("content-length", "5, 5")], false),
        ];
        for (fields, clear) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                headers.append(
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            assert_eq!(response_length_is_clear(&headers), *clear, "{fields:?}");
        }
    }

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
