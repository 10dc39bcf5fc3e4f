//! A whole chain: what makes it unusable, and what a client may object to.

use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS, OID_SHA1_WITH_RSA,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::{Description, KeyKind, MIN_RSA_BITS, day, listed, seconds};

/// More certificates than any chain has; clients stop at fewer.
const MAX_CERTIFICATES: usize = 16;

/// The certificates of one PEM file, the leaf first.
#[derive(Clone, Debug)]
pub struct Chain {
    der: Vec<CertificateDer<'static>>,
    leaf: Description,
    descriptions: Vec<Description>,
    public_keys: Vec<Vec<u8>>,
    doubts: Vec<Doubt>,
}

/// Why a file can't be used as a chain. The text goes after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing is in it that is a certificate.
    #[error("no certificate in it")]
    Empty,
    /// The other file was named.
    #[error("a private key and no certificate in it")]
    KeyOnly,
    /// Binary.
    #[error("is DER, not PEM")]
    Der,
    /// Text, but broken.
    #[error("broken PEM: {0}")]
    Pem(String),
    /// A chain of `MAX_CERTIFICATES` would be absurd already.
    #[error("{0} certificates in it")]
    TooMany(usize),
    /// Base64 of something else.
    #[error("certificate {number} of it is broken: {reason}")]
    Broken {
        /// Counted from 1.
        number: usize,
        /// What the parser says.
        reason: String,
    },
    /// X.509 version 1 or 2, without extensions.
    #[error("certificate 1 of it ({0}) is X.509 version 1")]
    OldVersion(String),
    /// An RSA key that is too short.
    #[error("certificate 1 of it ({called}) has an RSA key of {bits} bits")]
    WeakKey {
        /// Which certificate.
        called: String,
        /// Of the modulus.
        bits: usize,
    },
}

impl Unusable {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Unusable::Empty => "expected a PEM chain, the leaf first".to_owned(),
            Unusable::KeyOnly => "are `certificate` and `key` swapped?".to_owned(),
            Unusable::Der => {
                "convert it: openssl x509 -inform der -in FILE -out FILE.pem".to_owned()
            }
            Unusable::Pem(_) | Unusable::Broken { .. } => {
                "copy it again from its source".to_owned()
            }
            Unusable::TooMany(_) => {
                format!(
                    "expected a server's chain of at most {MAX_CERTIFICATES}, not a store of roots"
                )
            }
            Unusable::OldVersion(_) => {
                "clients need subjectAltName, which only version 3 has: have it issued as such"
                    .to_owned()
            }
            Unusable::WeakKey { .. } => format!(
                "clients refuse less than {MIN_RSA_BITS} bits: have it issued for a new key, best of all ECDSA P-256"
            ),
        }
    }
}

/// What clients may object to. The text goes after the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} — {}", self.message, self.hint)
    }
}

impl Chain {
    /// Reads a file's contents.
    ///
    /// # Errors
    /// If no TLS server can use it.
    pub fn from_pem(text: &[u8]) -> Result<Chain, Unusable> {
        let der = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Unusable::Pem(describe_pem_error(&error)))?;
        if der.is_empty() {
            return Err(what_else(text));
        }
        if der.len() > MAX_CERTIFICATES {
            return Err(Unusable::TooMany(der.len()));
        }
        let mut parsed = Vec::with_capacity(der.len());
        for (index, bytes) in der.iter().enumerate() {
            let broken = |reason: String| Unusable::Broken {
                number: index + 1,
                reason,
            };
            match X509Certificate::from_der(bytes) {
                Ok(([], certificate)) => parsed.push(certificate),
                Ok(_) => return Err(broken("bytes follow it".to_owned())),
                Err(error) => return Err(broken(describe_error(&error))),
            }
        }
        let descriptions: Vec<_> = parsed.iter().map(Description::of).collect();
        let (Some(certificate), Some(leaf)) = (parsed.first(), descriptions.first()) else {
            return Err(Unusable::Empty);
        };
        let called = leaf.called().to_owned();
        if certificate.version() != X509Version::V3 {
            return Err(Unusable::OldVersion(called));
        }
        if let KeyKind::Rsa(bits) = leaf.key
            && bits < MIN_RSA_BITS
        {
            return Err(Unusable::WeakKey { called, bits });
        }
        let doubts = lasting_doubts(&parsed, &descriptions);
        let public_keys = parsed
            .iter()
            .map(|certificate| certificate.public_key().raw.to_vec())
            .collect();
        drop(parsed);
        Ok(Chain {
            der,
            leaf: leaf.clone(),
            descriptions,
            public_keys,
            doubts,
        })
    }

    /// The certificates as they go over the wire.
    pub fn der(&self) -> &[CertificateDer<'static>] {
        &self.der
    }

    /// The server's own certificate; a chain has at least that.
    pub fn leaf(&self) -> &Description {
        &self.leaf
    }

    /// All of them, the leaf first.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// Which of the certificates, counted from 0, is for this public key (the DER of SubjectPublicKeyInfo). It should be the first.
    pub fn position_of_key(&self, public_key: &[u8]) -> Option<usize> {
        self.public_keys.iter().position(|own| own == public_key)
    }

    /// What clients may object to now, with the leaf serving `names` (none: those it names itself).
    pub fn doubts(&self, names: &[String], now: SystemTime) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        for (index, certificate) in self.descriptions.iter().enumerate() {
            doubts.extend(validity(index, certificate, now));
        }
        for name in names.iter().filter(|name| !self.leaf().covers(name)) {
            let own = &self.leaf().names;
            doubts.push(Doubt {
                message: match own.as_slice() {
                    [] => format!("the certificate names no server, and `names` has {name:?}"),
                    _ => format!(
                        "{name:?} of `names` is not in the certificate, which is for {}",
                        listed(own)
                    ),
                },
                hint: "clients that ask for it refuse the connection",
            });
        }
        doubts.extend(self.doubts.iter().cloned());
        doubts
    }
}

