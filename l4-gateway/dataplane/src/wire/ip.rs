//! What the forwarder needs of an IP header, whatever its version.

use crate::family::Family;

/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// What the forwarder needs of a header that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip<V: Family> {
    /// Bytes up to the transport header: of the IP header with its options, or with its extension headers.
    pub(crate) header: u16,
    /// Bytes of header and payload; the frame may be longer (Ethernet padding).
    pub(crate) total: u16,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// What is behind the header.
    pub(crate) protocol: u8,
    /// Always true of IPv6, where routers don't.
    pub(crate) dont_fragment: bool,
    /// Part of a fragmented packet.
    pub(crate) fragment: bool,
    /// Begins the packet: the transport header is in here.
    pub(crate) first: bool,
    pub(crate) source: V::Address,
    pub(crate) destination: V::Address,
}
