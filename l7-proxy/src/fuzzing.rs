//! Entry points for fuzzers: any bytes in, no panic, and the promises of the module asserted.

use crate::config::Config;
use crate::edge::proxy_protocol::{self, MAX_LENGTH, Parse};
use crate::http::h1::{Decoder, Piece, Received, read_head};
use crate::http::{
    ClientFacts, Fields, Forwarding, Host, Path, Peer, Target, length_of, strip_request,
    strip_response, strip_trailers,
};
use crate::policy::{HostPattern, PathPattern, Router, Rule, UpstreamId};
use bytes::BytesMut;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

/// Takes the bytes as a request head (first line the target, then `name: value` lines) and runs it through everything between parsing and
/// the backend: host, path, lengths, routing, stripping, forwarded fields.
///
/// # Panics
/// When a promise is broken: an accepted path with dot segments, a path that normalises differently the second time, a route that the
/// forwarded path would not find, a field of the connection that survives.
pub fn normalise(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let (version, target) = match target.split_first() {
        Some((b'0', rest)) => (Version::HTTP_10, rest),
        Some((b'2', rest)) => (Version::HTTP_2, rest),
        _ => (Version::HTTP_11, target),
    };
    let Ok(request) = Request::builder().version(version).uri(target).body(()) else {
        return;
    };
    let (mut parts, ()) = request.into_parts();
    parts.headers = fields(lines);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let fields = Fields::of(&parts.headers);
    if let Ok(target) = Target::of(&parts, fields, local) {
        assert!(
            length_of(&parts.headers, fields).is_ok(),
            "an accepted head has one length"
        );
        check_path(&target.path);
        check_host(&target.host);
        check_routing(&target);
        check_forwarding(&mut parts.headers, fields, &target.host);
    }
    let mut trailers = parts.headers.clone();
    let nominated = strip_response(&mut parts.headers, fields);
    check_stripped(&parts.headers);
    strip_trailers(&mut trailers, &nominated);
    check_stripped(&trailers);
    for name in ["host", "content-length", "x-forwarded-for", "forwarded"] {
        assert!(!trailers.contains_key(name), "{name} is a trailer");
    }
}

/// Takes the bytes, all but the first, as what a backend sends on a connection, and reads response after response: all at once, and in pieces of as many
/// bytes as the first says.
///
/// # Panics
/// When a promise is broken: what is read depends on the pieces, or is more than was sent.
pub fn response(input: &[u8]) {
    let Some((first, input)) = input.split_first() else {
        return;
    };
    let method = if first & 0x80 == 0 {
        Method::GET
    } else {
        Method::HEAD
    };
    let pieces = usize::from(first & 0x7f).max(1);
    let whole = Conversation::read(&method, input, input.len().max(1));
    assert_eq!(whole, Conversation::read(&method, input, pieces));
    assert!(whole.data.len() <= input.len());
}

/// What is read from a backend.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conversation {
    heads: Vec<(StatusCode, HeaderMap, bool)>,
    data: Vec<u8>,
    trailers: Vec<HeaderMap>,
    is_valid: bool,
}

impl Conversation {
    fn read(method: &Method, input: &[u8], pieces: usize) -> Conversation {
        let mut read = Conversation::default();
        read.is_valid = read.follow(method, input.chunks(pieces)).is_some();
        read
    }

    /// None if something is wrong with it.
    fn follow<'i>(
        &mut self,
        method: &Method,
        pieces: impl Iterator<Item = &'i [u8]>,
    ) -> Option<()> {
        let (mut buffer, mut body) = (BytesMut::new(), None::<Decoder>);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let Some(decoder) = &mut body else {
                    let Some(head) = read_head(&mut buffer, method).ok()? else {
                        break;
                    };
                    let Received {
                        parts,
                        fields,
                        body: decoder,
                        keep_alive,
                    } = head;
                    assert_eq!(fields, Fields::of(&parts.headers));
                    self.heads.push((parts.status, parts.headers, keep_alive));
                    body = Some(decoder);
                    continue;
                };
                match decoder.next(&mut buffer).ok()? {
                    Some(Piece::Data(data)) => self.data.extend_from_slice(&data),
                    Some(Piece::Trailers(trailers)) => self.trailers.push(trailers),
                    None if decoder.is_ended() => body = None,
                    None => break,
                }
            }
        }
        Some(())
    }
}

/// Takes the bytes as what a trusted peer sends first, and reads the PROXY header as it would arrive byte by byte.
///
/// # Panics
/// When a promise is broken: a header that is longer than is taken, than what arrived, or than it was with fewer bytes behind it; a verdict that
/// changes when more arrives.
pub fn proxy_header(input: &[u8]) {
    let whole = proxy_protocol::parse(input);
    for end in 0..=input.len().min(MAX_LENGTH + 1) {
        match proxy_protocol::parse(&input[..end]) {
            Ok(Parse::Partial) => assert!(end < MAX_LENGTH, "a header ends"),
            Ok(Parse::Complete(header)) => {
                assert_eq!(header.length, end, "complete with its last byte");
                assert_eq!(whole, Ok(Parse::Complete(header)));
                return;
            }
            Err(malformed) => {
                assert_eq!(whole, Err(malformed));
                return;
            }
        }
    }
    assert_eq!(whole, Ok(Parse::Partial));
}

