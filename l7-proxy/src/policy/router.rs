//! The table of routes.

use super::{HostPattern, PathPattern};
use crate::http::{Host, Path, Protocol};
use crate::observe::reason::Reason;
use crate::policy::prefixes::Prefixes;
use regex::Regex;
use std::collections::HashMap;
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
    /// The protocols its requests may be upgraded to.
    pub upgrades: Vec<Protocol>,
}

/// What a request is routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its place in [`Router::routes`].
    pub number: usize,
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// Where its requests go.
    pub upstream: UpstreamId,
    /// The protocols its requests may be upgraded to.
    pub upgrades: Vec<Protocol>,
}

/// All routes, arranged for look-up: the cost does not grow with the number of hosts or exact paths, and with the logarithm of the number of
/// prefixes.
#[derive(Debug, Default)]
pub struct Router {
    /// In the order of the file.
    routes: Vec<Route>,
    exact: HashMap<Box<str>, Paths>,
    /// By suffix, without the `*.`.
    wildcards: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// The routes of one host condition, as indices into [`Router::routes`].
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, usize>,
    prefixes: Prefixes,
    regexes: Vec<(Regex, usize)>,
    any: Option<usize>,
}

impl Router {
    /// Arranges the rules. Of two that ask the same, the first holds; the configuration refuses such pairs.
    pub fn new(rules: &[Rule]) -> Router {
        let mut router = Router::default();
        for (index, rule) in rules.iter().enumerate() {
            router.routes.push(Route {
                number: index,
                name: Arc::clone(&rule.name),
                upstream: rule.upstream,
                upgrades: rule.upgrades.clone(),
            });
            for host in &rule.hosts {
                let paths = match host {
                    HostPattern::Exact(name) => router.exact.entry(name.clone()).or_default(),
                    HostPattern::Wildcard(suffix) => {
                        router.wildcards.entry(suffix.clone()).or_default()
                    }
                    HostPattern::Any => &mut router.any,
                };
                paths.add(&rule.path, index);
            }
        }
        for paths in router
            .exact
            .values_mut()
            .chain(router.wildcards.values_mut())
            .chain([&mut router.any])
        {
            paths.prefixes.arrange();
        }
        router
    }

    /// All routes in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The most specific route for a request.
    ///
    /// # Errors
    /// [`Reason::NoRoute`], or [`Reason::PathAmbiguous`] when another reading of the path would lead elsewhere.
    pub fn find(&self, host: &Host, path: &Path) -> Result<&Route, Reason> {
        let found = self.lookup(host.name(), path.routing());
        if path
            .readings()
            .any(|reading| self.lookup(host.name(), reading) != found)
        {
            return Err(Reason::PathAmbiguous);
        }
        found
            .and_then(|index| self.routes.get(index))
            .ok_or(Reason::NoRoute)
    }

    fn lookup(&self, host: &str, path: &str) -> Option<usize> {
        if let Some(found) = self.exact.get(host).and_then(|paths| paths.lookup(path)) {
            return Some(found);
        }
        if !self.wildcards.is_empty() {
            // Longest suffix first: cut one label after the other off the front.
            let mut suffix = host;
            while let Some((_, shorter)) = suffix.split_once('.') {
                if let Some(found) = self
                    .wildcards
                    .get(shorter)
                    .and_then(|paths| paths.lookup(path))
                {
                    return Some(found);
                }
                suffix = shorter;
            }
        }
        self.any.lookup(path)
    }
}

impl Paths {
    fn add(&mut self, path: &PathPattern, route: usize) {
        match path {
            PathPattern::Exact(path) => {
                self.exact.entry(path.clone()).or_insert(route);
            }
            PathPattern::Prefix(prefix) => self.prefixes.add(prefix, route),
            PathPattern::Regex(regex) => self.regexes.push((regex.clone(), route)),
            PathPattern::Any => {
                self.any.get_or_insert(route);
            }
        }
    }

    fn lookup(&self, path: &str) -> Option<usize> {
        self.exact
            .get(path)
            .copied()
            .or_else(|| self.prefixes.longest(path))
            .or_else(|| {
                self.regexes
                    .iter()
                    .find(|(regex, _)| regex.is_match(path))
                    .map(|(_, route)| *route)
            })
            .or(self.any)
    }
}
