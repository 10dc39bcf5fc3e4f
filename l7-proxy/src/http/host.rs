//! The host a request is for (RFC 9110 section 7.2, RFC 9112 section 3.2).

use crate::observe::reason::Reason;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Version, uri::Authority};
use std::net::{Ipv6Addr, SocketAddr};

/// A host that was checked: a name, an IPv4 address or a bracketed IPv6 address, with an optional port.
#[derive(Clone, Debug)]
pub struct Host {
    /// As the client sent it; this goes to the backend.
    sent: HeaderValue,
    /// The canonical name where it is not simply the first bytes of `sent`.
    rewritten: Option<Box<str>>,
    /// How much of `sent` is the name otherwise.
    length: usize,
    port: Option<u16>,
}

impl Host {
    /// The host of a request head: the authority of an absolute-form target or `:authority` if there is one, else the `Host` field, else, for
    /// HTTP/1.0, `local`. RFC 9112 section 3.2.2 lets an authority silently win over a different `Host`; a backend that looks at the other
    /// one is then fooled, so the request is refused instead.
    ///
    /// # Errors
    /// [`Reason::HostMissing`], [`Reason::HostRepeated`], [`Reason::HostInvalid`], [`Reason::HostConflict`].
    pub fn of(parts: &Parts, local: SocketAddr) -> Result<Host, Reason> {
        let mut fields = parts.headers.get_all(HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(Reason::HostRepeated);
        }
        let field = field
            .map(|value| Host::parse(value.clone()).ok_or(Reason::HostInvalid))
            .transpose()?;
        let authority = parts
            .uri
            .authority()
            .map(Host::from_authority)
            .transpose()?;
        match (authority, field) {
            (Some(authority), Some(field)) if !authority.same_as(&field) => {
                Err(Reason::HostConflict)
            }
            // RFC 9112 section 3.2: every HTTP/1.1 request has a Host field, an absolute-form target does not excuse it.
            (Some(_), None) if parts.version == Version::HTTP_11 => Err(Reason::HostMissing),
            (Some(host), _) | (None, Some(host)) => Ok(host),
            (None, None) if parts.version <= Version::HTTP_10 => {
                Host::parse_text(&local.to_string()).ok_or(Reason::HostMissing)
            }
            (None, None) => Err(Reason::HostMissing),
        }
    }

    /// Checks a `Host` field's value.
    pub fn parse(sent: HeaderValue) -> Option<Host> {
        if let Some((length, port)) = plain_name(sent.as_bytes()) {
            return Some(Host {
                length,
                rewritten: None,
                port,
                sent,
            });
        }
        Host::parse_any(sent)
    }

    fn parse_any(sent: HeaderValue) -> Option<Host> {
        let text = sent.to_str().ok()?;
        let (name, port) = split_port(text)?;
        let canonical = canonical_name(name)?;
        let length = name.len();
        let rewritten = (*canonical != *name).then(|| canonical.into_owned().into_boxed_str());
        Some(Host {
            length,
            rewritten,
            port,
            sent,
        })
    }

    fn parse_text(text: &str) -> Option<Host> {
        Host::parse(HeaderValue::from_str(text).ok()?)
    }

    fn from_authority(authority: &Authority) -> Result<Host, Reason> {
        // User information has no place in a request (RFC 9110 section 4.2.4) and is refused by the character check.
        Host::parse_text(authority.as_str()).ok_or(Reason::HostInvalid)
    }

    /// The name without the port, in lower case, without a trailing dot.
    pub fn name(&self) -> &str {
        match &self.rewritten {
            Some(name) => name,
            // Checked to be ASCII when it was parsed.
            None => self
                .sent
                .as_bytes()
                .get(..self.length)
                .and_then(|name| std::str::from_utf8(name).ok())
                .unwrap_or_default(),
        }
    }

    /// The port, when the client named one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// As the client sent it, for the backend's `Host` and for `X-Forwarded-Host`.
    pub fn as_sent(&self) -> &HeaderValue {
        &self.sent
    }

    /// The same, without a copy.
    pub(crate) fn into_sent(self) -> HeaderValue {
        self.sent
    }

    /// Whether both name the same place. A default port says nothing.
    fn same_as(&self, other: &Host) -> bool {
        let port = |host: &Host| host.port.filter(|port| *port != 80 && *port != 443);
        self.name() == other.name() && port(self) == port(other)
    }
}

/// How long the name is, and the port, of what nearly all clients send: a name that is canonical already. `None` says only that it is something else.
fn plain_name(sent: &[u8]) -> Option<(usize, Option<u16>)> {
    let (mut length, mut label) = (sent.len(), 0);
    for (at, byte) in sent.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            b'.' if label > 0 => label = 0,
            b':' => {
                length = at;
                break;
            }
            _ => return None,
        }
    }
    if label == 0 || length > 253 {
        return None;
    }
    let Some((_, digits)) = sent[length..].split_first() else {
        return Some((length, None));
    };
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some((length, Some(u16::try_from(number).ok()?)))
}

fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|at| bracket + at),
        None => text.find(':'),
    };
    match colon {
        None => Some((text, None)),
        // RFC 3986 section 3.2.3 lets the port be empty.
        Some(at) if at + 1 == text.len() => Some((&text[..at], None)),
        Some(at) => {
            let digits = &text[at + 1..];
            let port = digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()?;
            Some((&text[..at], Some(port)))
        }
    }
}

