//! What the reference pages say of a key, held to what its parser says: a row each, `| key | type | default | meaning |`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Document;
use super::table::Table;
use super::value::{FromValue, Value};

/// What a parser says of one key when it asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The word for its type; empty where there is none.
    pub(super) word: &'static str,
    /// Least and largest value.
    pub(super) range: Option<(String, String)>,
    /// The texts it may be.
    pub(super) choices: Vec<String>,
    pub(super) required: bool,
    /// The default as it is written, if it has one.
    pub(super) default: Option<String>,
}

impl Facts {
    /// Whether both texts are the same value: `1m` is `60s`.
    fn is(&self, value: &str, other: &str) -> bool {
        let duration = |text: &str| Duration::from_value(&Value::String(text.to_owned()));
        let same_time = match (duration(value), duration(other)) {
            (Ok(value), Ok(other)) => value == other,
            _ => false,
        };
        value == other || (self.word == Duration::WORD && same_time)
    }

    /// Takes in what is said when the key is asked for once more.
    pub(super) fn join(&mut self, more: Facts) {
        if self.word.is_empty() {
            self.word = more.word;
        }
        self.range = self.range.take().or(more.range);
        if self.choices.is_empty() {
            self.choices = more.choices;
        }
        self.required |= more.required;
        self.default = self.default.take().or(more.default);
    }
}

/// A key with everything the reference has to say of it; from [`Document::rows`](super::Document::rows).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As on the pages: `services[].vip`, `upstreams.*.timeout`.
    pub key: String,
    /// Whether a new value takes effect while the process runs.
    pub live: bool,
    pub(super) facts: Facts,
}

/// How the meaning of a key begins that takes effect by a restart only.
const RESTART: &str = "*Restart.* ";

/// What is wrong with the rows of `page` for the keys in `rows`, by their names on it: a key without a row, or a type, range, default or way
/// to change that the parser has another of. A line each, with what the row should say.
///
/// Words stand for what is worked out: a default that begins with one, such as "the number of workers", is not held to a value.
pub fn mistakes(page: &str, rows: &[Row]) -> Vec<String> {
    let mut cells: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in page.lines() {
        let Some((key, rest)) = line
            .strip_prefix("| `")
            .and_then(|line| line.split_once("` |"))
        else {
            continue;
        };
        let rest: Vec<&str> = rest.splitn(3, " | ").map(str::trim).collect();
        // Tables of metrics and commands have fewer columns.
        if rest.len() == 3 {
            cells.entry(key).or_insert(rest);
        }
    }
    let mut wrong = Vec::new();
    for row in rows {
        match cells.get(row.key.as_str()).map(Vec::as_slice) {
            Some([type_, default, meaning]) => wrong.extend(row.differs(type_, default, meaning)),
            _ => wrong.push(format!("{}: has no row", row.key)),
        }
    }
    wrong
}

/// What is said of keys as unknown, though they are known, when another key of `text` is spoilt: a parser that goes no further at a mistake buries
/// it under these. A line for each key that was spoilt.
pub fn buried<T>(text: &str, parse: impl Fn(&mut Table<'_>) -> Option<T>) -> Vec<String> {
    let load = || Document::from_toml("f.toml", text);
    let Ok(whole) = load() else {
        return vec!["is not TOML".into()];
    };
    let mut paths = Vec::new();
    leaves(
        &mut whole.into_root(),
        &mut |_, path| paths.push(path.to_owned()),
        "",
    );
    let mut wrong = Vec::new();
    for spoilt in &paths {
        let Ok(mut document) = load() else { continue };
        let spoil = &mut |value: &mut Value, path: &str| {
            if path == spoilt {
                *value = Value::Float(-0.5);
            }
        };
        leaves(document.root_mut(), spoil, "");
        let told = document.parse(&parse).err().unwrap_or_default().0;
        let unknown = told.iter().filter(|told| told.message == "unknown key");
        let unknown: Vec<&str> = unknown.map(|told| told.key.as_str()).collect();
        if !unknown.is_empty() {
            wrong.push(format!("{spoilt}: {}", unknown.join(", ")));
        }
    }
    wrong
}

/// Shows each value that is no table, with a path of it.
fn leaves(
    values: &mut BTreeMap<String, Value>,
    show: &mut impl FnMut(&mut Value, &str),
    path: &str,
) {
    for (key, value) in values {
        let path = format!("{path}.{key}");
        match value {
            Value::Table(inner) => leaves(inner, show, &path),
            Value::Array(items) if items.iter().any(|item| matches!(item, Value::Table(_))) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if let Value::Table(inner) = item {
                        leaves(inner, show, &format!("{path}[{index}]"));
                    }
                }
            }
            other => show(other, &path),
        }
    }
}

