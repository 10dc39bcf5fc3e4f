//! What a PEM chain says of itself: who it is for, who issued it, how long it is valid, what kind of key it has. Pure: the file's
//! contents and the time go in.
//!
//! [`Chain::from_pem`] refuses what no client could use. What a client may object to (expired, not yet valid, out of order, weak) is a
//! [`Doubt`]: it is said loudly, but does not keep a node from starting after a reboot, when every other name still works.

mod chain;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

pub use chain::{Chain, Doubt, Unusable};

/// RSA keys with fewer bits are refused by clients, and by the TLS library.
pub const MIN_RSA_BITS: usize = 2048;

/// An expiry is announced this long ahead, or a quarter of the certificate's life if that is shorter.
pub const NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// One certificate, as people and scripts identify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The subject's distinguished name, `CN=www.example.com`; often empty nowadays.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The DNS names of subjectAltName, in lower case.
    pub names: Vec<String>,
    /// The first second it is valid, in seconds since 1970.
    pub not_before: i64,
    /// The last second it is valid, in seconds since 1970.
    pub not_after: i64,
    /// The kind of its key.
    pub key: KeyKind,
    /// SHA-256 over the DER, in lower-case hex.
    pub fingerprint: String,
}

impl Description {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Description {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.as_raw());
        Description {
            subject: printable(certificate.subject()),
            issuer: printable(certificate.issuer()),
            names: dns_names(certificate),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            key: KeyKind::of(certificate.public_key()),
            fingerprint: digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }

    /// How long until it expires; `None` once it has.
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        let left = self.not_after.checked_sub(seconds(now))?;
        u64::try_from(left).ok().map(Duration::from_secs)
    }

    /// Whether its end is near: see [`NOTICE`]. True of one that has expired, too.
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        let notice = NOTICE.min(Duration::from_secs(u64::try_from(life).unwrap_or(0) / 4));
        self.time_left(now).is_none_or(|left| left < notice)
    }

    /// The day it expires, `2027-01-31`.
    pub fn last_day(&self) -> String {
        day(self.not_after)
    }

    /// Whether a client that asks for `name` (`www.example.com`, or a wildcard as one is configured) accepts it (RFC 9525 section 6.3).
    pub fn covers(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| {
            own == name
                || own
                    .strip_prefix("*.")
                    .is_some_and(|suffix| Some(suffix) == parent)
        })
    }

    /// What to call it in a message: its subject, or its first name where the subject is empty.
    pub fn called(&self) -> &str {
        match self.names.first() {
            Some(name) if self.subject.is_empty() => name,
            _ => &self.subject,
        }
    }
}

/// In one line, for a log or a list of changes: `www.example.com (ECDSA P-256, issued by CN=R3, expires 2027-01-31, sha256 04f5...)`.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            f.write_str(self.called())?;
        } else {
            f.write_str(&listed(&self.names))?;
        }
        let beginning = self.fingerprint.get(..16).unwrap_or_default();
        let (key, issuer, last) = (self.key, &self.issuer, self.last_day());
        write!(
            f,
            " ({key}, issued by {issuer}, expires {last}, sha256 {beginning}...)"
        )
    }
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa(usize),
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// None that is known here.
    Other,
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> KeyKind {
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        match (key.parsed(), curve) {
            (Ok(PublicKey::RSA(rsa)), _) => KeyKind::Rsa(bits(rsa.modulus)),
            (Ok(PublicKey::EC(_)), Some(curve)) if curve == OID_EC_P256 => KeyKind::EcdsaP256,
            (Ok(PublicKey::EC(_)), Some(curve)) if curve == OID_NIST_EC_P384 => KeyKind::EcdsaP384,
            (Ok(PublicKey::EC(_)), Some(curve)) if curve == OID_NIST_EC_P521 => KeyKind::EcdsaP521,
            _ if key.algorithm.algorithm == OID_SIG_ED25519 => KeyKind::Ed25519,
            _ => KeyKind::Other,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA {bits}"),
            KeyKind::EcdsaP256 => f.write_str("ECDSA P-256"),
            KeyKind::EcdsaP384 => f.write_str("ECDSA P-384"),
            KeyKind::EcdsaP521 => f.write_str("ECDSA P-521"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Other => f.write_str("other"),
        }
    }
}

impl Serialize for KeyKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The significant bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let mut rest = number;
    while let [0, tail @ ..] = rest {
        rest = tail;
    }
    rest.first()
        .map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize)
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The day of a second since 1970, in UTC.
fn day(second: i64) -> String {
    match ASN1Time::from_timestamp(second) {
        Ok(time) => time.to_datetime().date().to_string(),
        Err(_) => format!("second {second}"),
    }
}

/// The first few of a list of names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// A distinguished name in one line that a terminal can show.
fn printable(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}
