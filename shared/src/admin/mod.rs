//! The admin listener: one small HTTP/1 server for every tier, and the client that `<binary> status` and `drain` use.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process answers |
//! | `GET /readyz` | 200 when it can take traffic, else 503 with the reason |
//! | `GET /status` | JSON, the tier's own |
//! | `POST /command/<name>` | JSON arguments in the body (none is `null`), JSON answer, or bytes as they come |
//!
//! The listener trusts who can reach it: bind it to loopback or a management network.

mod arguments;
pub mod client;
mod names;
mod seats;
mod server;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;

pub use arguments::{Asked, LONGEST_NAME, LONGEST_REASON, arguments, asked, asker, fit_to_show};
pub use names::no_such;
pub use server::serve;

/// What a tier answers with.
pub trait Admin: Send + Sync + 'static {
    /// Whether the process can take traffic.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), String>;

    /// The tier's state for people and scripts.
    fn status(&self) -> Value;

    /// Carries out a command: `drain`, `undrain`, `reload`, `plan` (see [`crate::reload::Reloader::command`]), or the tier's own.
    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>>;

    /// Begins a command whose answer is bytes that come over time, such as a capture. It should end when nobody reads them any more. None if the
    /// command is not one of these.
    fn stream(&self, name: &str, args: &Value) -> Option<Result<Stream, CommandError>> {
        let _ = (name, args);
        None
    }

    /// Called before metrics are rendered, for gauges that are read rather than counted.
    fn refresh_metrics(&self) {}
}

impl<A: Admin + ?Sized> Admin for Arc<A> {
    fn ready(&self) -> Result<(), String> {
        (**self).ready()
    }

    fn status(&self) -> Value {
        (**self).status()
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        (**self).command(name, args)
    }

    fn stream(&self, name: &str, args: &Value) -> Option<Result<Stream, CommandError>> {
        (**self).stream(name, args)
    }

    fn refresh_metrics(&self) {
        (**self).refresh_metrics();
    }
}

/// An answer that comes over time.
#[derive(Debug)]
pub struct Stream {
    /// What it is.
    pub content_type: &'static str,
    /// Its pieces; the answer ends with the sender.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such command (404).
    #[error("no such command")]
    Unknown,
    /// The arguments make no sense (400).
    #[error("{0}")]
    Invalid(String),
    /// It can't be done now (409).
    #[error("{0}")]
    Refused(String),
    /// It was tried and failed (500).
    #[error("{0}")]
    Failed(String),
}
