//! The file laid over by the environment, through the `config` crate: `WEIR__NODE__ID=l4-1` sets `node.id`.

use std::collections::{BTreeMap, HashMap};

use config::{Config, Environment, FileFormat, ValueKind};

use super::document::Document;
use super::mistakes::{Mistake, Mistakes};
use super::table::word;
use super::value::Value;

const PREFIX: &str = "WEIR";
const SEPARATOR: &str = "__";

/// Most words in a variable's path. The deepest key there is has five; the `config` crate goes as deep as it is told, on the stack.
const MAX_DEPTH: usize = 16;

pub(super) struct Merged {
    pub(super) root: BTreeMap<String, Value>,
    /// Variable name by the path it set.
    pub(super) variables: BTreeMap<String, String>,
}

/// The `WEIR__` variables of this process. A name or value that is not UTF-8 arrives with replacement characters, to be refused where it
/// is read.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where configuration comes out of the environment"
)]
pub(super) fn of_process() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with("WEIR__"))
        .collect()
}

/// Lays `variables` over the file. `lines` has the path of every key in the file.
pub(super) fn merge(
    file: &str,
    text: &str,
    lines: &HashMap<String, usize>,
    variables: Vec<(String, String)>,
) -> Result<Merged, Mistakes> {
    let mut mistakes = Vec::new();
    let mut paths = BTreeMap::new();
    let mut environment = HashMap::new();
    for (name, value) in variables {
        match place(&name, lines) {
            Ok(path) => {
                paths.insert(path, name.clone());
                environment.insert(name, value);
            }
            Err(message) => mistakes.push(Mistake {
                file: format!("${}", word(&name)),
                line: None,
                key: String::new(),
                message,
                hint: "a variable is WEIR__ and the key's path, such as WEIR__NODE__ID".to_owned(),
            }),
        }
    }
    // The `config` crate reads a top-level key as a path expression, in which `a[999999999]` would ask for a list of that length.
    for (path, line) in lines
        .iter()
        .filter(|(path, _)| path.starts_with('"') && !path.ends_with(']'))
    {
        if Document::is_top_level(path) {
            mistakes.push(Mistake {
                file: file.to_owned(),
                line: Some(*line),
                key: path.clone(),
                message: "unknown key".to_owned(),
                hint: "keys at the top are plain words".to_owned(),
            });
        }
    }
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|mistake| mistake.line);
        return Err(Mistakes::first(file, mistakes.into_iter()));
    }

    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(environment));
    let merged = Config::builder()
        .add_source(config::File::from_str(text, FileFormat::Toml))
        .add_source(environment)
        .build()
        .map_err(|error| Mistakes::about_file(file, None, error.to_string(), ""))?;
    match value_of(merged.cache.kind) {
        Ok(Value::Table(root)) => Ok(Merged {
            root,
            variables: paths,
        }),
        Ok(_) => Ok(Merged {
            root: BTreeMap::new(),
            variables: paths,
        }),
        Err(number) => Err(Mistakes::about_file(
            file,
            None,
            format!("{number} does not fit 64 bits"),
            "",
        )),
    }
}

/// The TOML value that the text of a variable spells, if it does.
pub(super) fn spelled(text: &str) -> Option<Value> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    let document = Document::from_toml("", &format!("value = {text}")).ok()?;
    let (_, value) = document
        .into_root()
        .into_iter()
        .find(|(key, _)| key == "value")?;
    Some(value)
}

/// The path a variable sets, or what is wrong with it.
fn place(name: &str, lines: &HashMap<String, usize>) -> Result<String, String> {
    let words: Vec<String> = name
        .split(SEPARATOR)
        .skip(1)
        .map(str::to_lowercase)
        .collect();
    let plain = |word: &String| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    if words.is_empty() || !words.iter().all(plain) {
        return Err("does not name a key".to_owned());
    }
    if words.len() > MAX_DEPTH {
        return Err(format!("names a key {} tables deep", words.len() - 1));
    }
    let path = words.join(".");
    let mut above = String::new();
    for word in &words {
        if !above.is_empty() {
            above.push('.');
        }
        above.push_str(word);
        if lines.contains_key(&format!("{above}[0]")) && above != path {
            return Err(format!(
                "{above} is a list in the file; items of a list can't be set one by one"
            ));
        }
    }
    Ok(path)
}

/// The same value in our own type; an integer beyond 64 bits is the error.
fn value_of(kind: ValueKind) -> Result<Value, String> {
    let integer = |number: Result<i64, std::num::TryFromIntError>, text: String| {
        number.map(Value::Integer).map_err(|_| text)
    };
    Ok(match kind {
        ValueKind::Nil => Value::String(String::new()),
        ValueKind::Boolean(value) => Value::Bool(value),
        ValueKind::I64(value) => Value::Integer(value),
        ValueKind::I128(value) => integer(value.try_into(), value.to_string())?,
        ValueKind::U64(value) => integer(value.try_into(), value.to_string())?,
        ValueKind::U128(value) => integer(value.try_into(), value.to_string())?,
        ValueKind::Float(value) => Value::Float(value),
        ValueKind::String(text) => Value::String(text),
        ValueKind::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| value_of(item.kind))
                .collect::<Result<_, _>>()?,
        ),
        ValueKind::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| Ok((key, value_of(value.kind)?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}
