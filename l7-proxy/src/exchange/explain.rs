//! What would be done with a request, by the same steps that serve one, written down instead of carried out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use serde::{Deserialize, Serialize};

use super::head;
use super::snapshot::Snapshot;
use crate::config::{Listener, Protocol};
use crate::http::{Fields, Peer};
use crate::observe::reason::Reason;
use crate::policy::{self, Near};

/// The request that is asked about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The method.
    pub method: String,
    /// `http://host/path?query`, or with `https`.
    pub url: String,
    /// Fields, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Who sends it; 192.0.2.1 (an address nobody has) if left out.
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// The listener it comes in on; the first that speaks the scheme at the port of the URL if left out.
    #[serde(default)]
    pub listener: Option<String>,
}

/// What would be done with it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The listener, and where it listens.
    pub listener: String,
    /// The address it listens on, as configured.
    pub address: SocketAddr,
    /// The server name a client of such a URL sends, if the listener speaks TLS.
    pub server_name: Option<String>,
    /// The client, as logged and told to the backend.
    pub client: Option<IpAddr>,
    /// The host it is routed by.
    pub host: Option<String>,
    /// The path it is routed by.
    pub path: Option<String>,
    /// The route taken.
    pub route: Option<Taken>,
    /// Routes that came close.
    pub near: Vec<Near>,
    /// Why it would be refused, and with which status.
    pub refused: Option<Refused>,
    /// What a backend would be sent: the request line, then the fields.
    pub sent: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, Serialize)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// Its host condition that fits best.
    pub host: String,
    /// Its path condition.
    pub path: String,
    /// Its upstream.
    pub upstream: String,
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The reason, as in the access log.
    pub reason: &'static str,
    /// The status.
    pub status: u16,
}

/// Goes through the steps.
///
/// # Errors
/// What is wrong with the question.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explanation, String> {
    let uri: Uri = question
        .url
        .parse()
        .map_err(|error| format!("{:?} is not a URL: {error}", question.url))?;
    let protocol = match uri.scheme_str() {
        Some("http") => Protocol::Http,
        Some("https") => Protocol::Https,
        _ => return Err("expected a URL such as https://shop.example.com/cart".to_owned()),
    };
    let authority = uri.authority().ok_or("the URL names no host")?;
    let port = authority.port_u16().unwrap_or(match protocol {
        Protocol::Http => 80,
        Protocol::Https => 443,
    });
    let listener = listener(snapshot, question, protocol, port)?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let method = Method::from_bytes(question.method.as_bytes())
        .map_err(|_| format!("{:?} is not a method", question.method))?;
    let mut request = Request::builder()
        .method(method)
        .version(Version::HTTP_11)
        .uri(target)
        .body(())
        .map_err(|error| error.to_string())?;
    for (name, value) in &question.headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is not a field name"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of {name} is not a field value"))?;
        request.headers_mut().append(name, value);
    }
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
    }
    let (mut parts, ()) = request.into_parts();

    let mut explanation = Explanation {
        listener: listener.name.clone(),
        address: listener.address,
        server_name: (listener.protocol == Protocol::Https).then(|| authority.host().to_owned()),
        client: None,
        host: None,
        path: None,
        route: None,
        near: Vec::new(),
        refused: None,
        sent: Vec::new(),
    };
    let fields = Fields::of(&parts.headers);
    let prepared = head::prepare(listener, listener.address, &mut parts, fields);
    let (target, stripped) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            explanation.refused = Some(Refused::of(reason));
            return Ok(explanation);
        }
    };
    let (host, path) = (target.host.name(), target.path.routing());
    explanation.host = Some(host.to_owned());
    explanation.path = Some(path.to_owned());
    let rules = &snapshot.config.routes;
    let found = snapshot.router.find(&target.host, &target.path);
    let taken = found.as_ref().ok().map(|route| route.number);
    explanation.near = policy::closest(rules, host, path, taken);
    match found {
        Err(reason) => explanation.refused = Some(Refused::of(reason)),
        Ok(route) => {
            let fits = rules
                .get(route.number)
                .and_then(|rule| policy::matching(rule, host, path));
            let upstream = snapshot.upstream(route.upstream);
            if let Some((fits, upstream)) = fits.zip(upstream) {
                explanation.route = Some(Taken {
                    name: route.name.to_string(),
                    host: fits.host,
                    path: fits.path,
                    upstream: upstream.name.to_string(),
                });
                if upstream.available() == 0 {
                    explanation.refused = Some(Refused::of(Reason::NoBackend));
                }
            }
        }
    }
    if let Ok(route) = found {
        let peer = Peer::new(question.client.unwrap_or(NOBODY));
        let forwarding = &snapshot.config.forwarding;
        let head = head::Head::new(parts, fields, target, forwarding, listener, &peer);
        explanation.client = Some(head.client());
        if explanation.refused.is_some() {
            // What finds no backend is sent nowhere.
            return Ok(explanation);
        }
        let upgrade = stripped
            .upgrade
            .and_then(|asked| asked.among(&route.upgrades));
        let head = match upgrade {
            Some(upgrade) => head.asking_for(upgrade),
            None => head,
        };
        let mut sent = Vec::new();
        head.write_http1(&mut sent);
        let sent = String::from_utf8_lossy(&sent);
        explanation.sent = sent.trim_end().lines().map(str::to_owned).collect();
    }
    Ok(explanation)
}

/// An address for documentation (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Refused {
    fn of(reason: Reason) -> Refused {
        Refused {
            reason: reason.as_str(),
            status: reason.status().as_u16(),
        }
    }
}

fn listener<'s>(
    snapshot: &'s Snapshot,
    question: &Question,
    protocol: Protocol,
    port: u16,
) -> Result<&'s Listener, String> {
    let listeners = &snapshot.config.listeners;
    if let Some(name) = &question.listener {
        let named = listeners.iter().find(|listener| listener.name == *name);
        return named.ok_or_else(|| format!("there is no listener {name:?}"));
    }
    let speaks = |listener: &&Listener| listener.protocol == protocol;
    let at_port = |listener: &&Listener| speaks(listener) && listener.address.port() == port;
    let found = listeners.iter().find(at_port);
    // Behind an L4 tier, the port of the URL is the VIP's.
    found
        .or_else(|| listeners.iter().find(speaks))
        .ok_or_else(|| format!("no listener speaks {}", protocol.scheme()))
}
