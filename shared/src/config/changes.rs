//! What a new configuration changes, key by key as they are written.
//!
//! The text is compared, not what it was parsed into. So a key added to a parser is compared without a word here, and `"60s"` in place of
//! `"1m"` is shown as a change, though it changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::declared::{Declaration, Items, Scope, Written};
use super::files::{Content, Use};
use super::place::Place;
use super::table::join;
use super::value::Value;

type Values = BTreeMap<String, Value>;

/// Most characters that are shown of a value.
const SHOWN: usize = 300;

/// A key whose value, or whose file's content, is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, with the names of tables: `services.web.port`.
    pub key: String,
    /// What became of it: `80 -> 81`, `removed`, `added (port 81)`. Nothing of a secret's value.
    pub what: String,
    /// Whether it takes effect while the process runs; else by a restart.
    pub live: bool,
    /// Where it is written in the later document; what is gone, where it is missing.
    pub place: Place,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// From one document to a later one, in the order of the first; what is new comes after what is not, within its table.
pub fn changes(before: &Written, after: &Written) -> Vec<Change> {
    let mut found = Changes {
        before,
        after,
        list: Vec::new(),
    };
    let root = Path::default();
    found.tables(&root, Some(&before.root), Some(&after.root));
    found.list
}

struct Changes<'w> {
    before: &'w Written,
    after: &'w Written,
    list: Vec<Change>,
}

/// Where a table is: as people read it, and in either document, where its place in a list may be another.
#[derive(Debug, Clone, Default)]
struct Path {
    shown: String,
    before: String,
    after: String,
}

impl Path {
    fn inside(&self, key: &str) -> Path {
        Path {
            shown: shown_under(&self.shown, key),
            before: join(&self.before, key),
            after: join(&self.after, key),
        }
    }

    /// A table of a list, which is at this place and shown as `name`.
    fn item(&self, name: &str, before: usize, after: usize) -> Path {
        Path {
            shown: shown_under(&self.shown, name),
            before: format!("{}[{before}]", self.before),
            after: format!("{}[{after}]", self.after),
        }
    }
}

/// Names are shown as they are: `targets.10.3.0.21:80` reads better than with quotes. Places are no keys: `certificates[0]`.
fn shown_under(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path if key.starts_with('[') => format!("{path}{key}"),
        path => format!("{path}.{key}"),
    }
}

impl<'w> Changes<'w> {
    fn tables(&mut self, at: &Path, before: Option<&'w Values>, after: Option<&'w Values>) {
        let has = |values: Option<&Values>, key: &str| {
            values.is_some_and(|values| values.contains_key(key))
        };
        let added = after.into_iter().flat_map(BTreeMap::keys);
        let added = added.filter(|key| !has(before, key));
        let map = self.scope_of_map(at);
        for key in before.into_iter().flat_map(BTreeMap::keys).chain(added) {
            let value = |values: Option<&'w Values>| values.and_then(|values| values.get(key));
            let (before, after) = (value(before), value(after));
            match map {
                Some(scope) => self.entry(at.inside(key), scope, before, after),
                None => self.values(at, key, before, after),
            }
        }
    }

    /// What is said of the entries of a table whose keys are names.
    fn scope_of_map(&self, at: &Path) -> Option<Scope> {
        let (before, after) = (self.before.map(&at.before), self.after.map(&at.after));
        both(before, after)
    }

