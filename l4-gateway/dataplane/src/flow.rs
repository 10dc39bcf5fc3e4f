//! Flows: what is known of each, how they are found, how far they are, and when they go.

mod belief;
mod entry;
mod expiry;
mod index;
mod prefetch;
mod state;
mod table;
mod tags;
mod tuple;
mod wide;

pub(crate) use belief::Numbers;
pub(crate) use entry::{Addresses, Flow, HOP_UNKNOWN, Side};
pub(crate) use expiry::{Due, Wheel};
pub(crate) use index::{Index, NONE};
pub(crate) use prefetch::prefetch;
pub use state::FlowState;
pub(crate) use state::STATES;
pub(crate) use table::FlowTable;
pub(crate) use tuple::Tuple;

#[cfg(test)]
mod tests;
