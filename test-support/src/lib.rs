//! What the tests of several crates need. A test that can't have it fails by panicking.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service_manager;

use std::future::Future;

pub use service_manager::ServiceManager;

/// Runs a future on this thread, with timers and sockets.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
