//! Files that a configuration names and that belong to it: certificates, keys, passwords. What was in them is remembered by its digest.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::open::open_regular;

/// Such a file may be this large, in bytes.
pub const MAX_NAMED_FILE: usize = 1 << 20;

/// A file that belongs to the configuration: two are the same if their content is, too.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedFile {
    path: PathBuf,
    /// SHA-256 of what was in it when it was read; none if it couldn't be.
    digest: Option<[u8; 32]>,
}

impl NamedFile {
    pub(super) fn new(path: PathBuf, digest: Option<[u8; 32]>) -> Self {
        Self { path, digest }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl From<PathBuf> for NamedFile {
    /// A file that nobody has looked into.
    fn from(path: PathBuf) -> Self {
        Self::new(path, None)
    }
}

/// Without the digest, from which a short password could be guessed.
impl fmt::Debug for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// What a file is to the configuration that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A part of it: one that can't be used is a mistake.
    Part,
    /// A part of it that the tier opens itself and judges.
    Opened,
    /// Read whenever it is needed, as it is then: other content needs no restart whatever the key does, and one that can't be read is warned of.
    Reread,
}

/// What was in a file when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) file: NamedFile,
    pub(super) used: Use,
    /// What may be said of it, such as the subject and expiry of a certificate.
    pub(super) shown: Option<String>,
}

/// Which files may be read for a document.
#[derive(Debug, Clone, Default)]
pub(crate) enum Reach {
    /// None: the document is text alone.
    #[default]
    Nothing,
    /// All.
    Everything,
    /// Those in one of these directories, symbolic links resolved.
    Within(Vec<PathBuf>),
}

impl Reach {
    pub(super) fn covers(&self, path: &Path) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Within(directories) => {
                directory(path).is_some_and(|directory| directories.contains(&directory))
            }
        }
    }
}

/// The directory a file is in, symbolic links resolved; none if there is none.
pub(crate) fn directory(path: &Path) -> Option<PathBuf> {
    let file = path.canonicalize().ok()?;
    file.parent().map(Path::to_owned)
}

/// Reads a regular file of at most [`MAX_NAMED_FILE`] bytes.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(MAX_NAMED_FILE as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > MAX_NAMED_FILE {
        let limit = format!("larger than {} KiB", MAX_NAMED_FILE >> 10);
        return Err(io::Error::other(limit));
    }
    Ok(bytes)
}

pub(super) fn digest_of(bytes: &[u8]) -> Option<[u8; 32]> {
    digest(&SHA256, bytes).as_ref().try_into().ok()
}
