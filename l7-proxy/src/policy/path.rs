//! Path conditions.

use crate::error::Error;
use crate::http::Path;
use http::uri::PathAndQuery;
use regex::Regex;

/// What a route asks of the path.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(Box<str>),
    /// This path and everything below it: `/api` is `/api` and `/api/x`, not `/apix`. Kept without a trailing slash, never empty.
    Prefix(Box<str>),
    /// Paths the expression matches; unanchored unless it says `^` or `$`.
    Regex(Regex),
    /// Every path.
    Any,
}

impl PathPattern {
    /// Exactly this path.
    ///
    /// # Errors
    /// [`Error::PathPattern`], [`Error::PathNotNormal`].
    pub fn exact(path: &str) -> Result<PathPattern, Error> {
        normal(path).map(|path| PathPattern::Exact(path.into()))
    }

    /// This path and everything below it. A trailing slash says nothing; `/` is [`PathPattern::Any`].
    ///
    /// # Errors
    /// [`Error::PathPattern`], [`Error::PathNotNormal`].
    pub fn prefix(path: &str) -> Result<PathPattern, Error> {
        let path = normal(path)?;
        Ok(match path.strip_suffix('/').unwrap_or(path) {
            "" => PathPattern::Any,
            path => PathPattern::Prefix(path.into()),
        })
    }

    /// Paths the expression matches.
    ///
    /// # Errors
    /// [`Error::Regex`].
    pub fn regex(expression: &str) -> Result<PathPattern, Error> {
        Regex::new(expression)
            .map(PathPattern::Regex)
            .map_err(|error| {
                // The parser draws the place over several lines and ends with the reason.
                let drawn = error.to_string();
                let last = drawn.lines().last().unwrap_or_default();
                let reason = last.strip_prefix("error: ").unwrap_or(last).to_owned();
                Error::Regex {
                    expression: expression.to_owned(),
                    reason,
                }
            })
    }

    /// Whether a routing path ([`crate::http::Path::routing`]) fits.
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

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathPattern::Exact(path) => write!(f, "exact {path:?}"),
            PathPattern::Prefix(path) => write!(f, "prefix {path:?}"),
            PathPattern::Regex(regex) => write!(f, "regex {:?}", regex.as_str()),
            PathPattern::Any => f.write_str("any"),
        }
    }
}

/// The path itself, if requests can have it after normalisation.
fn normal(path: &str) -> Result<&str, Error> {
    let wrong = || Error::PathPattern(path.to_owned());
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(wrong());
    }
    let sent = PathAndQuery::try_from(path).map_err(|_| wrong())?;
    let normalised = Path::new(&sent).map_err(|_| wrong())?;
    if normalised.routing() != path {
        return Err(Error::PathNotNormal {
            path: path.to_owned(),
            normal: normalised.routing().to_owned(),
        });
    }
    Ok(path)
}
