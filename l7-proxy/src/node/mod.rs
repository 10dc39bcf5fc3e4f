//! Who runs, and what they tell each other.
//!
//! ```text
//!   signals, admin         Supervisor (owns Node, pure)                     workers, one thread each
//!   ─────────────          ────────────────────────────                    ────────────────────────
//!            ── Drain ──▶                                ── Course ──▶     watch channel: accept loops,
//!            ── Exit ───▶    ticks: Node decides                           connections and tunnels read it
//!            ◀─ Reasons ─
//!   bus      ── Change ─▶                                ── state ───▶     atomics in upstream::Backend
//!            ◀─ node, registration records ──
//!                                  ▲  │
//!                       Transition │  │ SetChecks
//!                             health::Checker
//! ```
//!
//! Nothing a worker does waits for anything drawn here.

mod certificates;
pub mod drain;
mod explain;
mod handover;
mod metrics;
mod reload;
pub mod run;
mod state;
pub mod status;
mod supervisor;
mod upgrade;
mod view;

pub use reload::{Prepared, identity};
pub use state::{Node, Verdict};
pub use supervisor::{Apply, Drain, Exit, Reasons, Supervisor, Withdraw};
pub use view::{Board, View};
