//! Who runs, and what they tell each other.
//!
//! ```text
//!   lcores                     actix system (one thread)
//!   ──────                     ─────────────────────────
//!                 Tables (pointer swap)   ┌──────────────┐  SetChecks    ┌─────────┐
//!   worker 0..n ◀──────────────────────── │ ControlPlane │ ────────────▶ │ Checker │ probes (health)
//!        │        News (events)           │ owns Control │ ◀──────────── └─────────┘
//!        ├──────────────────────────────▶ │   (pure)     │  Transition
//!        │                                └──────────────┘
//!        │ heartbeat  ┌──────────┐  Pulse     │  ▲  │ put: node, target
//!        └──────────▶ │ Watchdog │ ───────────┘  │  ▼
//!          links      └──────────┘      Change ┌─────┐  node, drain  ┌──────────────┐  BGP
//!                                              │ bus │ ────────────▶ │ RouteControl │ ─────▶ routers
//!                                              └─────┘ ◀──────────── └──────────────┘ (bgp-ctl)
//!   signals, admin ── Reload, Intend, Stop, Leave, drain records ──▶ ControlPlane, bus         vip
//! ```
//!
//! Workers have no actor: they read one immutable snapshot and write counters. The [`Board`] carries what ControlPlane knows to
//! `/status`.

mod board;
mod control_plane;
mod watchdog;

pub use board::{Board, Load, ServiceView, TargetView, View};
pub use control_plane::{ControlPlane, Forgets, Intend, Leave, PulseIs, Reload, Stop};
pub use watchdog::{Failure, Watchdog};
