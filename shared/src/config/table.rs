//! Reading a table key by key. Every key asked for is remembered, so that what is left over is known to be a mistake.

use std::collections::BTreeMap;
use std::convert::identity;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::declared::{Items, Scope};
use super::document::Document;
use super::files::{NamedFile, Use};
use super::place::Place;
use super::reference::Facts;
use super::value::{Bounded, FromValue, Quoted, Value};
use crate::bus::{MAX_NAME, is_name};

/// Most characters of what people call a table.
const LONGEST_CALLED: usize = 100;

/// One table of a [`Document`].
///
/// Asking for a key never fails: what is wrong is recorded in the document and the answer is `None` or the default, so that a parser runs to
/// its end and the user hears about all mistakes at once.
///
/// What is asked of the root needs a restart to change. What is asked of [`Self::live`], there or below, takes effect when a running process
/// [reloads](crate::reload): so a key that nobody thought about refuses the reload, and none is read and left lying.
pub struct Table<'d> {
    document: &'d Document,
    path: String,
    values: &'d BTreeMap<String, Value>,
    scope: Scope,
}

impl<'d> Table<'d> {
    pub(super) fn new(
        document: &'d Document,
        path: String,
        values: &'d BTreeMap<String, Value>,
        scope: Scope,
    ) -> Self {
        document.entered(&path);
        Self {
            document,
            path,
            values,
            scope,
        }
    }

