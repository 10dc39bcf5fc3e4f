//! A request on its way through, a file per phase:
//!
//! | phase | file |
//! |---|---|
//! | normalise and validate, route | `flow.rs`, `head.rs` |
//! | balance, upstream | `attempt.rs` |
//! | whether another try is safe | `retry.rs` |
//! | response filters, our own answers | `respond.rs`, `response_body.rs` |
//! | the body a backend sends | `backend_body.rs` |
//! | upgrade to a tunnel | `upgrade.rs` |
//! | log and count | `account.rs` |
//!
//! What they share: the `snapshot.rs` of the configuration and the `generation.rs` a worker makes of it, their `worker.rs` and its listeners, the `client.rs` of a
//! connection, the `context.rs` of a request, the `course.rs` of a drain.
//!
//! Everything here runs on one worker's thread and holds no lock.

mod account;
mod attempt;
mod backend_body;
mod client;
mod context;
mod course;
pub mod explain;
mod flow;
mod generation;
mod head;
mod respond;
mod response_body;
pub mod retry;
pub mod snapshot;
mod upgrade;
mod worker;

pub use course::{Course, Phase};

pub(crate) use account::{refused, turned_away};
pub(crate) use client::{Client, Permit};
pub(crate) use flow::serve;
pub(crate) use worker::{Entrance, Worker};
