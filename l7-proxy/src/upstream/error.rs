//! What goes wrong between us and a backend, and what that means for a retry and for the log.

use std::io;

use crate::reason::Reason;
use crate::retry::Failure;

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
    Closed(hyper::Error),
    /// What came back isn't HTTP.
    #[error("invalid response: {0}")]
    Invalid(hyper::Error),
    /// It is HTTP, but not a response to pass on.
    #[error("invalid response: {0}")]
    Refused(&'static str),
    /// No response head in time.
    #[error("no response in time")]
    TimedOut,
}

impl ExchangeError {
    /// Sorts an error of a request that was handed to the connection.
    pub(crate) fn of(error: hyper::Error) -> ExchangeError {
        if error.is_parse() {
            ExchangeError::Invalid(error)
        } else {
            ExchangeError::Closed(error)
        }
    }

    /// The word for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            ExchangeError::NotSent | ExchangeError::Closed(_) => Reason::UpstreamClosed,
            ExchangeError::Invalid(_) | ExchangeError::Refused(_) => Reason::UpstreamInvalid,
            ExchangeError::TimedOut => Reason::ResponseTimeout,
        }
    }

    /// What a retry is decided by; `reused` says whether the connection came from the pool.
    pub fn failure(&self, reused: bool) -> Failure {
        match self {
            ExchangeError::NotSent => Failure::Closed {
                reused,
                sent: false,
            },
            ExchangeError::Closed(_) => Failure::Closed { reused, sent: true },
            ExchangeError::Invalid(_) | ExchangeError::Refused(_) => Failure::Invalid,
            ExchangeError::TimedOut => Failure::Timeout,
        }
    }
}