    /// A table with a name of the user's.
    fn entry(
        &mut self,
        at: Path,
        scope: Scope,
        before: Option<&'w Value>,
        after: Option<&'w Value>,
    ) {
        match (before, after) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                self.tables(&at, Some(before), Some(after));
            }
            (None, Some(Value::Table(after))) => {
                let what = self.added(&at.after, after);
                self.note(&at.shown, &at.after, scope, what);
            }
            (None, None) => {}
            (_, Some(_)) => self.note(&at.shown, &at.after, scope, "changed".into()),
            (Some(_), None) => self.note(&at.shown, &at.after, scope, "removed".into()),
        }
    }

    fn values(
        &mut self,
        at: &Path,
        key: &str,
        before: Option<&'w Value>,
        after: Option<&'w Value>,
    ) {
        let inner = at.inside(key);
        let said_before = self.before.declaration(&at.before, key);
        let said_after = self.after.declaration(&at.after, key);
        let scope = both(
            said_before.map(|said| said.scope),
            said_after.map(|said| said.scope),
        )
        .unwrap_or_default();
        let said = || said_after.into_iter().chain(said_before);
        if let Some(items) = said().find_map(|said| said.items) {
            self.lists(&inner, scope, items, before, after);
            return;
        }
        let entered =
            self.before.was_entered(&inner.before) || self.after.was_entered(&inner.after);
        match (before, after) {
            (Some(Value::Table(before)), Some(Value::Table(after))) if entered => {
                self.tables(&inner, Some(before), Some(after));
            }
            // A section that is new or gone, key by key.
            (Some(Value::Table(before)), None) if entered => {
                self.tables(&inner, Some(before), None);
            }
            (None, Some(Value::Table(after))) if entered => self.tables(&inner, None, Some(after)),
            _ => {
                let content = |said: Option<&'w Declaration>| said?.content.as_ref();
                let (held, holds) = (content(said_before), content(said_after));
                if before == after && held == holds {
                    return;
                }
                let described = |value: Option<&Value>, content: Option<&Content>| {
                    let value = or_default(value);
                    match content.and_then(|content| content.shown.as_ref()) {
                        Some(shown) => format!("{value} ({shown})"),
                        None => value,
                    }
                };
                let (from, to) = (described(before, held), described(after, holds));
                let rereads = holds.is_some_and(|content| content.used == Use::Reread);
                let scope = Scope {
                    live: scope.live || (before == after && rereads),
                    ..scope
                };
                let what = match scope.secret {
                    true => "changed".into(),
                    false if from == to => format!("the content of {to} has changed"),
                    false => format!("{from} -> {to}"),
                };
                self.note(&inner.shown, &inner.after, scope, what);
            }
        }
    }

    fn lists(
        &mut self,
        at: &Path,
        scope: Scope,
        items: Items,
        before: Option<&'w Value>,
        after: Option<&'w Value>,
    ) {
        let (before, after) = (named(items, before), named(items, after));
        let places = |list: &[(String, &Values)]| -> HashMap<String, usize> {
            let names = list.iter().map(|(name, _)| name.clone());
            names.zip(0..).collect()
        };
        let (known, new) = (places(&before), places(&after));
        for (place, (name, table)) in before.iter().enumerate() {
            match new.get(name).and_then(|at| Some((*at, after.get(*at)?.1))) {
                Some((found, after)) => {
                    let called = self.after.called(&format!("{}[{found}]", at.after));
                    let name = with(name, called);
                    self.tables(&at.item(&name, place, found), Some(table), Some(after));
                }
                None => {
                    let called = self.before.called(&format!("{}[{place}]", at.before));
                    let shown = shown_under(&at.shown, &with(name, called));
                    self.note(&shown, &at.after, scope, "removed".into());
                }
            }
        }
        for (place, (name, table)) in after.iter().enumerate() {
            if !known.contains_key(name) {
                let path = format!("{}[{place}]", at.after);
                let what = self.added(&path, table);
                let name = with(name, self.after.called(&path));
                self.note(&shown_under(&at.shown, &name), &path, scope, what);
            }
        }
        if let Items::InOrderBy(_) = items {
            let staying = |list: &[(String, &Values)], other: &HashMap<String, usize>| {
                let names = list.iter().map(|(name, _)| name.clone());
                let names = names.filter(|name| other.contains_key(name));
                names.collect::<Vec<_>>()
            };
            let (was, is) = (staying(&before, &new), staying(&after, &known));
            if was != is {
                let what = format!("order {} -> {}", was.join(", "), is.join(", "));
                self.note(&at.shown, &at.after, scope, cut(what));
            }
        }
    }

    /// What to say of a table that is new: its keys with plain values, in short.
    fn added(&self, path: &str, table: &Values) -> String {
        let plain = table
            .iter()
            .filter(|(_, value)| !matches!(value, Value::Array(_) | Value::Table(_)));
        let keys: Vec<String> = plain
            .map(|(key, value)| {
                let said = self.after.declaration(path, key);
                match said.is_some_and(|said| said.scope.secret) {
                    true => format!("{key} (secret)"),
                    false => format!("{key} {value}"),
                }
            })
            .collect();
        cut(format!("added ({})", keys.join(", ")))
    }

    fn note(&mut self, shown: &str, path: &str, scope: Scope, what: String) {
        let key = cut(shown.to_owned());
        self.list.push(Change {
            key: key.clone(),
            what,
            live: scope.live,
            place: Place {
                key,
                ..self.after.places.of(path)
            },
        });
    }
}

/// What holds for a key of both documents: it changes live if both say so, and is secret if either does.
fn both(before: Option<Scope>, after: Option<Scope>) -> Option<Scope> {
    match (before, after) {
        (Some(before), Some(after)) => Some(Scope {
            live: before.live && after.live,
            secret: before.secret || after.secret,
        }),
        (scope, other) => scope.or(other),
    }
}

/// The tables of a list with their names. Of two with one name, which is a mistake, the second goes by its place.
fn named(items: Items, list: Option<&Value>) -> Vec<(String, &Values)> {
    let Some(Value::Array(list)) = list else {
        return Vec::new();
    };
    let key = match items {
        Items::ByPlace => None,
        Items::By(key) | Items::InOrderBy(key) => Some(key),
    };
    let mut named: Vec<(String, &Values)> = Vec::with_capacity(list.len());
    let mut seen = HashSet::new();
    for (place, item) in list.iter().enumerate() {
        let Value::Table(table) = item else { continue };
        let name = key.and_then(|key| table.get(key)).and_then(Value::as_str);
        let name = name.filter(|name| seen.insert(*name));
        let name = name.map_or_else(|| format!("[{place}]"), str::to_owned);
        named.push((name, table));
    }
    named
}

/// A place in a list with what people call the table there: `[2: www.example.com]`.
fn with(name: &str, called: Option<&str>) -> String {
    match (name.strip_suffix(']'), called) {
        (Some(place), Some(called)) if name.starts_with('[') => format!("{place}: {called}]"),
        _ => name.to_owned(),
    }
}

fn or_default(value: Option<&Value>) -> String {
    value.map_or_else(|| "(default)".into(), |value| cut(show(value)))
}

fn show(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
