//! What can happen to a session and what it wants done.

use std::net::Ipv4Addr;

use bytes::Bytes;
use rustbgpd_fsm::SessionState;
use serde::Serialize;

use super::SessionSettings;

/// What can happen to a session.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Bring the session up, and again whenever it fails.
    Start,
    /// Take it down for good: withdrawals, Cease/Administrative Shutdown with this text (RFC 9003), close.
    Stop(&'a str),
    /// The connection asked for by [`Action::Connect`] is there; our address of it.
    Connected(Ipv4Addr),
    /// The neighbour has opened a connection; our address of it. It waits until accepted or refused, and takes the place of one
    /// that waits already.
    Incoming(Ipv4Addr),
    /// Connecting failed, or the session's connection is gone; why.
    Lost(&'a str),
    /// Bytes from the session's connection.
    Received(&'a [u8]),
    /// Announcements and withdrawals have been made: tell the neighbour, all in as few messages as they fit.
    Routes,
    /// Go on by these settings, which differ only in what a running session can change: what is sent with routes, and how long it waits.
    Settings(&'a SessionSettings),
    /// A deadline may have passed.
    Tick,
}

/// What the owner of a session has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to the neighbour, giving up an earlier attempt.
    Connect,
    /// The waiting connection becomes the session's; an attempt of our own is given up.
    AcceptIncoming,
    /// Write this to the waiting connection and close it.
    RefuseIncoming(Bytes),
    /// Write one message to the session's connection.
    Send(Bytes),
    /// Close the session's connection once everything sent is written; give up an attempt.
    Close,
    /// The session is established.
    Up,
    /// The established session has ended; why.
    Down(String),
}

/// Where a session stands (RFC 4271 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not running, or waiting before the next attempt after an error.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting to connect again, or for the neighbour to connect.
    Active,
    /// Connected, OPEN sent.
    OpenSent,
    /// OPENs exchanged, waiting for the first KEEPALIVE.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// Counts since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages from the neighbour that were framed correctly.
    pub messages_received: u64,
    /// Messages written to the neighbour.
    pub messages_sent: u64,
    /// UPDATEs among the messages sent.
    pub updates_sent: u64,
    /// UPDATEs with an error that RFC 7606 lets the session survive.
    pub malformed_updates: u64,
    /// NOTIFICATIONs sent because of what the neighbour sent: bad header, bad OPEN, UPDATE beyond repair, wrong order.
    pub protocol_errors: u64,
    /// NOTIFICATIONs received.
    pub notifications_received: u64,
    /// NOTIFICATIONs sent.
    pub notifications_sent: u64,
    /// Times the session was established.
    pub established: u64,
    /// Times the hold timer ran out.
    pub hold_timer_expired: u64,
}

impl From<SessionState> for State {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Idle => Self::Idle,
            SessionState::Connect => Self::Connect,
            SessionState::Active => Self::Active,
            SessionState::OpenSent => Self::OpenSent,
            SessionState::OpenConfirm => Self::OpenConfirm,
            SessionState::Established => Self::Established,
        }
    }
}
