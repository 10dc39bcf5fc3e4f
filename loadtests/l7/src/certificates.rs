//! Certificates for the proxies, and clients that trust them. All clients offer one cipher suite and one group, so that all proxies do the same work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, version};

use crate::load::{HOST, Tickets};

/// What the server's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// ECDSA over P-256.
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
}

/// A self-signed certificate for [`HOST`].
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants it.
    pub(crate) both: PathBuf,
    roots: Arc<RootCertStore>,
}

impl Certificate {
    pub(crate) fn make(directory: &Path, kind: Key) -> Result<Certificate> {
        let key = match kind {
            Key::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let parameters = rcgen::CertificateParams::new(vec![HOST.to_owned()])?;
        let cert = parameters.self_signed(&key)?;
        let made = CertifiedKey {
            cert,
            signing_key: key,
        };
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let path = |ending: &str| directory.join(format!("{kind:?}.{ending}"));
        let paths = Certificate {
            certificate: path("crt"),
            key: path("key"),
            both: path("pem"),
            roots: {
                let mut roots = RootCertStore::empty();
                roots.add(made.cert.der().clone())?;
                Arc::new(roots)
            },
        };
        fs::write(&paths.certificate, &certificate)?;
        fs::write(&paths.key, &key)?;
        fs::write(&paths.both, certificate + &key)?;
        Ok(paths)
    }

    /// TLS 1.3 with AES-128-GCM, keys agreed over X25519, and `protocol` by ALPN.
    pub(crate) fn client(
        &self,
        protocol: &str,
        tickets: &Arc<Tickets>,
    ) -> Result<Arc<ClientConfig>> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])
            .context("TLS 1.3 with one suite")?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = Resumption::store(tickets.clone());
        Ok(Arc::new(config))
    }
}
