//! The two Internet protocols. Packet code is generic over a [`Family`] and compiled once for each, so that neither pays for the
//! other: one of them never asks which it is.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::DropReason;
use crate::flow::{Addresses, FlowTable};
use crate::fragments::Part;
use crate::port::{Port, Segment};
use crate::secret::Secret;
use crate::tables::{Net, Tables};
use crate::tunnel;
use crate::wire::checksum::{self, Delta};
use crate::wire::ip::Ip;
use crate::wire::{icmp, ipv4, ipv6, put, u16_at};

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum V4 {}

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum V6 {}

/// One Internet protocol: [`V4`] or [`V6`].
pub(crate) trait Family: Copy + Debug + Eq + 'static {
    /// Its addresses.
    type Address: Copy + Debug + Eq + Hash + Ord + Into<IpAddr> + 'static;

    /// The EtherType of its packets.
    const ETHER_TYPE: u16;
    /// Its header without options or extension headers, bytes.
    const HEADER: usize;
    /// The MTU every link has at least, bytes (RFC 791 3.2, RFC 8200 5).
    const SMALLEST_MTU: usize;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// How its ICMP numbers the messages used here.
    const KINDS: icmp::Kinds;
    /// Bytes an ICMP error made here quotes of the packet it is about, at most.
    const QUOTE: usize;
    /// Bits of an address.
    const BITS: u8;
    /// Whether a UDP checksum of 0 means that there is none (RFC 768); IPv6 forbids that (RFC 8200 8.1).
    const UDP_MAY_BE_UNCHECKED: bool;
    /// The mark of its flows.
    const IS_V6: bool;

    /// The address, if it is of this family.
    fn address(address: IpAddr) -> Option<Self::Address>;

    /// `::` or `0.0.0.0`.
    fn unspecified() -> Self::Address;

    /// Whether a packet can come from this one host.
    fn is_host(address: Self::Address) -> bool;

    /// Whether a packet from or to this one host may be forwarded: not if the address means something on one link only.
    fn is_routable(address: Self::Address) -> bool;

    /// Whether an address means something on its own link only.
    fn is_link_local(address: Self::Address) -> bool;

    /// Whether two addresses agree in their first `prefix` bits.
    fn matches(a: Self::Address, b: Self::Address, prefix: u8) -> bool;

    /// Parses a packet that starts at the IP header.
    fn parse(packet: &[u8]) -> Result<Ip<Self>, DropReason>;

    /// Source and destination of a packet that was parsed before.
    fn ends(packet: &[u8]) -> (Self::Address, Self::Address);

    /// Parses the IP header of a packet that may be cut off anywhere: an ICMP error quotes it.
    fn parse_quoted(packet: &[u8]) -> Result<Ip<Self>, DropReason>;

    /// The keyed hash of a packet's addresses, and of `ports`: both ports and the protocol.
    fn hash(secret: &Secret, source: Self::Address, destination: Self::Address, ports: u64) -> u64;

    /// The sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1).
    fn pseudo_header(
        source: Self::Address,
        destination: Self::Address,
        protocol: u8,
        length: u16,
    ) -> u16;

    /// What its ICMP sums beside the message: nothing, or the pseudo header (RFC 4443 2.3).
    fn icmp_seed(source: Self::Address, destination: Self::Address, length: u16) -> u16;

    /// Writes the addresses into an IP header (which may be a quoted one) and takes `hops` off it; its checksum is brought up to
    /// date. What that does to a sum over the addresses.
    fn readdress(
        header: &mut [u8],
        source: Self::Address,
        destination: Self::Address,
        hops: u8,
    ) -> Delta;

    /// A header for a packet made here, written to the front of `packet`.
    fn write_header(
        packet: &mut [u8],
        source: Self::Address,
        destination: Self::Address,
        protocol: u8,
        payload: usize,
        hop_limit: u8,
    );

    /// Sets the hop limit and exchanges the addresses for these; a header checksum is made anew. `header`: its bytes.
    fn turn_header(packet: &mut [u8], ip: &Ip<Self>, hop_limit: u8);

    /// What a port has of this family.
    fn segment(port: &Port) -> Option<&Segment<Self::Address>>;

    /// What a snapshot knows of this family.
    fn net(tables: &Tables) -> &Net<Self>;

    /// See [`Family::net`].
    fn net_mut(tables: &mut Tables) -> &mut Net<Self>;

    /// Whether a packet that [`Family::parse`] has taken is a fragment.
    fn is_part(packet: &[u8]) -> bool;

    /// Which part of its packet a fragment is.
    fn part(packet: &[u8], ip: &Ip<Self>) -> Result<Part, DropReason>;

    /// Writes `number` for the identification, which stands at `at`; a header checksum is brought up to date.
    fn renumber(packet: &mut [u8], at: u16, number: u32);

    /// The protocol number of its packets inside of others.
    const TUNNELLED: u8;

    /// Writes the header of an outer packet around `inner` to the front of `outer`. `number` tells packets apart for who puts
    /// their fragments together, `flow` is the same for all of one flow.
    fn wrap(
        outer: &mut [u8],
        inner: &[u8],
        source: Self::Address,
        destination: Self::Address,
        number: u32,
        flow: u64,
    );

    /// What an ICMP error about an outer packet means for the sender of the inner one, if anything.
    fn meaning(error: tunnel::Error) -> Option<tunnel::Error>;

    /// The addresses of a flow of this family.
    fn addresses(flows: &FlowTable, number: u32) -> Addresses<Self::Address>;

    /// Stores the addresses of a flow of this family.
    fn store(flows: &mut FlowTable, number: u32, addresses: &Addresses<Self::Address>);
}

