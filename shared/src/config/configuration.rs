//! A tier's configuration as a whole: how it is read, what it must be beyond what any key says, and what of it a restart alone changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::declared::Written;
use super::document::{Document, Parsed};
use super::files::Reach;
use super::mistakes::Warning;
use super::table::Table;

/// What a tier makes of a [`Document`].
pub trait Configuration: Send + Sync + Sized + 'static {
    /// The tier in the names of metrics: `l4` of `weir_l4_...`.
    const TIER: &'static str;
    /// Where the process answers on loopback, unless configured.
    const ADMIN_PORT: u16;
    /// The command that brings about what otherwise takes a restart; none if a restart is the only way. Where there is one, a refusal also says where
    /// the keys are written.
    const UPGRADE: Option<&'static str> = None;

    /// Reads the whole document. What is wrong is recorded in it.
    fn parse(root: &mut Table<'_>) -> Option<Self>;

    /// Whether all of it together can be put to use, which no single key can say, and what of it is to be warned of. Asked at the start, by
    /// `check`, by a reload and by a plan.
    ///
    /// # Errors
    /// What stands in the way, a line each, as it is to be printed.
    fn feasible(&self) -> Result<Vec<Warning>, String> {
        Ok(Vec::new())
    }

    /// Whether all that only a restart changes is as in `other`. A reload that would leave any of this behind is refused, whatever was declared: take
    /// the type apart without `..`, so that a new field has to be put on one side or the other.
    fn is_fixed_as(&self, other: &Self) -> bool;
}

/// A configuration that was read, found to be sound, and can be put in force.
#[derive(Debug)]
pub struct Loaded<C> {
    /// Where it was read, as an absolute path.
    pub file: PathBuf,
    /// What it says.
    pub config: Arc<C>,
    /// What is allowed, and yet not all that one may expect of it.
    pub warnings: Vec<Warning>,
    pub(crate) written: Written,
}

/// What becomes of files that a configuration names and that can't be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// They are warned of: a process starts, and looks again when it needs them.
    Warns,
    /// They are mistakes: the file is checked, or would replace one that works.
    Refuses,
}

impl<C: Configuration> Loaded<C> {
    /// Reads a file and the environment, and the files it names.
    ///
    /// # Errors
    /// All that is wrong, a line each.
    pub fn read(file: &Path, unusable: Unusable) -> Result<Self, String> {
        let document = Document::load(file).map_err(|mistakes| mistakes.to_string())?;
        Self::of(document, file, unusable)
    }

    /// As it would be read from `file`, if that held `text`. Of the files it names, those in `reach` are read.
    pub(crate) fn of_text(file: &Path, text: &str, reach: Reach) -> Result<Self, String> {
        let name = file.display().to_string();
        let document =
            Document::of_process(&name, text, reach).map_err(|mistakes| mistakes.to_string())?;
        Self::of(document, file, Unusable::Refuses)
    }

    fn of(document: Document, file: &Path, treats: Unusable) -> Result<Self, String> {
        let value = document.parse(C::parse);
        let value = value.map_err(|mistakes| match treats {
            Unusable::Refuses => document.with_unusable(mistakes).to_string(),
            Unusable::Warns => mistakes.to_string(),
        })?;
        let Parsed {
            value,
            mut warnings,
            unusable,
            written,
        } = document.parsed(value);
        match treats {
            Unusable::Refuses if !unusable.0.is_empty() => return Err(unusable.to_string()),
            Unusable::Refuses | Unusable::Warns => {
                warnings.extend(unusable.0.into_iter().map(Warning));
            }
        }
        warnings.extend(value.feasible()?);
        Ok(Self {
            // Who hears of it may be in another directory.
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            config: Arc::new(value),
            warnings,
            written,
        })
    }

    /// Logs what is to be warned of.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}
