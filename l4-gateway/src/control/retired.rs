//! Addresses and services that a reload took out of the configuration, for as long as flows use them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Counters, Cut, Ids, PortRange, Protocol, Retired as RetiredRole, TablesBuilder};
use serde::Serialize;

use crate::endpoint::Ports;
use crate::names::PROTOCOLS;

/// What is retired is kept for so long at least: workers may still be making flows with it by the snapshot before.
const LEAST: Duration = Duration::from_secs(2);

/// What a configuration gives flows to use.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// The addresses that only it gives the node, with what they are.
    pub(super) addresses: BTreeMap<IpAddr, RetiredRole>,
    /// The services, with their `cut_drained_after`.
    pub(super) services: BTreeMap<Key, Option<Duration>>,
}

/// A service's VIP, protocol and ports.
pub(super) type Key = (IpAddr, Protocol, PortRange);

/// See the module. Times are of a clock that never goes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Retired {
    addresses: BTreeMap<IpAddr, (RetiredRole, Term)>,
    services: BTreeMap<Key, Term>,
}

/// How long something is kept.
#[derive(Debug, Clone, Copy)]
struct Term {
    since: Duration,
    /// When the flows that still use it are ended.
    until: Duration,
    /// The snapshot in force says so.
    cut: bool,
}

/// An address that is kept for its flows only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetiredAddress {
    /// The address.
    pub address: IpAddr,
    /// `vip` or `local_ip`.
    pub role: &'static str,
    /// Flows that use it.
    pub flows: u64,
    /// How much longer they may, in seconds.
    pub seconds_left: u64,
}

/// A service that is gone but for its flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetiredService {
    /// Its VIP.
    pub vip: IpAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its ports.
    pub port: Ports,
    /// Its flows.
    pub flows: u64,
    /// How much longer they may go on, in seconds.
    pub seconds_left: u64,
}

impl Retired {
    /// What retires when `after` is used instead of `before`, for `limit` at most, and a service's flows for no longer than those of a target
    /// that drains. What is used again is not retired any more; what was retired before keeps its time.
    pub(super) fn change(
        &self,
        now: Duration,
        limit: Duration,
        before: &Used,
        after: &Used,
    ) -> Retired {
        let mut changed = self.clone();
        for (address, role) in &before.addresses {
            let entry = changed.addresses.entry(*address);
            entry.or_insert((*role, Term::new(now, limit)));
        }
        for (key, cut_after) in &before.services {
            let limit = cut_after.map_or(limit, |after| after.min(limit));
            let entry = changed.services.entry(*key);
            entry.or_insert(Term::new(now, limit));
        }
        changed
            .addresses
            .retain(|address, _| !after.addresses.contains_key(address));
        changed
            .services
            .retain(|key, _| !after.services.contains_key(key));
        changed
    }

    /// Gives up what no flow uses any more, and what has had its time and `cutting` besides, in which its flows are ended. Whether the
    /// snapshot is to change.
    pub(super) fn release(
        &mut self,
        now: Duration,
        cutting: Duration,
        ids: &Ids,
        counters: &Counters,
    ) -> bool {
        let mut changed = false;
        let mut keep = |term: &mut Term, flows: u64| {
            let over = term.is_over(now, cutting, flows);
            changed |= over || term.begins_to_cut(now);
            !over
        };
        self.addresses
            .retain(|address, (_, term)| keep(term, ids.flows_of(*address, counters)));
        self.services.retain(|(vip, protocol, ports), term| {
            keep(
                term,
                ids.flows_of_service(*vip, *protocol, *ports, counters),
            )
        });
        changed
    }

    pub(super) fn describe(&self, builder: &mut TablesBuilder) {
        for (address, (role, term)) in &self.addresses {
            builder.retired(*address, *role);
            if term.cut && *role == RetiredRole::LocalIp {
                builder.cut(Cut::LocalIp(*address));
            }
        }
        for ((vip, protocol, ports), term) in &self.services {
            if term.cut {
                builder.cut(Cut::Service(*vip, *protocol, *ports));
            }
        }
    }

    pub(super) fn addresses(
        &self,
        now: Duration,
        ids: &Ids,
        counters: &Counters,
    ) -> Vec<RetiredAddress> {
        let view = |(address, (role, term)): (&IpAddr, &(RetiredRole, Term))| RetiredAddress {
            address: *address,
            role: match role {
                RetiredRole::Vip { .. } => "vip",
                RetiredRole::LocalIp => "local_ip",
            },
            flows: ids.flows_of(*address, counters),
            seconds_left: term.seconds_left(now),
        };
        self.addresses.iter().map(view).collect()
    }

    pub(super) fn services(
        &self,
        now: Duration,
        ids: &Ids,
        counters: &Counters,
    ) -> Vec<RetiredService> {
        let view = |(&(vip, protocol, ports), term): (&Key, &Term)| RetiredService {
            vip,
            protocol: PROTOCOLS.of(protocol),
            port: Ports(ports),
            flows: ids.flows_of_service(vip, protocol, ports, counters),
            seconds_left: term.seconds_left(now),
        };
        self.services.iter().map(view).collect()
    }
}

impl Term {
    fn new(now: Duration, limit: Duration) -> Term {
        Term {
            since: now,
            until: now + limit,
            cut: limit.is_zero(),
        }
    }

    fn is_over(&self, now: Duration, cutting: Duration, flows: u64) -> bool {
        now >= self.until + cutting.max(LEAST) || (flows == 0 && now >= self.since + LEAST)
    }

    fn begins_to_cut(&mut self, now: Duration) -> bool {
        now >= self.until && !std::mem::replace(&mut self.cut, true)
    }

    fn seconds_left(&self, now: Duration) -> u64 {
        self.until.saturating_sub(now).as_secs()
    }
}
