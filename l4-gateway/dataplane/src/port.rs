//! The ports of the node and the routes over them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::MacAddr;
use crate::family::Family;
use crate::next_hops::NextHops;

/// A port, by the number its owner gave it; below 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u16);

/// One Ethernet port. A node with one is single-arm, with two dual-arm: routing alone decides where a frame leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// How bursts and verdicts name it.
    pub index: PortIndex,
    /// Its MAC, the source of everything it sends.
    pub mac: MacAddr,
    /// Its IPv4 segment. A port has a segment of one family at least.
    pub ipv4: Option<Segment<Ipv4Addr>>,
    /// Its IPv6 segment.
    pub ipv6: Option<Segment<Ipv6Addr>>,
    /// Longest IP packet it carries, bytes.
    pub mtu: u16,
    /// Whether ARP, neighbour solicitations and echo requests for its own addresses are answered here; false where the kernel
    /// holds them too (af_packet), which then answers itself.
    pub answers: bool,
    /// Its addresses are announced again this often, if at all.
    pub announce_every: Option<Duration>,
    /// Whether what the node's kernel sends by the same interface comes in here too (af_packet): left to it, as it has gone already.
    pub hears_kernel: bool,
}

/// What a port has of one Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<A> {
    /// Its own address: the sender of questions for next hops and of ICMP errors.
    pub address: A,
    /// Length of the on-link prefix around `address`, 0 to the bits of an address.
    pub prefix: u8,
    /// Routers for everything no other route covers; IPv6 ones may be link-local. Those of the port given first come first if several ports
    /// have some.
    pub gateways: NextHops<A>,
}

impl Port {
    /// Whether an address is on this port's segment.
    pub(crate) fn covers<V: Family>(&self, address: V::Address) -> bool {
        V::segment(self).is_some_and(|segment| V::matches(address, segment.address, segment.prefix))
    }

    /// Its own address, if it has one of this family.
    pub(crate) fn address<V: Family>(&self) -> Option<V::Address> {
        V::segment(self).map(|segment| segment.address)
    }
}

/// A route beyond the on-link prefixes and the ports' gateways; the longest match wins, and the first given of those that are equally long and
/// have a router that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// First address of the destination prefix; bits beyond the length are ignored.
    pub destination: IpAddr,
    /// Length of the prefix, 0 to the bits of an address.
    pub prefix: u8,
    /// Where packets leave.
    pub port: PortIndex,
    /// The routers they go to, of the same family.
    pub via: NextHops<IpAddr>,
}
