//! The host a request is for (RFC 9110 section 7.2, RFC 9112 section 3.2).

use crate::reason::Reason;
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
    /// The host of a request head: the authority of an absolute-form target or `:authority` if there is one, else the `Host` field.
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

    fn same_as(&self, other: &Host) -> bool {
        self.name() == other.name() && self.port == other.port
    }
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
