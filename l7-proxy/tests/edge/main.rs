//! The running binary, driven from outside: by raw bytes, curl, openssl and h2load.

// The harness fails loudly, and a test crate exports nothing.
#![allow(clippy::expect_used, unreachable_pub)]

mod backend;
mod client;
mod drain;
mod floods;
mod limits;
mod proxied;
mod proxy;
mod registration;
mod routing;
mod secure;
mod strictness;
mod tunnels;
mod upstreams;
