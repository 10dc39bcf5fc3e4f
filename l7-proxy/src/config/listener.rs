//! `[[listeners]]` and `[[certificates]]`.

use crate::policy::HostPattern;
use shared::certificate::{Chain, Description};
use shared::config::{ByteSize, Cidr, FromValue, Place, Table, Value};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Waiting for a client: shorter cuts honest ones off, longer is no protection.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Protocol {
    /// The scheme, for `X-Forwarded-Proto` and logs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
        }
    }
}

/// An address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name in logs and metrics.
    pub name: String,
    /// The address and port to listen on.
    pub address: SocketAddr,
    /// Plain or TLS.
    pub protocol: Protocol,
    /// Whose connections begin with a PROXY header, if any do.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether HTTP/2 is spoken: by ALPN on https, by prior knowledge on http.
    pub http2: bool,
    /// From the first byte of a connection, or of the next request on it, until its head is complete; the TLS handshake has the same time.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a request body may pause.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response.
    pub send_timeout: Duration,
    /// How long a client that closed its sending side, its request sent, may go without being sent anything before it counts as gone.
    pub half_closed_timeout: Duration,
    /// The largest request head, in bytes.
    pub max_header_size: usize,
    /// The most header fields in a request.
    pub max_headers: usize,
    /// The most connections at once, over all workers.
    pub max_connections: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
}

impl Listener {
    fn parse(table: &mut Table<'_>) -> Option<Listener> {
        let name = table.required::<String>("name");
        if let Some(name) = &name {
            table.allows_name("name", name, "a listener");
        }
        let address = table.required::<SocketAddr>("address");
        let protocols = [("http", Protocol::Http), ("https", Protocol::Https)];
        let protocol = table.one_of_or("protocol", &protocols, Protocol::Http);
        let seconds = Duration::from_secs;
        let sizes = ByteSize(4 << 10)..=ByteSize(1 << 20);
        let listener = Listener {
            name: String::new(),
            address: ([0, 0, 0, 0], 0).into(),
            protocol,
            proxy_protocol: table
                .table("proxy_protocol")
                .and_then(|mut table| ProxyProtocol::parse(&mut table)),
            http2: table.or("http2", protocol == Protocol::Https),
            header_timeout: table.within("header_timeout", TIMES, seconds(10)),
            idle_timeout: table.within("idle_timeout", TIMES, seconds(75)),
            body_timeout: table.within("body_timeout", TIMES, seconds(60)),
            send_timeout: table.within("send_timeout", TIMES, seconds(60)),
            half_closed_timeout: table.within("half_closed_timeout", TIMES, seconds(5)),
            // At most 1 MiB, which fits every usize.
            max_header_size: table
                .within("max_header_size", sizes, ByteSize(32 << 10))
                .bytes() as usize,
            max_headers: table.within("max_headers", 8..=1000, 100),
            max_connections: table.within("max_connections", 1..=10_000_000, 10_000),
            max_streams: table.within("max_streams", 1..=10_000, 128),
        };
        Some(Listener {
            name: name?,
            address: address?,
            ..listener
        })
    }
}

/// Which peers put a PROXY header in front of what their clients send. It is required of them: a receiver that guessed would let a client write
/// the header itself wherever a load balancer does not. From anyone else it is never looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    trusted: Vec<Cidr>,
}

impl ProxyProtocol {
    fn parse(table: &mut Table<'_>) -> Option<ProxyProtocol> {
        let trusted = table.required::<Vec<Cidr>>("trusted")?;
        if trusted.is_empty() {
            table.mistake(
                "trusted",
                "an empty list trusts nobody",
                "name the addresses that send the header, or leave `proxy_protocol` out",
            );
        }
        Some(ProxyProtocol { trusted })
    }

    /// Whether a connection from `peer` begins with a header.
    pub fn is_expected_from(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|prefix| prefix.contains(peer))
    }
}

pub(super) fn parse_all(root: &mut Table<'_>) -> Vec<Listener> {
    let mut tables = root.tables_by("listeners", "name");
    if tables.is_empty() {
        root.mistake(
            "listeners",
            "expected at least one listener",
            "write [[listeners]] with `name` and `address`",
        );
    }
    let listeners = tables.iter_mut().filter_map(Listener::parse).collect();
    root.unique_in::<String>("listener", &tables, "name");
    root.unique_in::<SocketAddr>("address", &tables, "address");
    listeners
}