    /// The same table; what is asked of this handle, and of tables that come of it, takes effect while the process runs.
    pub fn live(&self) -> Table<'d> {
        self.scoped(Scope {
            live: true,
            ..self.scope
        })
    }

    /// The same table; what is asked of this handle takes effect by a restart, though the table is live.
    pub fn fixed(&self) -> Table<'d> {
        self.scoped(Scope {
            live: false,
            ..self.scope
        })
    }

    /// The same table; values asked of this handle are never shown, neither as a change nor in a mistake.
    pub fn secret(&self) -> Table<'d> {
        self.scoped(Scope {
            secret: true,
            ..self.scope
        })
    }

    fn scoped(&self, scope: Scope) -> Table<'d> {
        Table::new(self.document, self.path.clone(), self.values, scope)
    }

    /// Dotted path of this table, empty for the root: `upstreams.api`, `services[2]` (counted from 0).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the key is there, whatever its value. Counts as asking for it.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// The value of a key that must be there; `None` after recording a mistake.
    pub fn required<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        self.describe::<T>(key, || Facts {
            required: true,
            ..Facts::default()
        });
        match self.value(key) {
            Some(value) => self.read(key, value, expected::<T>, identity, |_| true),
            None => self.missing(key, T::EXPECTED),
        }
    }

    /// The value of a key that may be missing; `None` also after recording a mistake.
    pub fn optional<T: FromValue>(&mut self, key: &'static str) -> Option<T> {
        self.describe::<T>(key, Facts::default);
        let value = self.value(key)?;
        self.read(key, value, expected::<T>, identity, |_| true)
    }

    /// The value of a key, or `default` where it is missing.
    pub fn or<T: FromValue>(&mut self, key: &'static str, default: T) -> T {
        self.describe::<T>(key, || of_default(&default));
        self.optional(key).unwrap_or(default)
    }

    /// As [`Self::or`], and the value must lie within `range`.
    pub fn within<T: Bounded>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        default: T,
    ) -> T {
        self.describe::<T>(key, || of_default(&default));
        self.optional_within(key, range).unwrap_or(default)
    }

    /// As [`Self::optional`], and the value must lie within `range`.
    pub fn optional_within<T: Bounded>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        self.describe::<T>(key, || Facts {
            range: Some((range.start().written(), range.end().written())),
            ..Facts::default()
        });
        let value = self.value(key)?;
        let unit = |hint| with_unit(value, &range).unwrap_or(hint);
        let allowed = |read: &T| range.contains(read);
        self.read(key, value, || bounds(&range), unit, allowed)
    }

    /// As [`Self::required`], and the value must lie within `range`.
    pub fn required_within<T: Bounded>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        self.describe::<T>(key, || Facts {
            required: true,
            ..Facts::default()
        });
        if !self.has(key) {
            return self.missing(key, &bounds(&range));
        }
        self.optional_within(key, range)
    }

    /// The choice named by the text at `key`; `None` if the key is missing, or after recording a mistake.
    pub fn one_of<T: Clone>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.document.describe(&self.path, key, || Facts {
            choices: choices.iter().map(|(name, _)| (*name).to_owned()).collect(),
            ..Facts::default()
        });
        let value = self.value(key)?;
        let named = value
            .as_str()
            .and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = named {
            return Some(choice.clone());
        }
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let hint = value
            .as_str()
            .and_then(|text| nearest(text, choices.iter().map(|(name, _)| *name)))
            .map(|near| format!("did you mean {near:?}?"))
            .unwrap_or_default();
        self.mistake(
            key,
            format!("expected one of {}, got {value}", names.join(", ")),
            hint,
        );
        None
    }

    /// As [`Self::one_of`], with a default for a missing key.
    pub fn one_of_or<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        self.document.describe(&self.path, key, || {
            let named = choices.iter().find(|(_, choice)| *choice == default);
            Facts {
                default: named.map(|(name, _)| (*name).to_owned()),
                ..Facts::default()
            }
        });
        self.one_of(key, choices).unwrap_or(default)
    }

    /// A file whose content belongs to the configuration, such as a password: a reload compares it by its digest, and never shows it. One that
    /// can't be read is no mistake here; it is for `check` and for a reload.
    pub fn file(&mut self, key: &'static str) -> Option<NamedFile> {
        self.file_holding(key, |_| Ok(()))
    }

    /// As [`Self::file`]; `look` says whether it holds what it should.
    ///
    /// # Errors
    /// Those of `look`: what is wrong with the content.
    pub fn file_holding(
        &mut self,
        key: &'static str,
        look: impl FnOnce(&[u8]) -> Result<(), String>,
    ) -> Option<NamedFile> {
        let path = self.optional::<PathBuf>(key)?;
        let document = self.document;
        Some(
            document.named_file(&self.path, key, path, Use::Part, |bytes| {
                look(bytes).map(|()| None)
            }),
        )
    }

    /// The file at a key that must be there, as [`Self::file`], for a tier that opens it itself and says what is wrong with it. `shown` answers with
    /// what a reload may show of the content, such as the names and the expiry of a certificate.
    pub fn opened_file(
        &mut self,
        key: &'static str,
        shown: impl FnOnce(&[u8]) -> Option<String>,
    ) -> Option<NamedFile> {
        let path = self.required::<PathBuf>(key)?;
        let document = self.document;
        Some(document.named_file(&self.path, key, path, Use::Opened, |bytes| Ok(shown(bytes))))
    }

    /// A file that is read whenever it is needed, such as a password for connections that are made again and again. A reload shows other content as a
    /// change that takes effect, even of a key that needs a restart. One that can't be read is warned of.
    pub fn reread_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.optional::<PathBuf>(key)?;
        let document = self.document;
        let file = document.named_file(&self.path, key, path, Use::Reread, |_| Ok(None));
        Some(file.path().to_owned())
    }

    /// The sub-table `[key]`, if it is there.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'d>> {
        let value = self.value(key)?;
        self.as_table(key, value)
    }

    /// The sub-table `[key]`; `None` after recording a mistake.
    pub fn required_table(&mut self, key: &'static str) -> Option<Table<'d>> {
        match self.value(key) {
            Some(value) => self.as_table(key, value),
            None => self.missing(key, "a table"),
        }
    }

    /// The array of tables `[[key]]`, empty if it is missing. Tables are told apart by their places.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'d>> {
        self.items(key, Items::ByPlace, None)
    }

    /// As [`Self::tables`]; they are told apart by what their key `name` says, wherever they stand. A text in place of a table is taken for what
    /// that key should say.
    pub fn tables_by(&mut self, key: &'static str, name: &'static str) -> Vec<Table<'d>> {
        self.items(key, Items::By(name), Some(name))
    }

    /// As [`Self::tables_by`], where their order means something, so that another order is a change.
    pub fn ordered_tables_by(&mut self, key: &'static str, name: &'static str) -> Vec<Table<'d>> {
        self.items(key, Items::InOrderBy(name), Some(name))
    }

    fn items(&mut self, key: &'static str, by: Items, main: Option<&str>) -> Vec<Table<'d>> {
        let asked = self.value(key);
        self.document.declare(&self.path, key, |declaration| {
            if by != Items::ByPlace || declaration.items.is_none() {
                declaration.items = Some(by);
            }
        });
        let Some(value) = asked else {
            return Vec::new();
        };
        let path = join(&self.path, key);
        let Value::Array(items) = value else {
            let hint = match in_list(&path) {
                true => format!("write {key} = [{{ ... }}]"),
                false => format!("write [[{path}]]"),
            };
            self.mistake(key, format!("expected tables, got {value}"), hint);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Table(values) => {
                    tables.push(Table::new(self.document, path, values, self.scope));
                }
                other => {
                    let main = main.filter(|_| other.as_str().is_some());
                    let hint = main.map(|main| format!("write {{ {main} = {other} }}"));
                    let message = format!("expected a table, got {other}");
                    self.document
                        .record(&path, message, hint.unwrap_or_default());
                }
            }
        }
        tables
    }

    /// The named tables `[key.<name>]`, in the order of their names; empty if the key is missing.
    pub fn map(&mut self, key: &'static str) -> Vec<(String, Table<'d>)> {
        let Some(mut table) = self.table(key) else {
            return Vec::new();
        };
        self.document.entered_map(&table.path, self.scope);
        let mut named = Vec::with_capacity(table.values.len());
        for (name, value) in table.values {
            if let Some(inner) = table.as_table(name, value) {
                named.push((name.clone(), inner));
            }
        }
        named
    }

    /// Says what people call this table, which its list tells apart from others by its place alone: changes of it are shown with both.
    pub fn called(&self, name: &str) {
        let shown = name.chars().take(LONGEST_CALLED);
        let shown = shown.map(|c| if c.is_control() { '?' } else { c });
        self.document.called(&self.path, shown.collect());
    }

    /// Where `key` of this table is written, or would be.
    pub fn place(&self, key: &str) -> Place {
        self.document.place(&join(&self.path, key))
    }

    /// Records that something is wrong with `key` of this table; with an empty key, with the table itself.
    pub fn mistake(
        &mut self,
        key: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.document
            .record(&self.path_of(key), message.into(), hint.into());
    }

    /// Records that something is allowed, and yet not all that one may expect of it; otherwise as [`Self::mistake`].
    pub fn warning(
        &mut self,
        key: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.document
            .warn(&self.path_of(key), message.into(), hint.into());
    }

    fn path_of(&self, key: &str) -> String {
        match key {
            "" => self.path.clone(),
            key => join(&self.path, key),
        }
    }

    /// Whether `name` can be the name of `whose` ("a node") on the bus and in metrics ([`is_name`]); if not, a mistake is recorded at `key`.
    pub fn allows_name(&mut self, key: &'static str, name: &str, whose: &str) -> bool {
        let allowed = is_name(name);
        if !allowed {
            self.mistake(
                key,
                format!("{} can't be {whose}'s name", Quoted(name)),
                format!("1 to {MAX_NAME} letters, digits, dots, dashes or underscores"),
            );
        }
        allowed
    }

    /// Records a mistake where two of `names` are the same. Each comes with the path to complain about, such as `services[1].name`.
    pub fn unique<'n>(&mut self, what: &str, names: impl IntoIterator<Item = (String, &'n str)>) {
        let mut seen: BTreeMap<&str, String> = BTreeMap::new();
        for (path, name) in names {
            match seen.get(name) {
                Some(first) => {
                    self.document.record(
                        &path,
                        format!("{what} {} is already at {first}", Quoted(name)),
                        String::new(),
                    );
                }
                None => {
                    seen.insert(name, path);
                }
            }
        }
    }

    /// As [`Self::unique`], of what `key` of each of `tables` says, whatever else is wrong with them.
    pub fn unique_in<T: FromValue + Display>(
        &mut self,
        what: &str,
        tables: &[Table<'_>],
        key: &'static str,
    ) {
        let said = tables.iter().filter_map(|table| {
            let said = table.peek::<T>(key)?;
            Some((join(&table.path, key), said.to_string()))
        });
        let said: Vec<_> = said.collect();
        let names = said.iter().map(|(path, name)| (path.clone(), &**name));
        self.unique(what, names);
    }

    /// The value of a key, if it is there and right. Does not count as asking for it, and records nothing.
    pub fn peek<T: FromValue>(&self, key: &str) -> Option<T> {
        let value = self.values.get(key)?;
        let path = join(&self.path, key);
        self.document.read(&path, value).ok()
    }

    fn describe<T: FromValue>(&self, key: &'static str, facts: impl FnOnce() -> Facts) {
        self.document.describe(&self.path, key, || Facts {
            word: T::WORD,
            ..facts()
        });
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Value> {
        self.document.asked_for(&self.path, key, self.scope);
        self.values.get(key)
    }

    fn read<T: FromValue>(
        &mut self,
        key: &str,
        value: &Value,
        expected: impl FnOnce() -> String,
        hint: impl FnOnce(String) -> String,
        allowed: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let path = join(&self.path, key);
        let hint = match self.document.read::<T>(&path, value) {
            Ok(read) if allowed(&read) => return Some(read),
            Ok(_) => String::new(),
            Err(own) => {
                let items = match self.scope.secret {
                    true => Vec::new(),
                    false => T::wrong_items(value),
                };
                for (index, message) in &items {
                    self.document.record_item(&path, *index, message.clone());
                }
                if !items.is_empty() {
                    return None;
                }
                hint(own)
            }
        };
        // A hint on a list is the whole message: see `FromValue::from_value`.
        let (message, hint) = match value {
            _ if self.scope.secret => {
                let kind = value.kind();
                (
                    format!("expected {}, got {kind}", expected()),
                    String::new(),
                )
            }
            Value::Array(_) if !hint.is_empty() => (hint, String::new()),
            _ => (format!("expected {}, got {value}", expected()), hint),
        };
        self.document.record(&path, message, hint);
        None
    }

    fn missing<T>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.mistake(key, "is missing", format!("expected {expected}"));
        None
    }

    fn as_table(&mut self, key: &str, value: &'d Value) -> Option<Table<'d>> {
        let path = join(&self.path, key);
        match value {
            Value::Table(values) => Some(Table::new(self.document, path, values, self.scope)),
            other => {
                let hint = match in_list(&path) {
                    true => format!("write {} = {{ ... }}", join("", key)),
                    false => format!("write [{path}]"),
                };
                self.document
                    .record(&path, format!("expected a table, got {other}"), hint);
                None
            }
        }
    }
}

fn of_default<T: FromValue>(default: &T) -> Facts {
    Facts {
        default: Some(default.written()),
        ..Facts::default()
    }
}

fn expected<T: FromValue>() -> String {
    T::EXPECTED.to_owned()
}

fn bounds<T: Bounded>(range: &RangeInclusive<T>) -> String {
    let (low, high) = (range.start().written(), range.end().written());
    format!("{} from {low} to {high}", T::KIND)
}

/// Whether a table is within an item of a list. TOML's headers don't name items by their index, so none can be shown for it.
fn in_list(path: &str) -> bool {
    path.contains('[')
}

/// What to write in place of a number without a unit: with the likeliest that is within `range`, if any. None where that is not what is wrong.
fn with_unit<T: Bounded>(value: &Value, range: &RangeInclusive<T>) -> Option<String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let meant = T::meant_by(number);
    let within = meant.iter().find(|(_, value)| range.contains(value));
    let hint = within.map(|(written, _)| format!("write {written:?}"));
    (!meant.is_empty()).then(|| hint.unwrap_or_default())
}

/// The key as it is where it is a bare word; quoted as TOML would else, with what can't be printed escaped.
pub(super) fn word(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// `path.key`, with the key as a [`word`].
pub(super) fn join(path: &str, key: &str) -> String {
    let key = word(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// The candidate most like `word`, if one is like enough to be meant.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Jaro-Winkler is quadratic in the length; nobody mistypes a key into something this long.
    if word.len() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        // Letters in common make `client_max_body_size` like `max_header_size`; who mistypes changes few of them.
        .filter(|(likeness, candidate)| {
            *likeness >= 0.8 && strsim::normalized_damerau_levenshtein(word, candidate) >= 0.55
        })
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
