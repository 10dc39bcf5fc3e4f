//! What a snapshot knows of one Internet protocol: routes, its own addresses, services by address.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{LocalIp, Owned};
use crate::family::Family;
use crate::ids::ServiceId;
use crate::next_hops::{Living, RouterState};
use crate::port::{Port, PortIndex};
use crate::port_range::PortRange;
use crate::service::Protocol;

/// See the module.
#[derive(Debug)]
pub(crate) struct Net<V: Family> {
    /// Longest prefix first; of one prefix, those that are to be preferred.
    pub(super) routes: Vec<Hop<V>>,
    pub(super) owned: Map<V::Address, Owned>,
    pub(super) local_ips: Vec<LocalIp<V::Address>>,
    /// LocalIPs that new flows don't get any more.
    pub(super) retired: Vec<LocalIp<V::Address>>,
    /// Services of one port.
    pub(super) by_address: Map<(V::Address, u16, Protocol), ServiceId>,
    /// Services of several ports.
    pub(super) by_range: Map<(V::Address, Protocol), Ranges>,
}

/// The services of one VIP and protocol that have several ports.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// In the order of their ports; none overlap.
    some: Vec<(PortRange, ServiceId)>,
    /// The one of all ports, which has what the others leave.
    all: Option<ServiceId>,
}

impl Ranges {
    /// Adds a service.
    ///
    /// # Errors
    /// The ports of a service with which it would have one in common.
    pub(super) fn add(&mut self, ports: PortRange, service: ServiceId) -> Result<(), PortRange> {
        if ports == PortRange::ALL {
            return match self.all.replace(service) {
                None => Ok(()),
                Some(_) => Err(PortRange::ALL),
            };
        }
        let place = self.place(ports.first());
        match self.some.get(place) {
            Some((next, _)) if next.overlaps(ports) => Err(*next),
            _ => {
                self.some.insert(place, (ports, service));
                Ok(())
            }
        }
    }

    fn find(&self, port: u16) -> Option<ServiceId> {
        let some = self.some.get(self.place(port));
        some.filter(|(ports, _)| ports.contains(port))
            .map(|(_, service)| *service)
            .or(self.all.filter(|_| PortRange::ALL.contains(port)))
    }

    /// The service of exactly these ports.
    fn of(&self, ports: PortRange) -> Option<ServiceId> {
        if ports == PortRange::ALL {
            return self.all;
        }
        let some = self.some.get(self.place(ports.first()));
        some.filter(|(known, _)| *known == ports)
            .map(|(_, service)| *service)
    }

    /// The first range that doesn't end before a port.
    fn place(&self, port: u16) -> usize {
        self.some.partition_point(|(ports, _)| ports.last() < port)
    }
}

/// A route as looked up: where to, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop<V: Family> {
    pub(super) destination: V::Address,
    pub(super) prefix: u8,
    pub(super) port: PortIndex,
    pub(super) gateway: Option<V::Address>,
    /// The lower, the sooner it is used; hops of one rank share flows.
    pub(super) rank: usize,
    /// The gateway's place among the snapshot's routers.
    pub(super) router: Option<usize>,
    /// No other hop is of its prefix.
    pub(super) is_alone: bool,
}

impl<V: Family> Default for Net<V> {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            owned: Map::default(),
            local_ips: Vec::new(),
            retired: Vec::new(),
            by_address: Map::default(),
            by_range: Map::default(),
        }
    }
}

impl<V: Family> Net<V> {
    #[inline]
    pub(crate) fn owned(&self, address: V::Address) -> Option<Owned> {
        self.owned.get(&address).copied()
    }

    /// The service of what is sent to this address.
    #[inline]
    pub(crate) fn service_at(
        &self,
        vip: V::Address,
        port: u16,
        protocol: Protocol,
    ) -> Option<ServiceId> {
        match self.by_address.get(&(vip, port, protocol)) {
            Some(service) => Some(*service),
            None if self.by_range.is_empty() => None,
            None => self.range_at(vip, port, protocol),
        }
    }

    #[cold]
    fn range_at(&self, vip: V::Address, port: u16, protocol: Protocol) -> Option<ServiceId> {
        self.by_range.get(&(vip, protocol))?.find(port)
    }

    /// The service of exactly these ports.
    pub(super) fn service_of(
        &self,
        vip: V::Address,
        ports: PortRange,
        protocol: Protocol,
    ) -> Option<ServiceId> {
        match ports.single() {
            Some(port) => self.by_address.get(&(vip, port, protocol)).copied(),
            None => self.by_range.get(&(vip, protocol))?.of(ports),
        }
    }

    pub(super) fn has_services(&self) -> bool {
        !self.by_address.is_empty() || !self.by_range.is_empty()
    }

    /// Whether packets to a LocalIP may come in on a port: on the one whose segment it is on (where ARP for it is answered), or
    /// routes lead to it by. True of one that is in the snapshot no more, not even retired: nothing is known of it.
    #[cold]
    pub(crate) fn is_at_home(&self, address: V::Address, port: &Port) -> bool {
        let mut local_ips = self.local_ips.iter().chain(&self.retired);
        port.covers::<V>(address)
            || local_ips
                .find(|local| local.address == address)
                .is_none_or(|local| local.port == port.index)
    }

    /// Asked for each packet where there are several workers. LocalIPs are few (16 by default), so that going through them costs
    /// less than a hash would.
    #[inline]
    pub(crate) fn is_local_ip(&self, address: V::Address) -> bool {
        let is = |local: &LocalIp<V::Address>| local.address == address;
        self.local_ips.iter().any(is) || self.retired.iter().any(is)
    }

