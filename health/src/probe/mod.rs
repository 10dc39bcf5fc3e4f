//! One probe of one address: a connection, a datagram or a request, and a [`Finding`] with the reason in words.
//!
//! A probe never outlives its timeout and never reads more than a bounded head and body (or one datagram), whatever the target
//! sends.

mod connect;
mod http;
mod status_set;
mod tcp;
mod udp;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use self::http::HttpProbe;
pub use self::status_set::StatusSet;
pub use self::udp::UdpProbe;
use crate::check::Check;
use crate::threshold::Outcome;

/// Longest reason, in bytes.
const REASON_LIMIT: usize = 200;

/// What is sent and what answer is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A connection is accepted by the target's kernel.
    Tcp,
    /// A datagram is not refused or, if required, answered.
    Udp(UdpProbe),
    /// A request is answered with a wanted status.
    Http(HttpProbe),
}

impl Probe {
    /// `tcp`, `udp` or `http`, as in the configuration and in metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Probe::Tcp => "tcp",
            Probe::Udp(_) => "udp",
            Probe::Http(_) => "http",
        }
    }
}

/// What a probe found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it says about the target.
    pub outcome: Outcome,
    /// The same in words for an operator, such as `connect refused` or `status 503, expected 200-399`.
    pub reason: String,
}

impl Finding {
    fn success(reason: impl Into<String>) -> Finding {
        Finding {
            outcome: Outcome::Success,
            reason: reason.into(),
        }
    }

    fn failure(reason: impl Into<String>) -> Finding {
        Finding {
            outcome: Outcome::Failure,
            reason: reason.into(),
        }
    }

    /// The same with a reason that fits a log line and a bus record, whatever the target had in it.
    fn printable(mut self) -> Finding {
        self.reason = self.reason.replace(char::is_control, " ");
        if self.reason.len() > REASON_LIMIT {
            let end = (0..=REASON_LIMIT)
                .rev()
                .find(|end| self.reason.is_char_boundary(*end))
                .unwrap_or(0);
            self.reason.truncate(end);
            self.reason.push_str("...");
        }
        self
    }

    /// What an error of the operating system says about the target.
    fn from_io(doing: &str, error: &io::Error) -> Finding {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("{doing} refused"),
            io::ErrorKind::ConnectionReset => format!("{doing}: connection reset by the target"),
            _ => format!("{doing}: {error}"),
        };
        Finding {
            outcome: if is_local(error) {
                Outcome::Unknown
            } else {
                Outcome::Failure
            },
            reason,
        }
    }
}

/// Probes once, within the check's timeout.
pub async fn probe(check: &Check) -> Finding {
    let attempt = Attempt {
        address: check.address,
        source: check.settings.source,
        deadline: Instant::now() + check.settings.timeout,
        timeout: check.settings.timeout,
    };
    let finding = match &check.settings.probe {
        Probe::Tcp => tcp::probe(&attempt).await,
        Probe::Udp(udp) => udp::probe(&attempt, udp).await,
        Probe::Http(http) => http::probe(&attempt, http).await,
    };
    finding.unwrap_or_else(|early_end| early_end).printable()
}

/// Where and until when one probe runs.
struct Attempt {
    address: SocketAddr,
    source: Option<IpAddr>,
    deadline: Instant,
    timeout: Duration,
}

impl Attempt {
    /// Runs one step of the probe; `doing` names it, should the time run out meanwhile.
    async fn step<T>(&self, doing: &str, step: impl Future<Output = T>) -> Result<T, Finding> {
        timeout_at(self.deadline, step)
            .await
            .map_err(|_| Finding::failure(format!("timed out after {:?} {doing}", self.timeout)))
    }
}

/// True for errors that say something about this node and nothing about the target: it ran out of sockets, ports or memory,
/// does not have the configured source address, or its own packet filter refused.
///
/// A missing route is not among them (ENETUNREACH, EHOSTUNREACH): routers on the way answer with the same, and a node without a way to its
/// targets is right to take them for down.
fn is_local(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRINUSE
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL
        )
    )
}
