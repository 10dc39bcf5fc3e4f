//! A lab: one instance of the topology, with a prefix for its namespaces and a directory for its files.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Where a lab lives. Two labs with different prefixes can be up at the same time.
#[derive(Clone, Debug)]
pub struct Lab {
    prefix: String,
    directory: PathBuf,
}

impl Lab {
    /// A lab whose namespaces begin with `prefix` and whose files live under `directory`.
    pub fn new(prefix: &str, directory: &Path) -> Result<Lab> {
        for sub in ["logs", "config", "tls"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let directory = directory
            .canonicalize()
            .with_context(|| format!("resolving {}", directory.display()))?;
        Ok(Lab {
            prefix: prefix.to_owned(),
            directory,
        })
    }

    /// The namespace of the node `node`.
    pub fn namespace(&self, node: &str) -> Namespace {
        Namespace::named(format!("{}-{node}", self.prefix))
    }

    /// What every namespace of this lab begins with, the dash included.
    pub fn namespace_prefix(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The log file of the process `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{name}.log"))
    }

    /// The configuration file `file`.
    pub fn config(&self, file: &str) -> PathBuf {
        self.directory.join("config").join(file)
    }

    /// The directory of certificates and keys.
    pub fn certs(&self) -> PathBuf {
        self.directory.join("tls")
    }

    /// Takes the lab's lock, so that two commands never build and tear down the same namespaces at once.
    /// The lock is released when the returned file is dropped, also by a crash.
    pub fn lock(&self) -> Result<fs::File> {
        let path = self.directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .with_context(|| {
                format!("{} is held: another run is using this lab", path.display())
            })?;
        Ok(file)
    }
}
