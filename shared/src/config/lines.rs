//! The line of each key of a TOML text, for messages.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Mistakes};
use super::table::{join, word};
use super::value::SHOWN;

/// The lines by the path of the key, counted from 1.
///
/// # Errors
/// Where the text is not TOML.
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
    let mut pending = vec![(String::new(), table.get_ref())];
    while let Some((path, table)) = pending.pop() {
        for (key, value) in table {
            let inner = join(&path, key.get_ref());
            lines.insert(inner.clone(), line_at(key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => pending.push((inner, table)),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let inner = format!("{inner}[{index}]");
                        lines.insert(inner.clone(), line_at(item.span().start));
                        if let DeValue::Table(table) = item.get_ref() {
                            pending.push((inner, table));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(lines)
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
