//! The running binary, driven from outside: by raw bytes, curl, openssl and h2load.

mod backend;
mod client;
mod drain;
mod limits;
mod proxy;
mod routing;
mod secure;
mod strictness;
mod tunnels;
mod upstreams;
