//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Resolver;
use crate::config::Certificate;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read, or is not PEM.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        error: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{0}: no certificate in it; expected a PEM chain, leaf first")]
    Empty(PathBuf),
    /// The key is of a kind we don't have, or is not the certificate's.
    #[error("{certificate} with key {key}: {error}")]
    Key {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What went wrong.
        error: rustls::Error,
    },
    /// The certificate could not be parsed for its names.
    #[error("{file}: {error}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        error: webpki::Error,
    },
    /// Neither the configuration nor the certificate names a server.
    #[error(
        "{0}: the certificate names no server (no DNS names in subjectAltName); write `names = [...]` or `default = true`"
    )]
    NoNames(PathBuf),
    /// Session tickets could not be set up.
    #[error("session tickets: {0}")]
    Tickets(rustls::Error),
}

/// Reads all of them; everything wrong is reported.
pub(super) fn load(
    certificates: &[Certificate],
    provider: &CryptoProvider,
) -> Result<Resolver, Vec<CertificateError>> {
    let mut resolver = Resolver::default();
    let mut errors = Vec::new();
    for certificate in certificates {
        if let Err(error) = add(&mut resolver, certificate, provider) {
            errors.push(error);
        }
    }
    if errors.is_empty() {
        Ok(resolver)
    } else {
        Err(errors)
    }
}

fn add(
    resolver: &mut Resolver,
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<(), CertificateError> {
    let file = &certificate.certificate;
    let chain = chain(file)?;
    let leaf = chain
        .first()
        .cloned()
        .ok_or_else(|| CertificateError::Empty(file.clone()))?;
    let key =
        PrivateKeyDer::from_pem_file(&certificate.key).map_err(|error| CertificateError::Read {
            file: certificate.key.clone(),
            error,
        })?;
    let key =
        CertifiedKey::from_der(chain, key, provider).map_err(|error| CertificateError::Key {
            certificate: file.clone(),
            key: certificate.key.clone(),
            error,
        })?;
    let key = Arc::new(key);

    let names = if certificate.names.is_empty() {
        names(file, &leaf)?
    } else {
        certificate.names.clone()
    };
    if names.is_empty() && !certificate.default {
        return Err(CertificateError::NoNames(file.clone()));
    }
    for name in &names {
        resolver.add(name, key.clone());
    }
    if certificate.default {
        resolver.add_default(key);
    }
    Ok(())
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| CertificateError::Read {
            file: file.to_owned(),
            error,
        })
}

fn names(file: &Path, leaf: &CertificateDer<'_>) -> Result<Vec<String>, CertificateError> {
    let parsed =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| CertificateError::Parse {
            file: file.to_owned(),
            error,
        })?;
    Ok(parsed.valid_dns_names().map(str::to_owned).collect())
}
