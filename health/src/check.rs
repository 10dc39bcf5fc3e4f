//! What is checked: one [`Check`] is one address under the settings of its service or upstream.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::settings::CheckSettings;

/// One address, how to probe it, and when to believe the probes.
///
/// Two checks with the same id, address and probe are the same check under changed rules: the state survives.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Names the check towards whoever asked for it; unique within one [`Checker`](crate::Checker).
    pub id: CheckId,
    /// Where the probe goes: to [`CheckSettings::port`] of the target's address where that is set.
    pub address: SocketAddr,
    /// The rest.
    pub settings: CheckSettings,
}

impl CheckSettings {
    /// The check of one target under these settings. `target` is where its traffic goes.
    pub fn check(&self, id: impl Into<CheckId>, target: SocketAddr) -> Check {
        Check {
            id: id.into(),
            address: SocketAddr::new(target.ip(), self.port.unwrap_or(target.port())),
            settings: self.clone(),
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
