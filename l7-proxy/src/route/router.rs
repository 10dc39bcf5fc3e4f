//! The table of routes.

use super::{HostPattern, PathPattern};
use crate::normalise::{Host, Path};
use crate::reason::Reason;
use std::sync::Arc;

/// An index into the snapshot's upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);

/// A route as configured.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// At least one.
    pub hosts: Vec<HostPattern>,
    /// The path condition.
    pub path: PathPattern,
    /// Where its requests go.
    pub upstream: UpstreamId,
}

/// What a request is routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Where its requests go.
    pub upstream: UpstreamId,
}

/// All routes, arranged for look-up.
#[derive(Debug, Default)]
pub struct Router {
    rules: Vec<(Rule, Route)>,
}

impl Router {
    /// Arranges the rules.
    pub fn new(rules: &[Rule]) -> Router {
        Router {
            rules: rules
                .iter()
                .map(|rule| {
                    (
                        rule.clone(),
                        Route {
                            name: Arc::clone(&rule.name),
                            upstream: rule.upstream,
                        },
                    )
                })
                .collect(),
        }
    }

    /// The most specific route for a request, or why there is none: [`Reason::NoRoute`] or [`Reason::PathAmbiguous`].
    pub fn find(&self, host: &Host, path: &Path) -> Result<&Route, Reason> {
        let route = self.lookup(host.name(), path.routing());
        if let Some(decoded) = path.decoded()
            && self.lookup(host.name(), decoded) != route
        {
            return Err(Reason::PathAmbiguous);
        }
        route.ok_or(Reason::NoRoute)
    }

    fn lookup(&self, host: &str, path: &str) -> Option<&Route> {
        let rank = |rule: &Rule| {
            let host = rule
                .hosts
                .iter()
                .filter(|pattern| pattern.matches(host))
                .map(|pattern| match pattern {
                    HostPattern::Exact(_) => usize::MAX,
                    HostPattern::Wildcard(suffix) => suffix.len(),
                    HostPattern::Any => 0,
                });
            let path = match &rule.path {
                PathPattern::Exact(_) => (3, 0),
                PathPattern::Prefix(prefix) => (2, prefix.len()),
                PathPattern::Regex(_) => (1, 0),
                PathPattern::Any => (0, 0),
            };
            (host.max().unwrap_or(0), path)
        };
        let fits = |rule: &Rule| {
            rule.path.matches(path) && rule.hosts.iter().any(|pattern| pattern.matches(host))
        };
        // `rev` because `max_by_key` takes the last of equals and the first in the file should win.
        self.rules
            .iter()
            .rev()
            .filter(|(rule, _)| fits(rule))
            .max_by_key(|(rule, _)| rank(rule))
            .map(|(_, route)| route)
    }
}
