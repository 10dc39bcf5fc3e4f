//! The path of a request in the one form that is routed and forwarded.

use crate::reason::Reason;
use http::Method;
use http::request::Parts;
use http::uri::PathAndQuery;

/// A path and query that were checked and normalised.
#[derive(Clone, Debug)]
pub struct Path {
    forwarded: PathAndQuery,
    /// What the router reads, where it is not simply the path of `forwarded`.
    routing: Option<Box<str>>,
    /// What a backend that decodes escaped slashes would read, where there are any.
    decoded: Option<Box<str>>,
}

impl Path {
    /// The path of a request head.
    ///
    /// # Errors
    /// [`Reason::TargetInvalid`].
    pub fn of(parts: &Parts) -> Result<Path, Reason> {
        let sent = parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        if sent.as_str() == "*" && parts.method != Method::OPTIONS {
            return Err(Reason::TargetInvalid);
        }
        Ok(Path {
            forwarded: sent,
            routing: None,
            decoded: None,
        })
    }

    /// The path and query for the backend.
    pub fn forwarded(&self) -> &PathAndQuery {
        &self.forwarded
    }

    /// The path the router reads.
    pub fn routing(&self) -> &str {
        self.routing
            .as_deref()
            .unwrap_or_else(|| self.forwarded.path())
    }

    /// What a backend that decodes escaped slashes and backslashes would read; `None` when the path has none.
    pub fn decoded(&self) -> Option<&str> {
        self.decoded.as_deref()
    }
}
