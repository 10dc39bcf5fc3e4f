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
//!   signals, admin ── Reload, Stop, Leave, drain records ──▶ ControlPlane, bus         vip
//! ```
//!
//! Workers have no actor: they read one immutable snapshot and write counters. The [`Board`] carries what ControlPlane knows to
//! `/status`.

mod control_plane;
mod watchdog;

pub use control_plane::{
    Board, ControlPlane, Leave, Load, PulseIs, Reload, ServiceView, Stop, TargetView, View,
};
pub use watchdog::Watchdog;
