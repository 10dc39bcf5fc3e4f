//! Why other nodes don't hear what this process says on the bus.

use std::fmt;

use serde::Serialize;

use super::record::unix_ms;

/// What keeps others from hearing this process. What it has to say is kept, the latest per key, and sent when that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// Why.
    pub why: SilentBecause,
    /// Until about when, in milliseconds of Unix time; none if that can't be told.
    pub until_unix_ms: Option<u64>,
}

/// The reasons to be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SilentBecause {
    /// The servers are not in reach.
    Disconnected,
    /// The process has said nothing yet.
    Starting,
    /// A record of another life is there, an earlier one probably: this process listens first whether that one goes on writing.
    Listening,
    /// Another process writes under this one's name.
    Duplicate,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "other nodes have not been told yet: ")?;
        match self.why {
            SilentBecause::Disconnected => write!(f, "bus servers unreachable"),
            SilentBecause::Starting => write!(f, "the process is starting"),
            SilentBecause::Listening => {
                write!(f, "this node's previous process may still be running")
            }
            SilentBecause::Duplicate => write!(f, "another process uses this node's name"),
        }?;
        let Some(until) = self.until_unix_ms else {
            return Ok(());
        };
        let left = until.saturating_sub(unix_ms()) as f64 / 1000.0;
        write!(f, "; expected in {left:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_says_why_and_for_how_long() {
        let silence = |why, until_unix_ms| Silence { why, until_unix_ms }.to_string();
        assert_eq!(
            silence(SilentBecause::Disconnected, None),
            "other nodes have not been told yet: bus servers unreachable"
        );
        assert_eq!(
            silence(SilentBecause::Listening, Some(unix_ms() - 1)),
            "other nodes have not been told yet: this node's previous process may still be running; expected in 0.0 s"
        );
    }
}
