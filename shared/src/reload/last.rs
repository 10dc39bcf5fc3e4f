//! What came of the last reloads, as the status and the metrics tell it.

use std::path::PathBuf;

use metrics::{describe_gauge, gauge};
use serde::Serialize;

use crate::bus::unix_ms;
use crate::config::Change;

/// Most changes that are kept for the status.
const MOST_KEPT: usize = 100;

/// How the configuration stands. Times are milliseconds of Unix time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The file.
    pub file: String,
    /// Since when the configuration in force is: the start, or the last reload that succeeded.
    pub in_force_since_unix_ms: u64,
    /// Why the last reload changed nothing; none if it did.
    pub refused: Option<String>,
    /// The last reload that changed something; none since the start.
    pub last_change: Option<LastChange>,
    /// The last reload that was refused; none since the start.
    pub last_refusal: Option<LastRefusal>,
}

/// A reload that changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastChange {
    /// When.
    pub unix_ms: u64,
    /// Who asked for it.
    pub by: String,
    /// What changed, the first 100.
    pub changes: Vec<String>,
    /// How many more there were.
    pub left_out: usize,
}

/// A reload that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastRefusal {
    /// When.
    pub unix_ms: u64,
    /// Who asked for it.
    pub by: String,
    /// Why, a line each.
    pub why: String,
}

impl Standing {
    pub(super) fn started(file: PathBuf) -> Standing {
        Standing {
            file: file.display().to_string(),
            in_force_since_unix_ms: unix_ms(),
            refused: None,
            last_change: None,
            last_refusal: None,
        }
    }

    pub(super) fn succeeded(&self, by: &str, changes: &[Change]) -> Standing {
        let mut standing = self.clone();
        standing.in_force_since_unix_ms = unix_ms();
        standing.refused = None;
        if !changes.is_empty() {
            let shown = changes.iter().take(MOST_KEPT).map(ToString::to_string);
            standing.last_change = Some(LastChange {
                unix_ms: standing.in_force_since_unix_ms,
                by: by.to_owned(),
                changes: shown.collect(),
                left_out: changes.len().saturating_sub(MOST_KEPT),
            });
        }
        standing
    }

    pub(super) fn refused(&self, by: &str, why: &str) -> Standing {
        let mut standing = self.clone();
        standing.refused = Some(why.to_owned());
        standing.last_refusal = Some(LastRefusal {
            unix_ms: unix_ms(),
            by: by.to_owned(),
            why: why.to_owned(),
        });
        standing
    }

    pub(super) fn count(&self, tier: &str) {
        let successful = f64::from(u8::from(self.refused.is_none()));
        gauge!(successful_name(tier)).set(successful);
        let seconds = self.in_force_since_unix_ms as f64 / 1e3;
        gauge!(timestamp_name(tier)).set(seconds);
    }
}

fn successful_name(tier: &str) -> String {
    format!("weir_{tier}_config_last_reload_successful")
}

fn timestamp_name(tier: &str) -> String {
    format!("weir_{tier}_config_last_reload_success_timestamp_seconds")
}

pub(super) fn describe(tier: &str) {
    describe_gauge!(
        successful_name(tier),
        "1 if the last reload, or the start, put the file in force; 0 if it was refused."
    );
    describe_gauge!(
        timestamp_name(tier),
        "Since when the configuration in force is, in Unix time."
    );
}
