//! What makes a configuration no snapshot.

use std::net::{IpAddr, SocketAddr};

use crate::port_range::PortRange;
use crate::service::Protocol;

/// Why a snapshot can't be built. The one in use stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// Two ports of one number.
    #[error("port {0} is given twice")]
    DuplicatePort(u16),
    /// A port number above 255.
    #[error("port {0} is out of range: ports are numbered 0 to 255")]
    PortOutOfRange(u16),
    /// A prefix longer than an address.
    #[error("prefix length {prefix} of {address} is longer than the address")]
    BadPrefix {
        /// The address given with it.
        address: IpAddr,
        /// The length given.
        prefix: u8,
    },
    /// A port's or route's gateway isn't on the port's segment.
    #[error("gateway {gateway} isn't in the prefix of port {port}, so it can't be reached")]
    GatewayOffLink {
        /// The gateway given.
        gateway: IpAddr,
        /// The port it was given for.
        port: u16,
    },
    /// More routers than can be watched.
    #[error("the routes have more than {} routers", crate::limits::MOST_ROUTERS)]
    TooManyRouters,
    /// A route over a port that doesn't exist.
    #[error("a route names port {0}, which isn't given")]
    UnknownPort(u16),
    /// One address in two roles, or twice in one.
    #[error("{0} is given twice, or as two of port address, LocalIP and VIP")]
    AddressInUse(IpAddr),
    /// A LocalIP that no port and no route covers.
    #[error(
        "LocalIP {0} is in no port's prefix and no route leads to it, so replies to it can't arrive"
    )]
    LocalIpOffLink(IpAddr),
    /// An address no host can have.
    #[error("{0} can't be a host's address")]
    NotAHost(IpAddr),
    /// Two services of the same ports, or one whose range has ports of another's.
    #[error("service {}/{protocol:?} has ports of service {}", ports.at(*vip), other.at(*vip))]
    DuplicateService {
        /// Its VIP.
        vip: IpAddr,
        /// Its protocol.
        protocol: Protocol,
        /// Its ports.
        ports: PortRange,
        /// Those of the one that was there before.
        other: PortRange,
    },
    /// A target twice in one service.
    #[error("target {target} is given twice for service {}", ports.at(*vip))]
    DuplicateTarget {
        /// The service's VIP.
        vip: IpAddr,
        /// The service's ports.
        ports: PortRange,
        /// The target.
        target: SocketAddr,
    },
    /// A service port of 0, or a target port of 0 where the service has one port.
    #[error("port 0 can't be served ({0})")]
    PortZero(SocketAddr),
    /// A target no route leads to.
    #[error("no route leads to target {0}")]
    NoRoute(SocketAddr),
    /// A target on a port without LocalIP of its family.
    #[error("target {target} is reached over port {port}, which has no LocalIP of its family")]
    NoLocalIp {
        /// The target.
        target: SocketAddr,
        /// The port that leads to it.
        port: u16,
    },
    /// A target of another family than its service.
    #[error("target {target} isn't of the family of its service {}", ports.at(*vip))]
    MixedFamilies {
        /// The service's VIP.
        vip: IpAddr,
        /// The service's ports.
        ports: PortRange,
        /// The target.
        target: SocketAddr,
    },
    /// A route whose gateway is of another family than its destination.
    #[error("gateway {gateway} isn't of the family of the route to {destination}")]
    MixedRoute {
        /// The destination given.
        destination: IpAddr,
        /// The gateway given.
        gateway: IpAddr,
    },
    /// A port without any address.
    #[error("port {0} has neither an IPv4 nor an IPv6 address")]
    NoSegment(u16),
    /// A target of a DR or tunnel service with a port of its own: the packets it gets are for the service's.
    #[error(
        "target {target} can't have another port than the service, {ports}: DR and tunnel leave packets as they are"
    )]
    PortDiffers {
        /// The target.
        target: SocketAddr,
        /// The service's ports.
        ports: PortRange,
    },
    /// A target of a DR service behind a router.
    #[error(
        "target {target} is behind a router of port {port}; DR reaches targets on the port's own segment only (a tunnel reaches others)"
    )]
    TargetOffLink {
        /// The target.
        target: SocketAddr,
        /// The port that leads to it.
        port: u16,
    },
    /// A tunnel over a link on which an outer packet leaves too little.
    #[error(
        "target {target} is reached over port {port}, whose MTU of {mtu} leaves a tunnel less than every link must take"
    )]
    LinkTooSmall {
        /// The target.
        target: SocketAddr,
        /// The port that leads to it.
        port: u16,
        /// Its MTU, bytes.
        mtu: u16,
    },
    /// More targets than a scheduler's layout can name.
    #[error("a service has {0} targets; 65534 is the most")]
    TooManyTargets(usize),
    /// More names than the workers were made for.
    #[error("more {0} than the limit given at start; raise it and restart")]
    LimitReached(&'static str),
}
