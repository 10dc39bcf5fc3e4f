//! What every Weir tier shares: configuration, the state bus, record types, telemetry, the admin listener, drain and shutdown.
//!
//! | module | what for |
//! |---|---|
//! | [`config`] | TOML laid over by `WEIR__...` variables, parsed into types that can't be wrong; all mistakes at once |
//! | [`bus`] | the latest record per key, shared by all nodes, kept through the loss of the servers |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, `/status` and commands, with the client for the subcommands |
//! | [`telemetry`] | logs, metrics, log lines that the network can't flood |
//! | [`lifecycle`] | signals as requests: terminate, drain, undrain |
//! | [`cli`] | the subcommands every binary has: run, check, status, drain, undrain |
//!
//! A tier's `main` goes through them in this order: [`cli::Command::run`] parses the configuration or carries out a subcommand;
//! [`telemetry::init_logs`] and [`telemetry::init_metrics`]; [`bus::Bus::start`]; the tier's actors; [`admin::serve`]; then
//! [`lifecycle::Signals`] until asked to terminate, drain, [`bus::Bus::flush`], exit.

#![forbid(unsafe_code)]

pub mod admin;
pub mod bus;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod lifecycle;
pub mod telemetry;
