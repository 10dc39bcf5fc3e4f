//! Telling the backend who the client is: `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP`.
//!
//! These fields are believed by backends, so a client must not be able to write them. From a peer that is not trusted they are replaced
//! with what the proxy sees itself; from a trusted one (a CDN, another proxy) they are kept and added to.

use super::Via;
use super::fields::{Field, Fields};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use shared::config::Cidr;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Addresses looked at in an `X-Forwarded-For` before giving up on it.
const MAX_HOPS: usize = 64;

/// Whom to believe about the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    trusted: Vec<Cidr>,
    via: Option<Via>,
}

/// The other end of a connection; made once per connection.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    text: HeaderValue,
}

/// What the proxy itself knows about a request.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// Who sent it.
    pub peer: &'a Peer,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// The fields that say where a request comes from, as they are written behind its own. They don't go through the map of those: putting them in,
/// looking each up, and reading them out again costs more than to write them.
#[derive(Clone, Debug)]
pub struct Told {
    via: Option<HeaderValue>,
    client: IpAddr,
    /// `X-Forwarded-For`.
    chain: HeaderValue,
    /// `X-Forwarded-Proto`, unless the request has one that is believed.
    scheme: Option<&'static str>,
    /// Whether `X-Forwarded-Host` is the host asked for, likewise.
    says_host: bool,
    /// `X-Real-IP`, where that is another than the chain.
    real_ip: Option<HeaderValue>,
}

impl Told {
    /// Who the client is.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Writes them in the form of HTTP/1.1; `host` is the host asked for.
    pub fn write_http1(&self, host: &HeaderValue, out: &mut Vec<u8>) {
        let mut write = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        if let Some(via) = &self.via {
            write("via: ", via.as_bytes());
        }
        write("x-forwarded-for: ", self.chain.as_bytes());
        if let Some(scheme) = self.scheme {
            write("x-forwarded-proto: ", scheme.as_bytes());
        }
        if self.says_host {
            write("x-forwarded-host: ", host.as_bytes());
        }
        let real_ip = self.real_ip.as_ref().unwrap_or(&self.chain);
        write("x-real-ip: ", real_ip.as_bytes());
    }
}

impl Peer {
    /// A peer by its address. An IPv4 address in IPv6 form (`::ffff:192.0.2.1`) counts as the IPv4 address it is.
    pub fn new(address: IpAddr) -> Peer {
        let address = address.to_canonical();
        // An address is always a valid field value; "unknown" is the word RFC 7239 section 6.2 has for the impossible case.
        let text = HeaderValue::from_str(&address.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Peer { address, text }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The same in text, for the log.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.text.as_bytes()).unwrap_or_default()
    }
}

impl Forwarding {
    /// Believes what peers within these prefixes say. None by default.
    pub fn trusting(trusted: Vec<Cidr>) -> Forwarding {
        Forwarding { trusted, via: None }
    }

    /// And names this gateway in `Via`, or doesn't.
    #[must_use]
    pub fn with_via(self, via: Option<Via>) -> Forwarding {
        Forwarding { via, ..self }
    }

