//! Which certificate a client gets: by the exact server name, else by the wildcard one label up, else the default, else none, which
//! ends the [handshake](super::handshake). Among several for one name, ECDSA before RSA.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

/// Certificates by server name. One name may have several (ECDSA beside RSA), the cheapest to sign with first: the first whose key the
/// client can verify is used.
#[derive(Debug, Default)]
pub struct Resolver {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By the part behind `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl Resolver {
    /// Adds a certificate for a name: `example.com`, or `*.example.com` for any one label in front of it. Names are compared in lower
    /// case.
    pub fn add(&mut self, name: &str, key: Arc<CertifiedKey>) {
        let name = name.to_ascii_lowercase();
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name.as_str()),
        };
        insert(map.entry(name.into()).or_default(), key);
    }

    /// Adds a certificate for clients that name no server, or one that isn't known.
    pub fn add_default(&mut self, key: Arc<CertifiedKey>) {
        insert(&mut self.default, key);
    }

    /// The certificates for a server name, best match first by kind, in our order of preference.
    pub fn candidates(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else {
            return &self.default;
        };
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(found) = self.exact.get(name) {
            return found;
        }
        name.split_once('.')
            .and_then(|(_, parent)| self.wildcard.get(parent))
            .map_or(&self.default, |found| found)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(name);
        candidates
            .iter()
            .find(|candidate| candidate.key.choose_scheme(schemes).is_some())
            .or(candidates.first())
            .cloned()
    }
}

/// Behind those that are preferred to it or were added before it.
fn insert(candidates: &mut Vec<Arc<CertifiedKey>>, key: Arc<CertifiedKey>) {
    let at = candidates.partition_point(|other| rank(other) <= rank(&key));
    candidates.insert(at, key);
}

/// Order of preference, the best first: an RSA signature costs ten times what an ECDSA one does. rustls has left the schemes out for which
/// a TLS 1.2 client has no cipher suite, so being preferred does not mean being forced upon anyone.
fn rank(key: &CertifiedKey) -> u8 {
    match key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;

    fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<CertifiedKey> {
        let pair = rcgen::KeyPair::generate_for(algorithm).expect("key");
        let signer =
            any_supported_type(&PrivateKeyDer::Pkcs8(pair.serialize_der().into())).expect("signer");
        Arc::new(CertifiedKey::new(Vec::new(), signer))
    }

    fn ecdsa() -> Arc<CertifiedKey> {
        key(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    #[test]
    fn exact_beats_wildcard_beats_default() {
        let (exact, wildcard, default) = (ecdsa(), ecdsa(), ecdsa());
        let mut resolver = Resolver::default();
        resolver.add("*.Example.com", wildcard.clone());
        resolver.add("www.example.com", exact.clone());
        resolver.add_default(default.clone());
        for (name, expected) in [
            (Some("www.example.com"), &exact),
            (Some("WWW.example.com."), &exact),
            (Some("api.example.com"), &wildcard),
            (Some("a.b.example.com"), &default),
            (Some("example.com"), &default),
            (None, &default),
        ] {
            assert!(
                Arc::ptr_eq(&resolver.candidates(name)[0], expected),
                "{name:?}"
            );
        }
    }

    #[test]
    fn without_a_default_an_unknown_name_has_no_certificate() {
        let mut resolver = Resolver::default();
        resolver.add("example.com", ecdsa());
        assert!(
            resolver
                .choose(
                    Some("other.example"),
                    &[SignatureScheme::ECDSA_NISTP256_SHA256]
                )
                .is_none()
        );
    }

    #[test]
    fn a_client_gets_a_key_it_can_verify() {
        let (p256, ed25519) = (ecdsa(), key(&rcgen::PKCS_ED25519));
        let mut resolver = Resolver::default();
        resolver.add("example.com", p256.clone());
        resolver.add("example.com", ed25519.clone());
        let chosen = |scheme| {
            resolver
                .choose(Some("example.com"), &[scheme])
                .expect("a certificate")
        };
        assert!(Arc::ptr_eq(&chosen(SignatureScheme::ED25519), &ed25519));
        assert!(Arc::ptr_eq(
            &chosen(SignatureScheme::ECDSA_NISTP256_SHA256),
            &p256
        ));
    }
}
