//! Fields that belong to one connection and are not forwarded (RFC 9110 section 7.6.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields a `Connection` field cannot nominate away: they say where the message goes and where it ends.
const NEVER_NOMINATED: [HeaderName; 2] = [HOST, CONTENT_LENGTH];

/// The protocol a request asks to switch to, taken out of the head; the tunnel puts it back on the hop it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade(pub HeaderValue);

/// Strips a request head for the next hop. The answer is the upgrade it asked for, if it did so properly (`Connection: upgrade` and one
/// `Upgrade` field).
///
/// Strip before adding fields of one's own: a client may nominate their names.
pub fn strip_request(headers: &mut HeaderMap) -> Option<Upgrade> {
    let upgrade = asked_upgrade(headers);
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| has_token(value, "trailers"));
    strip(headers);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TE);
    if trailers {
        // The one thing TE says that holds on our hop too: we pass trailers on. Section 10.1.4 wants it nominated.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    upgrade
}

/// Strips a response head for the client.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(PROXY_AUTHENTICATE);
}

fn asked_upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    let mut values = headers.get_all(UPGRADE).iter();
    let value = values.next()?;
    let nominated = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| has_token(value, "upgrade"));
    (nominated && values.next().is_none()).then(|| Upgrade(value.clone()))
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .collect();
        for name in nominated
            .iter()
            .filter(|name| !NEVER_NOMINATED.contains(name))
        {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("trailer", "x-checksum"),
            ("x-end-to-end", "stays"),
        ];
        let mut request = headers(&fields);
        assert_eq!(
            strip_request(&mut request),
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
    fn an_upgrade_is_taken_out_when_it_is_asked_properly() {
        let mut request = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        assert_eq!(
            strip_request(&mut request),
            Some(Upgrade(HeaderValue::from_static("websocket")))
        );
        assert_eq!(names(&request), ["sec-websocket-key"]);
        let mut request = headers(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "h2c"),
        ]);
        assert_eq!(strip_request(&mut request), None);
    }

    #[test]
    fn where_a_message_goes_and_ends_cannot_be_nominated_away() {
        let mut request = headers(&[
            ("connection", "host, content-length, cookie"),
            ("host", "a"),
            ("content-length", "1"),
            ("cookie", "b"),
        ]);
        strip_request(&mut request);
        assert_eq!(names(&request), ["content-length", "host"]);
    }
}