impl Row {
    fn differs(&self, type_: &str, default: &str, meaning: &str) -> Vec<String> {
        let Row { key, live, facts } = self;
        let mut wrong = Vec::new();
        let mut say = |what: String| wrong.push(format!("{key}: {what}"));
        let plain_type = plain(type_);
        if !plain_type.contains(facts.word) {
            say(format!("its type is {}, not {type_}", facts.word));
        }
        if let Some((least, most)) = &facts.range {
            let range = format!("{least} to {most}");
            let worded = format!("{least} to the ");
            let spaced = format!(" {plain_type} ");
            let says = [format!(" {range} "), format!(" {worded}")];
            if !says.iter().any(|said| spaced.contains(said)) {
                say(format!("its range is {range}, not {type_}"));
            }
        }
        // Or it is one of the names given by the user.
        for choice in &facts.choices {
            if !plain_type.contains("name") && plain_type.split(' ').all(|word| word != choice) {
                say(format!("it may be {choice:?}, too"));
            }
        }
        let is_required = default.starts_with("required");
        match &facts.default {
            _ if facts.required && !is_required => say("it is required".into()),
            Some(value) if !value.is_empty() => {
                let differs = literal(default).is_some_and(|written| !facts.is(value, &written));
                if is_required || differs {
                    say(format!("its default is {value}, not {default}"));
                }
            }
            _ => {}
        }
        let says_restart = meaning.starts_with(RESTART);
        if says_restart == *live {
            say(match live {
                true => format!("it changes live: no {RESTART:?} before its meaning"),
                false => format!("it takes a restart: {RESTART:?} before its meaning"),
            });
        }
        wrong
    }
}

/// What a cell begins with, where that is a value: `true`, `1024`, `"30s"`, a list to its end.
fn literal(cell: &str) -> Option<String> {
    let value = match cell.strip_prefix('`') {
        Some(code) => code.split('`').next(),
        None => cell.split([' ', ';', ',']).next(),
    }?;
    let begins = value.starts_with(['"', '[']) || value.starts_with(char::is_numeric);
    let is_value = begins || cell.starts_with('`') || ["true", "false"].contains(&value);
    // Another key's value, as `node.id`.
    let is_key = value.contains('.') && !begins;
    (is_value && !is_key).then(|| plain(value))
}

/// A cell without quotes and the like.
fn plain(cell: &str) -> String {
    cell.chars()
        .filter(|character| !matches!(character, '"' | '`' | '[' | ']' | ',' | ';' | '(' | ')'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_held_to_its_parser_cell_by_cell() {
        let document = Document::from_toml("f.toml", "id = \"a\"")
            .unwrap()
            .describing();
        document
            .parse(|root| {
                let second = Duration::from_secs(1);
                root.within("wait", second..=60 * second, 5 * second);
                let mut live = root.live();
                live.within("weight", 1..=10_u16, 2);
                live.one_of_or("mode", &[("a", 1), ("b", 2)], 2);
                live.or("on", true);
                root.required::<String>("id")
            })
            .unwrap();
        let rows = document.rows();
        let page = |rows: [&str; 5]| rows.join("\n");
        let right = [
            "| `id` | name | required | *Restart.* Who. |",
            "| `wait` | duration, 1s to 1m | `\"5s\"` | *Restart.* How long. |",
            "| `weight` | 1 to 10 | 2 | Its share. |",
            "| `mode` | `\"a\"`, `\"b\"` | `\"b\"` | How. |",
            "| `on` | true, false | true | Whether. |",
        ];
        assert_eq!(mistakes(&page(right), &rows), [""; 0]);
        let worded = right.map(|row| {
            row.replace(
                "1 to 10 | 2",
                "1 to the number of cores | the number of cores",
            )
        });
        let worded = worded.each_ref().map(String::as_str);
        assert_eq!(mistakes(&page(worded), &rows), [""; 0]);
        for (from, to, why) in [
            ("| required", "| none", "id: it is required"),
            (
                "| duration, ",
                "| ",
                "wait: its type is duration, not 1s to 1m",
            ),
            (
                "1m | ",
                "2m | ",
                "wait: its range is 1s to 1m, not duration, 1s to 2m",
            ),
            ("5s", "6s", "wait: its default is 5s, not `\"6s\"`"),
            ("| 2 |", "| 3 |", "weight: its default is 2, not 3"),
            (
                "1 to 10",
                "1 to 100",
                "weight: its range is 1 to 10, not 1 to 100",
            ),
            ("`\"a\"`, ", "", "mode: it may be \"a\", too"),
            (
                "| true | W",
                "| false | W",
                "on: its default is true, not false",
            ),
            (
                "*Restart.* How long",
                "How long",
                "wait: it takes a restart: \"*Restart.* \" before its meaning",
            ),
            (
                "| Whether",
                "| *Restart.* Whether",
                "on: it changes live: no \"*Restart.* \" before its meaning",
            ),
            ("| `on` |", "| `onn` |", "on: has no row"),
        ] {
            let text = page(right);
            assert!(text.contains(from), "{from}");
            assert_eq!(mistakes(&text.replacen(from, to, 1), &rows), [why]);
        }
    }
}
