//! Loading a document: the file, laid over by the environment, with the line of every key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::environment;
use super::lines;
use super::mistakes::{Mistake, Mistakes};
use super::table::{Table, join, nearest};
use super::value::{FromValue, Value};

/// A configuration file may be this large, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// A loaded configuration that knows where each of its values came from.
#[derive(Debug)]
pub struct Document {
    file: String,
    root: BTreeMap<String, Value>,
    /// Line of each key by its path.
    lines: HashMap<String, usize>,
    /// Name of the environment variable by the path it set.
    variables: BTreeMap<String, String>,
    parsing: RefCell<Parsing>,
}

/// What a parser has found out so far.
#[derive(Debug, Default)]
struct Parsing {
    mistakes: Vec<Mistake>,
    /// Keys asked for by the path of their table.
    asked: BTreeMap<String, BTreeSet<&'static str>>,
    /// Paths of tables whose keys are names given by the user.
    maps: BTreeSet<String>,
}

impl Document {
    /// Reads a file and lays `WEIR__...` variables of the process environment over it.
    ///
    /// # Errors
    /// One mistake if the file can't be read, is too large, is not UTF-8 or is not TOML; one for each variable that can't be placed.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        let text = read(path, &name)?;
        Self::build(&name, &text, environment::of_process())
    }

    /// A document from text alone; `name` stands for the file in messages. The environment is not looked at.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(name: &str, text: &str) -> Result<Self, Mistakes> {
        Self::build(name, text, Vec::new())
    }

    /// A document from text, laid over by `variables` (name and value) in place of the process environment.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn with_environment(
        name: &str,
        text: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Self, Mistakes> {
        Self::build(name, text, variables)
    }

    fn build(name: &str, text: &str, variables: Vec<(String, String)>) -> Result<Self, Mistakes> {
        if text.len() > MAX_FILE {
            return Err(too_large(name));
        }
        let lines = lines::of(name, text)?;
        let environment::Merged { root, variables } =
            environment::merge(name, text, &lines, variables)?;
        Ok(Self {
            file: name.to_owned(),
            root,
            lines,
            variables,
            parsing: RefCell::default(),
        })
    }

    /// The table at the top.
    pub fn root(&self) -> Table<'_> {
        Table::new(self, String::new(), &self.root)
    }

    /// Runs `parse` over the root table, then adds every key nobody asked for.
    ///
    /// # Errors
    /// All mistakes found, in the order of the file.
    pub fn parse<T>(&self, parse: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Result<T, Mistakes> {
        self.parsing.take();
        let parsed = parse(&mut self.root());
        self.find_unknown("", &self.root);

        let mut mistakes = std::mem::take(&mut self.parsing.borrow_mut().mistakes);
        match parsed {
            Some(parsed) if mistakes.is_empty() => Ok(parsed),
            None if mistakes.is_empty() => {
                Err(Mistakes::about_file(&self.file, None, "can't be used", ""))
            }
            _ => {
                mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
                mistakes.dedup();
                Err(Mistakes::first(&self.file, mistakes.into_iter()))
            }
        }
    }

    /// Every key the last [`Self::parse`] asked for, as `bus.nats.servers`, `services[].vip` (array of tables) or `upstreams.*.timeout`
    /// (named tables), sorted.
    ///
    /// This is how a tier's test holds its reference page to its parser: parse a sample that has every table at least once, then
    /// compare this list with the keys of the page (see `shared/tests/reference.rs`).
    pub fn asked(&self) -> Vec<String> {
        let parsing = self.parsing.borrow();
        let mut keys = BTreeSet::new();
        for (path, asked) in &parsing.asked {
            let table = pattern(path, &parsing.maps);
            keys.extend(asked.iter().map(|key| join(&table, key)));
        }
        keys.into_iter().collect()
    }

    pub(super) fn into_root(self) -> BTreeMap<String, Value> {
        self.root
    }

    pub(super) fn is_top_level(path: &str) -> bool {
        parent(path).is_none()
    }

    pub(super) fn entered(&self, path: &str) {
        self.parsing
            .borrow_mut()
            .asked
            .entry(path.to_owned())
            .or_default();
    }

    pub(super) fn entered_map(&self, path: &str) {
        self.parsing.borrow_mut().maps.insert(path.to_owned());
    }

    pub(super) fn asked_for(&self, path: &str, key: &'static str) {
        self.parsing
            .borrow_mut()
            .asked
            .entry(path.to_owned())
            .or_default()
            .insert(key);
    }

    /// Reads a value; text from the environment is also tried as the TOML value it spells, as a variable can hold nothing but text.
    pub(super) fn read<T: FromValue>(&self, path: &str, value: &Value) -> Result<T, String> {
        let read = T::from_value(value);
        match (&read, value) {
            (Err(_), Value::String(text)) if self.variables.contains_key(path) => {
                match environment::spelled(text) {
                    Some(value) => T::from_value(&value),
                    None => read,
                }
            }
            _ => read,
        }
    }

    pub(super) fn record(&self, path: &str, message: String, hint: String) {
        let (file, line) = match self.variable(path) {
            Some(variable) => (format!("${variable}"), None),
            None => (self.file.clone(), self.line(path)),
        };
        self.parsing.borrow_mut().mistakes.push(Mistake {
            file,
            line,
            key: path.to_owned(),
            message,
            hint,
        });
    }

    /// The line of a key, or of the nearest table around it that has one: what is missing is missing there.
    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = parent(path)?;
        }
    }

    fn variable(&self, path: &str) -> Option<&str> {
        self.variables.get(path).map(String::as_str)
    }

    fn find_unknown(&self, path: &str, values: &BTreeMap<String, Value>) {
        let known = {
            let parsing = self.parsing.borrow();
            if parsing.maps.contains(path) {
                None
            } else {
                parsing.asked.get(path).cloned()
            }
        };
        for (key, value) in values {
            let inner = join(path, key);
            if let Some(known) = &known
                && !known.contains(key.as_str())
            {
                let hint = nearest(key, known.iter().copied())
                    .map(|near| format!("did you mean `{near}`?"));
                self.record_unknown(&inner, value, hint.unwrap_or_default());
                continue;
            }
            match value {
                Value::Table(values) if self.was_entered(&inner) => {
                    self.find_unknown(&inner, values)
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let inner = format!("{inner}[{index}]");
                        if let Value::Table(values) = item
                            && self.was_entered(&inner)
                        {
                            self.find_unknown(&inner, values);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn was_entered(&self, path: &str) -> bool {
        self.parsing.borrow().asked.contains_key(path)
    }

    /// An unknown table that only the environment made is reported by its variable.
    fn record_unknown(&self, path: &str, value: &Value, hint: String) {
        let inside = format!("{path}.");
        let made_by = self
            .variables
            .iter()
            .find(|(set, _)| set.starts_with(&inside));
        match (value, made_by) {
            (Value::Table(_), Some((_, variable))) if !self.lines.contains_key(path) => {
                self.parsing.borrow_mut().mistakes.push(Mistake {
                    file: format!("${variable}"),
                    line: None,
                    key: path.to_owned(),
                    message: "unknown key".to_owned(),
                    hint,
                });
            }
            _ => self.record(path, "unknown key".to_owned(), hint),
        }
    }
}

fn read(path: &Path, name: &str) -> Result<String, Mistakes> {
    let unreadable = |error: std::io::Error| {
        Mistakes::about_file(
            name,
            None,
            format!("can't be read: {error}"),
            "name a file with --config",
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_FILE {
        return Err(too_large(name));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Mistakes::about_file(
            name,
            Some(line),
            "is not UTF-8 text",
            "save the file as UTF-8",
        )
    })
}

fn too_large(name: &str) -> Mistakes {
    Mistakes::about_file(
        name,
        None,
        format!("is larger than {} MiB", MAX_FILE >> 20),
        "is this the right file?",
    )
}

/// The path of the table around: `a.b` of `a.b.c`, `a` of `a[0]`; quoted keys are taken whole.
fn parent(path: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let mut cut = None;
    for (index, character) in path.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' | '[' if !quoted => cut = Some(index),
            _ => {}
        }
    }
    cut.map(|index| &path[..index])
}

/// The path with indexes left out and the names of map entries replaced by `*`.
fn pattern(path: &str, maps: &BTreeSet<String>) -> String {
    let Some(above) = parent(path) else {
        return path.to_owned();
    };
    let outer = pattern(above, maps);
    let own = &path[above.len()..];
    if own.starts_with('[') {
        format!("{outer}[]")
    } else if maps.contains(above) {
        format!("{outer}.*")
    } else {
        format!("{outer}{own}")
    }
}
