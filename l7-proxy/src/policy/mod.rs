//! Which upstream a request goes to: pure data, no I/O.
//!
//! Precedence, the most specific wins:
//! 1. **host**: exact name, then the wildcard with the longest suffix, then any host;
//! 2. **path** within the host: exact, then the longest prefix, then regular expressions in the order of the file, then no path condition
//!    (the prefix `/` says as little, and counts as none).
//!
//! A host with no matching path gives way to the next less specific host.

mod explain;
mod host;
mod path;
mod prefixes;
mod router;
#[cfg(test)]
mod tests;

pub use explain::{Match, Near, closest, matching};
pub use host::HostPattern;
pub use path::PathPattern;
pub use router::{Route, Router, Rule, UpstreamId};
