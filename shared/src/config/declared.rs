//! What a parser says of each key it asks for: whether a new value takes effect in the running process, whether it may be shown, what tells
//! the tables of a list apart, and whether the file it names belongs to the configuration.
//!
//! A key says so where it is asked for, by the handle it is asked of ([`Table::live`](super::Table::live),
//! [`Table::secret`](super::Table::secret)). What is said nowhere needs a restart and is shown.

use std::collections::BTreeMap;

use super::files::Content;
use super::place::Places;
use super::reference::Facts;
use super::value::Value;

/// What a handle says of the keys that are asked of it and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scope {
    /// A new value takes effect while the process runs; else by a restart.
    pub(super) live: bool,
    /// The value is never shown.
    pub(super) secret: bool,
}

/// How the tables of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Items {
    /// By their places, so that one that moves is another.
    ByPlace,
    /// By what this key of theirs says; their order means nothing.
    By(&'static str),
    /// By what this key of theirs says; their order means something.
    InOrderBy(&'static str),
}

/// What was said of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Declaration {
    pub(super) scope: Scope,
    /// Of a list of tables: how they are told apart.
    pub(super) items: Option<Items>,
    /// Of a file that belongs to the configuration: what was in it.
    pub(super) content: Option<Content>,
    /// What the reference is held to, of a document that is [describing](super::Document::describing).
    pub(super) facts: Option<Facts>,
}

impl Declaration {
    /// Takes in what is said when the key is asked for once more: a secret stays one, and live is what was declared so once.
    pub(super) fn says(&mut self, scope: Scope) {
        self.scope.live |= scope.live;
        self.scope.secret |= scope.secret;
    }
}

/// All that was said, by the path of the table and the key.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    pub(super) asked: BTreeMap<String, BTreeMap<&'static str, Declaration>>,
    /// Tables whose keys are names given by the user, by their paths.
    pub(super) maps: BTreeMap<String, Scope>,
    /// What people call a table of a list, by its path.
    pub(super) called: BTreeMap<String, String>,
}

impl Declarations {
    pub(super) fn entry(&mut self, table: &str, key: &'static str) -> &mut Declaration {
        self.asked
            .entry(table.to_owned())
            .or_default()
            .entry(key)
            .or_default()
    }

    fn of(&self, table: &str, key: &str) -> Option<&Declaration> {
        self.asked.get(table)?.get(key)
    }
}

/// A document as it was written, with what its parser said of each key: what a reload compares.
#[derive(Debug, Default)]
pub struct Written {
    pub(super) root: BTreeMap<String, Value>,
    pub(super) declarations: Declarations,
    pub(super) places: Places,
}

impl Written {
    /// The names of the files that belong to the configuration.
    pub(crate) fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        let tables = self.declarations.asked.values();
        tables
            .flat_map(BTreeMap::values)
            .filter_map(|declaration| Some(declaration.content.as_ref()?.file.path()))
    }

    pub(super) fn declaration(&self, table: &str, key: &str) -> Option<&Declaration> {
        self.declarations.of(table, key)
    }

    /// Whether the parser looked into the table, rather than taking it for one value.
    pub(super) fn was_entered(&self, path: &str) -> bool {
        self.declarations.asked.contains_key(path)
    }

    /// What people call the table of a list at this path.
    pub(super) fn called(&self, path: &str) -> Option<&str> {
        self.declarations.called.get(path).map(String::as_str)
    }

    /// What is said of the entries of a table whose keys are names; none of other tables.
    pub(super) fn map(&self, path: &str) -> Option<Scope> {
        self.declarations.maps.get(path).copied()
    }
}
