//! Which fields may stand in a trailer section (RFC 9110 section 6.5.1).
//!
//! What is filtered in a head must not come in by the back door: fields of the connection, fields that say who the client is, and all that a
//! recipient acts on before it has seen the body (framing, routing, credentials, conditions, what the body is). Backends and clients
//! that merge trailers into the head would believe them there.

use http::HeaderMap;
use http::header::{
    self, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, EXPECT, EXPIRES, HOST, HeaderName,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION,
    MAX_FORWARDS, ORIGIN, PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY, VIA, WWW_AUTHENTICATE,
};

use super::fields::Fields;
use super::forwarded::is_about_client;
use super::hop_by_hop::{Nominated, strip};

/// Removes what has no place in a message's trailers; `nominated` is what its head called its connection's own.
pub fn strip_trailers(trailers: &mut HeaderMap, nominated: &Nominated) {
    nominated.strip(trailers);
    let fields = Fields::of(trailers);
    strip(trailers, fields);
    let misplaced: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| belongs_in_head(name))
        .cloned()
        .collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

fn belongs_in_head(name: &HeaderName) -> bool {
    // Framing and routing, then what modifies a request, credentials, what the body is, what controls a response.
    matches!(
        *name,
        CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING | TE | TRAILER | UPGRADE | HOST | VIA
    ) || matches!(
        *name,
        CACHE_CONTROL
            | EXPECT
            | IF_MATCH
            | IF_MODIFIED_SINCE
            | IF_NONE_MATCH
            | IF_RANGE
            | IF_UNMODIFIED_SINCE
            | MAX_FORWARDS
            | ORIGIN
            | PRAGMA
            | RANGE
    ) || matches!(
        *name,
        AUTHORIZATION
            | COOKIE
            | PROXY_AUTHENTICATE
            | PROXY_AUTHORIZATION
            | SET_COOKIE
            | WWW_AUTHENTICATE
    ) || matches!(
        *name,
        CONTENT_ENCODING | CONTENT_LOCATION | CONTENT_RANGE | CONTENT_TYPE
    ) || matches!(
        *name,
        AGE | DATE | EXPIRES | LOCATION | RETRY_AFTER | VARY | header::WARNING
    ) || is_about_client(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::strip_request;
    use http::HeaderValue;

    fn fields(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static("x"));
        }
        headers
    }

    #[test]
    fn trailers_say_nothing_that_belongs_in_a_head() {
        let mut trailers = fields(&[
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-User",
            "X-Real-IP",
            "Forwarded",
            "Keep-Alive",
            "Proxy-Connection",
            "HTTP2-Settings",
            "Upgrade",
            "Expect",
            "TE",
            "Proxy-Authorization",
            "Authorization",
            "Cookie",
            "Set-Cookie",
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Content-Type",
            "Trailer",
            "Via",
            "Location",
        ]);
        strip_trailers(&mut trailers, &Nominated::default());
        assert!(trailers.is_empty(), "{trailers:?}");
        let kept = [
            "x-checksum",
            "grpc-status",
            "etag",
            "server-timing",
            "digest",
        ];
        let mut trailers = fields(&kept);
        strip_trailers(&mut trailers, &Nominated::default());
        assert_eq!(trailers.keys().collect::<Vec<_>>(), kept);
    }

    #[test]
    fn what_is_nominated_in_head_or_trailers_is_no_trailer() {
        let mut head = fields(&[]);
        head.append("connection", HeaderValue::from_static("keep-alive, X-Hop"));
        head.append("connection", HeaderValue::from_static("x-other"));
        let nominated = {
            let fields = Fields::of(&head);
            strip_request(&mut head, fields).nominated
        };
        let mut trailers = fields(&["x-hop", "x-other", "x-own", "x-kept"]);
        trailers.append("connection", HeaderValue::from_static("close, X-Own"));
        strip_trailers(&mut trailers, &nominated);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }
}
