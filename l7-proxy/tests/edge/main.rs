//! The running binary, driven from outside: by raw bytes, curl, openssl and h2load.

// The harness fails loudly, and a test crate exports nothing.
#![allow(clippy::expect_used, unreachable_pub)]

mod access_log;
mod backend;
mod bodies;
mod certificates;
mod client;
mod drain;
mod exclusive;
mod explain;
mod floods;
mod frames;
mod gateway;
mod half_closed;
mod http2;
mod limits;
mod metrics;
mod proxied;
mod proxy;
mod registration;
mod reload;
mod rest;
mod routing;
mod secure;
mod strictness;
mod targets;
mod tunnels;
mod upgrade;
mod upstreams;
