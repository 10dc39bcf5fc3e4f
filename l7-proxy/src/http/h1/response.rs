//! Heads of responses, and what follows from them for the body and for the connection.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::body::Decoder;
use crate::http::hop_by_hop::tokens;
use crate::http::{Field, Fields, response_length};

/// Most header fields of a response.
const MAX_FIELDS: usize = 100;
/// Longest response head, in bytes.
pub(crate) const MAX_HEAD: usize = u16::MAX as usize;

/// Why what a backend sent is no response.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResponse {
    /// It isn't HTTP/1.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// More came before it than any number of interim responses needs.
    #[error("too much came before its head")]
    TooMuchBefore,
    /// It is longer than 64 KiB.
    #[error("its head is too long")]
    TooLong,
    /// A field isn't one.
    #[error("invalid header field")]
    Field,
    /// Where it ends is in doubt.
    #[error("its length is ambiguous")]
    Length,
}

/// A response head.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) parts: Parts,
    /// Which of the fields that something is done about it has.
    pub(crate) fields: Fields,
    /// What delimits the body.
    pub(crate) body: Decoder,
    /// Whether another request may follow on the connection.
    pub(crate) keep_alive: bool,
}

/// Takes the next response head, to a request of this method, off `input`: none while it isn't complete. Interim responses (RFC 9110 section 15.2)
/// count as heads without a body.
///
/// # Errors
/// What is wrong with it; nothing more can be read from the connection then.
pub(crate) fn read_head(
    input: &mut BytesMut,
    method: &Method,
) -> Result<Option<Received>, InvalidResponse> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut head, input, &mut room)?;
    let length = match parsed {
        httparse::Status::Complete(length) if length <= MAX_HEAD => length,
        httparse::Status::Partial if input.len() <= MAX_HEAD => return Ok(None),
        _ => return Err(InvalidResponse::TooLong),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(httparse::Error::Status)?;
    let phrase = head.reason.unwrap_or_default();
    let phrase = (status.canonical_reason() != Some(phrase))
        .then(|| ReasonPhrase::try_from(phrase.as_bytes()).ok())
        .flatten();
    let version = if head.version == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    // Where the fields lie, as they are borrowed from what is about to be split off.
    let start = input.as_ptr() as usize;
    let span = |text: &[u8]| {
        let from = text.as_ptr() as usize - start;
        [from, from + text.len()].map(|at| u16::try_from(at).unwrap_or(u16::MAX))
    };
    let mut spans = [[[0; 2]; 2]; MAX_FIELDS];
    let count = head.headers.len();
    for (place, field) in spans.iter_mut().zip(head.headers.iter()) {
        *place = [span(field.name.as_bytes()), span(field.value)];
    }
    let text = input.split_to(length).freeze();

    let mut parts = Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = version;
    parts.headers.reserve(count);
    let mut fields = Fields::default();
    for span in spans.iter().take(count) {
        let [name, value] = span.map(|[from, to]| usize::from(from)..usize::from(to));
        let name = HeaderName::from_bytes(&text[name]).map_err(|_| InvalidResponse::Field)?;
        let value = HeaderValue::from_maybe_shared(text.slice(value))
            .map_err(|_| InvalidResponse::Field)?;
        fields.note(&name);
        parts.headers.append(name, value);
    }
    if let Some(phrase) = phrase {
        parts.extensions.insert(phrase);
    }
    let body = body_of(&parts, fields, method)?;
    let keep_alive = body.is_delimited() && is_kept_alive(&parts.headers, fields, version);
    Ok(Some(Received {
        parts,
        fields,
        body,
        keep_alive,
    }))
}

/// What delimits the body of a response (RFC 9112 section 6.3).
fn body_of(parts: &Parts, fields: Fields, method: &Method) -> Result<Decoder, InvalidResponse> {
    let is_coded = fields.has(Field::TransferEncoding);
    let length = response_length(&parts.headers, fields).map_err(|_| InvalidResponse::Length)?;
    if is_coded && parts.version == Version::HTTP_10 {
        return Err(InvalidResponse::Length);
    }
    let status = parts.status;
    if *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok(Decoder::none());
    }
    if is_coded {
        return Ok(Decoder::chunked());
    }
    let Some(length) = length else {
        return Ok(Decoder::until_close());
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Decoder::length).ok_or(InvalidResponse::Length)
}

