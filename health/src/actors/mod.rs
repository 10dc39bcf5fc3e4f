//! Who runs, and what they tell each other.
//!
//! ```text
//!   any tier                    Checker                        probe task, one a running probe
//!   ────────                    ───────                        ───────────────────────────────
//!            ── SetChecks ──▶   owns Checks (pure)  ── spawns ──▶  sockets, at most `limit` at a time
//!            ◀─ Transition ──   one timer           ◀─ Finished ──
//!            ── Statuses ───▶
//!
//!   reload ── Reload ──▶ Observer
//!   binary:  Observer ── SetChecks ──▶ Checker ── Transition ──▶ Observer ── target records ──▶ bus
//! ```

mod checker;
mod observer;

pub use checker::{Checker, SetChecks, Statuses};
pub use observer::{Observer, Reload, TakeBack, View};
