//! What every Weir tier shares: configuration, the state bus, record types, telemetry, the admin listener, drain and shutdown.

#![forbid(unsafe_code)]

pub mod admin;
pub mod bus;
pub mod cli;
pub mod config;
pub mod lifecycle;
pub mod telemetry;
