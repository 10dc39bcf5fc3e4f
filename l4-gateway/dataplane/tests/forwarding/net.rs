//! The families, and where everything is in each: what holds for both is told once, in a loop over [`BOTH`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dataplane::{NextHops, Port, Protocol, Segment, ServiceConfig};

use super::rig::{self, up};

/// One of the families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    V4,
    V6,
}

pub const BOTH: [Net; 2] = [Net::V4, Net::V6];

/// Every IPv6 node on a segment (RFC 4291 2.7.1).
pub const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));

impl Net {
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Net::V4 } else { Net::V6 }
    }

    /// Address `last` on the segment: 1 is outside (port 0), 2 inside (port 1), 0 the VIP's, 9 clients'.
    pub fn address(self, segment: u8, last: u8) -> IpAddr {
        let second = match segment {
            0 => 0,
            9 => 1,
            segment => segment + 1,
        };
        match self {
            Net::V4 => Ipv4Addr::new(10, second, 0, last).into(),
            Net::V6 => Ipv6Addr::new(0xfd00, second.into(), 0, 0, 0, 0, 0, u16::from(last)).into(),
        }
    }

    pub fn vip(self, port: u16) -> SocketAddr {
        (self.vip_ip(), port).into()
    }

    pub fn vip_ip(self) -> IpAddr {
        self.address(0, 100)
    }

    pub fn client(self, last: u8, port: u16) -> SocketAddr {
        (self.address(9, last), port).into()
    }

    /// A client's address in one of many networks, /24 or /64; the others' is number 0.
    pub fn in_network(self, number: u8, last: u8) -> IpAddr {
        match self {
            Net::V4 => Ipv4Addr::new(10, 1, number, last).into(),
            Net::V6 => Ipv6Addr::new(0xfd00, 1, 0, number.into(), 0, 0, 0, last.into()).into(),
        }
    }

    /// One of many strangers, each in a network of its own under IPv6.
    pub fn stranger(self, n: u32) -> SocketAddr {
        let address: IpAddr = match self {
            Net::V4 => Ipv4Addr::from_bits(0x0b00_0000 + n).into(),
            Net::V6 => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n) << 64 | 1).into(),
        };
        (address, 4000).into()
    }

    /// Target `last` has MAC 02::last.
    pub fn target(self, last: u8, port: u16) -> SocketAddr {
        (self.target_ip(last), port).into()
    }

    pub fn target_ip(self, last: u8) -> IpAddr {
        self.address(2, last)
    }

    pub fn local(self, port: u16) -> SocketAddr {
        (self.local_ip(), port).into()
    }

    pub fn local_ip(self) -> IpAddr {
        self.address(2, 100)
    }

    /// The router outside.
    pub fn gateway(self) -> IpAddr {
        match self {
            Net::V4 => rig::GATEWAY.into(),
            // As routers announce themselves.
            Net::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    pub fn outside_address(self) -> IpAddr {
        self.address(1, 11)
    }

    pub fn inside_address(self) -> IpAddr {
        self.address(2, 11)
    }

    /// Bytes of an IP header without options.
    pub fn ip_header(self) -> usize {
        match self {
            Net::V4 => 20,
            Net::V6 => 40,
        }
    }

    /// The prefix length of a segment.
    pub fn segment_bits(self) -> u8 {
        match self {
            Net::V4 => 24,
            Net::V6 => 64,
        }
    }

    /// The prefix length of one address.
    pub fn address_bits(self) -> u8 {
        match self {
            Net::V4 => 32,
            Net::V6 => 128,
        }
    }

    /// Type and code of an ICMP error: nobody listens at the port (RFC 792; RFC 4443 3.1).
    pub fn port_unreachable(self) -> (u8, u8) {
        match self {
            Net::V4 => (3, 3),
            Net::V6 => (1, 4),
        }
    }

    /// The packet is too long for the next link; its MTU is in the message's rest.
    pub fn too_big(self) -> (u8, u8) {
        match self {
            Net::V4 => (3, 4),
            Net::V6 => (2, 0),
        }
    }

    /// No hop was left.
    pub fn time_exceeded(self) -> (u8, u8) {
        match self {
            Net::V4 => (11, 0),
            Net::V6 => (3, 0),
        }
    }

    /// Bytes of a packet that an error quotes at most: it has 576 in all (RFC 1812 4.3.2.3), or 1280 (RFC 4443 2.4).
    pub fn quoted(self) -> usize {
        match self {
            Net::V4 => 576 - 28,
            Net::V6 => 1280 - 48,
        }
    }

    /// Both ports, with this family alone.
    pub fn ports(self) -> [Port; 2] {
        let mut ports = both_ports();
        for port in &mut ports {
            match self {
                Net::V4 => port.ipv6 = None,
                Net::V6 => port.ipv4 = None,
            }
        }
        ports
    }

    /// The inner port with a router on its segment, for a node that has no other.
    pub fn single_port(self) -> [Port; 1] {
        let [_, mut port] = self.ports();
        let router = match self {
            Net::V4 => self.address(2, 1),
            Net::V6 => self.gateway(),
        };
        set_gateway(&mut port, self, Some(router));
        [port]
    }

    /// TCP 80 and UDP 53 on the VIP, each with targets 21 and 22 in turn.
    pub fn services(self) -> Vec<ServiceConfig> {
        let service = |protocol, port| {
            let mut service = ServiceConfig::new(self.vip_ip(), protocol, port);
            service.targets = vec![up(self.target(21, 8080)), up(self.target(22, 8080))];
            service
        };
        vec![service(Protocol::Tcp, 80), service(Protocol::Udp, 53)]
    }
}

/// Both families on both ports.
pub fn both_ports() -> [Port; 2] {
    let port = |index, mac, segment, gateway: fn(Net) -> Option<IpAddr>| Port {
        index,
        mac,
        ipv4: Some(Segment {
            address: v4(Net::V4.address(segment, 11)),
            prefix: Net::V4.segment_bits(),
            gateways: routers(gateway(Net::V4).map(v4)),
        }),
        ipv6: Some(Segment {
            address: v6(Net::V6.address(segment, 11)),
            prefix: Net::V6.segment_bits(),
            gateways: routers(gateway(Net::V6).map(v6)),
        }),
        mtu: 1500,
        answers: true,
        announce_every: None,
        hears_kernel: false,
    };
    [
        port(rig::OUTSIDE, rig::OUTSIDE_MAC, 1, |net| Some(net.gateway())),
        port(rig::INSIDE, rig::INSIDE_MAC, 2, |_| None),
    ]
}

fn routers<A: Copy>(one: Option<A>) -> NextHops<A> {
    one.map_or(NextHops::ON_LINK, NextHops::one)
}

pub fn set_gateway(port: &mut Port, net: Net, gateway: Option<IpAddr>) {
    match net {
        Net::V4 => port.ipv4.as_mut().unwrap().gateways = routers(gateway.map(v4)),
        Net::V6 => port.ipv6.as_mut().unwrap().gateways = routers(gateway.map(v6)),
    }
}

pub fn set_prefix(port: &mut Port, net: Net, prefix: u8) {
    match net {
        Net::V4 => port.ipv4.as_mut().unwrap().prefix = prefix,
        Net::V6 => port.ipv6.as_mut().unwrap().prefix = prefix,
    }
}

/// A service at port 80 (TCP) or 53 (UDP) of each family's VIP, with one target, 21, at `target_port`.
pub fn one_target(target_port: u16) -> Vec<ServiceConfig> {
    let mut services = Vec::new();
    for net in BOTH {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            let mut service = ServiceConfig::new(net.vip_ip(), protocol, port);
            let target_port = if target_port == 0 { port } else { target_port };
            service.targets = vec![up(net.target(21, target_port))];
            services.push(service);
        }
    }
    services
}

pub fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} isn't IPv4"),
    }
}

pub fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("{address} isn't IPv6"),
    }
}

/// Where neighbours ask for an IPv6 address (RFC 4291 2.7.1).
pub fn solicited_node(address: IpAddr) -> IpAddr {
    let [.., a, b, c] = v6(address).octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low).into()
}
