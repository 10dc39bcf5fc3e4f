//! The ports of the node and the routes over them.

use std::net::Ipv4Addr;

use crate::MacAddr;

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
    /// Its own address: the sender of ARP requests and of ICMP errors.
    pub address: Ipv4Addr,
    /// Length of the on-link prefix around `address`, 0 to 32.
    pub prefix: u8,
    /// Next hop for everything no other route covers. The port given first wins if several have one.
    pub gateway: Option<Ipv4Addr>,
    /// Longest IP packet it carries, bytes.
    pub mtu: u16,
    /// Whether ARP and echo requests for `address` are answered here; false where the kernel holds the address too
    /// (af_packet), which then answers itself.
    pub answers: bool,
}

impl Port {
    pub(crate) fn covers(&self, address: Ipv4Addr) -> bool {
        matches(address, self.address, self.prefix)
    }
}

/// A route beyond the on-link prefixes and the ports' gateways; the longest match wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// First address of the destination prefix; bits beyond the length are ignored.
    pub destination: Ipv4Addr,
    /// Length of the prefix, 0 to 32.
    pub prefix: u8,
    /// Where packets leave.
    pub port: PortIndex,
    /// The router they go to; none if the destination is on the port's own segment.
    pub gateway: Option<Ipv4Addr>,
}

/// Whether two addresses agree in their first `prefix` bits.
pub(crate) fn matches(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = 32 - u32::from(prefix.min(32));
    (u64::from(a.to_bits()) >> host_bits) == (u64::from(b.to_bits()) >> host_bits)
}