    /// The client's address: the peer's or, behind trusted peers, the last address in `X-Forwarded-For` that is not trusted itself.
    pub fn client(&self, headers: &HeaderMap, peer: &Peer) -> IpAddr {
        let mut client = peer.address;
        if !self.trusts(client) {
            return client;
        }
        // Rightmost first: each trusted hop wrote the address to the left of its own.
        let hops = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .rev()
            .flat_map(|value| {
                value
                    .as_bytes()
                    .rsplit(|byte| *byte == b',')
                    .map(<[u8]>::trim_ascii)
            });
        for hop in hops.take(MAX_HOPS) {
            match std::str::from_utf8(hop)
                .ok()
                .and_then(|text| text.parse::<IpAddr>().ok())
            {
                Some(address) => client = address.to_canonical(),
                // What is not an address was not written by anyone trusted.
                None => break,
            }
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// What a backend is told besides the fields of a request head, which has these and came in `received`. Takes out what it replaces.
    pub fn tell(
        &self,
        headers: &mut HeaderMap,
        fields: Fields,
        received: Version,
        facts: ClientFacts<'_>,
    ) -> Told {
        let ClientFacts { peer, scheme } = facts;
        let client = self.client(headers, peer);
        let trusted = self.trusts(peer.address);
        if fields.has(Field::AboutClient) {
            remove_claims(headers, trusted);
        }
        let mut told = Told {
            via: self.via.as_ref().map(|via| via.hop(received).clone()),
            client,
            chain: peer.text.clone(),
            scheme: Some(scheme),
            says_host: true,
            real_ip: None,
        };
        if trusted {
            let mut chain = Vec::new();
            for value in headers.get_all(X_FORWARDED_FOR) {
                chain.extend_from_slice(value.as_bytes());
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(peer.text.as_bytes());
            headers.remove(X_FORWARDED_FOR);
            headers.remove(X_REAL_IP);
            // Valid values joined by a comma stay valid.
            told.chain = HeaderValue::from_bytes(&chain).unwrap_or(told.chain);
            told.scheme = told
                .scheme
                .filter(|_| !headers.contains_key(X_FORWARDED_PROTO));
            told.says_host = !headers.contains_key(X_FORWARDED_HOST);
            told.real_ip = Some(Peer::new(client).text);
        }
        told
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(address))
    }
}

/// Removes what only a trusted peer may say about a client, and from everyone the spellings with underscores, which backends that turn
/// fields into variables (CGI, WSGI, Rack) take for the ones with dashes.
fn remove_claims(headers: &mut HeaderMap, trusted: bool) {
    let is_claim = |name: &&HeaderName| {
        let name = name.as_str();
        is_about_client(name) && (!trusted || name.contains('_'))
    };
    let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Whether a field, in whatever spelling, is one that says who the client is.
pub(super) fn is_about_client(name: &str) -> bool {
    const FAMILY: &[u8] = b"x-forwarded-";
    let is = |wanted: &[u8]| {
        name.len() >= wanted.len()
            && name
                .bytes()
                .zip(wanted)
                .all(|(byte, wanted)| byte == *wanted || (byte == b'_' && *wanted == b'-'))
    };
    is(FAMILY) || (name.len() == 9 && (is(b"x-real-ip") || is(b"forwarded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarding(trusted: &[&str]) -> Forwarding {
        Forwarding::trusting(
            trusted
                .iter()
                .map(|prefix| prefix.parse().unwrap())
                .collect(),
        )
    }

    fn applied(trusted: &[&str], peer: &str, sent: &[(&str, &str)]) -> (HeaderMap, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let host = HeaderValue::from_static("Shop.example:8443");
        let peer = Peer::new(peer.parse().unwrap());
        let facts = ClientFacts {
            peer: &peer,
            scheme: "https",
        };
        let fields = Fields::of(&headers);
        let told = forwarding(trusted).tell(&mut headers, fields, Version::HTTP_11, facts);
        let mut written = Vec::new();
        told.write_http1(&host, &mut written);
        for line in String::from_utf8(written).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        (headers, told.client().to_string())
    }

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    #[test]
    fn an_untrusted_client_cannot_write_its_own_history() {
        let sent = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-real-ip", "3.3.3.3"),
            ("forwarded", "for=4.4.4.4"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "//evil.example"),
            ("x-forwarded-user", "root"),
            ("x_forwarded_for", "5.5.5.5"),
            ("x_real-ip", "5.5.5.5"),
        ];
        let (headers, client) = applied(&[], "192.0.2.7", &sent);
        assert_eq!(client, "192.0.2.7");
        assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&headers, "x-forwarded-host"), ["Shop.example:8443"]);
        assert_eq!(all(&headers, "x-real-ip"), ["192.0.2.7"]);
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn a_trusted_peer_is_believed_and_added_to_the_chain() {
        let sent = [
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
            ("x-forwarded-for", "10.0.0.8"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "www.example"),
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-user", "ada"),
            ("x_forwarded_for", "5.5.5.5"),
            ("x-forwarder", "unrelated"),
        ];
        let (headers, client) = applied(&["10.0.0.0/8"], "10.0.0.9", &sent);
        // 6.6.6.6 is what the client claimed; 203.0.113.9 is what the first trusted hop saw.
        assert_eq!(client, "203.0.113.9");
        assert_eq!(
            all(&headers, "x-forwarded-for"),
            ["6.6.6.6, 203.0.113.9, 10.0.0.8, 10.0.0.9"]
        );
        assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&headers, "x-forwarded-host"), ["www.example"]);
        assert_eq!(all(&headers, "x-real-ip"), ["203.0.113.9"]);
        assert_eq!(all(&headers, "forwarded"), ["for=203.0.113.9"]);
        assert_eq!(all(&headers, "x-forwarded-user"), ["ada"]);
        assert_eq!(all(&headers, "x-forwarder"), ["unrelated"]);
        assert!(
            !headers.contains_key("x_forwarded_for"),
            "no one spells it so honestly"
        );
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_itself_the_client() {
        let (headers, client) = applied(&["10.0.0.0/8"], "10.0.0.9", &[]);
        assert_eq!(client, "10.0.0.9");
        assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.9"]);
        assert_eq!(all(&headers, "x-real-ip"), ["10.0.0.9"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    }

    #[test]
    fn the_walk_stops_at_what_is_no_address() {
        let (_, client) = applied(
            &["10.0.0.0/8"],
            "10.0.0.9",
            &[("x-forwarded-for", "1.2.3.4, evil, 10.0.0.1")],
        );
        assert_eq!(client, "10.0.0.1");
        let (_, client) = applied(&["10.0.0.0/8"], "10.0.0.9", &[("x-forwarded-for", "")]);
        assert_eq!(client, "10.0.0.9");
    }

    #[test]
    fn an_ipv4_client_on_a_dual_stack_socket_is_an_ipv4_client() {
        let (headers, client) = applied(&["10.0.0.0/8"], "::ffff:192.0.2.7", &[]);
        assert_eq!(client, "192.0.2.7");
        assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert!(
            forwarding(&["10.0.0.0/8"])
                .trusts(Peer::new("::ffff:10.1.1.1".parse().unwrap()).address())
        );
    }
}
