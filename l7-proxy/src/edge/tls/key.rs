//! Private keys from PEM, and whether one is a certificate's.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::{CertifiedKey, SigningKey};
use shared::certificate::Chain;

/// Why a key can't be used. The text goes after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadKey {
    #[error("no private key in it")]
    Empty,
    #[error("a certificate and no private key in it")]
    CertificateOnly,
    #[error("is DER, not PEM")]
    Der,
    #[error("the key is encrypted")]
    Encrypted,
    #[error("broken PEM")]
    Pem,
    #[error("a private key of a kind that is not supported, or broken")]
    Unsupported,
    #[error("is not the key of the certificate ({0})")]
    Another(String),
    #[error("is the key of certificate {number} of the chain ({called}), not of the first")]
    OfAnIssuer { number: usize, called: String },
}

impl BadKey {
    /// What to do about it; `file` is the key's.
    pub(super) fn hint(&self, file: &str) -> String {
        match self {
            BadKey::Empty => "expected PEM with a PKCS#8, PKCS#1 or SEC1 private key".to_owned(),
            BadKey::CertificateOnly => "are `certificate` and `key` swapped?".to_owned(),
            BadKey::Der => {
                format!("convert it: openssl pkey -inform der -in {file} -out {file}.pem")
            }
            BadKey::Encrypted => {
                format!(
                    "decrypt it with openssl pkey -in {file} -out {file}.plain, readable by the proxy alone"
                )
            }
            BadKey::Pem => "copy it again from its source".to_owned(),
            BadKey::Unsupported => {
                "expected RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519"
                    .to_owned()
            }
            BadKey::Another(_) => "name the key the certificate was issued for".to_owned(),
            BadKey::OfAnIssuer { .. } => "put the key's certificate first in the chain".to_owned(),
        }
    }
}

/// A chain with its key, from the contents of the key's file.
pub(super) fn join(
    chain: &Chain,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, BadKey> {
    let key = signer(key, provider)?;
    // Without a public key to compare (no provider of ours lacks it), rustls takes it as well.
    if let Some(public) = key.public_key() {
        match chain.position_of_key(&public) {
            Some(0) => {}
            Some(index) => {
                let issuer = chain.descriptions().get(index);
                return Err(BadKey::OfAnIssuer {
                    number: index + 1,
                    called: issuer.map_or(String::new(), |issuer| issuer.called().to_owned()),
                });
            }
            None => return Err(BadKey::Another(chain.leaf().called().to_owned())),
        }
    }
    Ok(CertifiedKey::new(chain.der().to_vec(), key))
}

fn signer(text: &[u8], provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, BadKey> {
    if is_encrypted(text) {
        return Err(BadKey::Encrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => what_else(text),
        _ => BadKey::Pem,
    })?;
    provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| BadKey::Unsupported)
}

/// PKCS#8 says it in the label, the older formats in a header (RFC 1421 section 4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || (line.starts_with(b"Proc-Type:") && line.trim_ascii_end().ends_with(b"ENCRYPTED"))
    })
}

fn what_else(text: &[u8]) -> BadKey {
    match std::str::from_utf8(text) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => BadKey::CertificateOnly,
        Ok(_) => BadKey::Empty,
        // A DER SEQUENCE.
        Err(_) if text.first() == Some(&0x30) => BadKey::Der,
        Err(_) => BadKey::Empty,
    }
}
