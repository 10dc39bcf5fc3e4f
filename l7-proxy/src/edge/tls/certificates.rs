//! Certificates and keys from their files to what clients are served with, with every mistake and every doubt at its place in the
//! configuration.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use shared::certificate::Chain;
use shared::config::{Mistake, Mistakes, open_regular};

use super::Resolver;
use super::key;
use crate::config::Certificate;

/// A PEM file may be this large, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A certificate that clients are served with.
#[derive(Clone, Debug)]
pub struct Served {
    /// What the configuration says of it.
    pub settings: Certificate,
    /// What the chain says of itself.
    pub chain: Chain,
    /// The chain with its key.
    pub(super) key: Arc<CertifiedKey>,
}

impl Served {
    /// The server names it is chosen for.
    pub fn names(&self) -> &[String] {
        match self.settings.names.as_slice() {
            [] => &self.chain.leaf().names,
            names => names,
        }
    }

    /// The file of the chain, as configured: what logs and metrics call it.
    pub fn file(&self) -> String {
        self.settings.certificate.display().to_string()
    }

    /// What clients may object to now, at its place in the configuration.
    pub fn doubts(&self, now: SystemTime) -> Vec<Mistake> {
        let places = &self.settings.places;
        let doubts = self.chain.doubts(&self.settings.names, now).into_iter();
        doubts
            .map(|doubt| {
                let message = format!("{}: {}", self.file(), doubt.message);
                places.certificate.mistake(message, doubt.hint)
            })
            .collect()
    }
}

/// All certificates of a configuration.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) resolver: Resolver,
    pub(super) served: Vec<Served>,
}

/// Reads all of them.
///
/// # Errors
/// Everything that makes one unusable.
pub(super) fn load(
    certificates: &[Certificate],
    provider: &CryptoProvider,
) -> Result<Loaded, Mistakes> {
    let mut loaded = Loaded::default();
    let mut mistakes = Vec::new();
    for settings in certificates {
        match open(settings, provider) {
            Ok(served) => loaded.add(served),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() {
        Ok(loaded)
    } else {
        Err(Mistakes(mistakes))
    }
}

impl Loaded {
    fn add(&mut self, served: Served) {
        for name in served.names() {
            self.resolver.add(name, served.key.clone());
        }
        if served.settings.default {
            self.resolver.add_default(served.key.clone());
        }
        self.served.push(served);
    }
}

fn open(settings: &Certificate, provider: &CryptoProvider) -> Result<Served, Vec<Mistake>> {
    let places = &settings.places;
    let files = (
        settings.certificate.display().to_string(),
        settings.key.display().to_string(),
    );
    let unreadable = |error: &io::Error| format!("can't be read: {error}");
    let chain = read(&settings.certificate).map_err(|error| {
        let message = format!("{}: {}", files.0, unreadable(&error));
        places.certificate.mistake(message, "")
    });
    let key = read(&settings.key).map_err(|error| {
        let message = format!("{}: {}", files.1, unreadable(&error));
        places.key.mistake(message, "")
    });
    let chain = chain.and_then(|text| {
        Chain::from_pem(&text).map_err(|error| {
            let message = format!("{}: {error}", files.0);
            places.certificate.mistake(message, error.hint())
        })
    });
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let key = key::join(&chain, &key, provider).map_err(|error| {
        let message = format!("{}: {error}", files.1);
        vec![places.key.mistake(message, error.hint(&files.1))]
    })?;
    let served = Served {
        settings: settings.clone(),
        chain,
        key: Arc::new(key),
    };
    if served.names().is_empty() && !settings.default {
        return Err(vec![places.names.mistake(
            format!(
                "{}: the certificate names no server (no DNS names in subjectAltName)",
                files.0
            ),
            "write `names = [...]` or `default = true`",
        )]);
    }
    Ok(served)
}

/// Reads a regular file of at most [`MAX_FILE`] bytes.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "larger than {} KiB",
            MAX_FILE >> 10
        )));
    }
    Ok(bytes)
}
