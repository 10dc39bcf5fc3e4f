//! The immutable snapshot workers read: ports, routes, LocalIPs, services and targets, with everything laid out that can be
//! worked out before a packet comes.

mod builder;

use std::collections::HashMap;
use std::net::Ipv4Addr;

pub(crate) use builder::is_host;
pub use builder::{TablesBuilder, TablesError};

use crate::flow::FlowState;

use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::port::{Port, PortIndex};
use crate::service::{Protocol, Service, Target, TickTimeouts};

/// One snapshot. It never changes; the control side builds a new one and swaps the pointer.
#[derive(Debug)]
pub struct Tables {
    /// Different for each snapshot of a process: tells a worker that what it cached may be stale.
    serial: u64,
    ports: Vec<Port>,
    /// Longest prefix first.
    routes: Vec<Hop>,
    /// Of everything the snapshot names: gateways first, then targets that take flows.
    next_hops: Vec<(PortIndex, Ipv4Addr)>,
    owned: HashMap<Ipv4Addr, Owned>,
    local_ips: Vec<LocalIp>,
    /// By service; apart from the services, since each packet needs them.
    timeouts: Vec<TickTimeouts>,
    default_timeouts: TickTimeouts,
    services: Vec<Option<Service>>,
    targets: Vec<Option<Target>>,
    by_address: HashMap<(Ipv4Addr, u16, Protocol), ServiceId>,
}

/// An address this node answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    /// A VIP, and whether ARP is answered for it.
    Vip { arp: bool },
    /// A LocalIP, by its place in [`Tables::local_ips`].
    LocalIp(LocalIpId),
    /// A port's own address, if it is answered for.
    Port { answers: bool },
}

/// A LocalIP in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIp {
    /// Stable across snapshots.
    pub id: LocalIpId,
    /// The address.
    pub address: Ipv4Addr,
    /// The port it is used on.
    pub port: PortIndex,
}

/// A route as looked up: where to, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    destination: Ipv4Addr,
    prefix: u8,
    port: PortIndex,
    gateway: Option<Ipv4Addr>,
}

impl Tables {
    /// Starts an empty snapshot.
    #[must_use]
    pub fn builder() -> TablesBuilder {
        TablesBuilder::default()
    }

    /// The ports, in the order given.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// One port.
    #[must_use]
    pub fn port(&self, index: PortIndex) -> Option<&Port> {
        self.ports.iter().find(|port| port.index == index)
    }

    /// The LocalIPs, in the order given.
    #[must_use]
    pub fn local_ips(&self) -> &[LocalIp] {
        &self.local_ips
    }

    /// The services, by number.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().flatten()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0 as usize)?.as_ref()
    }

    /// The targets of all services, by number.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().flatten()
    }

    /// One target.
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.get(id.0 as usize)?.as_ref()
    }

    /// The service at this address.
    #[must_use]
    pub fn service_at(&self, vip: Ipv4Addr, port: u16, protocol: Protocol) -> Option<&Service> {
        self.service(*self.by_address.get(&(vip, port, protocol))?)
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn owned(&self, address: Ipv4Addr) -> Option<Owned> {
        self.owned.get(&address).copied()
    }

    /// Whether packets to a LocalIP may come in on a port: on the one whose segment it is on (where ARP for it is answered), or
    /// routes lead to it by. True of one that left the snapshot: nothing is known of it any more.
    #[cold]
    pub(crate) fn is_at_home(&self, address: Ipv4Addr, port: &Port) -> bool {
        let mut local_ips = self.local_ips.iter();
        port.covers(address)
            || local_ips
                .find(|local| local.address == address)
                .is_none_or(|local| local.port == port.index)
    }

    /// Asked for each packet where there are several workers. LocalIPs are few (16 by default), so that going through them costs
    /// less than a hash would.
    pub(crate) fn is_local_ip(&self, address: Ipv4Addr) -> bool {
        self.local_ips.iter().any(|local| local.address == address)
    }

    /// The next hops worth knowing before the first packet, without repetition.
    pub(crate) fn next_hops(&self) -> &[(PortIndex, Ipv4Addr)] {
        &self.next_hops
    }

    /// Ticks a flow of this service is kept in this state; flows of a service that is gone follow the defaults.
    #[inline]
    pub(crate) fn timeout(&self, service: ServiceId, state: FlowState) -> u32 {
        self.timeouts
            .get(service.0 as usize)
            .unwrap_or(&self.default_timeouts)[state as usize]
    }

    /// The LocalIPs used on a port.
    pub(crate) fn local_ips_on(&self, port: PortIndex) -> impl Iterator<Item = &LocalIp> + Clone {
        self.local_ips
            .iter()
            .filter(move |local| local.port == port)
    }

    /// The port and the next hop towards a destination; the longest prefix wins, then the earlier entry.
    pub(crate) fn route(&self, destination: Ipv4Addr) -> Option<(PortIndex, Ipv4Addr)> {
        lookup(&self.routes, destination)
    }
}

fn lookup(routes: &[Hop], destination: Ipv4Addr) -> Option<(PortIndex, Ipv4Addr)> {
    let hop = routes
        .iter()
        .find(|hop| crate::port::matches(destination, hop.destination, hop.prefix))?;
    Some((hop.port, hop.gateway.unwrap_or(destination)))
}
