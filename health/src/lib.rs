//! Health checks: is a target fit to be given traffic?
//!
//! A tier turns its configuration into [`Check`]s ([`CheckSettings::parse`], then [`CheckSettings::check`] for each target), starts a
//! [`Checker`] and sends it [`SetChecks`] whenever the targets change. It hears of each target once, after its first probe, and then of
//! each change, as a [`Transition`] that says why.
//!
//! What decides is pure: [`threshold`] when to believe probes, [`schedule`] when to probe, [`checks`] both for a set of targets. [`mod@probe`]
//! is where the sockets are. The binary `health` observes targets from outside and tells the other tiers over the bus.
//!
//! Told apart with care: *down* is what a target says by refusing or failing to answer; what this node could not find out (no socket, no
//! such source address) is *unknown* and changes nothing.

#![forbid(unsafe_code)]

pub mod actors;
mod check;
pub mod checks;
pub mod cli;
pub mod config;
mod metrics;
pub mod observation;
pub mod probe;
pub mod run;
pub mod schedule;
mod settings;
pub mod status;
pub mod threshold;

pub use actors::{Checker, SetChecks, Statuses};
pub use check::{Check, CheckId};
pub use checks::{CheckStatus, Transition};
pub use probe::{HttpProbe, Probe, StatusSet, UdpProbe, probe};
pub use settings::CheckSettings;
pub use threshold::State;
