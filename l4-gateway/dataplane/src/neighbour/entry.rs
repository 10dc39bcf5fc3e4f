//! One next hop, and how far its resolution is.

use std::net::{IpAddr, Ipv4Addr};

use crate::limits::NEIGHBOUR_UNICAST_PROBES;
use crate::{MacAddr, Now, PortIndex};

/// What is known of one next hop: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Neighbour {
    pub(crate) address: IpAddr,
    pub(crate) port: PortIndex,
    /// Destination and source MAC of frames to it.
    pub(crate) header: [u8; 12],
    /// Longest IP packet the port carries.
    pub(crate) mtu: u16,
    pub(crate) state: State,
    /// Something was sent to it since the timer last looked.
    pub(super) used: bool,
    /// The snapshot names it: it counts as used.
    pub(super) named: bool,
    /// That it doesn't answer was reported.
    pub(super) told_silent: bool,
    /// Requests sent in this state.
    pub(super) requests: u8,
    /// The MAC that claims its address, while the MAC in use has not answered since.
    pub(super) claimant: Option<MacAddr>,
    /// When the timer looks next, and when something was last seen to use it; milliseconds.
    pub(super) due: u64,
    pub(super) last_used: u64,
}

const _: () = assert!(size_of::<Neighbour>() == 64, "a cache line");

impl Neighbour {
    pub(super) const FREE: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: PortIndex(0),
        header: [0; 12],
        mtu: 0,
        state: State::Free,
        used: false,
        named: false,
        told_silent: false,
        requests: 0,
        claimant: None,
        due: 0,
        last_used: 0,
    };

    pub(super) fn mac(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = self.header;
        MacAddr([a, b, c, d, e, f])
    }

    /// Whether everybody was asked for it: it has not answered, or its MAC is unknown.
    pub(super) fn is_anyone_asked(&self) -> bool {
        match self.state {
            State::Incomplete => self.requests > 0,
            State::Probing => self.requests > NEIGHBOUR_UNICAST_PROBES,
            State::Free | State::Failed | State::Reachable | State::Contested => false,
        }
    }

    /// Its MAC is what somebody said unasked: that host is asked itself, once, before everybody is.
    pub(super) fn has_only_spoken(&mut self, now: Now) {
        self.state = State::Probing;
        self.requests = NEIGHBOUR_UNICAST_PROBES - 1;
        self.due = now.millis();
    }
}

/// How far the resolution is. From `Reachable` on frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// The slot is free, or rests: who it was is still there for those who remember it.
    Free,
    /// Asked for; frames wait.
    Incomplete,
    /// Doesn't answer: frames are dropped until it is asked again.
    Failed,
    /// The MAC was confirmed.
    Reachable,
    /// The MAC is used, and being confirmed again.
    Probing,
    /// The MAC is used, and another one claims the address, or did so not long ago (`contest.rs`).
    Contested,
}

impl State {
    /// Whether the MAC is known.
    #[inline]
    pub(crate) fn is_usable(self) -> bool {
        self >= State::Reachable
    }
}
