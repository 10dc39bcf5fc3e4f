//! Path conditions.

use regex::Regex;

/// What a route asks of the path.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(Box<str>),
    /// This path and everything below it: `/api` is `/api` and `/api/x`, not `/apix`. Kept without a trailing slash.
    Prefix(Box<str>),
    /// Paths the expression matches; unanchored unless it says `^` or `$`.
    Regex(Regex),
    /// Every path.
    Any,
}

impl PathPattern {
    /// Whether a routing path ([`crate::normalise::Path::routing`]) fits.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => **exact == *path,
            PathPattern::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathPattern::Regex(regex) => regex.is_match(path),
            PathPattern::Any => true,
        }
    }
}
