//! Weir's L7 tier: a hyper and rustls reverse proxy.
//!
//! The modules that decide are pure: [`config`], [`proxy_protocol`], [`normalise`], [`route`], [`balance`], [`retry`], [`access_log`]'s formats. They meet in
//! a [`snapshot`], which the edge (listeners, TLS, serving, upstream connections) reads while it serves.

#![forbid(unsafe_code)]

pub mod accept;
pub mod access_log;
pub mod actors;
pub mod balance;
pub mod cli;
pub mod config;
pub mod drain;
pub mod error;
pub mod fuzzing;
pub mod metrics;
pub mod normalise;
pub mod proxy_protocol;
pub mod reason;
pub mod retry;
pub mod route;
pub mod run;
pub mod serve;
pub mod snapshot;
pub mod status;
pub mod tls;
pub mod tunnel;
pub mod upstream;
