//! Leaving HTTP by an `Upgrade` field (RFC 9110 section 7.8).
//!
//! Whatever follows a switch of protocols passes every route, filter and log, so a connection leaves HTTP only for a protocol its route
//! allows, and only for one the client asked for and the backend was asked for. The field may always be ignored: what isn't allowed is
//! taken out, and the request is served as the HTTP it is. `h2c` in particular would carry requests of its own past us.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue, UPGRADE};

use super::hop_by_hop::tokens;

/// Protocols that are HTTP again, or carry it: requests inside them would be routed and logged by nobody. Compared without a version.
const CARRY_HTTP: [&str; 6] = ["h2c", "h2", "h3", "http", "tls", "connect-udp"];

/// The name of a protocol a route may allow, such as `websocket`: a token with an optional version, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(Box<str>);

impl Protocol {
    /// Reads a name as the `Upgrade` field has it.
    ///
    /// # Errors
    /// Why no route may allow it.
    pub fn parse(name: &str) -> Result<Protocol, &'static str> {
        let (plain, version) = name.split_once('/').unwrap_or((name, "1"));
        if !is_token(plain) || !is_token(version) {
            return Err("a protocol is a name such as \"websocket\", or name/version");
        }
        let name = name.to_ascii_lowercase();
        let plain = &name[..plain.len()];
        if CARRY_HTTP.contains(&plain) {
            return Err("requests inside it would pass every route, header rule and log");
        }
        Ok(Protocol(name.into_boxed_str()))
    }

    /// What browsers ask for.
    pub fn websocket() -> Protocol {
        Protocol("websocket".into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Whether it is a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let special = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

/// What a request's `Upgrade` fields ask for, taken out of its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked(HeaderValue);

impl Asked {
    /// What a head asks for, if it does so properly: the field is named in `Connection`. Several fields are one list.
    pub(super) fn of(headers: &HeaderMap) -> Option<Asked> {
        let mut values = headers.get_all(UPGRADE).iter();
        let first = values.next()?;
        let nominated = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case(b"upgrade"));
        if !nominated {
            return None;
        }
        if values.next().is_none() {
            return Some(Asked(first.clone()));
        }
        let all: Vec<&[u8]> = headers
            .get_all(UPGRADE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        // Valid values joined by a comma stay valid.
        HeaderValue::from_bytes(&all.join(&b", "[..]))
            .ok()
            .map(Asked)
    }

    /// The part of it that `allowed` lets through, in the client's order; `None` when that is nothing.
    pub fn among(self, allowed: &[Protocol]) -> Option<Upgrade> {
        let is_allowed = |token: &&[u8]| {
            let same = |protocol: &Protocol| token.eq_ignore_ascii_case(protocol.0.as_bytes());
            allowed.iter().any(same)
        };
        let (all, kept) = (tokens(&self.0).count(), tokens(&self.0).filter(is_allowed));
        let kept: Vec<&[u8]> = kept.collect();
        match kept.len() {
            0 => None,
            some if some == all => Some(Upgrade(self.0)),
            _ => HeaderValue::from_bytes(&kept.join(&b", "[..]))
                .ok()
                .map(Upgrade),
        }
    }
}

/// The protocols a request is forwarded with: asked for by the client and allowed by the route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade(HeaderValue);

impl Upgrade {
    /// Names them in the head of a response.
    pub fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.0.clone());
    }

    /// As the field names them.
    pub(crate) fn protocols(&self) -> &HeaderValue {
        &self.0
    }

    /// What a 101 with these fields switches to; `None` when it doesn't say, or names what nobody asked for (RFC 9110 section 15.2.2).
    pub fn chosen(&self, headers: &HeaderMap) -> Option<Upgrade> {
        let mut values = headers.get_all(UPGRADE).iter();
        let value = values.next()?;
        let asked = |chosen: &[u8]| tokens(&self.0).any(|token| token.eq_ignore_ascii_case(chosen));
        let clear =
            values.next().is_none() && tokens(value).next().is_some() && tokens(value).all(asked);
        clear.then(|| Upgrade(value.clone()))
    }
}

/// The protocols a 426 requires, for its next hop (RFC 9110 section 15.5.22). `h2c` stays behind: it isn't offered here.
pub(crate) fn required_upgrade(headers: &HeaderMap) -> Option<Upgrade> {
    let kept: Vec<&[u8]> = headers
        .get_all(UPGRADE)
        .iter()
        .flat_map(tokens)
        .filter(|token| !token.eq_ignore_ascii_case(b"h2c"))
        .collect();
    if kept.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..]))
        .ok()
        .map(Upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn upgrade(value: &'static str) -> Upgrade {
        Upgrade(HeaderValue::from_static(value))
    }

    #[test]
    fn only_what_a_route_allows_is_asked_of_a_backend() {
        let websocket = [Protocol::websocket()];
        type Row<'t> = (
            &'t [(&'static str, &'static str)],
            &'t [Protocol],
            Option<&'static str>,
        );
        let table: &[Row<'_>] = &[
            (&[("upgrade", "websocket")], &websocket, Some("websocket")),
            (&[("upgrade", "WebSocket")], &websocket, Some("WebSocket")),
            (&[("upgrade", "websocket")], &[], None),
            (&[("upgrade", "h2c")], &websocket, None),
            (
                &[("upgrade", "h2c, websocket")],
                &websocket,
                Some("websocket"),
            ),
            (
                &[("upgrade", "websocket,h2c ,")],
                &websocket,
                Some("websocket"),
            ),
            (
                &[("upgrade", "h2c"), ("upgrade", "websocket")],
                &websocket,
                Some("websocket"),
            ),
            (&[("upgrade", "websocket/13")], &websocket, None),
            (&[("upgrade", "websocketx")], &websocket, None),
            (&[("upgrade", ",")], &websocket, None),
            (&[], &websocket, None),
        ];
        for (fields, allowed, expected) in table {
            let mut headers = headers(&[("connection", "keep-alive, Upgrade")]);
            for (name, value) in *fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let kept = Asked::of(&headers).and_then(|asked| asked.among(allowed));
            assert_eq!(kept, expected.map(upgrade), "{fields:?}");
        }
        let unnamed = headers(&[("upgrade", "websocket"), ("connection", "close")]);
        assert_eq!(Asked::of(&unnamed), None);
    }

    #[test]
    fn a_backend_may_choose_only_among_what_it_was_asked() {
        let asked = upgrade("websocket, chat");
        for (answer, chosen) in [
            ("websocket", true),
            ("WEBSOCKET", true),
            ("chat, websocket", true),
            ("h2c", false),
            ("websocket, h2c", false),
            ("", false),
        ] {
            let answer = headers(&[("upgrade", answer)]);
            assert_eq!(asked.chosen(&answer).is_some(), chosen, "{answer:?}");
        }
        assert_eq!(asked.chosen(&HeaderMap::new()), None);
        let two = headers(&[("upgrade", "chat"), ("upgrade", "websocket")]);
        assert_eq!(asked.chosen(&two), None);
    }

    #[test]
    fn what_carries_http_can_be_allowed_by_no_route() {
        for name in ["websocket", "WebSocket", "tcp", "spdy/3.1", "x-y.z"] {
            let read = Protocol::parse(name).map(|protocol| protocol.name().to_owned());
            assert_eq!(read, Ok(name.to_ascii_lowercase()));
        }
        for name in [
            "h2c", "H2C", "h2", "HTTP/2.0", "http", "TLS/1.0", "", "a b", "a,b", "a/", "/1",
            "a/b/c",
        ] {
            assert!(Protocol::parse(name).is_err(), "{name:?}");
        }
    }
}
