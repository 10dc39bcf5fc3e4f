//! Whether a failed try may be repeated: a pure decision.

use http::Method;

use crate::upstream::ExchangeError;

/// How a try failed before a response head arrived. Once the client has seen any of a response there is nothing to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: refused, unreachable or not in time. Nothing was sent.
    Connect,
    /// The connection closed.
    Closed {
        /// It came from the pool: most likely the backend had closed it while it was idle.
        reused: bool,
        /// Some of the request was written, so the backend may have acted on it. False when nothing of it was written.
        sent: bool,
    },
    /// No response head in time.
    Timeout,
    /// The response was not valid HTTP.
    Invalid,
}

impl Failure {
    /// What an exchange's error means for a retry; `reused` says whether the connection came from the pool.
    pub fn of(error: &ExchangeError, reused: bool) -> Failure {
        match error {
            ExchangeError::NotSent => Failure::Closed {
                reused,
                sent: false,
            },
            ExchangeError::Closed(_) | ExchangeError::Cut(_) => {
                Failure::Closed { reused, sent: true }
            }
            ExchangeError::Invalid(_) => Failure::Invalid,
            ExchangeError::TimedOut => Failure::Timeout,
        }
    }
}

/// What is left of the request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, or none of it was read from the client yet.
    Whole,
    /// Some of it was read and is gone.
    Consumed,
}

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The same backend again, on a fresh connection: the backend itself did not fail. Does not count as a retry.
    SameBackend,
    /// Another backend, as one of the upstream's retries.
    NextBackend,
    /// Answer the client.
    GiveUp,
}

/// Decides after a try failed. `retries_left` is what the upstream still allows.
///
/// A request is repeated when it cannot have been acted on, or when acting on it twice is harmless: RFC 9110 section 9.2.2 forbids a
/// proxy to repeat a non-idempotent request by itself. A timeout is not repeated: the next backend would be given the same slow
/// request, which is how one slow query takes down a fleet.
pub fn decide(method: &Method, body: Body, failure: Failure, retries_left: u32) -> Decision {
    if body == Body::Consumed {
        return Decision::GiveUp;
    }
    let another = if retries_left > 0 {
        Decision::NextBackend
    } else {
        Decision::GiveUp
    };
    match failure {
        Failure::Connect => another,
        Failure::Closed { sent: true, .. } if !method.is_idempotent() => Decision::GiveUp,
        Failure::Closed { reused: true, .. } => Decision::SameBackend,
        Failure::Closed { reused: false, .. } => another,
        Failure::Timeout | Failure::Invalid => Decision::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{GiveUp, NextBackend, SameBackend};

    #[test]
    fn a_try_is_repeated_only_where_it_is_safe() {
        let closed = |reused, sent| Failure::Closed { reused, sent };
        // (failure, GET, POST)
        let table = [
            (Failure::Connect, NextBackend, NextBackend),
            (closed(true, false), SameBackend, SameBackend),
            (closed(true, true), SameBackend, GiveUp),
            (closed(false, false), NextBackend, NextBackend),
            (closed(false, true), NextBackend, GiveUp),
            (Failure::Timeout, GiveUp, GiveUp),
            (Failure::Invalid, GiveUp, GiveUp),
        ];
        for (failure, get, post) in table {
            assert_eq!(
                decide(&Method::GET, Body::Whole, failure, 1),
                get,
                "GET {failure:?}"
            );
            assert_eq!(
                decide(&Method::PUT, Body::Whole, failure, 1),
                get,
                "PUT {failure:?}"
            );
            assert_eq!(
                decide(&Method::POST, Body::Whole, failure, 1),
                post,
                "POST {failure:?}"
            );
            assert_eq!(
                decide(&Method::PATCH, Body::Whole, failure, 1),
                post,
                "PATCH {failure:?}"
            );
            assert_eq!(
                decide(&Method::GET, Body::Consumed, failure, 1),
                GiveUp,
                "consumed {failure:?}"
            );
        }
    }

    #[test]
    fn retries_run_out_but_a_stale_connection_costs_none() {
        assert_eq!(
            decide(&Method::GET, Body::Whole, Failure::Connect, 0),
            GiveUp
        );
        let fresh = Failure::Closed {
            reused: false,
            sent: true,
        };
        assert_eq!(decide(&Method::GET, Body::Whole, fresh, 0), GiveUp);
        let stale = Failure::Closed {
            reused: true,
            sent: true,
        };
        assert_eq!(decide(&Method::GET, Body::Whole, stale, 0), SameBackend);
    }
}
