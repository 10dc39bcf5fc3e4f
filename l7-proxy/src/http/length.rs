//! Message length, the other half of request smuggling (RFC 9112 section 6.3). hyper refuses most of it; this holds for every head.

use super::fields::{Field, Fields};
use crate::observe::reason::Reason;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};

/// The length that a head, which has these fields, says in digits.
///
/// # Errors
/// [`Reason::LengthConflict`] where it is said twice or in two ways.
pub fn length_of(headers: &HeaderMap, fields: Fields) -> Result<Option<&HeaderValue>, Reason> {
    if !fields.has(Field::ContentLength) {
        return Ok(None);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths
        .next()
        .filter(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit));
    if length.is_none() || lengths.next().is_some() || fields.has(Field::TransferEncoding) {
        return Err(Reason::LengthConflict);
    }
    Ok(length)
}

/// Says in a request head, which has these fields, that its body is chunked, where it has one of unknown length. What the client said of it was stripped, or there was nothing
/// (HTTP/2); and a backend that is told neither takes the body for the next request (RFC 9112 section 6.3).
///
/// # Errors
/// [`Reason::LengthConflict`] for a length that no body follows.
pub(crate) fn say_length(
    headers: &mut HeaderMap,
    fields: Fields,
    has_body: bool,
) -> Result<(), Reason> {
    let length = fields
        .has(Field::ContentLength)
        .then(|| headers.get(CONTENT_LENGTH));
    match (length.flatten(), has_body) {
        (Some(length), false) if length.as_bytes().iter().any(|digit| *digit != b'0') => {
            return Err(Reason::LengthConflict);
        }
        (None, true) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        (Some(_), _) | (None, false) => {}
    }
    Ok(())
}

/// Takes the length out of the head of a 204, which has no body and says none (RFC 9110 section 8.6). True if it announced a body all the same: then
/// what comes next on the connection may be that, and not a response.
pub(crate) fn unsay_length(headers: &mut HeaderMap) -> bool {
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let length = headers.remove(CONTENT_LENGTH);
    coded || length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// The length that a response, whose head has these fields, says in digits.
///
/// # Errors
/// [`Reason::LengthConflict`] where its length isn't said in one way that is the same to every reader: one plain Content-Length, or `chunked` alone, or
/// neither. Of anything else a body would be cut at a length that isn't its own, or reach the client in a coding it never hears of.
pub(crate) fn response_length(
    headers: &HeaderMap,
    fields: Fields,
) -> Result<Option<&HeaderValue>, Reason> {
    if fields.has(Field::TransferEncoding) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked = |coding: &HeaderValue| {
            let coding = coding.as_bytes().trim_ascii();
            coding.eq_ignore_ascii_case(b"chunked")
        };
        if !codings.next().is_some_and(is_chunked) || codings.next().is_some() {
            return Err(Reason::LengthConflict);
        }
    }
    length_of(headers, fields)
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
            let length = response_length(&headers, Fields::of(&headers));
            assert_eq!(length.is_ok(), *clear, "{fields:?}");
        }
    }

    #[test]
    fn a_204_says_no_length_and_is_doubted_when_it_did() {
        for (name, value, doubted) in [
            ("content-length", "0", false),
            ("content-length", "5", true),
            ("transfer-encoding", "chunked", true),
            ("x-other", "1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(unsay_length(&mut headers), doubted, "{name}: {value}");
            assert!(!headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_said_to_be_chunked() {
        type Row = (
            Option<&'static str>,
            bool,
            Result<&'static [(&'static str, &'static str)], Reason>,
        );
        let table: &[Row] = &[
            (None, true, Ok(&[("transfer-encoding", "chunked")])),
            (None, false, Ok(&[])),
            (Some("5"), true, Ok(&[("content-length", "5")])),
            (Some("0"), false, Ok(&[("content-length", "0")])),
            (Some("5"), false, Err(Reason::LengthConflict)),
        ];
        for (length, has_body, expected) in table {
            let mut headers = HeaderMap::new();
            if let Some(length) = length {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let fields = Fields::of(&headers);
            let said = say_length(&mut headers, fields, *has_body).map(|()| {
                let fields = headers.iter();
                fields
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect::<Vec<_>>()
            });
            assert_eq!(said, expected.map(<[_]>::to_vec), "{length:?} {has_body}");
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
                Ok(headers.get(CONTENT_LENGTH))
            } else {
                Err(Reason::LengthConflict)
            };
            let length = length_of(&headers, Fields::of(&headers));
            assert_eq!(length, expected, "{fields:?}");
        }
    }
}
