//! Host conditions: `example.com`, `*.example.com`, `*`.

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
    /// Whether a canonical host name ([`crate::normalise::Host::name`]) fits.
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