/// Parses the bytes as a configuration file.
///
/// # Panics
/// When the parser does.
pub fn config(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        match Config::from_toml("fuzz.toml", text) {
            Ok(config) => assert!(
                !config.listeners.is_empty()
                    && !config.routes.is_empty()
                    && !config.upstreams.is_empty()
            ),
            Err(mistakes) => assert!(!mistakes.to_string().is_empty(), "a refusal says why"),
        }
    }
}

fn fields<'i>(lines: impl Iterator<Item = &'i [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(halves.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn check_path(path: &Path) {
    for reading in [path.forwarded().path(), path.routing()]
        .into_iter()
        .chain(path.readings())
    {
        let star = path.forwarded().as_str() == "*";
        assert!(
            reading.starts_with('/') || star,
            "{reading:?} does not begin at the root"
        );
        assert!(
            !reading
                .split('/')
                .any(|segment| segment == "." || segment == ".."),
            "{reading:?} has dot segments"
        );
    }
    assert!(
        !path.routing().contains("//"),
        "{:?} has empty segments",
        path.routing()
    );
    if path.forwarded().as_str() != "*" {
        assert_eq!(
            Path::new(path.forwarded()).as_ref(),
            Ok(path),
            "normalising twice is normalising once"
        );
    }
}

fn check_host(host: &Host) {
    let again = HeaderValue::from_str(host.name())
        .ok()
        .and_then(Host::parse);
    assert_eq!(
        again.as_ref().map(Host::name),
        Some(host.name()),
        "a canonical name is a name"
    );
}

/// The backend, reading the forwarded path as it stands, with slashes decoded or without parameters, ends up where the router did.
fn check_routing(target: &Target) {
    static ROUTER: LazyLock<Router> = LazyLock::new(|| {
        let rule = |name: &str, hosts: &[&str], path| {
            let hosts = hosts
                .iter()
                .filter_map(|host| HostPattern::parse(host).ok())
                .collect();
            Rule {
                name: name.into(),
                hosts,
                path,
                upstream: UpstreamId(0),
                upgrades: Vec::new(),
            }
        };
        let prefixes = ["/admin", "/api", "/api/users"]
            .into_iter()
            .filter_map(|path| PathPattern::prefix(path).ok());
        let mut rules: Vec<Rule> = prefixes
            .enumerate()
            .map(|(index, path)| rule(&index.to_string(), &["*", "a"], path))
            .collect();
        rules.push(rule("wildcard", &["*.a"], PathPattern::Any));
        rules.push(rule("any", &["*"], PathPattern::Any));
        Router::new(&rules)
    });
    let Ok(route) = ROUTER.find(&target.host, &target.path) else {
        return;
    };
    let decoded = target
        .path
        .routing()
        .replace("%2F", "/")
        .replace("%5C", "/");
    let cut = |path: &str| {
        let segments = path.split('/').map(|segment| segment.split(';').next());
        segments.flatten().collect::<Vec<_>>().join("/")
    };
    for reading in [&decoded, &cut(&decoded), &cut(target.path.routing())] {
        if let Some(read) = PathAndQuery::try_from(reading.as_str())
            .ok()
            .and_then(|read| Path::new(&read).ok())
        {
            assert_eq!(
                ROUTER.find(&target.host, &read),
                Ok(route),
                "two readings of one path have one route"
            );
        }
    }
}

fn check_forwarding(headers: &mut HeaderMap, fields: Fields, host: &Host) {
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
    strip_request(headers, fields);
    check_stripped(headers);
    let told = Forwarding::default().tell(
        headers,
        fields,
        Version::HTTP_11,
        ClientFacts {
            peer: &peer,
            scheme: "http",
        },
    );
    assert_eq!(told.client(), peer.address());
    // What the client says of itself is gone, so that what is written of it stands alone.
    assert!(!headers.contains_key("x-forwarded-for") && !headers.contains_key("x-real-ip"));
    let mut written = Vec::new();
    told.write_http1(host.as_sent(), &mut written);
    assert!(written.ends_with(b"\r\nx-real-ip: 127.0.0.1\r\n"));
}

fn check_stripped(headers: &HeaderMap) {
    for name in [
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ] {
        assert!(!headers.contains_key(name), "{name} is forwarded");
    }
    let connection = headers.get("connection").map(HeaderValue::as_bytes);
    assert!(
        matches!(connection, None | Some(b"te")),
        "Connection is forwarded"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_head_breaks_a_promise(
            target in "[012]?(http://[aA.:@]{0,4})?/([a.;/]|%2[eEfF5]|%5c|%3b|%0[0aA]|\\\\|\\?|api|admin|users){0,10}",
            fields in "((host|Host|connection|te|upgrade|content-length|transfer-encoding|x-forwarded-for): ?[a0-9.:,]{0,6}\\n){0,5}",
        ) {
            normalise(format!("{target}\n{fields}").as_bytes());
        }

        #[test]
        fn no_bytes_break_a_promise(input in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            normalise(&input);
            proxy_header(&input);
            config(&input);
        }
    }
}
