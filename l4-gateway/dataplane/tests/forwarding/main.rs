//! The forwarder driven from outside: whole frames in, whole frames out, counters exact.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on has failed"
)]
#![allow(
    clippy::wrong_self_convention,
    reason = "from and to name the ends of a connection here"
)]
#![allow(clippy::type_complexity, reason = "tables of cases")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod announcements;
mod arp;
mod attempts;
mod client_address;
mod contests;
mod damage;
mod direct;
mod down;
mod draining;
mod echo;
mod ended;
mod established;
mod floods;
mod forgery;
mod fragments;
mod frame;
mod fullnat;
mod garbage;
mod icmp;
mod icmp6;
mod ipv6;
mod limits;
mod local_ports;
mod malformed;
mod ndp;
mod neighbours;
mod net;
mod nic;
mod one_packet;
mod persistence;
mod persistence_group;
mod persistence_view;
mod placement;
mod port_ranges;
mod priority;
mod refusals;
mod resets;
mod resync;
mod rig;
mod routers;
mod simulation;
mod snapshots;
mod steering;
mod takeover;
mod tcp;
mod turned_away;
mod workers;
