//! The forwarder driven from outside: whole frames in, whole frames out, counters exact.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on has failed"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod arp;
mod frame;
mod fullnat;
mod icmp;
mod malformed;
mod neighbours;
mod refusals;
mod rig;
mod simulation;
mod snapshots;
mod steering;
mod tcp;
