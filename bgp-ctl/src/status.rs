//! What routing control looks like from outside: the JSON of `/status`, kept current by the actors.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::admin::Asked;
use shared::bus::VipState;

use crate::decision::Force;
use crate::session::{Counts, State};

/// How long readiness waits for a router that has not been there yet, if another has been told. One that is away for longer, or went, is
/// taken for away: it must not keep a fleet from being restarted.
pub const ROUTER_WAIT: Duration = Duration::from_secs(30);

/// State of routing control.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The L4 node whose VIPs are announced.
    pub node: String,
    /// Whether a record of that node is known and current.
    pub node_known: bool,
    /// Whether the bus is connected; nothing is withdrawn because it isn't.
    pub bus_connected: bool,
    /// Whether an operator asked the node to drain.
    pub drain: bool,
    /// Whether this process is taking its leave.
    pub stopping: bool,
    /// Every VIP the node serves or has served.
    pub vips: BTreeMap<Ipv4Addr, VipStatus>,
    /// Every neighbour of the configuration.
    pub neighbours: BTreeMap<Ipv4Addr, NeighbourStatus>,
}

/// A VIP at this node.
#[derive(Debug, Clone, Serialize)]
pub struct VipStatus {
    /// What the routers are told.
    pub state: VipState,
    /// Why.
    pub why: String,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
    /// What an operator forces.
    pub force: Option<Force>,
    /// Who forces it, why and since when.
    pub operator: Option<Asked>,
}

/// The session to a neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct NeighbourStatus {
    /// The neighbour's autonomous system.
    pub remote_as: u32,
    /// Where the session stands.
    pub state: State,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
    /// The neighbour's BGP identifier, while connected.
    pub router_id: Option<Ipv4Addr>,
    /// Agreed hold time in seconds, while connected.
    pub hold_time: Option<u16>,
    /// Why the session last failed; cleared when it comes up.
    pub last_error: Option<String>,
    /// VIPs the neighbour has been told about.
    pub advertised: Vec<Ipv4Addr>,
    /// Counts since the start.
    pub counts: Counts,
    /// Until when readiness waits for the session; none once it was up.
    #[serde(skip)]
    pub awaited_until: Option<Instant>,
}

impl Status {
    /// Whether clients can come by the routers at `now`: each VIP of the node is announced, told to every router whose session is up, and no router is
    /// missing that has never been there and may still come ([`ROUTER_WAIT`]). A VIP that an operator withdrew by force is not waited for.
    ///
    /// # Errors
    /// Why not. A VIP without enough healthy targets is one reason: whoever restarts nodes one after the other must not go on to the next, which may
    /// be the last that serves it.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        if self.stopping {
            return Err("shutting down".to_owned());
        }
        if !self.node_known {
            return Err(format!("nothing is known of node {}", self.node));
        }
        for (vip, status) in &self.vips {
            match status.state {
                VipState::Withdrawn if status.force == Some(Force::Withdraw) => {}
                VipState::Withdrawn => {
                    return Err(format!("{vip} is not announced: {}", status.why));
                }
                VipState::Announced | VipState::Depreferred => self.told(*vip, now)?,
            }
        }
        Ok(())
    }

    /// Whether the routers have been told of a VIP.
    fn told(&self, vip: Ipv4Addr, now: Instant) -> Result<(), String> {
        let mut told = false;
        for (address, neighbour) in &self.neighbours {
            let is_up = neighbour.state == State::Established;
            let has_it = is_up && neighbour.advertised.contains(&vip);
            told |= has_it;
            if is_up && !has_it {
                return Err(format!("router {address} is not told of {vip} yet"));
            }
            if !is_up && neighbour.awaited_until.is_some_and(|until| now < until) {
                return Err(format!(
                    "waiting for the first BGP session with router {address}"
                ));
            }
        }
        match told {
            true => Ok(()),
            false => Err(format!(
                "no router knows of {vip}: no BGP session is established"
            )),
        }
    }
}

/// Where actors put their state and anybody may read it at any time. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Status>>);

impl StatusBoard {
    /// The state now.
    pub fn read(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Writers only assign whole fields, so a panic elsewhere can't leave half a state behind.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    fn router(
        state: State,
        advertised: &[Ipv4Addr],
        awaited_until: Option<Instant>,
    ) -> NeighbourStatus {
        NeighbourStatus {
            remote_as: 65001,
            state,
            since_unix_ms: 0,
            router_id: None,
            hold_time: None,
            last_error: None,
            advertised: advertised.to_vec(),
            counts: Counts::default(),
            awaited_until,
        }
    }

    fn vip(state: VipState, why: &str, force: Option<Force>) -> VipStatus {
        VipStatus {
            state,
            why: why.to_owned(),
            since_unix_ms: 0,
            force,
            operator: None,
        }
    }

    #[test]
    fn a_node_is_ready_when_the_routers_know_of_all_its_vips() {
        let now = Instant::now();
        let later = Some(now + Duration::from_secs(1));
        let announced = || vip(VipState::Announced, "", None);
        let knows = || router(State::Established, &[VIP], None);
        type Case = (
            &'static str,
            VipStatus,
            Vec<NeighbourStatus>,
            Result<(), &'static str>,
        );
        let cases: [Case; 8] = [
            ("all know", announced(), vec![knows(), knows()], Ok(())),
            (
                "not told yet",
                announced(),
                vec![knows(), router(State::Established, &[], None)],
                Err("is not told of 10.0.0.100 yet"),
            ),
            (
                "one may still come",
                announced(),
                vec![knows(), router(State::Active, &[], later)],
                Err("waiting for the first BGP session"),
            ),
            (
                "one has not come",
                announced(),
                vec![knows(), router(State::Active, &[], Some(now))],
                Ok(()),
            ),
            (
                "one went",
                announced(),
                vec![knows(), router(State::Idle, &[], None)],
                Ok(()),
            ),
            (
                "none is there",
                announced(),
                vec![router(State::Idle, &[VIP], None)],
                Err("no router knows of 10.0.0.100"),
            ),
            (
                "no healthy targets",
                vip(VipState::Withdrawn, "0 of 2 targets healthy", None),
                vec![knows()],
                Err("10.0.0.100 is not announced: 0 of 2 targets healthy"),
            ),
            (
                "an operator's wish",
                vip(VipState::Withdrawn, "by force", Some(Force::Withdraw)),
                vec![knows()],
                Ok(()),
            ),
        ];
        for (name, vip, neighbours, expected) in cases {
            let status = Status {
                node_known: true,
                vips: [(VIP, vip)].into(),
                neighbours: (1..)
                    .map(|last| Ipv4Addr::new(10, 2, 0, last))
                    .zip(neighbours)
                    .collect(),
                ..Status::default()
            };
            match (status.ready(now), expected) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(part)) => assert!(why.contains(part), "{name}: {why}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_node_that_is_not_known_is_not_ready() {
        let status = Status::default();
        assert!(status.ready(Instant::now()).is_err());
    }
}
