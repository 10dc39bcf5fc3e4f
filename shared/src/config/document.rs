//! Loading a document: the file, laid over by the environment, with the line of every key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::declared::{Declaration, Declarations, Scope, Written};
use super::environment;
use super::files::{self, Content, NamedFile, Reach, Use};
use super::foreign;
use super::lines;
use super::mistakes::{MAX_MISTAKES, Mistake, Mistakes, Warning};
use super::open::read_configuration;
use super::place::{Place, Places, parent};
use super::reference::{Facts, Row};
use super::table::{Table, join, nearest};
use super::value::{FromValue, Value};

/// A configuration file may be this large, in bytes.
pub const MAX_FILE: usize = 16 << 20;

/// A loaded configuration that knows where each of its values came from.
#[derive(Debug)]
pub struct Document {
    root: BTreeMap<String, Value>,
    places: Places,
    /// Which of the files it names may be read.
    reach: Reach,
    /// Whether what is said of each key is kept, for the reference pages.
    describes: bool,
    parsing: RefCell<Parsing>,
}

/// What a parser has found out so far.
#[derive(Debug, Default)]
struct Parsing {
    mistakes: Vec<Mistake>,
    warnings: Vec<Warning>,
    unusable: Vec<Mistake>,
    declarations: Declarations,
}

/// A document that was read to its end.
#[derive(Debug)]
pub struct Parsed<T> {
    /// What it says.
    pub value: T,
    /// What is allowed, and yet not all that one may expect of it.
    pub warnings: Vec<Warning>,
    /// Files it names that can't be read now, or hold something else. A process that starts goes on without them where it can.
    pub unusable: Mistakes,
    /// The text with what was said of each key, to compare with a later one.
    pub written: Written,
}