fn validity(index: usize, certificate: &Description, now: SystemTime) -> Option<Doubt> {
    let which = which(index, certificate);
    if seconds(now) < certificate.not_before {
        return Some(Doubt {
            message: format!(
                "{which} is not valid before {}",
                day(certificate.not_before)
            ),
            hint: "clients refuse it until then; is the clock right?",
        });
    }
    let last = certificate.last_day();
    match certificate.time_left(now) {
        None => Some(Doubt {
            message: format!("{which} expired on {last}"),
            hint: "clients refuse it: renew it",
        }),
        Some(left) if certificate.expires_soon(now) => Some(Doubt {
            message: format!("{which} expires on {last}, in {}", roughly(left.as_secs())),
            hint: "renew it",
        }),
        Some(_) => None,
    }
}

/// Days, or hours of the last day.
fn roughly(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600) {
        (0, hours) => format!("{hours} h"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

/// What does not change with time or configuration.
fn lasting_doubts(parsed: &[X509Certificate<'_>], descriptions: &[Description]) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let Some(leaf) = parsed.first() else {
        return doubts;
    };
    let algorithm = &leaf.signature_algorithm.algorithm;
    if *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA {
        doubts.push(Doubt {
            message: "the certificate is signed with SHA-1".to_owned(),
            hint: "clients refuse it: have it issued again",
        });
    }
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        doubts.push(Doubt {
            message: "the certificate is not for servers (extendedKeyUsage without serverAuth)"
                .to_owned(),
            hint: "clients refuse it: have it issued for servers",
        });
    }
    if parsed.len() == 1 && leaf.issuer() != leaf.subject() && names_its_issuer(leaf) {
        // Public authorities never issue from a root. A private one may: such certificates don't say where to get the issuer's.
        doubts.push(Doubt {
            message: format!(
                "only the leaf is in it, without the certificate of its issuer ({})",
                descriptions.first().map_or("", |leaf| &leaf.issuer)
            ),
            hint: "clients that don't have it refuse the connection: append the issuer's certificate (\"full chain\")",
        });
    }
    for (index, (certificate, next)) in parsed.iter().zip(parsed.iter().skip(1)).enumerate() {
        if issued(next, certificate) {
            continue;
        }
        let named = |index: usize| {
            descriptions
                .get(index)
                .map_or(String::new(), |it| which(index, it))
        };
        let (this, after) = (named(index), named(index + 1));
        let elsewhere = (0..parsed.len()).find(|other| {
            *other != index
                && parsed
                    .get(*other)
                    .is_some_and(|other| issued(other, certificate))
        });
        doubts.push(match elsewhere {
            Some(issuer) => Doubt {
                message: format!("wrong order: {this} was issued by {}, not by {after}", named(issuer)),
                hint: "put the leaf first and behind each certificate that of its issuer",
            },
            None if index > 0 && certificate.issuer() == certificate.subject() => Doubt {
                message: format!("{this} is a root, and {after} follows it"),
                hint: "a chain ends before its root: remove both",
            },
            None => Doubt {
                message: format!("broken chain: {after} did not issue {this}"),
                hint: "clients may refuse the connection: put behind each certificate that of its issuer",
            },
        });
    }
    doubts
}

/// Whether `issuer` signed `certificate`. A signature of an unknown kind gets the benefit of the doubt.
fn issued(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && !matches!(
            certificate.verify_signature(Some(issuer.public_key())),
            Err(X509Error::SignatureVerificationError)
        )
}

/// Whether it says where its issuer's certificate can be fetched (RFC 5280 section 4.2.2.1).
fn names_its_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.iter_extensions().any(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityInfoAccess(access)
                if access.iter().any(|one| one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS)
        )
    })
}

fn which(index: usize, certificate: &Description) -> String {
    match index {
        0 => format!("the certificate ({})", certificate.called()),
        _ => format!("certificate {} ({})", index + 1, certificate.called()),
    }
}

/// What a file without certificates is.
fn what_else(text: &[u8]) -> Unusable {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        // A DER SEQUENCE.
        Err(_) if text.first() == Some(&0x30) => return Unusable::Der,
        Err(_) => return Unusable::Empty,
    };
    if text.contains("PRIVATE KEY-----") {
        Unusable::KeyOnly
    } else {
        Unusable::Empty
    }
}

fn describe_pem_error(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        PemError::Base64Decode(_) => "not base64 between BEGIN and END".to_owned(),
        other => other.to_string(),
    }
}

fn describe_error(error: &x509_parser::nom::Err<X509Error>) -> String {
    match error {
        x509_parser::nom::Err::Incomplete(_) => "it ends too early".to_owned(),
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => {
            error.to_string()
        }
    }
}