    /// The LocalIPs used on a port.
    pub(crate) fn local_ips_on(
        &self,
        port: PortIndex,
    ) -> impl Iterator<Item = &LocalIp<V::Address>> + Clone {
        self.local_ips
            .iter()
            .filter(move |local| local.port == port)
    }

    /// The hop that is to be preferred towards a destination, and those that come after it.
    fn first(&self, destination: V::Address) -> Option<(&Hop<V>, &[Hop<V>])> {
        let covers = |hop: &Hop<V>| V::matches(destination, hop.destination, hop.prefix);
        let at = self.routes.iter().position(covers)?;
        self.routes.get(at..)?.split_first()
    }

    /// The port that leads towards a destination, and the next hop that is to be preferred.
    pub(crate) fn route(&self, destination: V::Address) -> Option<(PortIndex, V::Address)> {
        let (hop, _) = self.first(destination)?;
        Some((hop.port, hop.gateway.unwrap_or(destination)))
    }

    /// The way of a flow towards a destination, if it must be by the port that [`Net::route`] leads to or by any. Of the hops that do
    /// best by `living` the first rank is used; of one rank, the hop that scores highest takes the flow.
    pub(crate) fn way(
        &self,
        destination: V::Address,
        by: By,
        living: Living,
        score: impl Fn(V::Address) -> u64,
    ) -> Option<(PortIndex, V::Address)> {
        let (first, rest) = self.first(destination)?;
        let chosen = match first.is_alone {
            true => first,
            false => choose(destination, (first, rest), by, living, score),
        };
        Some((chosen.port, chosen.gateway.unwrap_or(destination)))
    }

    /// The places of the routers by which packets leave now.
    pub(super) fn routers_in_use(&self, living: Living) -> impl Iterator<Item = usize> {
        self.routes.iter().filter_map(move |hop| {
            let is_beside = |other: &&Hop<V>| {
                let is_same = V::matches(other.destination, hop.destination, hop.prefix);
                other.prefix == hop.prefix && is_same
            };
            let beside = || self.routes.iter().filter(is_beside);
            let mut used = best(beside, living);
            hop.router.filter(|_| used.any(|used| used == hop))
        })
    }

    /// The hops towards clients: of the default route; without one, of all routes by routers that lead to none of the `targets`.
    pub(super) fn ways_out<'a>(
        &'a self,
        targets: &'a [V::Address],
    ) -> impl Iterator<Item = &'a Hop<V>> {
        let has_default = self.routes.last().is_some_and(|hop| hop.prefix == 0);
        let leads_to =
            |hop: &Hop<V>, target: V::Address| V::matches(target, hop.destination, hop.prefix);
        self.routes.iter().filter(move |hop| match has_default {
            true => hop.prefix == 0,
            false => hop.gateway.is_some() && !targets.iter().any(|target| leads_to(hop, *target)),
        })
    }
}

/// Which ports a way may lead by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    AnyPort,
    /// The port of the first hop.
    OnePort,
}

/// One of the hops of the longest prefix: `first`, or one of the `rest` that is of the same prefix.
#[cold]
fn choose<'a, V: Family>(
    destination: V::Address,
    (first, rest): (&'a Hop<V>, &'a [Hop<V>]),
    by: By,
    living: Living,
    score: impl Fn(V::Address) -> u64,
) -> &'a Hop<V> {
    let may_be = |hop: &&Hop<V>| {
        V::matches(destination, hop.destination, hop.prefix)
            && (by == By::AnyPort || hop.port == first.port)
    };
    let same_prefix = rest.iter().take_while(|hop| hop.prefix == first.prefix);
    let others = same_prefix.filter(may_be);
    let hops = || std::iter::once(first).chain(others.clone());
    let score = |hop: &Hop<V>| hop.gateway.map_or(0, &score);
    // The first of those that score highest.
    let highest = |best: &'a Hop<V>, hop: &'a Hop<V>| match score(hop) > score(best) {
        true => hop,
        false => best,
    };
    best(hops, living).reduce(highest).unwrap_or(first)
}

/// Of hops of one prefix, the first rank of those whose routers do best.
fn best<'a, V: Family, H: Iterator<Item = &'a Hop<V>>>(
    hops: impl Fn() -> H,
    living: Living,
) -> impl Iterator<Item = &'a Hop<V>> {
    let standing = move |hop: &Hop<V>| match hop.router.map(|router| living.state(router)) {
        // Without a router there is nobody to ask. Whether one that is silent has ever answered says nothing of what it does now.
        None => RouterState::Up,
        Some(RouterState::Unheard) => RouterState::Down,
        Some(state) => state,
    };
    let best = hops().map(standing).max();
    let is_best = move |hop: &&Hop<V>| Some(standing(hop)) == best;
    let rank = hops().find(is_best).map(|hop| hop.rank);
    hops()
        .filter(is_best)
        .filter(move |hop| Some(hop.rank) == rank)
}

/// A map that packets look things up in.
pub(super) type Map<K, T> = HashMap<K, T, BuildHasherDefault<Multiplied>>;

/// A hash by multiplication: fast, and easy to collide with. That does no harm here: the keys in the map are the configuration's,
/// and a packet only looks up, which takes no longer for an address that collides than for one that is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Multiplied(u64);

impl Multiplied {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Multiplied {
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.mix(
                rest.iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            );
        }
    }

    #[inline]
    fn write_u16(&mut self, word: u16) {
        self.mix(u64::from(word));
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word));
    }

    /// Lengths and discriminants: the same for all keys, or one of two.
    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.0 = self.0.wrapping_add(word as u64);
    }

    #[inline]
    fn write_isize(&mut self, word: isize) {
        self.write_usize(word as usize);
    }
}
