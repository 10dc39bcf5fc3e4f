//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

/// More mistakes than this are not listed one by one.
pub(super) const MAX_MISTAKES: usize = 200;

/// Most characters that are printed of each part of a mistake. Every name there may be has room in a path of this length; what doesn't is
/// not meant to be read, and would fill the log.
const MAX_PART: usize = 300;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

impl Mistake {
    /// A mistake about a whole file.
    pub(super) fn about_file(
        file: &str,
        line: Option<usize>,
        message: impl Into<String>,
        hint: &str,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line,
            key: String::new(),
            message: message.into(),
            hint: hint.to_owned(),
        }
    }
}

/// What is allowed, and yet not all that one may expect of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Mistake);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Each part is cut where it is longer than anybody wants to read.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Cut(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", Cut(&self.key))?;
        }
        write!(f, ": {}", Cut(&self.message))?;
        if !self.hint.is_empty() {
            write!(f, " — {}", Cut(&self.hint))?;
        }
        Ok(())
    }
}

/// The first [`MAX_PART`] characters of a text.
struct Cut<'t>(&'t str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.0.char_indices().nth(MAX_PART);
        match rest.and_then(|(at, _)| self.0.get(..at)) {
            Some(beginning) => write!(f, "{beginning}..."),
            None => f.write_str(self.0),
        }
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
        Self(vec![Mistake::about_file(file, line, message, hint)])
    }

    /// As many of `mistakes` as are listed, and how many more there are.
    pub(super) fn first(file: &str, mut mistakes: impl ExactSizeIterator<Item = Mistake>) -> Self {
        let more = mistakes.len().saturating_sub(MAX_MISTAKES);
        let mut listed: Vec<_> = mistakes.by_ref().take(MAX_MISTAKES).collect();
        if more > 0 {
            let message = format!("and {more} more mistakes");
            listed.push(Mistake::about_file(file, None, message, ""));
        }
        Self(listed)
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
