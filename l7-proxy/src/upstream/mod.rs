//! Connections to backends: each worker pools its own, so nothing is locked and a response never changes threads.

mod error;
mod idle;
mod pool;
mod stream;

pub use error::{ConnectError, ExchangeError};
pub use idle::Idle;
pub(crate) use pool::{Lease, Pool};
