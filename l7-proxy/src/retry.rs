//! Whether a failed try may be repeated: a pure decision.

use http::Method;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: refused, unreachable or not in time. Nothing was sent.
    Connect,
    /// The connection was gone before any byte of the request was written (hyper hands the request back).
    NotSent,
    /// A pooled connection closed after the request was written and before any byte of a response: most likely it was stale.
    ClosedWhenReused,
    /// A fresh connection closed after the request was written and before a response head.
    Closed,
    /// No response head in time.
    Timeout,
    /// The response was not valid HTTP.
    Invalid,
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
    /// Another backend.
    NextBackend,
    /// Answer the client.
    GiveUp,
}

/// Decides after a try failed. `retries_left` is what the upstream still allows.
pub fn decide(method: &Method, body: Body, failure: Failure, retries_left: u32) -> Decision {
    if body == Body::Consumed {
        return Decision::GiveUp;
    }
    // RFC 9110 section 9.2.2: a proxy repeats a request by itself only when its method is idempotent, or it knows that it was not applied.
    match failure {
        Failure::NotSent => Decision::SameBackend,
        Failure::ClosedWhenReused if method.is_idempotent() => Decision::SameBackend,
        Failure::Connect if retries_left > 0 => Decision::NextBackend,
        Failure::Closed if retries_left > 0 && method.is_idempotent() => Decision::NextBackend,
        Failure::Connect
        | Failure::ClosedWhenReused
        | Failure::Closed
        | Failure::Timeout
        | Failure::Invalid => Decision::GiveUp,
    }
}
