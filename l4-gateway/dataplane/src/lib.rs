//! The L4 forwarder as a pure state machine: bursts of frames, the time and tables go in, verdicts come out.
//!
//! There is no clock, no socket and no DPDK in here, and nothing is allocated per packet. One [`Worker`] belongs to one
//! lcore; configuration reaches it as an immutable [`Tables`] snapshot, what it did is read from [`Counters`], of which
//! each worker writes its own part. Workers share one thing more: where a service has limits or persistence, they keep
//! rates and clients' sources together (`shared_state.rs`), for flows that begin, end or are still alive, not for each
//! packet. The caller's loop is:
//!
//! 1. receive a burst on a port, call [`Worker::burst`], carry out each frame's [`Verdict`];
//! 2. take what other workers redirected here, call [`Worker::handed_over`];
//! 3. call [`Worker::tick`] about every millisecond;
//! 4. after each of these send [`Emitted::frames`], pass [`Emitted::events`] on, and [`Emitted::clear`] it.
//!
//! A frame's way through a burst is laid out in `worker.rs`: parse and hash all, prefetch, look up, rewrite.
#![deny(unsafe_code)]

mod access;
mod client_address;
pub mod counters;
mod emitted;
mod family;
mod flow;
mod flow_view;
mod fragments;
mod frame;
mod held;
mod ids;
mod limits;
mod mac;
mod nat;
mod neighbour;
mod next_hops;
mod offloads;
mod persistence_view;
mod policy;
mod port;
mod port_range;
mod ports;
mod rate;
mod reply;
mod rss;
mod schedule;
mod secret;
mod sequence;
mod service;
mod shared_state;
mod sources;
mod steer;
mod tables;
mod templates;
mod time;
mod try_lock;
mod tunnel;
mod wire;
mod worker;

pub use access::{Access, AccessError, AccessRule};
pub use client_address::ClientAddress;
pub use counters::{
    Counters, ServiceCount, ServiceCounts, TargetCount, TargetCounts, WorkerCount, WorkerCounts,
};
pub use emitted::{Emitted, Event, Learned, Weight};
pub use flow::FlowState;
pub use flow_view::FlowView;
pub use frame::{DropReason, Frame, Verdict};
pub use ids::{Ids, LocalIpId, ServiceId, TargetId};
pub use limits::{
    DEFAULT_FLOWS, DEFAULT_LOCAL_IPS, DEFAULT_NEIGHBOURS, DEFAULT_SERVICES, DEFAULT_SOURCES,
    DEFAULT_TARGETS, LEAST_PATH_MTU, Limits, MAX_BURST, MOST_NEXT_HOPS, MOST_ROUTERS,
    TICK_NANOSECONDS,
};
pub use mac::MacAddr;
pub use neighbour::{NeighbourView, Resolution};
pub use next_hops::{Living, NextHop, NextHops, RouterState, RouterView, Sharing};
pub use persistence_view::PersistenceView;
pub use policy::{FlowLimits, Persistence, PersistenceGroup, Policy, Quota, Refusal, SourcePrefix};
pub use port::{Port, PortIndex, Route, Segment};
pub use port_range::{PortRange, PortRangeError};
pub use rss::{Between, Fields, Hashed, Rss, RssError};
pub use secret::Secret;
pub use service::{
    Mode, Protocol, Scheduler, Service, ServiceConfig, Target, TargetConfig, Timeouts, Timestamps,
    UnknownSegment,
};
pub use steer::Spread;
pub use tables::{Cut, LocalIp, Retired, Tables, TablesBuilder, TablesError};
pub use time::Now;
pub use worker::{Ended, Worker};