/// Whether the connection stays open after this message (RFC 9112 section 9.3).
fn is_kept_alive(headers: &HeaderMap, fields: Fields, version: Version) -> bool {
    if !fields.has(Field::Connection) {
        return version == Version::HTTP_11;
    }
    let says = |wanted: &[u8]| {
        let values = headers.get_all(CONNECTION).iter();
        values
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case(wanted))
    };
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, method: &Method) -> Result<Option<Received>, InvalidResponse> {
        read_head(&mut BytesMut::from(text.as_bytes()), method)
    }

    #[test]
    fn a_head_is_taken_off_whole_or_not_at_all() {
        let head = "HTTP/1.1 404 Gone Fishing\r\nX-One: 1\r\nx-two:  two words \r\nX-One: 3\r\nContent-Length: 3\r\n\r\n";
        for end in 0..head.len() {
            let mut input = BytesMut::from(&head.as_bytes()[..end]);
            assert!(read_head(&mut input, &Method::GET).unwrap().is_none());
            assert_eq!(input.len(), end);
        }
        let mut input = BytesMut::from(head.as_bytes());
        input.extend_from_slice(b"abc");
        let received = read_head(&mut input, &Method::GET).unwrap().unwrap();
        assert_eq!(&input[..], b"abc");
        assert_eq!(received.parts.status, 404);
        assert_eq!(received.fields, Fields::of(&received.parts.headers));
        let headers = &received.parts.headers;
        let ones: Vec<_> = headers.get_all("x-one").iter().collect();
        assert_eq!(ones, ["1", "3"]);
        assert_eq!(headers["x-two"], "two words");
        let phrase = received.parts.extensions.get::<ReasonPhrase>().unwrap();
        assert_eq!(phrase.as_bytes(), b"Gone Fishing");
        assert_eq!(received.body, Decoder::length(3));
        assert!(received.keep_alive);
    }

    #[test]
    fn a_field_may_be_empty() {
        for field in ["x:", "x: ", "x: \t ", "x:\r\ny: 1"] {
            let received = read(&format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n"), &Method::GET);
            assert_eq!(
                received.unwrap().unwrap().parts.headers["x"],
                "",
                "{field:?}"
            );
        }
        assert!(
            read("HTTP/1.1 200\r\n\r\n", &Method::GET)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_phrase_everybody_knows_is_not_kept() {
        let received = read("HTTP/1.1 200 OK\r\n\r\n", &Method::GET)
            .unwrap()
            .unwrap();
        assert!(received.parts.extensions.get::<ReasonPhrase>().is_none());
    }

    #[test]
    fn the_body_is_delimited_by_the_head_and_the_request() {
        let chunked = "transfer-encoding: chunked";
        let table = [
            (
                Method::GET,
                "1.1 200 OK",
                "content-length: 5",
                Some(Decoder::length(5)),
            ),
            (
                Method::GET,
                "1.1 200 OK",
                "content-length: 0",
                Some(Decoder::none()),
            ),
            (Method::GET, "1.1 200 OK", chunked, Some(Decoder::chunked())),
            (
                Method::GET,
                "1.1 200 OK",
                "x: y",
                Some(Decoder::until_close()),
            ),
            (
                Method::GET,
                "1.0 200 OK",
                "content-length: 5",
                Some(Decoder::length(5)),
            ),
            (Method::GET, "1.0 200 OK", chunked, None),
            (
                Method::HEAD,
                "1.1 200 OK",
                "content-length: 5",
                Some(Decoder::none()),
            ),
            (Method::HEAD, "1.1 200 OK", chunked, Some(Decoder::none())),
            (
                Method::GET,
                "1.1 204 No Content",
                "content-length: 5",
                Some(Decoder::none()),
            ),
            (
                Method::GET,
                "1.1 304 Not Modified",
                "content-length: 5",
                Some(Decoder::none()),
            ),
            (
                Method::GET,
                "1.1 100 Continue",
                "x: y",
                Some(Decoder::none()),
            ),
            (
                Method::GET,
                "1.1 101 Switching Protocols",
                "upgrade: websocket",
                Some(Decoder::none()),
            ),
            (
                Method::GET,
                "1.1 200 OK",
                "content-length: 99999999999999999999",
                None,
            ),
            (Method::GET, "1.1 200 OK", "content-length: +5", None),
            (
                Method::GET,
                "1.1 200 OK",
                "content-length: 5\r\ncontent-length: 5",
                None,
            ),
            (
                Method::GET,
                "1.1 200 OK",
                "content-length: 5\r\ntransfer-encoding: chunked",
                None,
            ),
            (
                Method::GET,
                "1.1 200 OK",
                "transfer-encoding: gzip, chunked",
                None,
            ),
        ];
        for (method, line, field, expected) in table {
            let read = read(&format!("HTTP/{line}\r\n{field}\r\n\r\n"), &method);
            let body = read.map(|head| head.unwrap().body).ok();
            assert_eq!(body, expected, "{method} {line} {field}");
        }
    }

    #[test]
    fn a_connection_is_kept_where_both_sides_mean_it() {
        for (line, fields, kept) in [
            ("1.1", "content-length: 0", true),
            ("1.1", "content-length: 0\r\nconnection: x, Close", false),
            ("1.1", "x: y", false),
            ("1.1", "transfer-encoding: chunked", true),
            ("1.0", "content-length: 0", false),
            ("1.0", "content-length: 0\r\nconnection: Keep-Alive", true),
        ] {
            let text = format!("HTTP/{line} 200 OK\r\n{fields}\r\n\r\n");
            let received = read(&text, &Method::GET).unwrap().unwrap();
            assert_eq!(received.keep_alive, kept, "{text}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let many = "x: y\r\n".repeat(MAX_FIELDS + 1);
        for text in [
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            &format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD)),
            &format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD)),
        ] {
            assert!(read(text, &Method::GET).is_err(), "{text:?}");
        }
    }
}
