//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the user named it, or the environment variable the value came from (`$WEIR__NODE__ID`).
    pub file: String,
    /// Line in the file, counted from 1; none for what is missing from the whole file or came from the environment.
    pub line: Option<usize>,
    /// Dotted path of the key, such as `upstreams.api.timeout`; empty for the file as a whole.
    pub key: String,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " — {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one configuration; displays as one mistake a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// A single mistake about a whole file.
    pub(crate) fn about_file(
        file: &str,
        line: Option<usize>,
        message: impl Into<String>,
        hint: &str,
    ) -> Self {
        Self(vec![Mistake {
            file: file.to_owned(),
            line,
            key: String::new(),
            message: message.into(),
            hint: hint.to_owned(),
        }])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
