//! `[[routes]]`.

use crate::error::Error;
use crate::http::Protocol;
use crate::policy::{HostPattern, PathPattern, Rule, UpstreamId};
use shared::config::{FromValue, Table, Value};
use std::collections::HashMap;

/// Reads the routes; `upstreams` are the names they may lead to, in the order of their ids.
pub(super) fn parse_all(root: &mut Table<'_>, upstreams: &[String]) -> Vec<Rule> {
    let tables = root.ordered_tables_by("routes", "name");
    if tables.is_empty() {
        root.mistake(
            "routes",
            "expected at least one route",
            "write [[routes]] with `upstream`",
        );
    }
    let mut rules = Vec::new();
    let mut places = Vec::new();
    // Where each condition was first asked for: a second route with it would never be taken.
    let mut asked: HashMap<String, String> = HashMap::new();
    for (index, mut table) in tables.into_iter().enumerate() {
        let name = parse_name(&mut table, index);
        let hosts = parse_hosts(&mut table);
        let path = parse_path(&mut table);
        let upstream = parse_upstream(&mut table, upstreams);
        let upgrades = table.or("upgrades", vec![Protocol::websocket()]);
        if let (Some(hosts), Some(path)) = (&hosts, &path) {
            for host in hosts {
                let condition = format!("host {host}, path {path}");
                if let Some(first) = asked.get(&condition) {
                    let message = format!("{condition} is already routed by {first}");
                    table.mistake(
                        "",
                        message,
                        "the first would always win: remove one, or make one more specific",
                    );
                } else {
                    asked.insert(condition, table.path().to_owned());
                }
            }
        }
        places.push((format!("{}.name", table.path()), name.clone()));
        if let (Some(hosts), Some(path), Some(upstream)) = (hosts, path, upstream) {
            rules.push(Rule {
                name: name.into(),
                hosts,
                path,
                upstream,
                upgrades,
            });
        }
    }
    root.unique(
        "route",
        places
            .iter()
            .map(|(path, name)| (path.clone(), name.as_str())),
    );
    rules
}

/// The route's name, or `route-3` for the third one.
fn parse_name(table: &mut Table<'_>, index: usize) -> String {
    match table.optional::<String>("name") {
        Some(name) => {
            table.allows_name("name", &name, "a route");
            name
        }
        None => format!("route-{}", index + 1),
    }
}

fn parse_hosts(table: &mut Table<'_>) -> Option<Vec<HostPattern>> {
    if !table.has("hosts") {
        return Some(vec![HostPattern::Any]);
    }
    let hosts = table.optional::<Vec<HostPattern>>("hosts")?;
    if hosts.is_empty() {
        table.mistake(
            "hosts",
            "an empty list matches no host",
            "leave `hosts` out to match every host",
        );
    }
    Some(hosts)
}

/// `path = { exact = "/x" }`, `{ prefix = "/api" }` or `{ regex = "^/v[0-9]+/" }`; without it, every path.
fn parse_path(table: &mut Table<'_>) -> Option<PathPattern> {
    if !table.has("path") {
        return Some(PathPattern::Any);
    }
    let mut path = table.table("path")?;
    let mut patterns = Vec::new();
    let kinds: [(&'static str, Reader); 3] = [
        ("exact", PathPattern::exact),
        ("prefix", PathPattern::prefix),
        ("regex", PathPattern::regex),
    ];
    let mut written = 0;
    for (kind, read) in kinds {
        written += usize::from(path.has(kind));
        match path.optional::<String>(kind).map(|text| read(&text)) {
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(error)) => path.mistake(kind, error.to_string(), ""),
            None => {}
        }
    }
    if written != 1 {
        let hint =
            "write path = { exact = \"/x\" }, { prefix = \"/api\" } or { regex = \"^/v[0-9]+/\" }";
        path.mistake("", "expected one of `exact`, `prefix` and `regex`", hint);
    }
    patterns.pop()
}

type Reader = fn(&str) -> Result<PathPattern, Error>;

fn parse_upstream(table: &mut Table<'_>, upstreams: &[String]) -> Option<UpstreamId> {
    // With no upstream at all that is the mistake, and it is said once.
    if upstreams.is_empty() || !table.has("upstream") {
        return table.required::<String>("upstream").and(None);
    }
    let choices: Vec<(&str, UpstreamId)> = upstreams
        .iter()
        .enumerate()
        .map(|(index, name)| (name.as_str(), UpstreamId(index)))
        .collect();
    table.one_of("upstream", &choices)
}

impl FromValue for Protocol {
    const EXPECTED: &'static str = "a protocol of the Upgrade field such as \"websocket\"";

    fn from_value(value: &Value) -> Result<Protocol, String> {
        let name = value.as_str().ok_or_else(String::new)?;
        Protocol::parse(name).map_err(str::to_owned)
    }
}

impl FromValue for HostPattern {
    const EXPECTED: &'static str = "a host such as \"www.example.com\", \"*.example.com\" or \"*\"";

    fn from_value(value: &Value) -> Result<HostPattern, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        if matches!(text, "_" | "default" | "default_server") {
            // nginx's names for no name. As names they would match nothing.
            return Err("for every host write \"*\", or leave `hosts` out".to_owned());
        }
        HostPattern::parse(text).map_err(|_| {
            let hint = match text.strip_prefix('.') {
                _ if text.starts_with('~') => "there are no regular expressions for hosts",
                Some(name) if HostPattern::parse(name).is_ok() => {
                    return format!("write {name:?} and \"*.{name}\"");
                }
                _ if text.contains(['/', ':']) => "only the name: no scheme, port or path",
                _ if text.ends_with(".*") => "a star stands for the first labels only",
                _ => "",
            };
            hint.to_owned()
        })
    }
}
