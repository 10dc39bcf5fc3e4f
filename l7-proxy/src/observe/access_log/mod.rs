//! One line per request, written by a thread of its own. A worker formats into its own buffer and hands whole buffers over; when the
//! writer cannot keep up they are dropped and counted, and no request ever waits.

mod entry;
mod escape;
mod file;
mod format;
mod group;
mod timestamp;
mod writer;

pub use entry::Entry;
pub use file::Access;
pub use format::Format;
pub use group::Group;
pub use writer::{AccessLog, Buffer, Writer};

use std::path::{Path, PathBuf};

use shared::config::Mistake;

/// `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where lines go.
    pub destination: Destination,
    /// How they look.
    pub format: Format,
    /// Who may read the file, if it is one.
    pub access: Access,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The process's standard error.
    Stderr,
    /// A file, appended to and reopened when it was moved away.
    File(PathBuf),
}

impl Settings {
    /// What is to be warned of.
    pub fn doubt(&self) -> Option<Mistake> {
        match self.destination {
            Destination::File(_) => self.access.group.as_ref()?.doubt(),
            Destination::Stderr => None,
        }
    }
}

impl Destination {
    fn path(&self) -> &Path {
        match self {
            Destination::Stderr => Path::new("stderr"),
            Destination::File(path) => path,
        }
    }
}
