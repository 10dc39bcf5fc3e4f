//! The head of a request: what it asks for, and what a backend is told. Pure, so that `explain` goes the same way.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, Method, Uri, Version};

use crate::config::Listener;
use crate::http::h1::write_field;
use crate::http::{
    ClientFacts, Field, Fields, Forwarding, Peer, Stripped, Target, Told, Upgrade, count_hop,
    strip_request,
};
use crate::observe::reason::Reason;
use crate::upstream::Asking;

/// Phase: normalise and validate. The head, which has these fields and came in on `listener` at the address `local`, is left as the backend may see it, except for
/// what [`Head::new`] adds.
///
/// # Errors
/// Why the request is refused.
pub(super) fn prepare(
    listener: &Listener,
    local: SocketAddr,
    parts: &mut Parts,
    fields: Fields,
) -> Result<(Target, Stripped), Reason> {
    if parts.headers.len() > listener.max_headers {
        return Err(Reason::HeadersTooLarge);
    }
    let target = Target::of(parts, fields, local)?;
    let mut stripped = strip_request(&mut parts.headers, fields);
    if parts.version != Version::HTTP_11 {
        // HTTP/1.0 has no upgrades (RFC 9110 section 7.8), and HTTP/2 has them elsewhere.
        stripped.upgrade = None;
    }
    count_hop(&parts.method, &mut parts.headers)?;
    // The client's 100-continue is answered when its body is first read, which is when a backend is there to take it. What else it may expect is the
    // backend's to refuse.
    let expects_100 = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if fields.has(Field::Expect) && parts.headers.get_all(EXPECT).iter().any(expects_100) {
        parts.headers.remove(EXPECT);
    }
    if parts.version == Version::HTTP_2 && fields.has(Field::Cookie) {
        join_cookies(&mut parts.headers);
    }
    Ok((target, stripped))
}

/// What a backend is told, in no protocol's form yet: that follows from the connection a try is made over.
#[derive(Debug)]
pub(super) struct Head {
    /// The method, the path and query, and the fields that go end to end. `Host` is told by `host`.
    parts: Parts,
    host: HeaderValue,
    told: Told,
    /// The protocols it asks to switch to.
    upgrade: Option<Upgrade>,
}

impl Head {
    /// With what tells the backend who is asking for what; `fields` are those it came with.
    pub(super) fn new(
        mut parts: Parts,
        fields: Fields,
        target: Target,
        forwarding: &Forwarding,
        listener: &Listener,
        peer: &Peer,
    ) -> Head {
        let facts = ClientFacts {
            peer,
            scheme: listener.protocol.scheme(),
        };
        let told = forwarding.tell(&mut parts.headers, fields, parts.version, facts);
        parts.uri = Uri::from(target.path.into_forwarded());
        // What hyper keeps there is about the client's connection.
        parts.extensions = Extensions::new();
        Head {
            parts,
            host: target.host.into_sent(),
            told,
            upgrade: None,
        }
    }

    /// Who the client is.
    pub(super) fn client(&self) -> IpAddr {
        self.told.client()
    }

    /// As it is, and asking to switch protocols.
    pub(super) fn asking_for(self, upgrade: Upgrade) -> Head {
        Head {
            upgrade: Some(upgrade),
            ..self
        }
    }

    /// The method.
    pub(super) fn method(&self) -> &Method {
        &self.parts.method
    }

    /// What a balancer may go by.
    pub(super) fn asks(&self, client: IpAddr) -> Asking<'_> {
        Asking {
            client,
            uri: &self.parts.uri,
            headers: &self.parts.headers,
        }
    }

    /// Writes it in the form of HTTP/1.1: the host in its field (RFC 9112 section 3.2), the wish to switch protocols in the connection's.
    pub(super) fn write_http1(&self, out: &mut Vec<u8>) {
        let Head {
            parts,
            host,
            told,
            upgrade,
        } = self;
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        out.extend_from_slice(parts.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(out, &HOST, host);
        for (name, value) in &parts.headers {
            let is_written_apart = name == HOST || (name == CONNECTION && upgrade.is_some());
            if !is_written_apart {
                write_field(out, name, value);
            }
        }
        told.write_http1(host, out);
        if let Some(upgrade) = upgrade {
            let options = if parts.headers.contains_key(TE) {
                "te, upgrade"
            } else {
                "upgrade"
            };
            write_field(out, &CONNECTION, &HeaderValue::from_static(options));
            write_field(out, &UPGRADE, upgrade.protocols());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// How long the head says that the body is; none where it says that it is chunked, or that there is none.
    pub(super) fn body_length(&self) -> Option<u64> {
        let length = self.parts.headers.get(CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1 has one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Protocol;

    #[test]
    fn connection_names_what_it_asks_of_it() {
        let websocket = || {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            let fields = Fields::of(&headers);
            let asked = strip_request(&mut headers, fields).upgrade.unwrap();
            asked.among(&[Protocol::websocket()])
        };
        let te = [
            (TE, HeaderValue::from_static("trailers")),
            (CONNECTION, HeaderValue::from_static("te")),
        ];
        for (upgrade, fields, expected) in [
            (None, vec![], "GET /a HTTP/1.1|host: b|...|"),
            (
                None,
                te.to_vec(),
                "GET /a HTTP/1.1|host: b|te: trailers|connection: te|...|",
            ),
            (
                websocket(),
                te.to_vec(),
                "GET /a HTTP/1.1|host: b|te: trailers|...connection: te, upgrade|upgrade: websocket||",
            ),
            (
                websocket(),
                vec![],
                "GET /a HTTP/1.1|host: b|...connection: upgrade|upgrade: websocket||",
            ),
        ] {
            let mut parts = http::Request::get("/a").body(()).unwrap().into_parts().0;
            parts.headers = fields.into_iter().collect();
            parts
                .headers
                .insert(HOST, HeaderValue::from_static("as-sent"));
            let host = HeaderValue::from_static("b");
            let facts = ClientFacts {
                peer: &Peer::new(IpAddr::from([192, 0, 2, 7])),
                scheme: "http",
            };
            let fields = Fields::of(&parts.headers);
            let told =
                Forwarding::default().tell(&mut parts.headers, fields, Version::HTTP_11, facts);
            let head = Head {
                parts,
                host,
                told,
                upgrade,
            };
            let mut out = Vec::new();
            head.write_http1(&mut out);
            let text = String::from_utf8(out).unwrap();
            let about_client = "x-forwarded-for: 192.0.2.7|x-forwarded-proto: http|x-forwarded-host: b|x-real-ip: 192.0.2.7|";
            assert_eq!(
                text.replace("\r\n", "|").replace(about_client, "..."),
                expected
            );
        }
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2; c=3"]
        );
    }
}
