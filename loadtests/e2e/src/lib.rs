//! End-to-end tests of the whole chain, driven from outside: what the tests in `tests/chain/` share.

#![forbid(unsafe_code)]

mod client;
mod stage;

pub use client::{Answer, Curl, echo_datagram, ping};
pub use stage::{Stage, run_binary};