impl Document {
    /// Reads a file and lays `WEIR__...` variables of the process environment over it.
    ///
    /// # Errors
    /// One mistake if the file can't be read, is too large, is not UTF-8 or is not TOML; one for each variable that can't be placed.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        let text = read(path, &name)?;
        Self::of_process(&name, &text, Reach::Everything)
    }

    /// A document from text, laid over by the variables of this process; of the files it names, those in `reach` are read.
    pub(crate) fn of_process(name: &str, text: &str, reach: Reach) -> Result<Self, Mistakes> {
        let mut document = Self::build(name, text, environment::of_process())?;
        document.reach = reach;
        Ok(document)
    }

    /// A document from text alone; `name` stands for the file in messages. Neither the environment nor the files it names are looked at.
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
            root,
            places: Places {
                file: name.to_owned(),
                lines,
                variables,
            },
            reach: Reach::Nothing,
            describes: false,
            parsing: RefCell::default(),
        })
    }

    /// The table at the top.
    pub fn root(&self) -> Table<'_> {
        Table::new(self, String::new(), &self.root, Scope::default())
    }

    /// As [`Self::parse`], with all that was found out besides.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn into_parsed<T>(
        self,
        parse: impl FnOnce(&mut Table<'_>) -> Option<T>,
    ) -> Result<Parsed<T>, Mistakes> {
        let value = self.parse(parse)?;
        Ok(self.parsed(value))
    }

    /// What [`Self::parse`] made of it, with all that was found out besides.
    pub(super) fn parsed<T>(self, value: T) -> Parsed<T> {
        let Parsing {
            mistakes: _,
            warnings,
            unusable,
            declarations,
        } = self.parsing.into_inner();
        Parsed {
            value,
            warnings,
            unusable: Mistakes::first(&self.places.file, unusable.into_iter()),
            written: Written {
                root: self.root,
                declarations,
                places: self.places,
            },
        }
    }

    /// Mistakes of the last [`Self::parse`], with those of files that can't be used.
    pub(super) fn with_unusable(&self, mistakes: Mistakes) -> Mistakes {
        let Mistakes(mut all) = mistakes;
        // More than are listed already: these come to light once those are mended.
        if all.len() > MAX_MISTAKES {
            return Mistakes(all);
        }
        all.extend_from_slice(&self.parsing.borrow().unusable);
        all.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        Mistakes::first(&self.places.file, all.into_iter())
    }

    /// Runs `parse` over the root table, then adds every key nobody asked for.
    ///
    /// # Errors
    /// All mistakes found, in the order of the file.
    pub fn parse<T>(&self, parse: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Result<T, Mistakes> {
        self.parsing.take();
        let parsed = parse(&mut self.root());
        let is_sound = self.parsing.borrow().mistakes.is_empty();
        self.find_unknown("", &self.root, is_sound);

        let mut mistakes = std::mem::take(&mut self.parsing.borrow_mut().mistakes);
        match parsed {
            Some(parsed) if mistakes.is_empty() => Ok(parsed),
            None if mistakes.is_empty() => Err(Mistakes::about_file(
                &self.places.file,
                None,
                "can't be used",
                "",
            )),
            _ => {
                mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
                let mut told = HashSet::new();
                mistakes.retain(|mistake| told.insert(mistake.clone()));
                Err(Mistakes::first(&self.places.file, mistakes.into_iter()))
            }
        }
    }

    /// Has the next [`Self::parse`] keep what is said of each key, for [`Self::rows`].
    pub fn describing(mut self) -> Self {
        self.describes = true;
        self
    }

    /// What the last [`Self::parse`] said of each key that is no table, in the order of [`Self::asked`]; nothing unless it was
    /// [describing](Self::describing).
    pub fn rows(&self) -> Vec<Row> {
        let Declarations { asked, maps, .. } = &self.parsing.borrow().declarations;
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for (path, keys) in asked {
            let table = pattern(path, maps);
            for (key, declaration) in keys {
                let Some(facts) = &declaration.facts else {
                    continue;
                };
                let key = join(&table, key);
                let row = rows.entry(key.clone()).or_insert_with(|| Row {
                    key,
                    live: declaration.scope.live,
                    facts: Facts::default(),
                });
                row.live &= declaration.scope.live;
                row.facts.join(facts.clone());
            }
        }
        rows.into_values().collect()
    }

    /// Every key the last [`Self::parse`] asked for, as `bus.nats.servers`, `services[].vip` (array of tables) or `upstreams.*.timeout`
    /// (named tables), sorted.
    ///
    /// This is how a tier's test holds its reference page to its parser: parse a sample that has every table at least once, then
    /// compare this list with the keys of the page (see `shared/tests/reference.rs`).
    pub fn asked(&self) -> Vec<String> {
        let parsing = self.parsing.borrow();
        let mut keys = BTreeSet::new();
        for (path, asked) in &parsing.declarations.asked {
            let table = pattern(path, &parsing.declarations.maps);
            keys.extend(asked.keys().map(|key| join(&table, key)));
        }
        keys.into_iter().collect()
    }

    pub(super) fn root_mut(&mut self) -> &mut BTreeMap<String, Value> {
        &mut self.root
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
            .declarations
            .asked
            .entry(path.to_owned())
            .or_default();
    }

    pub(super) fn entered_map(&self, path: &str, scope: Scope) {
        self.parsing
            .borrow_mut()
            .declarations
            .maps
            .insert(path.to_owned(), scope);
    }

    pub(super) fn called(&self, path: &str, name: String) {
        let called = &mut self.parsing.borrow_mut().declarations.called;
        called.insert(path.to_owned(), name);
    }

    pub(super) fn asked_for(&self, path: &str, key: &'static str, scope: Scope) {
        self.declare(path, key, |declaration| declaration.says(scope));
    }

    pub(super) fn declare(
        &self,
        path: &str,
        key: &'static str,
        declare: impl FnOnce(&mut Declaration),
    ) {
        declare(self.parsing.borrow_mut().declarations.entry(path, key));
    }

    pub(super) fn describe(&self, path: &str, key: &'static str, facts: impl FnOnce() -> Facts) {
        if self.describes {
            self.declare(path, key, |declaration| {
                declaration.facts.get_or_insert_default().join(facts());
            });
        }
    }

    /// Reads the file that the key names, for comparing it later. `look` says what may be shown of it, or what is wrong with it; what comes of that
    /// follows from how it is `used`. A file that must not be opened is a mistake.
    pub(super) fn named_file(
        &self,
        table: &str,
        key: &'static str,
        path: PathBuf,
        used: Use,
        look: impl FnOnce(&[u8]) -> Result<Option<String>, String>,
    ) -> NamedFile {
        let mut digest = None;
        let is_covered = self.reach.covers(&path);
        let looked = match &self.reach {
            _ if is_covered => files::read(&path)
                .map_err(|error| format!("can't be read: {error}"))
                .and_then(|bytes| {
                    digest = files::digest_of(&bytes);
                    look(&bytes)
                }),
            Reach::Nothing | Reach::Everything => Ok(None),
            Reach::Within(_) => {
                Err("is not beside a file that is read already, and a plan opens no others".into())
            }
        };
        let shown = looked.unwrap_or_else(|why| {
            let at = join(table, key);
            let message = format!("{}: {why}", path.display());
            match used {
                Use::Opened if is_covered => {}
                Use::Reread if is_covered => self.warn(&at, message, String::new()),
                Use::Part | Use::Opened | Use::Reread => {
                    let mistake = self.place(&at).mistake(message, "");
                    self.parsing.borrow_mut().unusable.push(mistake);
                }
            }
            None
        });
        let file = NamedFile::new(path, digest);
        let content = Content {
            file: file.clone(),
            used,
            shown,
        };
        self.declare(table, key, |declaration| {
            declaration.content = Some(content);
        });
        file
    }

    /// Reads a value; text from the environment is also tried as the TOML value it spells, as a variable can hold nothing but text.
    pub(super) fn read<T: FromValue>(&self, path: &str, value: &Value) -> Result<T, String> {
        let read = T::from_value(value);
        match (&read, value) {
            (Err(_), Value::String(text)) if self.places.variables.contains_key(path) => {
                match environment::spelled(text) {
                    Some(value) => T::from_value(&value),
                    None => read,
                }
            }
            _ => read,
        }
    }

    pub(super) fn record(&self, path: &str, message: String, hint: String) {
        let mistake = self.place(path).mistake(message, hint);
        self.parsing.borrow_mut().mistakes.push(mistake);
    }

    /// Records what is wrong with an item of the list at `path`, at the line it is in.
    pub(super) fn record_item(&self, path: &str, index: usize, message: String) {
        let mut place = self.place(path);
        if place.line.is_some() {
            place.line = self.place(&format!("{path}[{index}]")).line;
        }
        let mistake = place.mistake(message, "");
        self.parsing.borrow_mut().mistakes.push(mistake);
    }

    pub(super) fn warn(&self, path: &str, message: String, hint: String) {
        let warning = Warning(self.place(path).mistake(message, hint));
        let warnings = &mut self.parsing.borrow_mut().warnings;
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(super) fn place(&self, path: &str) -> Place {
        self.places.of(path)
    }

    /// Records each key that nobody asked for. A table of which nothing was asked was given up for a mistake around it, if there is any: its keys are
    /// no mistakes, and would bury that one.
    fn find_unknown(&self, path: &str, values: &BTreeMap<String, Value>, is_sound: bool) {
        let known = {
            let Declarations { asked, maps, .. } = &self.parsing.borrow().declarations;
            match maps.contains_key(path) {
                true => None,
                false => asked
                    .get(path)
                    .map(|asked| asked.keys().copied().collect::<BTreeSet<_>>()),
            }
        };
        if !is_sound && known.as_ref().is_some_and(BTreeSet::is_empty) {
            return;
        }
        for (key, value) in values {
            let inner = join(path, key);
            if let Some(known) = &known
                && !known.contains(key.as_str())
            {
                let foreign = foreign::hint(key).filter(|_| self.is_of_a_proxy());
                let near = || {
                    nearest(key, known.iter().copied())
                        .map(|near| format!("did you mean `{near}`?"))
                };
                let hint = foreign.map(str::to_owned).or_else(near);
                self.record_unknown(&inner, value, hint.unwrap_or_default());
                continue;
            }
            match value {
                Value::Table(values) if self.was_entered(&inner) => {
                    self.find_unknown(&inner, values, is_sound);
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let inner = format!("{inner}[{index}]");
                        if let Value::Table(values) = item
                            && self.was_entered(&inner)
                        {
                            self.find_unknown(&inner, values, is_sound);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether the parser asked for what only a proxy of HTTP has.
    fn is_of_a_proxy(&self) -> bool {
        let parsing = self.parsing.borrow();
        let root = parsing.declarations.asked.get("");
        root.is_some_and(|keys| keys.contains_key("upstreams"))
    }

    fn was_entered(&self, path: &str) -> bool {
        self.parsing.borrow().declarations.asked.contains_key(path)
    }

    /// An unknown table that only the environment made is reported by its variable.
    fn record_unknown(&self, path: &str, value: &Value, hint: String) {
        let inside = format!("{path}.");
        let made_by = self
            .places
            .variables
            .iter()
            .find(|(set, _)| set.starts_with(&inside));
        match (value, made_by) {
            (Value::Table(_), Some((_, variable))) if !self.places.lines.contains_key(path) => {
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

pub(crate) fn read(path: &Path, name: &str) -> Result<String, Mistakes> {
    let unreadable = |error: std::io::Error| {
        Mistakes::about_file(
            name,
            None,
            format!("can't be read: {error}"),
            "name a file with --config",
        )
    };
    let bytes = read_configuration(path, MAX_FILE).map_err(unreadable)?;
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

/// The path with indexes left out and the names of map entries replaced by `*`.
fn pattern(path: &str, maps: &BTreeMap<String, Scope>) -> String {
    let Some(above) = parent(path) else {
        return path.to_owned();
    };
    let outer = pattern(above, maps);
    let own = &path[above.len()..];
    if own.starts_with('[') {
        format!("{outer}[]")
    } else if maps.contains_key(above) {
        format!("{outer}.*")
    } else {
        format!("{outer}{own}")
    }
}
