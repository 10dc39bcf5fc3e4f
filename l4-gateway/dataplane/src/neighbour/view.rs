//! What is known of next hops, for people.

use std::net::IpAddr;
use std::time::Duration;

use super::{Neighbours, State};
use crate::next_hops::RouterView;
use crate::{MacAddr, Now, PortIndex};

/// How far the resolution of a next hop is (RFC 4861 7.3.2, as `ip neigh` says it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Asked for the first time, or again after it had failed.
    Incomplete,
    /// It doesn't answer: frames to it are dropped.
    Failed,
    /// The MAC was confirmed not long ago.
    Reachable,
    /// The MAC is used, and being confirmed.
    Probing,
    /// The MAC is used, and another host has said lately to have the address.
    Contested,
}

impl Resolution {
    /// The name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Resolution::Incomplete => "incomplete",
            Resolution::Failed => "failed",
            Resolution::Reachable => "reachable",
            Resolution::Probing => "probing",
            Resolution::Contested => "contested",
        }
    }
}

/// One next hop as a worker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourView {
    /// The port it is on.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// The MAC in use, if it is known.
    pub mac: Option<MacAddr>,
    /// How far its resolution is.
    pub resolution: Resolution,
    /// How long its MAC has been this one, or it has had none.
    pub since: Duration,
    /// How long ago it last said that its MAC is this one.
    pub heard: Option<Duration>,
    /// The snapshot names it: a router, or a target that takes flows.
    pub named: bool,
    /// Its state as a router, where the worker watches it.
    pub router: Option<RouterView>,
}

/// When a slot's neighbour got its MAC, or lost it, and when it was last heard; milliseconds. Apart from what packets read.
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) since: u64,
    pub(super) heard: Option<u64>,
}

impl Neighbours {
    /// How many there is room for.
    pub(crate) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Those known that have one of `count` places from `first` on; without what is known of routers.
    pub(crate) fn view_in(
        &self,
        now: Now,
        first: usize,
        count: usize,
    ) -> impl Iterator<Item = NeighbourView> {
        let ago = move |then: u64| Duration::from_millis(now.millis().saturating_sub(then));
        let all = self.entries.iter().zip(&self.times);
        all.skip(first)
            .take(count)
            .filter_map(move |(entry, times)| {
                let resolution = match entry.state {
                    State::Free => return None,
                    State::Incomplete => Resolution::Incomplete,
                    State::Failed => Resolution::Failed,
                    State::Reachable => Resolution::Reachable,
                    State::Probing => Resolution::Probing,
                    State::Contested => Resolution::Contested,
                };
                Some(NeighbourView {
                    port: entry.port,
                    address: entry.address,
                    mac: entry.state.is_usable().then(|| entry.mac()),
                    resolution,
                    since: ago(times.since),
                    heard: times.heard.map(ago),
                    named: entry.named,
                    router: None,
                })
            })
    }
}
