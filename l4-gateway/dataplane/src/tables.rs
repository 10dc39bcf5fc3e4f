//! The immutable snapshot workers read: ports, routes, LocalIPs, services and targets, with everything laid out that can be
//! worked out before a packet comes.

mod announced;
mod builder;
mod cuts;
mod error;
mod free_ports;
mod net;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use announced::Announced;
pub use builder::{Retired, TablesBuilder};
pub use cuts::Cut;
pub(crate) use cuts::Cuts;
pub use error::TablesError;
pub(crate) use net::{By, Net};

use crate::family::{Family, V4, V6};
use crate::flow::FlowState;
use crate::flow_view::FlowView;
use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::limits::{FEW_TARGETS, TICK_NANOSECONDS};
use crate::next_hops::{Living, NextHop};
use crate::port::{Port, PortIndex};
use crate::port_range::PortRange;
use crate::service::{Protocol, Service, Target, TickTimeouts};
use crate::steer::Steering;

/// One snapshot. It never changes; the control side builds a new one and swaps the pointer.
#[derive(Debug)]
pub struct Tables {
    /// Different for each snapshot of a process: tells a worker that what it cached may be stale.
    serial: u64,
    ports: Vec<Port>,
    v4: Net<V4>,
    v6: Net<V6>,
    /// Of all routes.
    routers: Vec<NextHop>,
    /// Of everything the snapshot names: routers first, then targets that take flows.
    next_hops: Vec<(PortIndex, IpAddr)>,
    announced: Arc<[Announced]>,
    /// How often all of them were to be announced again.
    announcement: u64,
    cuts: Cuts,
    local_ips: Vec<LocalIp>,
    steering: Steering,
    /// By service; apart from the services, since each packet needs them.
    timeouts: Vec<TickTimeouts>,
    default_timeouts: TickTimeouts,
    services: Vec<Option<Service>>,
    targets: Vec<Option<Target>>,
}

/// An address this node answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    /// A VIP, and whether ARP or neighbour solicitations are answered for it.
    Vip { arp: bool },
    /// A LocalIP, by its place in [`Tables::local_ips`].
    LocalIp(LocalIpId),
    /// A port's own address, if it is answered for.
    Port { answers: bool },
}

/// A LocalIP in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIp<A = IpAddr> {
    /// Stable across snapshots.
    pub id: LocalIpId,
    /// The address.
    pub address: A,
    /// The port it is used on.
    pub port: PortIndex,
    /// Rules of that port's NIC bring each answer to the worker that the local port names.
    pub by_port: bool,
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

    /// Whether the counters of all targets are too many for a core's cache.
    #[inline]
    pub(crate) fn has_many_targets(&self) -> bool {
        self.targets.len() > FEW_TARGETS
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

    /// The service that takes what is sent to this address.
    #[must_use]
    pub fn service_at(
        &self,
        vip: impl Into<IpAddr>,
        port: u16,
        protocol: Protocol,
    ) -> Option<&Service> {
        let id = match vip.into() {
            IpAddr::V4(vip) => self.v4.service_at(vip, port, protocol),
            IpAddr::V6(vip) => self.v6.service_at(vip, port, protocol),
        };
        self.service(id?)
    }

    /// The service of exactly these ports.
    #[must_use]
    pub fn service_of(
        &self,
        vip: impl Into<IpAddr>,
        ports: impl Into<PortRange>,
        protocol: Protocol,
    ) -> Option<&Service> {
        let ports = ports.into();
        let id = match vip.into() {
            IpAddr::V4(vip) => self.v4.service_of(vip, ports, protocol),
            IpAddr::V6(vip) => self.v6.service_of(vip, ports, protocol),
        };
        self.service(id?)
    }

    /// What brings packets to their workers.
    #[inline]
    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether a LocalIP's number is in use, for new flows or only for old ones.
    pub(crate) fn has_local_ip(&self, id: LocalIpId) -> bool {
        self.local_ips.iter().any(|local| local.id == id)
            || self.v4.retired.iter().any(|local| local.id == id)
            || self.v6.retired.iter().any(|local| local.id == id)
    }

    /// What is known of one family.
    #[inline]
    pub(crate) fn net<V: Family>(&self) -> &Net<V> {
        V::net(self)
    }

    #[inline]
    pub(crate) fn v4(&self) -> &Net<V4> {
        &self.v4
    }

    #[inline]
    pub(crate) fn v6(&self) -> &Net<V6> {
        &self.v6
    }

    pub(crate) fn v4_mut(&mut self) -> &mut Net<V4> {
        &mut self.v4
    }

    pub(crate) fn v6_mut(&mut self) -> &mut Net<V6> {
        &mut self.v6
    }

    /// The routers of all routes, without repetition; [`crate::Living`] says by their places which of them answer.
    #[must_use]
    pub fn routers(&self) -> &[NextHop] {
        &self.routers
    }

    /// The places of the routers that flows use, as they do now.
    pub(crate) fn routers_in_use(&self, living: Living) -> HashSet<usize> {
        let v4 = self.v4.routers_in_use(living);
        v4.chain(self.v6.routers_in_use(living)).collect()
    }

    /// For each family that has services: the ways towards clients, by the default route if there is one, else by the routes that lead to no
    /// target; each a port and a router, none where the clients are on the port's own segment.
    #[must_use]
    pub fn ways_out(&self) -> Vec<Vec<(PortIndex, Option<NextHop>)>> {
        fn ways<V: Family>(tables: &Tables) -> Option<Vec<(PortIndex, Option<NextHop>)>> {
            let net = tables.net::<V>();
            let targets: Vec<V::Address> = tables
                .targets()
                .filter_map(|target| V::address(target.config.address.ip()))
                .collect();
            let way = |hop: &net::Hop<V>| {
                let router = hop.router.and_then(|place| tables.routers.get(place));
                (hop.port, router.copied())
            };
            net.has_services()
                .then(|| net.ways_out(&targets).map(way).collect())
        }
        [ways::<V4>(self), ways::<V6>(self)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The next hops worth knowing before the first packet, without repetition.
    pub(crate) fn next_hops(&self) -> &[(PortIndex, IpAddr)] {
        &self.next_hops
    }

    /// What is announced, in order.
    pub(crate) fn announced(&self) -> &Arc<[Announced]> {
        &self.announced
    }

    /// Another number than before: all of it is to be announced again.
    pub(crate) fn announcement(&self) -> u64 {
        self.announcement
    }

    /// Whose flows are to be ended.
    pub(crate) fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Ticks a flow of this service is kept in this state; flows of a service that is gone follow the defaults.
    #[inline]
    pub(crate) fn timeout(&self, service: ServiceId, state: FlowState) -> u32 {
        self.timeouts
            .get(service.0 as usize)
            .unwrap_or(&self.default_timeouts)[state as usize]
    }

    /// How long a flow has been without a packet; of one that had its last packet before its service got other timeouts, as if it had had
    /// these.
    #[must_use]
    pub fn idle(&self, flow: &FlowView) -> Duration {
        let timeout = u64::from(self.timeout(flow.service, flow.timed_as));
        Duration::from_nanos(timeout * TICK_NANOSECONDS).saturating_sub(flow.expires_in)
    }

    /// The port and the next hop towards a destination of either family.
    fn route(&self, destination: IpAddr) -> Option<(PortIndex, IpAddr)> {
        match destination {
            IpAddr::V4(to) => self.v4.route(to).map(|(port, hop)| (port, hop.into())),
            IpAddr::V6(to) => self.v6.route(to).map(|(port, hop)| (port, hop.into())),
        }
    }
}
