//! What a snapshot knows of one Internet protocol: routes, its own addresses, services by address.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use super::{LocalIp, Owned};
use crate::family::Family;
use crate::ids::ServiceId;
use crate::port::{Port, PortIndex};
use crate::service::Protocol;

/// See the module.
#[derive(Debug)]
pub(crate) struct Net<V: Family> {
    /// Longest prefix first.
    pub(super) routes: Vec<Hop<V>>,
    pub(super) owned: Map<V::Address, Owned>,
    pub(super) local_ips: Vec<LocalIp<V::Address>>,
    /// LocalIPs that new flows don't get any more.
    pub(super) retired: Vec<LocalIp<V::Address>>,
    pub(super) by_address: Map<(V::Address, u16, Protocol), ServiceId>,
}

/// A route as looked up: where to, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop<V: Family> {
    pub(super) destination: V::Address,
    pub(super) prefix: u8,
    pub(super) port: PortIndex,
    pub(super) gateway: Option<V::Address>,
}

impl<V: Family> Default for Net<V> {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            owned: Map::default(),
            local_ips: Vec::new(),
            retired: Vec::new(),
            by_address: Map::default(),
        }
    }
}

impl<V: Family> Net<V> {
    #[inline]
    pub(crate) fn owned(&self, address: V::Address) -> Option<Owned> {
        self.owned.get(&address).copied()
    }

    /// The service at this address.
    pub(crate) fn service_at(
        &self,
        vip: V::Address,
        port: u16,
        protocol: Protocol,
    ) -> Option<ServiceId> {
        self.by_address.get(&(vip, port, protocol)).copied()
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

    /// The port and the next hop towards a destination; the longest prefix wins, then the earlier entry.
    pub(crate) fn route(&self, destination: V::Address) -> Option<(PortIndex, V::Address)> {
        let hop = self
            .routes
            .iter()
            .find(|hop| V::matches(destination, hop.destination, hop.prefix))?;
        Some((hop.port, hop.gateway.unwrap_or(destination)))
    }

    /// The gateways of all routes, with their ports.
    pub(super) fn gateways(&self) -> impl Iterator<Item = (PortIndex, IpAddr)> {
        self.routes
            .iter()
            .filter_map(|hop| hop.gateway.map(|gateway| (hop.port, gateway.into())))
    }
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