impl Family for V4 {
    type Address = Ipv4Addr;

    const ETHER_TYPE: u16 = crate::wire::ethernet::IPV4;
    const HEADER: usize = ipv4::HEADER;
    const SMALLEST_MTU: usize = 68;
    const ICMP: u8 = ipv4::ICMP;
    const KINDS: icmp::Kinds = icmp::V4;
    const QUOTE: usize = crate::limits::ICMP_QUOTE;
    const BITS: u8 = 32;
    const UDP_MAY_BE_UNCHECKED: bool = true;
    const IS_V6: bool = false;

    fn address(address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn unspecified() -> Ipv4Addr {
        Ipv4Addr::UNSPECIFIED
    }

    fn is_host(address: Ipv4Addr) -> bool {
        !(address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224)
    }

    fn is_routable(address: Ipv4Addr) -> bool {
        Self::is_host(address)
    }

    fn is_link_local(_: Ipv4Addr) -> bool {
        false
    }

    fn matches(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
        let host_bits = 32 - u32::from(prefix.min(32));
        (u64::from(a.to_bits()) >> host_bits) == (u64::from(b.to_bits()) >> host_bits)
    }

    #[inline]
    fn parse(packet: &[u8]) -> Result<Ip<V4>, DropReason> {
        ipv4::parse(packet)
    }

    #[inline]
    fn ends(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
        let [source, destination] = ends::<4, { ipv4::HEADER }>(packet);
        (source.into(), destination.into())
    }

    fn parse_quoted(packet: &[u8]) -> Result<Ip<V4>, DropReason> {
        ipv4::parse_quoted(packet)
    }

    #[inline]
    fn hash(secret: &Secret, source: Ipv4Addr, destination: Ipv4Addr, ports: u64) -> u64 {
        let addresses = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
        secret.hash(addresses, ports)
    }

    fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u16 {
        let addresses = [source.octets(), destination.octets()];
        checksum::pseudo_header(addresses.as_flattened(), protocol, length)
    }

    fn icmp_seed(_: Ipv4Addr, _: Ipv4Addr, _: u16) -> u16 {
        0
    }

    #[inline]
    fn readdress(header: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, hops: u8) -> Delta {
        let Some(fixed) = header.first_chunk_mut::<{ ipv4::HEADER }>() else {
            return Delta::NONE;
        };
        let [.., a, b, c, d, e, f, g, h] = *fixed;
        let addresses = Delta::bytes([a, b, c, d], source.octets())
            .and(Delta::bytes([e, f, g, h], destination.octets()));
        // The word of TTL and protocol shrinks by 0x0100 a hop.
        let delta = addresses.and(Delta::word(u16::from(hops) << 8, 0));
        fixed[8] = fixed[8].wrapping_sub(hops);
        delta.apply_at(fixed, 10);
        put(fixed, 12, source.octets());
        put(fixed, 16, destination.octets());
        addresses
    }

    fn write_header(
        packet: &mut [u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload: usize,
        hop_limit: u8,
    ) {
        let header = ipv4::header(source, destination, protocol, payload, hop_limit);
        put(packet, 0, header);
    }

    fn turn_header(packet: &mut [u8], ip: &Ip<V4>, hop_limit: u8) {
        put(packet, 8, [hop_limit]);
        put(packet, 12, ip.destination.octets());
        put(packet, 16, ip.source.octets());
        put(packet, 10, [0, 0]);
        let header = packet.get(..usize::from(ip.header)).unwrap_or(&[]);
        let sum = checksum::checksum(header);
        put(packet, 10, sum.to_be_bytes());
    }

    #[inline]
    fn segment(port: &Port) -> Option<&Segment<Ipv4Addr>> {
        port.ipv4.as_ref()
    }

    #[inline]
    fn net(tables: &Tables) -> &Net<V4> {
        tables.v4()
    }

    fn net_mut(tables: &mut Tables) -> &mut Net<V4> {
        tables.v4_mut()
    }

    const TUNNELLED: u8 = tunnel::IPV4;

    fn is_part(packet: &[u8]) -> bool {
        u16_at(packet, ipv4::FRAGMENTATION) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) != 0
    }

    fn part(packet: &[u8], ip: &Ip<V4>) -> Result<Part, DropReason> {
        let (source, destination) = (ip.source.into(), ip.destination.into());
        Part::of_ipv4(packet, source, destination, ip.header, ip.total)
    }

    fn renumber(packet: &mut [u8], at: u16, number: u32) {
        let (old, new) = (u16_at(packet, usize::from(at)), number as u16);
        put(packet, usize::from(at), new.to_be_bytes());
        Delta::word(old, new).apply_at(packet, 10);
    }

    fn wrap(
        outer: &mut [u8],
        inner: &[u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
        number: u32,
        _: u64,
    ) {
        let header = tunnel::around_ipv4(inner, source, destination, number as u16);
        put(outer, 0, header);
    }

    fn meaning(error: tunnel::Error) -> Option<tunnel::Error> {
        tunnel::meaning_ipv4(error)
    }

    #[inline]
    fn addresses(flows: &FlowTable, number: u32) -> Addresses<Ipv4Addr> {
        flows.get(number).narrow
    }

    #[inline]
    fn store(flows: &mut FlowTable, number: u32, addresses: &Addresses<Ipv4Addr>) {
        flows.get_mut(number).narrow = *addresses;
    }
}

impl Family for V6 {
    type Address = Ipv6Addr;

    const ETHER_TYPE: u16 = crate::wire::ethernet::IPV6;
    const HEADER: usize = ipv6::HEADER;
    const SMALLEST_MTU: usize = 1280;
    const ICMP: u8 = ipv6::ICMP;
    const KINDS: icmp::Kinds = icmp::V6;
    const QUOTE: usize = crate::limits::ICMP6_QUOTE;
    const BITS: u8 = 128;
    const UDP_MAY_BE_UNCHECKED: bool = false;
    const IS_V6: bool = true;

    fn address(address: IpAddr) -> Option<Ipv6Addr> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn unspecified() -> Ipv6Addr {
        Ipv6Addr::UNSPECIFIED
    }

    fn is_host(address: Ipv6Addr) -> bool {
        !(address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.to_ipv4_mapped().is_some())
    }

    fn is_routable(address: Ipv6Addr) -> bool {
        Self::is_host(address) && !Self::is_link_local(address)
    }

    fn is_link_local(address: Ipv6Addr) -> bool {
        address.is_unicast_link_local()
    }

    fn matches(a: Ipv6Addr, b: Ipv6Addr, prefix: u8) -> bool {
        let host_bits = 128 - u32::from(prefix.min(128));
        (a.to_bits() ^ b.to_bits())
            .checked_shr(host_bits)
            .unwrap_or(0)
            == 0
    }

    #[inline]
    fn parse(packet: &[u8]) -> Result<Ip<V6>, DropReason> {
        ipv6::parse(packet)
    }

    #[inline]
    fn ends(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
        let [source, destination] = ends::<16, { ipv6::HEADER }>(packet);
        (source.into(), destination.into())
    }

    fn parse_quoted(packet: &[u8]) -> Result<Ip<V6>, DropReason> {
        ipv6::parse_quoted(packet)
    }

    #[inline]
    fn hash(secret: &Secret, source: Ipv6Addr, destination: Ipv6Addr, ports: u64) -> u64 {
        secret.hash_wide(source.to_bits(), destination.to_bits(), ports)
    }

    fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u16) -> u16 {
        let addresses = [source.octets(), destination.octets()];
        checksum::pseudo_header(addresses.as_flattened(), protocol, length)
    }

    fn icmp_seed(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> u16 {
        Self::pseudo_header(source, destination, Self::ICMP, length)
    }

    #[inline]
    fn readdress(header: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, hops: u8) -> Delta {
        let (old_source, old_destination) = Self::ends(header);
        let Some(fixed) = header.first_chunk_mut::<{ ipv6::HEADER }>() else {
            return Delta::NONE;
        };
        fixed[7] = fixed[7].wrapping_sub(hops);
        put(fixed, 8, source.octets());
        put(fixed, 24, destination.octets());
        Delta::wide(old_source.octets(), source.octets())
            .and(Delta::wide(old_destination.octets(), destination.octets()))
    }

    fn write_header(
        packet: &mut [u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: u8,
        payload: usize,
        hop_limit: u8,
    ) {
        let header = ipv6::header(source, destination, protocol, payload, hop_limit);
        put(packet, 0, header);
    }

    fn turn_header(packet: &mut [u8], ip: &Ip<V6>, hop_limit: u8) {
        put(packet, 7, [hop_limit]);
        put(packet, 8, ip.destination.octets());
        put(packet, 24, ip.source.octets());
    }

    #[inline]
    fn segment(port: &Port) -> Option<&Segment<Ipv6Addr>> {
        port.ipv6.as_ref()
    }

    #[inline]
    fn net(tables: &Tables) -> &Net<V6> {
        tables.v6()
    }

    fn net_mut(tables: &mut Tables) -> &mut Net<V6> {
        tables.v6_mut()
    }

    const TUNNELLED: u8 = tunnel::IPV6;

    fn is_part(packet: &[u8]) -> bool {
        // A packet in one fragment is whole (RFC 6946).
        ipv6::fragment_header(packet)
            .is_some_and(|at| u16_at(packet, usize::from(at) + 2) & 0xfff9 != 0)
    }

    fn part(packet: &[u8], ip: &Ip<V6>) -> Result<Part, DropReason> {
        let at = ipv6::fragment_header(packet).ok_or(DropReason::BadFragment)?;
        Part::of_ipv6(
            packet,
            ip.source.into(),
            ip.destination.into(),
            at,
            ip.total,
        )
    }

    fn renumber(packet: &mut [u8], at: u16, number: u32) {
        put(packet, usize::from(at), number.to_be_bytes());
    }

    fn wrap(
        outer: &mut [u8],
        inner: &[u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
        _: u32,
        flow: u64,
    ) {
        put(
            outer,
            0,
            tunnel::around_ipv6(inner, source, destination, flow),
        );
    }

    fn meaning(error: tunnel::Error) -> Option<tunnel::Error> {
        tunnel::meaning_ipv6(error)
    }

    #[inline]
    fn addresses(flows: &FlowTable, number: u32) -> Addresses<Ipv6Addr> {
        flows.wide().get(number)
    }

    #[inline]
    fn store(flows: &mut FlowTable, number: u32, addresses: &Addresses<Ipv6Addr>) {
        flows.wide_mut().set(number, addresses);
    }
}

/// The last two addresses, of `N` bytes, of a header of `HEADER` bytes.
#[inline]
fn ends<const N: usize, const HEADER: usize>(packet: &[u8]) -> [[u8; N]; 2] {
    let mut ends = [[0; N]; 2];
    if let Some(header) = packet.first_chunk::<HEADER>() {
        ends[0].copy_from_slice(&header[HEADER - 2 * N..HEADER - N]);
        ends[1].copy_from_slice(&header[HEADER - N..]);
    }
    ends
}
