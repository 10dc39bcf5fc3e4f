//! What is checked: one [`Check`] is one address probed one way, with the rules that turn probes into a state.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::probe::Probe;
use crate::threshold::Thresholds;

/// One address, how to probe it, and when to believe the probes.
///
/// Two checks with the same id, address and probe are the same check under changed rules: the state survives.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Names the check towards whoever asked for it; unique within one [`Checker`](crate::Checker).
    pub id: CheckId,
    /// Where the probe goes.
    pub address: SocketAddr,
    /// What is sent and what answer is wanted.
    pub probe: Probe,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// For the whole probe: connecting, asking and reading the answer.
    pub timeout: Duration,
    /// Successes in a row that bring a target up.
    pub rise: u32,
    /// Failures in a row that take a target down.
    pub fall: u32,
    /// How often a failed probe is repeated before it counts as one failure.
    pub retries: u32,
    /// From a failed probe to its repetition.
    pub retry_delay: Duration,
    /// Each interval is stretched or shortened by up to this share of itself, 0.0 to 0.5.
    pub jitter: f64,
    /// The state until the first probe has an answer.
    pub initially: State,
    /// The local address probes come from; the kernel chooses when absent.
    pub source: Option<IpAddr>,
}

impl Check {
    /// The rules of this check for the threshold machine.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            rise: self.rise,
            fall: self.fall,
            retries: self.retries,
            initially: self.initially,
        }
    }
}

/// The name of a check. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(Arc<str>);

impl CheckId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for CheckId {
    fn from(name: &str) -> CheckId {
        CheckId(name.into())
    }
}

impl From<String> for CheckId {
    fn from(name: String) -> CheckId {
        CheckId(name.into())
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a target may be given traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Serves.
    Up,
    /// Does not serve.
    Down,
}

impl State {
    /// True for [`State::Up`].
    pub fn is_up(self) -> bool {
        self == State::Up
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            State::Up => "up",
            State::Down => "down",
        })
    }
}