/// The name in lower case without its trailing dot; `None` when it is no host name or address.
pub(crate) fn canonical_name(name: &str) -> Option<std::borrow::Cow<'_, str>> {
    if let Some(inner) = name.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]").into());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty()
        || name.len() > 253
        || !name.bytes().all(allowed)
        || name
            .split('.')
            .any(|label| label.is_empty() || label.len() > 63)
    {
        return None;
    }
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, uri: &str, hosts: &[&[u8]]) -> Parts {
        let mut request = http::Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(
        version: Version,
        uri: &str,
        hosts: &[&[u8]],
    ) -> Result<(String, Option<u16>, String), Reason> {
        let host = Host::of(&head(version, uri, hosts), ([10, 3, 0, 21], 80).into())?;
        Ok((
            host.name().to_owned(),
            host.port(),
            host.as_sent().to_str().unwrap().to_owned(),
        ))
    }

    #[test]
    fn hosts_have_one_form_and_are_kept_as_sent() {
        for (sent, name, port) in [
            ("example.com", "example.com", None),
            ("Example.COM:8080", "example.com", Some(8080)),
            ("example.com.", "example.com", None),
            ("EXAMPLE.com.:80", "example.com", Some(80)),
            ("example.com:", "example.com", None),
            ("a_b-c.test", "a_b-c.test", None),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
            ("[::1]", "[::1]", None),
        ] {
            assert_eq!(
                read(Version::HTTP_11, "/", &[sent.as_bytes()]),
                Ok((name.into(), port, sent.into())),
                "{sent}"
            );
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127);
        for sent in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a:b",
            "a:80:80",
            "a:99999",
            "a:+80",
            "a,b",
            "a%2eb",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]x:80",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "\\a",
            "a\tb",
            "a\"b",
            "*",
            "*.a",
            &long_label,
            &format!("{long_name}abc"),
        ] {
            assert_eq!(
                read(Version::HTTP_11, "/", &[sent.as_bytes()]),
                Err(Reason::HostInvalid),
                "{sent:?}"
            );
        }
        assert_eq!(
            read(Version::HTTP_11, "/", &[b"a\xff"]),
            Err(Reason::HostInvalid)
        );
        assert_eq!(
            read(Version::HTTP_11, "/", &["\u{e4}.de".as_bytes()]),
            Err(Reason::HostInvalid)
        );
    }

    #[test]
    fn a_host_is_named_exactly_once() {
        let found = |name: &str| Ok((name.to_owned(), None, name.to_owned()));
        type Row = (
            Version,
            &'static str,
            &'static [&'static [u8]],
            Result<(), Reason>,
        );
        let table: &[Row] = &[
            (Version::HTTP_11, "/", &[], Err(Reason::HostMissing)),
            (
                Version::HTTP_11,
                "/",
                &[b"a", b"a"],
                Err(Reason::HostRepeated),
            ),
            (
                Version::HTTP_11,
                "/",
                &[b"a", b"b"],
                Err(Reason::HostRepeated),
            ),
            (
                Version::HTTP_10,
                "/",
                &[b"a", b"a"],
                Err(Reason::HostRepeated),
            ),
            (Version::HTTP_11, "/", &[b"a"], Ok(())),
            (Version::HTTP_11, "http://a/", &[b"a"], Ok(())),
            (Version::HTTP_11, "http://a/", &[b"A:80"], Ok(())),
            (
                Version::HTTP_11,
                "http://a/",
                &[b"b"],
                Err(Reason::HostConflict),
            ),
            (
                Version::HTTP_11,
                "http://a/",
                &[b"a:81"],
                Err(Reason::HostConflict),
            ),
            (Version::HTTP_11, "http://a/", &[], Err(Reason::HostMissing)),
            (Version::HTTP_2, "https://a/", &[], Ok(())),
            (Version::HTTP_2, "https://a/", &[b"a"], Ok(())),
            (
                Version::HTTP_2,
                "https://a/",
                &[b"b"],
                Err(Reason::HostConflict),
            ),
            (
                Version::HTTP_2,
                "https://user@a/",
                &[],
                Err(Reason::HostInvalid),
            ),
            (Version::HTTP_2, "/", &[], Err(Reason::HostMissing)),
        ];
        for (version, uri, hosts, expected) in table {
            let expected = (*expected).and_then(|()| found("a"));
            assert_eq!(
                read(*version, uri, hosts),
                expected,
                "{version:?} {uri} {hosts:?}"
            );
        }
        assert_eq!(
            read(Version::HTTP_10, "/", &[]),
            Ok(("10.3.0.21".into(), Some(80), "10.3.0.21:80".into())),
            "HTTP/1.0 may leave it out: RFC 9112 section 3.3"
        );
    }

    proptest::proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_one_reads(sent in "[a-zA-C0-9._:-]{0,12}(:[0-9]{0,6})?") {
            if let Some((length, port)) = plain_name(sent.as_bytes()) {
                let long = Host::parse_any(HeaderValue::from_str(&sent).unwrap()).unwrap();
                proptest::prop_assert_eq!((long.name(), long.port()), (&sent[..length], port));
            }
        }

        #[test]
        fn any_bytes_are_a_host_in_canonical_form_or_none(sent in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Some(host) = HeaderValue::from_bytes(&sent).ok().and_then(Host::parse) {
                let again = Host::parse(HeaderValue::from_str(host.name()).unwrap()).unwrap();
                proptest::prop_assert_eq!(again.name(), host.name());
                proptest::prop_assert!(!host.name().bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }
    }
}
