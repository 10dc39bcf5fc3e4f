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
            let mut hint = "";
            if said == "duplicate key" {
                let key = error.span().and_then(|span| text.get(span));
                let key = key.unwrap_or_default().trim_matches(['"', '\'']);
                let key: String = key.chars().take(SHOWN).collect();
                message += &format!(" `{}`", word(&key));
            }
            // What words without quotes are taken for. They are not shown: one may be a password.
            if said.starts_with("invalid float") || said.starts_with("invalid boolean") {
                hint = "text needs quotes";
            }
            Mistake::about_file(name, line, message, hint)
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
