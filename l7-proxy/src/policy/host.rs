//! Host conditions: `example.com`, `*.example.com`, `*`.

use crate::error::Error;
use crate::http::canonical_name;

/// What a route asks of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name, in lower case without a trailing dot.
    Exact(Box<str>),
    /// Any name of one or more labels before this suffix, which is kept in lower case without the `*.`.
    Wildcard(Box<str>),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com` or `*`.
    ///
    /// # Errors
    /// [`Error::HostPattern`].
    pub fn parse(text: &str) -> Result<HostPattern, Error> {
        let wrong = || Error::HostPattern(text.to_owned());
        let name = |text: &str| {
            canonical_name(text)
                .map(|name| name.into_owned().into_boxed_str())
                .ok_or_else(wrong)
        };
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(HostPattern::Any),
            // An address has no labels to stand a star for.
            Some(suffix) if suffix.starts_with('[') => Err(wrong()),
            Some(suffix) => name(suffix).map(HostPattern::Wildcard),
            None => name(text).map(HostPattern::Exact),
        }
    }

    /// Whether a canonical host name ([`crate::http::Host::name`]) fits.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => **name == *host,
            HostPattern::Wildcard(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
            HostPattern::Any => true,
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}
