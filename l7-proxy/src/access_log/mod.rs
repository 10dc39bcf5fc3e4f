//! One line per request, written by a thread of its own. A worker formats into its own buffer and hands whole buffers over; when the
//! writer cannot keep up they are dropped and counted, and no request ever waits.

mod entry;
mod escape;
mod file;
mod format;
mod timestamp;
mod writer;

pub use entry::Entry;
pub use format::Format;
pub use writer::{AccessLog, Buffer, Writer};

use std::path::{Path, PathBuf};

/// `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where lines go.
    pub destination: Destination,
    /// How they look.
    pub format: Format,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The process's standard error.
    Stderr,
    /// A file, appended to and reopened when it was moved away.
    File(PathBuf),
}

impl Destination {
    fn path(&self) -> &Path {
        match self {
            Destination::Stderr => Path::new("stderr"),
            Destination::File(path) => path,
        }
    }
}
