//! Who owns what, and the messages between them.
//!
//! ```text
//!        bus                        operator, owner
//!         │ Change (node, drain)       │ SetForce, Shutdown
//!         v                            v
//!   ┌─────────────────────────────────────┐   VipRecord
//!   │ RouteControl: decision::Decider     │ ────────────> bus
//!   └─────────────────────────────────────┘
//!         │ dyn Speaker: Announce, Withdraw, Stop
//!         v
//!   ┌─────────────────────────────────────┐   Incoming   ┌──────────┐
//!   │ Neighbour (one each):               │ <─────────── │ Listener │
//!   │ session::Session                    │              └──────────┘
//!   └─────────────────────────────────────┘
//!     │ bytes, bounded   ^ Connected, Received, Ended
//!     v                  │
//!   network::carry, a task for each connection ──── TCP ──── router
//! ```
//!
//! Tasks only send typed messages; each state has one owner. All of it may share a thread: nothing here blocks.

pub(crate) mod listener;
pub(crate) mod neighbour;
pub mod route_control;
