//! The line of each key of a TOML text, for messages.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Mistakes};
use super::table::{join, word};
use super::value::SHOWN;

/// The lines by the path of the key, counted from 1.
///
/// # Errors
/// Where the text is not TOML, or has numbers beyond 64 bits.
pub(super) fn of(name: &str, text: &str) -> Result<HashMap<String, usize>, Mistakes> {
    let starts: Vec<usize> = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'\n')
        .map(|(at, _)| at)
        .collect();
    let line_at = |at: usize| starts.partition_point(|start| *start < at) + 1;

    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mistakes = errors.iter().map(|error| {
            let line = error.span().map(|span| line_at(span.start));
            let said = error.message();
            let mut message = format!("is not TOML: {said}");
            let found = error.span().and_then(|span| text.get(span));
            let found = found.unwrap_or_default();
            let mut hint = String::new();
            if said == "duplicate key" {
                let key = found.trim_matches(['"', '\'']);
                let key: String = key.chars().take(SHOWN).collect();
                message += &format!(" `{}`", word(&key));
                let other = error.span().and_then(|span| other_kind(text, span.start));
                hint = other.unwrap_or_default();
            }
            // What words without quotes are taken for. They are not shown: one may be a password.
            if said.starts_with("invalid float") || said.starts_with("invalid boolean") {
                let boolean = |word: &&str| found.eq_ignore_ascii_case(word);
                let in_capitals = ["true", "false"].iter().any(boolean);
                hint = if in_capitals {
                    "write true and false in lower case"
                } else {
                    "text needs quotes"
                }
                .to_owned();
            }
            Mistake::about_file(name, line, message, &hint)
        });
        return Err(Mistakes::first(name, mistakes));
    }
    let mut lines = HashMap::new();
    let mut mistakes = Vec::new();
    let root = DeValue::Table(table.into_inner());
    let mut pending = vec![(String::new(), &root)];
    while let Some((path, value)) = pending.pop() {
        for (inner, at, value) in inside(&path, value) {
            let line = line_at(at);
            if !fits(value) {
                mistakes.push(Mistake {
                    file: name.to_owned(),
                    line: Some(line),
                    key: inner.clone(),
                    message: "is not a number that fits 64 bits".to_owned(),
                    hint: String::new(),
                });
            }
            if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
                pending.push((inner.clone(), value));
            }
            lines.insert(inner, line);
        }
    }
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|mistake| mistake.line);
        return Err(Mistakes::first(name, mistakes.into_iter()));
    }
    Ok(lines)
}

/// What is in a table or a list at `path`: the path, place in the text and value of each.
fn inside<'p, 'v: 'p, 'i>(
    path: &'p str,
    value: &'v DeValue<'i>,
) -> Box<dyn Iterator<Item = (String, usize, &'v DeValue<'i>)> + 'p> {
    match value {
        DeValue::Table(table) => Box::new(table.iter().map(move |(key, value)| {
            let inner = join(path, key.get_ref());
            (inner, key.span().start, value.get_ref())
        })),
        DeValue::Array(items) => Box::new(items.iter().enumerate().map(move |(index, item)| {
            let inner = format!("{path}[{index}]");
            (inner, item.span().start, item.get_ref())
        })),
        _ => Box::new(std::iter::empty()),
    }
}

/// Whether a value, if it is a number, is one that [`Value`](super::value::Value) holds: the parser leaves digits unread, and takes a number
/// that has none.
fn fits(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).is_ok(),
        DeValue::Float(number) => {
            let text = number.as_str();
            let read: Result<f64, _> = text.parse();
            read.is_ok_and(|read| !read.is_infinite() || text.contains("inf"))
        }
        _ => true,
    }
}

/// What to do where the key at `at` is not there twice, but once in the header of a table, `[name]`, and once in that of a list's item,
/// `[[name]]`.
fn other_kind(text: &str, at: usize) -> Option<String> {
    let begin = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let (before, rest) = text.split_at_checked(begin)?;
    let header = rest.lines().next()?.trim_start().strip_prefix('[')?;
    let (opened, of_list) = match header.strip_prefix('[') {
        Some(opened) => (opened, true),
        None => (header, false),
    };
    let (name, _) = opened.split_once(']')?;
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() > SHOWN || !name.bytes().all(bare) {
        return None;
    }
    let (table, item) = (format!("[{name}]"), format!("[[{name}]]"));
    let other = if of_list { &table } else { &item };
    let first = before
        .lines()
        .position(|line| line.trim_start().starts_with(other))?;
    Some(match of_list {
        true => format!(
            "each begins with {item}, and line {} has {table}",
            first + 1
        ),
        false => format!("write {item}, as in line {}", first + 1),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn headers_of_a_table_and_of_list_items_with_one_name_are_told_apart() {
        let mistakes = |text: &str| super::of("f.toml", text).unwrap_err().to_string();
        let hint = "each begins with [[services]], and line 2 has [services]";
        assert_eq!(
            mistakes("a = 1\n[services]\nb = 1\n[[services]]\nb = 2\n  [[services]]\nb = 3"),
            format!(
                "f.toml:4: is not TOML: duplicate key `services` — {hint}\n\
                 f.toml:6: is not TOML: duplicate key `services` — {hint}"
            )
        );
        assert_eq!(
            mistakes("[[ports]]\nb = 1\n[[ports.routes]]\n[ports] # one more\nb = 2"),
            "f.toml:4: is not TOML: duplicate key `ports` — write [[ports]], as in line 1"
        );
        assert_eq!(
            mistakes("[node]\n[[nodes]]\n[node]"),
            "f.toml:3: is not TOML: duplicate key `node`"
        );
    }
}
