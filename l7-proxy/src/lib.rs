//! Weir's L7 tier: a hyper and rustls reverse proxy.
//!
//! The modules that decide are pure: [`config`], [`normalise`], [`route`], [`balance`], [`retry`], [`access_log`]'s formats. They meet in
//! a [`snapshot`], which the edge (listeners, TLS, serving, upstream connections) reads while it serves.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod balance;
pub mod config;
pub mod error;
pub mod normalise;
pub mod reason;
pub mod retry;
pub mod route;
pub mod snapshot;
