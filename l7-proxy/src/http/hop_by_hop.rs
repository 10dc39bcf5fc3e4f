//! Fields that belong to one connection and are not forwarded (RFC 9110 section 7.6.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

use super::fields::{Field, Fields, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION};
use super::upgrade::Asked;

/// What goes in either direction.
const ALWAYS: [(Field, HeaderName); 6] = [
    (Field::Connection, CONNECTION),
    (Field::KeepAlive, KEEP_ALIVE),
    (Field::ProxyConnection, PROXY_CONNECTION),
    (Field::TransferEncoding, TRANSFER_ENCODING),
    (Field::Upgrade, UPGRADE),
    (Field::Http2Settings, HTTP2_SETTINGS),
];

/// Fields a `Connection` field cannot nominate away: they say where the message goes, how far, and where it ends.
const NEVER_NOMINATED: [&str; 3] = ["host", "content-length", "max-forwards"];

/// Options of `Connection` that name no field, or one that goes whether it is nominated or not.
const KNOWN_OPTIONS: [&[u8]; 7] = [
    b"close",
    b"keep-alive",
    b"upgrade",
    b"te",
    b"proxy-connection",
    b"transfer-encoding",
    b"http2-settings",
];

/// What stripping took out of a request head that is still of use.
#[derive(Debug, Default)]
pub struct Stripped {
    /// The protocols it asks to switch to.
    pub upgrade: Option<Asked>,
    /// Fields it calls its connection's own, trailers among them.
    pub nominated: Nominated,
}

/// The fields that a `Connection` field names as its connection's own. Kept as it was sent, for the trailers: most messages name none, and
/// then nothing is allocated.
#[derive(Debug, Default)]
pub struct Nominated(Vec<HeaderValue>);

impl Nominated {
    fn of(headers: &HeaderMap) -> Nominated {
        let values = headers.get_all(CONNECTION);
        if values.iter().flat_map(tokens).all(is_known) {
            return Nominated::default();
        }
        Nominated(values.iter().cloned().collect())
    }

    /// Removes the fields from `fields`.
    pub(super) fn strip(&self, fields: &mut HeaderMap) {
        for token in self.0.iter().flat_map(tokens) {
            if let Ok(name) = std::str::from_utf8(token)
                && !is_known(token)
                && !NEVER_NOMINATED
                    .iter()
                    .any(|never| never.eq_ignore_ascii_case(name))
            {
                fields.remove(name);
            }
        }
    }
}

/// Strips a request head, which has these fields, for the next hop.
///
/// Strip before adding fields of one's own: a client may nominate their names.
pub fn strip_request(headers: &mut HeaderMap, fields: Fields) -> Stripped {
    if !fields.has_any_of_connection() {
        return Stripped::default();
    }
    let upgrade = Asked::of(headers);
    let trailers = headers
        .get_all(TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let nominated = strip(headers, fields);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TE);
    if trailers {
        // The one thing TE says that holds on our hop too: we pass trailers on. Section 10.1.4 wants it nominated.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    Stripped { upgrade, nominated }
}

/// Strips a response head, which has these fields, for the client.
pub fn strip_response(headers: &mut HeaderMap, fields: Fields) -> Nominated {
    if fields.has(Field::ProxyAuthenticate) {
        headers.remove(PROXY_AUTHENTICATE);
    }
    strip(headers, fields)
}

/// Strips the fields of a connection, trailers' too, and says which of them `Connection` named.
pub(super) fn strip(headers: &mut HeaderMap, fields: Fields) -> Nominated {
    let mut nominated = Nominated::default();
    if fields.has(Field::Connection) {
        nominated = Nominated::of(headers);
        nominated.strip(headers);
    }
    for (field, name) in &ALWAYS {
        if fields.has(*field) {
            headers.remove(name);
        }
    }
    nominated
}

fn is_known(option: &[u8]) -> bool {
    KNOWN_OPTIONS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(option))
}

/// The elements of a list (RFC 9110 section 5.6.1), without empty ones.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip_request(headers: &mut HeaderMap) -> Stripped {
        let fields = Fields::of(headers);
        super::strip_request(headers, fields)
    }

    fn strip_response(headers: &mut HeaderMap) -> Nominated {
        let fields = Fields::of(headers);
        super::strip_response(headers, fields)
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_the_connection_go_no_further_in_either_direction() {
        let fields = [
            ("connection", "close, X-Custom"),
            ("connection", " x-Other ,,"),
            ("x-custom", "1"),
            ("x-custom", "2"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
            ("trailer", "x-checksum"),
            ("x-end-to-end", "stays"),
        ];
        let mut request = headers(&fields);
        assert_eq!(
            strip_request(&mut request).upgrade,
            None,
            "an upgrade that Connection does not name is not asked for"
        );
        assert_eq!(names(&request), ["trailer", "x-end-to-end"]);
        let mut response = headers(&fields);
        strip_response(&mut response);
        assert_eq!(names(&response), ["trailer", "x-end-to-end"]);
    }

    #[test]
    fn credentials_for_a_proxy_stop_at_this_one() {
        let mut request = headers(&[
            ("proxy-authorization", "Basic x"),
            ("authorization", "Basic y"),
        ]);
        strip_request(&mut request);
        assert_eq!(names(&request), ["authorization"]);
        let mut response = headers(&[
            ("proxy-authenticate", "Basic"),
            ("www-authenticate", "Basic"),
        ]);
        strip_response(&mut response);
        assert_eq!(names(&response), ["www-authenticate"]);
    }

    #[test]
    fn te_goes_on_only_for_trailers() {
        let mut request = headers(&[("te", "gzip, Trailers;q=0.5"), ("connection", "te")]);
        strip_request(&mut request);
        assert_eq!(request.len(), 0, "trailers takes no weight");
        let mut request = headers(&[("te", "gzip;q=0.5, Trailers"), ("connection", "TE")]);
        strip_request(&mut request);
        assert_eq!(
            (&request["te"], &request["connection"]),
            (&"trailers".parse().unwrap(), &"te".parse().unwrap())
        );
    }

    #[test]
    fn where_a_message_goes_and_ends_cannot_be_nominated_away() {
        let mut request = headers(&[
            ("connection", "host, content-length, cookie, Max-Forwards"),
            ("host", "a"),
            ("content-length", "1"),
            ("max-forwards", "0"),
            ("cookie", "b"),
        ]);
        strip_request(&mut request);
        assert_eq!(names(&request), ["content-length", "host", "max-forwards"]);
    }
}
