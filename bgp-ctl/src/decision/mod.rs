//! Whether a VIP is announced: a pure function of what is known about the node.
//!
//! A VIP is announced while the node forwards, nobody asked for a drain, and enough targets of its services are healthy: at
//! least [`VipPolicy::minimum_healthy`] for each of them, or with [`AnnounceWhen::Any`] for one of them. Losing any of that
//! withdraws at once; announcing waits until all of it has held for [`VipPolicy::announce_after`], so that a flapping target
//! doesn't churn the routers. What an operator forces stands above health, never above forwarding: nothing is announced that
//! this node would drop.
//!
//! Not knowing changes nothing (fail static): a lost bus is not an input here. A node record that is gone is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::bus::NodeRecord;
use shared::config::Cidr;

/// Whether each service of a VIP must have enough healthy targets, or one is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnnounceWhen {
    /// All services: a client of any service never reaches a node that has nothing behind it.
    #[default]
    All,
    /// One service.
    Any,
}

/// When a VIP is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipPolicy {
    /// Healthy targets a service needs; 0 announces without looking at targets.
    pub minimum_healthy: u32,
    /// All services, or any.
    pub announce_when: AnnounceWhen,
    /// How long everything must have been well before an announcement.
    pub announce_after: Duration,
}

impl Default for VipPolicy {
    fn default() -> Self {
        Self {
            minimum_healthy: 1,
            announce_when: AnnounceWhen::All,
            announce_after: Duration::from_secs(1),
        }
    }
}

/// What an operator forces on a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// Announce whatever the targets' health, as long as the node forwards.
    Announce,
    /// Withdraw whatever else.
    Withdraw,
}

/// What is known when a decision is due.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The node's record; `None` if there is none, or it has expired.
    pub node: Option<&'a NodeRecord>,
    /// Why the node's VIPs may not be announced whatever it says.
    pub hold: Option<&'a str>,
    /// An operator asked the node to drain.
    pub drain: bool,
    /// This process is going away.
    pub stopping: bool,
    /// What an operator forces, by VIP.
    pub force: &'a BTreeMap<Ipv4Addr, Force>,
    /// Networks a VIP must be in; none: anywhere. What the bus says is not trusted beyond them.
    pub allowed: &'a [Cidr],
}

/// What to do about a VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Announce it.
    Announced,
    /// Don't; why.
    Withdrawn(String),
}

/// Decides about each VIP, and remembers since when each has been well.
#[derive(Debug, Default)]
pub struct Decider {
    /// VIPs that are decided about though the node doesn't serve them, so that somebody hears of it.
    expected: BTreeSet<Ipv4Addr>,
    vips: BTreeMap<Ipv4Addr, Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    well_since: Option<Instant>,
    announced: bool,
}

impl Decider {
    /// Decides about what the node serves, and about the VIPs of `expected` in any case.
    pub fn new(expected: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self {
            expected: expected.into_iter().collect(),
            vips: BTreeMap::new(),
        }
    }

    /// Decides about the VIPs of `expected` from here on, whether or not the node serves them.
    pub fn expect(&mut self, expected: impl IntoIterator<Item = Ipv4Addr>) {
        self.expected = expected.into_iter().collect();
    }

    /// Decides at `now` about each VIP that is expected, that the node serves, or that it served when last decided about: what it
    /// serves no more is withdrawn once and then forgotten, so that a node that makes up VIPs can't fill the memory. `policy` gives
    /// each VIP's conditions.
    pub fn decide(
        &mut self,
        now: Instant,
        facts: Facts<'_>,
        policy: impl Fn(Ipv4Addr) -> VipPolicy,
    ) -> BTreeMap<Ipv4Addr, Verdict> {
        let services = facts.node.into_iter().flat_map(|node| &node.services);
        let served: BTreeSet<Ipv4Addr> = services
            .filter_map(|service| match service.vip {
                IpAddr::V4(vip) => Some(vip),
                // The sessions carry IPv4 unicast only.
                IpAddr::V6(_) => None,
            })
            .collect();
        for vip in served.union(&self.expected) {
            self.vips.entry(*vip).or_default();
        }
        let decide = |(vip, memory): (&Ipv4Addr, &mut Memory)| {
            (*vip, memory.decide(now, *vip, facts, policy(*vip)))
        };
        let verdicts = self.vips.iter_mut().map(decide).collect();
        if facts.node.is_some() {
            self.vips
                .retain(|vip, _| served.contains(vip) || self.expected.contains(vip));
        }
        verdicts
    }

    /// When [`Decider::decide`] would next say something new of itself.
    pub fn deadline(&self, policy: impl Fn(Ipv4Addr) -> VipPolicy) -> Option<Instant> {
        self.vips
            .iter()
            .filter(|(_, memory)| !memory.announced)
            .filter_map(|(vip, memory)| Some(memory.well_since? + policy(*vip).announce_after))
            .min()
    }
}

impl Memory {
    fn decide(
        &mut self,
        now: Instant,
        vip: Ipv4Addr,
        facts: Facts<'_>,
        policy: VipPolicy,
    ) -> Verdict {
        if let Err(why) = well(vip, facts, policy) {
            *self = Self::default();
            return Verdict::Withdrawn(why);
        }
        let forced = facts.force.get(&vip) == Some(&Force::Announce);
        let since = *self.well_since.get_or_insert(now);
        if self.announced || forced || now.saturating_duration_since(since) >= policy.announce_after
        {
            self.announced = true;
            return Verdict::Announced;
        }
        Verdict::Withdrawn(format!("well, but not yet for {:?}", policy.announce_after))
    }
}

/// Whether a VIP may be announced by the state of things now; why not.
fn well(vip: Ipv4Addr, facts: Facts<'_>, policy: VipPolicy) -> Result<(), String> {
    if facts.stopping {
        return Err("shutting down".to_owned());
    }
    if !facts.allowed.is_empty()
        && !facts
            .allowed
            .iter()
            .any(|network| network.contains(IpAddr::V4(vip)))
    {
        return Err("not in a network of bgp.allowed".to_owned());
    }
    let force = facts.force.get(&vip);
    if force == Some(&Force::Withdraw) {
        return Err("withdrawn by the operator".to_owned());
    }
    let Some(node) = facts.node else {
        return Err("no record of the node: it is gone or has not been seen".to_owned());
    };
    if !node.forwarding {
        return Err("the node does not forward".to_owned());
    }
    if let Some(hold) = facts.hold {
        return Err(hold.to_owned());
    }
    if facts.drain {
        return Err("drain asked for by the operator".to_owned());
    }
    if node.draining {
        return Err("the node drains".to_owned());
    }
    let mut services = node
        .services
        .iter()
        .filter(|service| service.vip == IpAddr::V4(vip))
        .peekable();
    if services.peek().is_none() {
        return Err("the node has no service with this VIP".to_owned());
    }
    if force == Some(&Force::Announce) {
        return Ok(());
    }
    let minimum = policy.minimum_healthy;
    let mut short = None;
    for service in services {
        let enough = service.healthy >= minimum;
        match policy.announce_when {
            AnnounceWhen::Any if enough => return Ok(()),
            AnnounceWhen::All | AnnounceWhen::Any if enough => {}
            _ => {
                short.get_or_insert_with(|| {
                    format!(
                        "service {}: {} of {} targets healthy, {minimum} needed",
                        service.service, service.healthy, service.total
                    )
                });
            }
        }
    }
    short.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
