//! Weir's L4 tier: DPDK forwarders (FULLNAT), the actors that steer them, and their command line.
//!
//! - [`config`]: what a node is told, parsed into types that can't be wrong.
//! - [`control`]: what the node knows and decides, pure.
//! - [`dpdk`]: the safe side of DPDK, and but for [`heap`] the only unsafe code here.
//! - [`worker`]: the loop of a forwarding lcore around the pure [`dataplane`].
//! - [`forwarder`]: ports and workers, put together.
//! - [`actors`]: who runs on the control side, and what they tell each other.
//! - [`run`]: the life of a node.
//! - [`heap`]: the process's allocator, which gives flow tables large pages.

#![deny(unsafe_code)]

pub mod actors;
mod admin;
mod announce;
pub mod attempts;
mod bond;
pub mod by_number;
mod capture;
pub mod cli;
pub mod config;
mod configuration;
pub mod control;
mod devices;
#[allow(unsafe_code)]
pub mod dpdk;
mod drain;
pub mod endpoint;
mod error;
pub mod filter;
mod flows;
pub mod forwarder;
pub mod fuzzing;
#[allow(unsafe_code)]
pub mod heap;
mod host;
mod intent;
mod known;
pub mod liveness;
mod machine;
mod meanings;
mod metrics;
pub mod names;
mod neighbours;
pub mod nic;
mod offloads;
mod persistence;
mod range;
pub mod rates;
mod reload;
pub mod run;
mod sizes;
mod status;
mod views;
mod ways;
pub mod worker;

pub use error::Error;
pub use meanings::MEANINGS;
