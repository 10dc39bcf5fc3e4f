//! A request on its way through, a file per phase:
//!
//! | phase | file |
//! |---|---|
//! | whose connection it is: PROXY | `origin.rs` |
//! | TLS, HTTP/1 or 2 | `connection.rs` |
//! | the bytes of HTTP/1: framing that means one thing only | `framing.rs`, `strict.rs` |
//! | normalise and validate, route | `request.rs` |
//! | balance, upstream, retry | `forward.rs` |
//! | response filters, our own answers | `respond.rs` |
//! | upgrade to a tunnel | `upgrade.rs` |
//! | bodies both ways | `body.rs` |
//! | HTTP/2 clients that take nothing | `stall.rs` |
//! | log and count | `account.rs` |
//!
//! What they share: `worker.rs` and its listeners, the `client.rs` of a connection, the `context.rs` and `upload.rs` of a request.
//!
//! Everything here runs on one worker's thread and holds no lock.

mod account;
mod body;
mod client;
mod connection;
mod context;
mod forward;
mod framing;
mod origin;
mod request;
mod respond;
mod stall;
mod strict;
mod upgrade;
mod upload;
mod worker;

pub use framing::{Framing, Leaving, Scan, Violation};

pub(crate) use body::RequestBody;
pub(crate) use client::Permit;
pub(crate) use connection::serve as connection;
pub(crate) use worker::{Entrance, Worker};
