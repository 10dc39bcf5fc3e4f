//! What every Weir tier shares: configuration, the state bus, record types, telemetry, the admin listener, drain and shutdown.
//!
//! | module | what for |
//! |---|---|
//! | [`config`] | TOML laid over by `WEIR__...` variables, parsed into types that can't be wrong; all mistakes at once |
//! | [`bus`] | the latest record per key, shared by all nodes, kept through the loss of the servers |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, `/status` and commands, with the client for the subcommands |
//! | [`certificate`] | what a PEM chain says of itself, what makes it unusable, what clients may object to |
//! | [`telemetry`] | logs, metrics, log lines that the network can't flood |
//! | [`reload`] | a new configuration for the running process: all of it or nothing, and what it would change |
//! | [`lifecycle`] | start, serve, leave; signals as requests; what systemd is told |
//! | [`build`] | what this was built of, and with, for `--version` |
//! | [`cli`] | the subcommands every binary has: run, check, status, drain, undrain, reload, plan |
//!
//! A tier's `main` goes through them in this order: [`cli::Command::run`] parses the configuration or carries out a subcommand;
//! [`lifecycle::run`] starts a runtime, [`lifecycle::Start`] logs, metrics and signals; [`bus::Bus::start`]; the tier's actors;
//! [`lifecycle::Start::serve`]; then [`lifecycle::Serving::until_left`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod build;
pub mod bus;
pub mod certificate;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod lifecycle;
pub mod presence;
pub mod reload;
pub mod telemetry;
