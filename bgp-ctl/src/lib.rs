//! Weir's routing control: announces VIPs to routers by BGP and withdraws them on fault.
//!
//! By default it runs inside the l4-gateway process ([`RouteControl::start_within`]), so that both share one fate: when the process
//! dies, the kernel closes the BGP sessions and the routers stop sending at once. As its own binary it follows a node over
//! the bus.
//!
//! - [`decision`]: whether a VIP is announced, a pure function of what is known.
//! - [`session`]: one BGP session as a pure state machine.
//! - [`speaker`]: the trait that stands between the two, and the embedded speaker behind it.
//! - [`actors`]: who owns what, and the messages between them.

#![deny(unsafe_code)]

pub mod actors;
mod admin;
mod change;
pub mod cli;
pub mod config;
pub mod decision;
mod error;
pub mod followed;
pub mod fuzzing;
mod metrics;
mod network;
mod reload;
pub mod route;
mod run;
pub mod session;
pub mod speaker;
pub mod status;
mod tcp_options;

pub use actors::route_control::{NodeIs, Reconfigure, RouteControl, SetForce, Shutdown};
pub use config::BgpSection;
pub use error::Error;
pub use reload::would_end;
pub use status::{Status, StatusBoard};
