//! Why a request takes the route it takes, and which came close.

use serde::Serialize;

use super::{HostPattern, PathPattern, Rule};

/// Routes that are told of beside the one taken.
const MOST_NEAR: usize = 8;

/// What of a route fits a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The most specific of its host conditions that fits.
    pub host: String,
    /// Its path condition.
    pub path: String,
}

/// A route that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Near {
    /// Its name.
    pub route: String,
    /// Why not.
    pub why: String,
}

/// How specific a condition is; the greater wins.
type Rank = (u8, usize);

/// What of `rule` fits; none if it doesn't.
pub fn matching(rule: &Rule, host: &str, path: &str) -> Option<Match> {
    let pattern = best_host(rule, host)?;
    rule.path.matches(path).then(|| Match {
        host: pattern.to_string(),
        path: rule.path.to_string(),
    })
}

/// The routes that came closest to a request for the canonical `host` and routing `path` that takes the route number `taken`, or none: those for the
/// same host first, then those whose path alone fits.
pub fn closest(rules: &[Rule], host: &str, path: &str, taken: Option<usize>) -> Vec<Near> {
    let winner = taken.and_then(|number| rules.get(number));
    let mut near: Vec<((bool, bool, Rank, Rank), Near)> = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if taken == Some(number) {
            continue;
        }
        let pattern = best_host(rule, host);
        let path_fits = rule.path.matches(path);
        if pattern.is_none() && !path_fits {
            continue;
        }
        let rank = (
            pattern.is_some(),
            path_fits,
            pattern.map_or((0, 0), host_rank),
            path_rank(&rule.path),
        );
        let why = match pattern {
            None => format!("no host of it is {host}"),
            Some(_) if !path_fits => format!("{path} is not {}", rule.path),
            Some(pattern) => beaten(rule, pattern, winner, host),
        };
        near.push((
            rank,
            Near {
                route: rule.name.to_string(),
                why,
            },
        ));
    }
    near.sort_by(|(one, _), (other, _)| other.cmp(one));
    near.truncate(MOST_NEAR);
    near.into_iter().map(|(_, near)| near).collect()
}

/// Why a route that fits was not taken.
fn beaten(rule: &Rule, pattern: &HostPattern, winner: Option<&Rule>, host: &str) -> String {
    let Some(winner) = winner else {
        // With a route that fits, the request was refused for its path having two readings.
        return "its path has two readings that take different routes".to_owned();
    };
    match best_host(winner, host) {
        Some(better) if host_rank(better) > host_rank(pattern) => {
            format!("host {pattern} is less specific than {better}")
        }
        _ if path_rank(&winner.path) > path_rank(&rule.path) => {
            format!("path {} is less specific than {}", rule.path, winner.path)
        }
        _ => "it stands later in the file".to_owned(),
    }
}

fn best_host<'r>(rule: &'r Rule, host: &str) -> Option<&'r HostPattern> {
    let fitting = rule.hosts.iter().filter(|pattern| pattern.matches(host));
    fitting.max_by_key(|pattern| host_rank(pattern))
}

fn host_rank(pattern: &HostPattern) -> Rank {
    match pattern {
        HostPattern::Exact(_) => (2, 0),
        HostPattern::Wildcard(suffix) => (1, suffix.len()),
        HostPattern::Any => (0, 0),
    }
}

fn path_rank(pattern: &PathPattern) -> Rank {
    match pattern {
        PathPattern::Exact(_) => (3, 0),
        PathPattern::Prefix(prefix) => (2, prefix.len()),
        PathPattern::Regex(_) => (1, 0),
        PathPattern::Any => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::UpstreamId;

    fn rule(name: &str, host: &str, path: PathPattern) -> Rule {
        Rule {
            name: name.into(),
            hosts: vec![HostPattern::parse(host).expect("host")],
            path,
            upstream: UpstreamId(0),
            upgrades: Vec::new(),
        }
    }

    #[test]
    fn each_route_says_why_it_was_not_taken_the_closest_first() {
        let prefix = |path| PathPattern::prefix(path).expect("path");
        let rules = [
            rule("other host", "b.test", prefix("/api")),
            rule("any", "*", PathPattern::Any),
            rule("shop", "a.test", PathPattern::Any),
            rule("api", "a.test", prefix("/api")),
            rule("images", "a.test", prefix("/images")),
            rule("nothing", "c.test", prefix("/x")),
        ];
        assert_eq!(
            matching(&rules[3], "a.test", "/api/1"),
            Some(Match {
                host: "a.test".into(),
                path: "prefix \"/api\"".into(),
            })
        );
        let near = closest(&rules, "a.test", "/api/1", Some(3));
        let near: Vec<_> = near
            .iter()
            .map(|near| (near.route.as_str(), near.why.as_str()))
            .collect();
        assert_eq!(
            near,
            [
                ("shop", "path any is less specific than prefix \"/api\""),
                ("any", "host * is less specific than a.test"),
                ("images", "/api/1 is not prefix \"/images\""),
                ("other host", "no host of it is a.test"),
            ]
        );
    }
}