/// A certificate chain with its key and the server names it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Server names in lower case: `example.com`, or `*.example.com` for one more label. Empty: those in the certificate.
    pub names: Vec<String>,
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// Whether it also answers clients that name no or an unknown server.
    pub default: bool,
    /// Where these are written, for what is found out by opening the files.
    pub places: CertificatePlaces,
}

/// Where the keys of a [`Certificate`] are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePlaces {
    /// `certificate`.
    pub certificate: Place,
    /// `key`.
    pub key: Place,
    /// `names`.
    pub names: Place,
}

impl Certificate {
    fn parse(table: &mut Table<'_>) -> Option<Certificate> {
        let names: Vec<ServerName> = table.or("names", Vec::new());
        let mut leaf = None;
        let certificate = table.opened_file("certificate", |pem| {
            let chain = Chain::from_pem(pem).ok()?;
            Some(leaf.insert(chain.leaf().clone()).to_string())
        });
        let key = table.opened_file("key", |_| None);
        let default = table.or("default", false);
        let names: Vec<String> = names.into_iter().map(|name| name.0).collect();
        if let Some(called) = called(&names, leaf.as_ref()) {
            table.called(&called);
        }
        Some(Certificate {
            names,
            certificate: certificate?.path().to_owned(),
            key: key?.path().to_owned(),
            default,
            places: CertificatePlaces {
                certificate: table.place("certificate"),
                key: table.place("key"),
                names: table.place("names"),
            },
        })
    }
}

/// What people call a certificate: by the names it is for, or its subject where it has none.
fn called(names: &[String], leaf: Option<&Description>) -> Option<String> {
    let own = leaf.map_or(&[][..], |leaf| &leaf.names);
    match if names.is_empty() { own } else { names } {
        [] => leaf.map(|leaf| leaf.subject.clone()),
        [name] => Some(name.clone()),
        [name, more @ ..] => Some(format!("{name} and {} more", more.len())),
    }
}

pub(super) fn parse_certificates(root: &mut Table<'_>, listeners: &[Listener]) -> Vec<Certificate> {
    let tables = root.tables("certificates");
    let tls = listeners
        .iter()
        .find(|listener| listener.protocol == Protocol::Https);
    if let Some(listener) = tls.filter(|_| tables.is_empty()) {
        let message = format!(
            "listener {:?} speaks https and there is no certificate",
            listener.name
        );
        root.mistake(
            "certificates",
            message,
            "write [[certificates]] with `certificate` and `key`",
        );
    }
    let mut certificates: Vec<Certificate> = Vec::new();
    let mut names = Vec::new();
    for mut table in tables {
        let Some(certificate) = Certificate::parse(&mut table) else {
            continue;
        };
        if certificate.default && certificates.iter().any(|earlier| earlier.default) {
            table.mistake(
                "default",
                "another certificate is the default already",
                "one at most can be",
            );
        }
        names.extend(
            certificate
                .names
                .iter()
                .map(|name| (format!("{}.names", table.path()), name.clone())),
        );
        certificates.push(certificate);
    }
    root.unique(
        "a certificate for",
        names
            .iter()
            .map(|(path, name)| (path.clone(), name.as_str())),
    );
    certificates
}

/// A name a client can ask for in SNI: a host name, or one with a star for its first label.
struct ServerName(String);

impl FromValue for ServerName {
    const EXPECTED: &'static str = "a server name such as \"www.example.com\" or \"*.example.com\"";

    fn from_value(value: &Value) -> Result<ServerName, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        match HostPattern::parse(text) {
            Ok(HostPattern::Any) => Err("for every other name write `default = true`".to_owned()),
            // RFC 6066 section 3: literal addresses are not permitted in SNI.
            Ok(HostPattern::Exact(name))
                if name.starts_with('[') || name.parse::<IpAddr>().is_ok() =>
            {
                Err("clients never name an address in SNI; write `default = true`".to_owned())
            }
            Ok(pattern) => Ok(ServerName(pattern.to_string())),
            Err(_) => Err(String::new()),
        }
    }
}
