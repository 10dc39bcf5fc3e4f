//! Small stable numbers for services, targets and LocalIPs: what flows and counters refer to across snapshots.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use crate::limits::Limits;
use crate::port_range::PortRange;
use crate::service::Protocol;

/// A service's number, the same in all snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A target's number, the same in all snapshots. The same address in two services is two targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// A LocalIP's number, the same in all snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalIpId(pub u8);

/// Gives out numbers on the control side; one per process, handed to each [`crate::TablesBuilder::build`].
///
/// A name keeps its number for as long as it is in a snapshot or a flow may refer to it: numbers return to the pool only by
/// [`Ids::reclaim`].
#[derive(Debug)]
pub struct Ids {
    services: Pool<(IpAddr, Protocol, PortRange)>,
    targets: Pool<(ServiceId, SocketAddr)>,
    local_ips: Pool<IpAddr>,
}

impl Ids {
    /// An allocator for as many names as the workers have room for: give it their limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            // A flow keeps 16 bits of it.
            services: Pool::new(limits.services.min(1 << 16)),
            targets: Pool::new(limits.targets),
            local_ips: Pool::new(u32::from(limits.local_ips).min(256)),
        }
    }

    /// The number of a service; none when [`Limits::services`] names are in use.
    pub fn service(
        &mut self,
        vip: IpAddr,
        protocol: Protocol,
        ports: PortRange,
    ) -> Option<ServiceId> {
        self.services.number((vip, protocol, ports)).map(ServiceId)
    }

    /// The number of a target; none when [`Limits::targets`] names are in use.
    pub fn target(&mut self, service: ServiceId, address: SocketAddr) -> Option<TargetId> {
        self.targets.number((service, address)).map(TargetId)
    }

    /// The number of a LocalIP; none when [`Limits::local_ips`] names are in use.
    pub fn local_ip(&mut self, address: IpAddr) -> Option<LocalIpId> {
        self.local_ips
            .number(address)
            .map(|number| LocalIpId(number as u8))
    }

    /// The number that a service has already.
    pub(crate) fn known_service(
        &self,
        vip: IpAddr,
        protocol: Protocol,
        ports: PortRange,
    ) -> Option<ServiceId> {
        let number = self.services.numbers.get(&(vip, protocol, ports));
        number.copied().map(ServiceId)
    }

    /// Has a service keep its number, and by it its flows, while its ports change from `before` to `after`. Whether it does: not where the one
    /// has no number, or the other has one of its own.
    pub fn change_ports(
        &mut self,
        vip: IpAddr,
        protocol: Protocol,
        before: PortRange,
        after: PortRange,
    ) -> bool {
        let numbers = &mut self.services.numbers;
        let after = (vip, protocol, after);
        if numbers.contains_key(&after) {
            return false;
        }
        let Some(number) = numbers.remove(&(vip, protocol, before)) else {
            return false;
        };
        numbers.insert(after, number);
        true
    }

    /// The number that a LocalIP has already.
    pub(crate) fn known_local_ip(&self, address: IpAddr) -> Option<LocalIpId> {
        let number = self.local_ips.numbers.get(&address);
        number.map(|number| LocalIpId(*number as u8))
    }

    /// Takes back the numbers that `keep` no longer vouches for.
    ///
    /// Call it once all workers run on `tables` (a worker still on an older snapshot may be about to create a flow). A target
    /// goes when it is neither in `tables` nor has active flows in `counters`, and so does a LocalIP; a service when the same holds
    /// for it and its targets. Counters of a reused number go on from where they
    /// were; a reader that wants them from zero subtracts what it saw when the number was given out.
    pub fn reclaim(&mut self, tables: &crate::Tables, counters: &crate::Counters) {
        self.targets.keep(|number| {
            tables.target(TargetId(number)).is_some()
                || counters.target(TargetId(number)).flows_active > 0
        });
        let held: std::collections::HashSet<ServiceId> = self
            .targets
            .numbers
            .keys()
            .map(|(service, _)| *service)
            .collect();
        self.services.keep(|number| {
            let id = ServiceId(number);
            tables.service(id).is_some()
                || held.contains(&id)
                || counters.service(id).flows_active > 0
        });
        self.local_ips.keep(|number| {
            let id = LocalIpId(number as u8);
            tables.has_local_ip(id) || counters.local_ip_flows(id) > 0
        });
    }

    /// Flows that use an address as their VIP or their LocalIP, also one that has left the snapshot.
    #[must_use]
    pub fn flows_of(&self, address: IpAddr, counters: &crate::Counters) -> u64 {
        let services = self.services.numbers.iter();
        let of_vip: u64 = services
            .filter(|((vip, _, _), _)| *vip == address)
            .map(|(_, number)| counters.service(ServiceId(*number)).flows_active)
            .sum();
        let local_ip = self.known_local_ip(address);
        of_vip + local_ip.map_or(0, |id| counters.local_ip_flows(id))
    }

    /// Flows of a service, also of one that has left the snapshot.
    #[must_use]
    pub fn flows_of_service(
        &self,
        vip: IpAddr,
        protocol: Protocol,
        ports: PortRange,
        counters: &crate::Counters,
    ) -> u64 {
        let id = self.known_service(vip, protocol, ports);
        id.map_or(0, |id| counters.service(id).flows_active)
    }
}

#[derive(Debug)]
struct Pool<N> {
    numbers: HashMap<N, u32>,
    returned: Vec<u32>,
    next: u32,
    limit: u32,
}

impl<N: Eq + Hash + Copy> Pool<N> {
    fn new(limit: u32) -> Self {
        Self {
            numbers: HashMap::new(),
            returned: Vec::new(),
            next: 0,
            limit,
        }
    }

    fn number(&mut self, name: N) -> Option<u32> {
        if let Some(number) = self.numbers.get(&name) {
            return Some(*number);
        }
        let number = match self.returned.pop() {
            Some(number) => number,
            None if self.next < self.limit => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.numbers.insert(name, number);
        Some(number)
    }

    fn keep(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let returned = &mut self.returned;
        self.numbers.retain(|_, number| {
            let kept = keep(*number);
            if !kept {
                returned.push(*number);
            }
            kept
        });
        // The lowest is given out first: what happens here depends on no hash, so that a simulation is the same each time.
        returned.sort_unstable_by(|a, b| b.cmp(a));
    }
}
