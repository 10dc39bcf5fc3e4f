//! What goes wrong between us and a backend, and what that means for a retry and for the log.

use std::io;

use crate::http::{BodyError, InvalidResponse};
use crate::observe::reason::Reason;

/// Why there is no connection to a backend.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, or out of local ports or descriptors.
    #[error("cannot connect: {0}")]
    Failed(#[from] io::Error),
    /// Not there within the connect timeout.
    #[error("cannot connect in time")]
    TimedOut,
}

impl ConnectError {
    /// The word for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            ConnectError::Failed(_) => Reason::ConnectFailed,
            ConnectError::TimedOut => Reason::ConnectTimeout,
        }
    }
}

/// Why there is no response head from a connected backend.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection was gone before the request was written.
    #[error("connection closed before the request was sent")]
    NotSent,
    /// The connection closed or broke before a complete response head.
    #[error("connection closed before a response: {0}")]
    Closed(io::Error),
    /// The request's own body broke off.
    #[error("the request was cut: {0}")]
    Cut(BodyError),
    /// What came back isn't HTTP.
    #[error("invalid response: {0}")]
    Invalid(#[from] InvalidResponse),
    /// No response head in time.
    #[error("no response in time")]
    TimedOut,
}

impl ExchangeError {
    /// The word for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            ExchangeError::NotSent | ExchangeError::Closed(_) | ExchangeError::Cut(_) => {
                Reason::UpstreamClosed
            }
            ExchangeError::Invalid(_) => Reason::UpstreamInvalid,
            ExchangeError::TimedOut => Reason::ResponseTimeout,
        }
    }
}
