//! Who runs, and what they tell each other.
//!
//! ```text
//!   signals, admin         Supervisor (owns Node, pure)                     workers, one thread each
//!   ─────────────          ────────────────────────────                    ────────────────────────
//!            ── Drain ──▶                                ── Course ──▶     watch channel: accept loops,
//!            ── Exit ───▶    ticks: Node decides                           connections and tunnels read it
//!            ◀─ Reasons ─
//!   bus      ── Change ─▶                                ── state ───▶     atomics in balance::Backend
//!            ◀─ node, registration records ──
//!                                  ▲  │
//!                       Transition │  │ SetChecks
//!                             health::Checker
//! ```
//!
//! Nothing a worker does waits for anything drawn here.

mod node;
mod supervisor;

pub use node::{Node, Verdict};
pub use supervisor::{Drain, Exit, Reasons, Supervisor, Withdraw};
