//! What the forwarder needs of a frame buffer, and what it says about each frame.

use crate::PortIndex;

/// One Ethernet frame in a buffer that the caller owns (an mbuf, a test vector).
///
/// The frame starts at the destination MAC and carries no FCS. It must lie in one contiguous piece of memory.
pub trait Frame {
    /// The whole frame.
    fn bytes(&self) -> &[u8];
    /// The whole frame, to be rewritten in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Cuts the frame to its first `len` bytes; a longer `len` changes nothing.
    fn trim(&mut self, len: usize);
    /// Makes room for `len` bytes, zeroed, at offset `at`: what stood there begins behind them. False, and nothing is changed, if the
    /// buffer can't take them or the frame ends before `at`.
    #[must_use]
    fn make_room(&mut self, at: usize, len: usize) -> bool;
    /// Takes `len` bytes out at offset `at`: what stood behind them begins there. False, and nothing is changed, if the frame is shorter.
    #[must_use]
    fn cut(&mut self, at: usize, len: usize) -> bool;
}

/// For tests, fuzzing and replays, up to 65,535 bytes; a driver brings its own buffer.
impl Frame for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn trim(&mut self, len: usize) {
        self.truncate(len);
    }

    fn make_room(&mut self, at: usize, len: usize) -> bool {
        if at > self.len() || len > usize::from(u16::MAX).saturating_sub(self.len()) {
            return false;
        }
        self.splice(at..at, std::iter::repeat_n(0, len));
        true
    }

    fn cut(&mut self, at: usize, len: usize) -> bool {
        let within = at.checked_add(len).is_some_and(|end| end <= self.len());
        if within {
            self.drain(at..at + len);
        }
        within
    }
}

/// What the caller does with a frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send the (rewritten) frame out of this port.
    Transmit(PortIndex),
    /// Give the untouched frame, a priority tag apart, to this worker, which passes it to [`crate::Worker::handed_over`].
    Redirect(u16),
    /// Not ours: the kernel's, on a port whose kernel doesn't hold its own copy already. Untouched, a priority tag apart.
    Kernel,
    /// Free the buffer; the reason has been counted.
    Drop(DropReason),
    /// Free the buffer: its bytes were copied and leave through [`crate::Emitted`] once the next hop is resolved, or the first fragment
    /// of its packet has come.
    Held,
    /// Free the buffer: the frame was taken in, and what follows from it, if anything, is in [`crate::Emitted`] (nothing of an ARP
    /// reply, its fragments of a packet too long for the next link, itself if a PROXY header goes ahead of it).
    Consumed,
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a frame went no further. Each has a counter per worker ([`crate::Counters::dropped`]).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The reason as a metric label, in snake case.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header and the ARP or IP header behind it.
    Truncated = "truncated",
    /// The source MAC is a group address, or ours where the kernel does not share the interface.
    BadSource = "bad_source",
    /// Unicast to a MAC that isn't the port's (a promiscuous or flooding segment).
    OtherMac = "other_mac",
    /// An ARP packet that isn't IPv4 over Ethernet, or contradicts itself.
    BadArp = "bad_arp",
    /// IP version or header length is wrong, or the total length exceeds the frame.
    BadIpHeader = "bad_ip_header",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad_ip_checksum",
    /// IP options don't parse, or ask for source routing.
    BadIpOptions = "bad_ip_options",
    /// IPv6 extension headers don't parse, are too many, or ask for a route (RFC 5095).
    BadExtensionHeader = "bad_extension_header",
    /// A neighbour solicitation or advertisement that RFC 4861 7.1 says to ignore.
    BadNdp = "bad_ndp",
    /// The source address can't be a sender: multicast, broadcast, loopback, zero, link-local or IPv4-mapped (IPv6), or one of ours.
    MartianSource = "martian_source",
    /// From the address of a flow's target, but on a port where the target isn't: forged, or routed astray.
    WrongPort = "wrong_port",
    /// A fragment of something other than TCP, UDP and echo requests.
    Fragment = "fragment",
    /// A fragment without payload, cut at no multiple of 8, or reaching beyond the longest packet.
    BadFragment = "bad_fragment",
    /// A fragment with bytes that another of its packet has brought, or beyond what its last one said was the end.
    FragmentOverlap = "fragment_overlap",
    /// A fragment ahead of the first of its packet that found no room to wait for it, or that left one gap too many.
    FragmentNoRoom = "fragment_no_room",
    /// The TCP header doesn't fit the packet, or its data offset is wrong.
    BadTcp = "bad_tcp",
    /// A TCP flag combination no stack sends (SYN with FIN or RST, none at all).
    BadTcpFlags = "bad_tcp_flags",
    /// The UDP header doesn't fit the packet, or its length field is wrong.
    BadUdp = "bad_udp",
    /// UDP over IPv6 without a checksum (RFC 8200 8.1).
    UdpUnchecked = "udp_unchecked",
    /// The TCP or UDP checksum is wrong, of a packet that would have been answered or begun a flow.
    BadTransportChecksum = "bad_transport_checksum",
    /// ICMP that is truncated or has a wrong checksum.
    BadIcmp = "bad_icmp",
    /// An ICMP error that quotes no flow of ours.
    IcmpNoFlow = "icmp_no_flow",
    /// A client's ICMP error that says its path takes less than [`crate::ServiceConfig::least_path_mtu`].
    PathMtu = "path_mtu",
    /// An ICMP error from outside that is not passed on, or not told to a client: more came than
    /// [`crate::Limits::icmp_errors_per_second`].
    IcmpRate = "icmp_rate",
    /// ICMP to one of our addresses that is neither an echo request nor an error.
    IcmpIgnored = "icmp_ignored",
    /// A packet for one of our addresses in a protocol nobody serves there.
    NoService = "no_service",
    /// A TCP segment of no known flow where the service says drop, or an RST of none.
    NoFlow = "no_flow",
    /// No target of the service can take a new flow (UDP; a TCP client gets an RST).
    NoTarget = "no_target",
    /// No local port is free towards the target (UDP; a TCP client gets an RST).
    PortExhausted = "port_exhausted",
    /// The flow table is full (UDP; a TCP client gets an RST).
    FlowTableFull = "flow_table_full",
    /// The source is in no prefix that may use the service.
    Denied = "denied",
    /// The service has all the connections it may have.
    ServiceConnections = "service_connections",
    /// The service gets more new flows a second than it may.
    ServiceRate = "service_rate",
    /// The source has all the connections it may have.
    SourceConnections = "source_connections",
    /// The source opens more flows a second than it may.
    SourceRate = "source_rate",
    /// The targets are at their limits.
    TargetLimits = "target_limits",
    /// The time to live ran out here.
    TtlExpired = "ttl_expired",
    /// The client's address can't go in front of the stream: the buffer has no room, or a segment contradicts where the stream begins.
    ClientAddress = "client_address",
    /// Longer than the egress port's MTU.
    TooBig = "too_big",
    /// No route leads to the destination.
    NoRoute = "no_route",
    /// The next hop doesn't answer ARP, or too many frames already wait for it.
    Unresolved = "unresolved",
}
