//! Where a key stands, for what is found out about it after parsing: by opening the file it names, say.

use std::collections::{BTreeMap, HashMap};

use super::mistakes::Mistake;

/// A key of a configuration and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) file: String,
    pub(super) line: Option<usize>,
    pub(super) key: String,
}

impl Place {
    /// What is wrong there.
    pub fn mistake(&self, message: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line: self.line,
            key: self.key.clone(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The dotted path of the key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Where all keys of a document stand.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) file: String,
    /// Line of each key by its path.
    pub(super) lines: HashMap<String, usize>,
    /// Name of the environment variable by the path it set.
    pub(super) variables: BTreeMap<String, String>,
}

impl Places {
    pub(super) fn of(&self, path: &str) -> Place {
        let (file, line) = match self.variables.get(path) {
            Some(variable) => (format!("${variable}"), None),
            None => (self.file.clone(), self.line(path)),
        };
        Place {
            file,
            line,
            key: path.to_owned(),
        }
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
}

/// The path of the table around: `a.b` of `a.b.c`, `a` of `a[0]`; quoted keys are taken whole.
pub(super) fn parent(path: &str) -> Option<&str> {
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
