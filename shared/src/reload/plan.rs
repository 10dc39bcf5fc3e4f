//! What a reload would do, asked of the running process. Nothing changes.
//!
//! The text comes with the question, so that a file can be tried before it is where the process reads it. The process lays its own environment over
//! it, as a reload would. Files that the text names are opened only beside those that the process reads already, unless the text is what its
//! own file holds: the admin listener must not become a way to look at other files of the machine.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Reloader, declared_as_applied, only_by};
use crate::admin::{CommandError, arguments};
use crate::config::{Configuration, Loaded, MAX_FILE, Reach, directory, read};

/// Longest body of the command, in bytes: a whole file, with room for what JSON escapes of it.
pub(crate) const LONGEST_PLAN: usize = MAX_FILE + (MAX_FILE >> 2);

/// Arguments of `plan`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// What the file is called in messages.
    file: String,
    /// What it holds.
    text: String,
}

/// What a reload would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Each key that would change.
    pub changes: Vec<Planned>,
    /// What clients and peers would notice: connections, flows and sessions that would end, and why. Nothing if the reload would be refused.
    pub ends: Vec<String>,
    /// What the new configuration is warned of.
    pub warnings: Vec<String>,
    /// Why the reload would be refused, if it would.
    pub refused: Option<String>,
}

/// A key that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The key and what becomes of it.
    pub change: String,
    /// Whether only a restart brings it about.
    pub needs_restart: bool,
}

impl<C: Configuration> Reloader<C> {
    pub(super) async fn plan(&self, args: Value) -> Result<Value, CommandError> {
        let Asked { file, text } = arguments(args)?;
        if text.len() > MAX_FILE {
            let why = format!("the text is larger than {} MiB", MAX_FILE >> 20);
            return Err(CommandError::Invalid(why));
        }
        let plan = self.would_do(file, text).await;
        let plan = plan.map_err(CommandError::Refused)?;
        serde_json::to_value(plan).map_err(|error| CommandError::Failed(error.to_string()))
    }

    /// What a reload would do if its file held `text`; `name` stands for it in messages.
    ///
    /// # Errors
    /// All that is wrong with it, a line each.
    pub async fn would_do(&self, name: String, text: String) -> Result<Plan, String> {
        let written = self.0.turn.clone().lock_owned().await;
        let running = self.running()?;
        let own = self.standing().file;
        let known: BTreeSet<_> = written.files().map(Path::to_owned).collect();
        let loaded = tokio::task::spawn_blocking(move || {
            let own = Path::new(&own);
            let is_own = read(own, "").is_ok_and(|held| held == text);
            let reach = match is_own {
                true => Reach::Everything,
                false => {
                    let files = known.iter().map(AsRef::as_ref).chain([own]);
                    let directories: BTreeSet<_> = files.filter_map(directory).collect();
                    Reach::Within(directories.into_iter().collect())
                }
            };
            Loaded::<C>::of_text(Path::new(&name), &text, reach)
        });
        let loaded = loaded
            .await
            .map_err(|error| format!("reading the text: {error}"))??;
        let step = self.step(&written, &loaded);
        let restarts = step.changes.iter().filter(|change| !change.live).count();
        let refused = match restarts {
            0 => declared_as_applied(&step)
                .err()
                .filter(|_| !step.changes.is_empty()),
            1 => Some(format!("one of these takes effect {}", only_by::<C>())),
            count => Some(format!("{count} of these take effect {}", only_by::<C>())),
        };
        let (ends, notes) = match &refused {
            None if !step.changes.is_empty() => (
                running.would_end(step.clone()).await,
                running.notes(step.clone()).await,
            ),
            _ => (Vec::new(), Vec::new()),
        };
        let warnings = loaded.warnings.iter().map(ToString::to_string);
        let planned = |change: &crate::config::Change| Planned {
            change: change.to_string(),
            needs_restart: !change.live,
        };
        Ok(Plan {
            changes: step.changes.iter().map(planned).collect(),
            ends,
            warnings: warnings.chain(notes).collect(),
            refused,
        })
    }
}
