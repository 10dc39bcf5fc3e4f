//! What can go wrong in the pure half, before a request is ever served.

use std::path::PathBuf;

/// A setting that cannot be used, or a file that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host condition that is neither a name, a wildcard nor `*`.
    #[error(
        "{0:?} is not a host: write \"example.com\", \"*.example.com\" or \"*\", without scheme, port or path"
    )]
    HostPattern(String),
    /// A path condition that does not begin at the root, or holds what no path can.
    #[error("{0:?} is not a path: it begins with / and has no ?, #, space or broken % escape")]
    PathPattern(String),
    /// A path condition that requests never have, because they are normalised before they are routed.
    #[error("no request has the path {path:?} after normalisation; write {normal:?}")]
    PathNotNormal {
        /// As written.
        path: String,
        /// As requests have it.
        normal: String,
    },
    /// A regular expression that does not compile.
    #[error("{expression:?} is not a regular expression: {reason}")]
    Regex {
        /// As written.
        expression: String,
        /// What the parser says, in one line.
        reason: String,
    },
    /// The access log cannot be opened or its thread not started.
    #[error("cannot open the access log {}: {source}", path.display())]
    AccessLog {
        /// The file, or `stderr`.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
