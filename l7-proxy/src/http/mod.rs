//! HTTP itself, whoever speaks it: one meaning for what a client sent (the same host and path are validated, routed and forwarded), the
//! framing of HTTP/1, fields of a connection and of forwarding, bodies, tunnels; and the codec for HTTP/1.1 to backends (`h1/`).
//!
//! Nothing here opens a socket or knows a route.

mod body;
mod fields;
mod forwarded;
mod framing;
pub(crate) mod h1;
mod hop_by_hop;
mod host;
mod length;
mod max_forwards;
mod path;
mod patience;
mod stall;
mod trailers;
pub mod tunnel;
mod upgrade;
mod upload;
mod via;
mod wire;

pub use body::BodyError;
pub(crate) use body::{Pause, RequestBody};
pub(crate) use fields::Field;
pub use fields::Fields;
pub use forwarded::{ClientFacts, Forwarding, Peer, Told};
pub use framing::{Framing, Leaving, Scan, Violation};
pub use h1::InvalidResponse;
pub use hop_by_hop::{Nominated, Stripped, strip_request, strip_response};
pub use host::Host;
pub(crate) use host::canonical_name;
pub use length::length_of;
pub(crate) use length::{response_length, say_length, unsay_length};
pub(crate) use max_forwards::count_hop;
pub use path::Path;
pub(crate) use patience::Patience;
pub(crate) use stall::{PIECE, Stall, watched};
pub use trailers::strip_trailers;
pub(crate) use upgrade::required_upgrade;
pub use upgrade::{Asked, Protocol, Upgrade};
pub(crate) use upload::Upload;
pub use via::Via;
pub(crate) use wire::{Running, Wire};

use crate::observe::reason::Reason;
use http::request::Parts;
use http::{HeaderMap, Version};
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
    /// Reads the target of a request head, which has these fields and arrived on the socket address `local`, which stands in for the host of an HTTP/1.0
    /// request that names none (RFC 9112 section 3.3).
    ///
    /// # Errors
    /// The reason to refuse the request with.
    pub fn of(parts: &Parts, fields: Fields, local: SocketAddr) -> Result<Target, Reason> {
        if parts.method == http::Method::CONNECT {
            return Err(Reason::MethodRefused);
        }
        if !has_target_form(parts) {
            return Err(Reason::TargetInvalid);
        }
        if parts.version == Version::HTTP_2 {
            check_fields(&parts.headers)?;
        }
        length_of(&parts.headers, fields)?;
        let host = Host::of(parts, local)?;
        let path = Path::of(parts)?;
        Ok(Target { host, path })
    }
}

/// Whether the target is a path (or an asterisk), or a whole URI of a scheme we speak (RFC 9112 section 3.2). The URI parser also takes a mere
/// authority, which is CONNECT's, and anything before `://`.
fn has_target_form(parts: &Parts) -> bool {
    let uri = &parts.uri;
    match (uri.scheme_str(), uri.authority()) {
        // Without an authority hyper drops what an HTTP/2 request says of its scheme.
        (None, None) => uri
            .path_and_query()
            .is_some_and(|sent| !path::is_empty(sent)),
        (Some(scheme), Some(_)) => {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        }
        _ => false,
    }
}

/// What h2 lets through of the fields of an HTTP/2 request (RFC 9113 section 8.2.1): a name that is no token (it takes a quotation mark), a value
/// that begins or ends with a space.
fn check_fields(headers: &HeaderMap) -> Result<(), Reason> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    for (name, value) in headers {
        let value = value.as_bytes();
        if name.as_str().contains('"') || is_space(value.first()) || is_space(value.last()) {
            return Err(Reason::HeaderInvalid);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Request};

    fn target(version: Version, method: &str, uri: &str) -> Result<String, Reason> {
        let request = Request::builder()
            .version(version)
            .method(method)
            .uri(uri)
            .header("host", "a.test");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if version == Version::HTTP_2 {
            parts.headers.clear();
        }
        Target::of(
            &parts,
            Fields::of(&parts.headers),
            ([127, 0, 0, 1], 80).into(),
        )
        .map(|target| target.path.forwarded().to_string())
    }

    #[test]
    fn a_target_is_a_path_or_a_whole_uri() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            for (sent, forwarded) in [
                ("/x?y", "/x?y"),
                ("http://a.test", "/"),
                ("http://a.test/x", "/x"),
                ("HTTPS://a.test/x", "/x"),
                ("http://a.test?x", "/?x"),
            ] {
                assert_eq!(target(version, "GET", sent), Ok(forwarded.into()), "{sent}");
            }
            for sent in [
                "a.test",
                "a.test:80",
                "://a.test/x",
                "ftp://a.test/x",
                "1http://a.test/",
            ] {
                assert_eq!(
                    target(version, "GET", sent),
                    Err(Reason::TargetInvalid),
                    "{sent}"
                );
            }
            assert_eq!(
                target(version, "CONNECT", "a.test:80"),
                Err(Reason::MethodRefused)
            );
        }
        assert_eq!(
            target(Version::HTTP_2, "GET", "https://a.test/x"),
            Ok("/x".into())
        );
        assert_eq!(
            target(Version::HTTP_2, "GET", "1http://a.test/x"),
            Err(Reason::TargetInvalid)
        );
    }

    #[test]
    fn fields_of_http2_are_fields_of_http1() {
        let name = http::HeaderName::from_lowercase(b"x\"").unwrap();
        let quoted = (name, HeaderValue::from_static("1"));
        let plain = |value| {
            (
                http::HeaderName::from_static("x"),
                HeaderValue::from_static(value),
            )
        };
        for (field, good) in [
            (quoted, false),
            (plain("1"), true),
            (plain(""), true),
            (plain("a b"), true),
            (plain(" a"), false),
            (plain("a\t"), false),
            (plain(" "), false),
        ] {
            let headers = HeaderMap::from_iter([field.clone()]);
            assert_eq!(check_fields(&headers).is_ok(), good, "{field:?}");
        }
    }
}
