//! Weir's L7 tier: a hyper and rustls reverse proxy.
//!
//! Rooms, top down; what stands lower never imports what stands higher:
//!
//! | room | what is in it |
//! |---|---|
//! | [`node`] | the process: start, supervisor, drain, status |
//! | [`edge`] | client connections: accept, PROXY protocol, TLS, HTTP/1 guard |
//! | [`exchange`] | one request from head to log line, and the snapshot it is served from |
//! | [`upstream`] | backends, balancing, connections to them |
//! | [`policy`] | which route a request takes: pure |
//! | [`http`] | HTTP itself: host, path, framing, fields, bodies, tunnels, HTTP/1.1 as spoken to backends |
//! | [`observe`] | reasons, metrics, access log |
//!
//! [`config`] parses into the settings of all of them; `upstream`, `policy`, `http` and `observe` don't know it.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod edge;
pub mod error;
pub mod exchange;
pub mod fuzzing;
pub mod http;
pub mod node;
pub mod observe;
pub mod policy;
pub mod upstream;
