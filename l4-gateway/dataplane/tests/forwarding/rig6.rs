//! The node of `rig` with IPv6: outside fd00:2::11/64 with a link-local gateway, inside fd00:3::11/64 with LocalIP fd00:3::100.

use std::net::{Ipv6Addr, SocketAddrV6};

use dataplane::{PortIndex, Protocol, Segment, ServiceConfig, Tables, TablesBuilder, Verdict};

use super::frame::{ACK, SYN, mac};
use super::frame6::{self, Packet6, ndp};
use super::rig::{self, INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC, ROUTER_MAC, Rig, up};

pub const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
pub const LOCAL_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x100);
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const OUTSIDE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x11);
pub const INSIDE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x11);
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub fn at(address: Ipv6Addr, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address, port, 0, 0)
}

pub fn client(last: u16, port: u16) -> SocketAddrV6 {
    at(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last), port)
}

pub fn vip(port: u16) -> SocketAddrV6 {
    at(VIP, port)
}

pub fn local(port: u16) -> SocketAddrV6 {
    at(LOCAL_IP, port)
}

/// Target `n` listens on [fd00:3::n]:8080 (n as written in decimal is its last byte) and has MAC 02::n.
pub fn target(n: u8) -> SocketAddrV6 {
    at(Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, u16::from(n)), 8080)
}

pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// Both families on both ports.
pub fn ports() -> [dataplane::Port; 2] {
    let [mut outside, mut inside] = rig::ports();
    outside.ipv6 = Some(Segment {
        address: OUTSIDE_ADDRESS,
        prefix: 64,
        gateway: Some(GATEWAY),
    });
    inside.ipv6 = Some(Segment {
        address: INSIDE_ADDRESS,
        prefix: 64,
        gateway: None,
    });
    [outside, inside]
}

/// TCP 80 and UDP 53 on the VIP, each with targets 21 and 22 in turn.
pub fn services() -> Vec<ServiceConfig> {
    let service = |protocol, port| {
        let mut service = ServiceConfig::new(VIP, protocol, port);
        service.targets = vec![up(target(21)), up(target(22))];
        service
    };
    vec![service(Protocol::Tcp, 80), service(Protocol::Udp, 53)]
}

pub fn builder(ports: &[dataplane::Port], services: &[ServiceConfig]) -> TablesBuilder {
    let mut builder = Tables::builder();
    for port in ports {
        builder.port(port.clone());
    }
    builder.local_ip(rig::LOCAL_IP).local_ip(LOCAL_IP);
    for service in services {
        builder.service(service.clone());
    }
    builder
}

/// A node that serves both families, its next hops known.
pub fn dual_stack() -> Rig {
    let services = [rig::services(), services()].concat();
    resolved(Rig::from(
        &rig::small(),
        &builder(&ports(), &services),
        0,
        1,
    ))
}

/// Runs the timers and answers every solicitation and ARP request.
pub fn resolved(mut rig: Rig) -> Rig {
    for _ in 0..3 {
        rig.refresh();
        answer_solicitations(&mut rig);
    }
    rig.out.clear();
    rig
}

/// Answers all solicitations the node has sent.
pub fn answer_solicitations(rig: &mut Rig) {
    for (port, frame) in rig.emitted() {
        if frame[12..14] != [0x86, 0xdd] || frame[54] != 135 {
            continue;
        }
        let asked = Ipv6Addr::from(<[u8; 16]>::try_from(&frame[62..78]).unwrap());
        let from = if asked == GATEWAY {
            ROUTER_MAC
        } else {
            mac(asked.octets()[15])
        };
        let reply = advertisement(port, asked, from);
        assert_eq!(rig.try_send(port, reply).0, Verdict::Consumed, "{asked}");
    }
}

/// The answer to a solicitation from a port's own address.
pub fn advertisement(port: PortIndex, asked: Ipv6Addr, from: dataplane::MacAddr) -> Vec<u8> {
    let (own_mac, own) = match port {
        OUTSIDE => (OUTSIDE_MAC, OUTSIDE_ADDRESS),
        _ => (INSIDE_MAC, INSIDE_ADDRESS),
    };
    ndp(136, (asked, own), 0x60, asked, Some((2, from)))
        .macs(from, own_mac)
        .frame()
}

pub fn from_client(packet: &Packet6) -> Vec<u8> {
    packet.clone().macs(ROUTER_MAC, OUTSIDE_MAC).frame()
}

pub fn from_target(packet: &Packet6, n: u8) -> Vec<u8> {
    packet.clone().macs(mac(n), INSIDE_MAC).frame()
}

pub fn to_client(packet: &Packet6) -> Vec<u8> {
    packet.clone().macs(OUTSIDE_MAC, ROUTER_MAC).frame()
}

pub fn to_target(packet: &Packet6, n: u8) -> Vec<u8> {
    packet.clone().macs(INSIDE_MAC, mac(n)).frame()
}

/// A connection as a test knows it.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub local_port: u16,
    pub shift: u32,
    pub target: u8,
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

/// The source port of a frame without extension headers.
pub fn source_port(frame: &[u8]) -> u16 {
    (word(frame, 54) >> 16) as u16
}

/// Opens a connection and completes its handshake; `seq` is the client's first number, the target's is 9000.
pub fn establish(rig: &mut Rig, from: SocketAddrV6, seq: u32) -> Opened {
    let (port, sent) = rig.transmitted(
        OUTSIDE,
        from_client(&frame6::tcp(from, vip(80), SYN).seq(seq, 0)),
    );
    assert_eq!(port, INSIDE);
    let opened = Opened {
        local_port: source_port(&sent),
        shift: word(&sent, 58).wrapping_sub(seq),
        target: sent[53],
    };
    let answer = frame6::tcp(target(opened.target), local(opened.local_port), SYN | ACK)
        .seq(9000, seq.wrapping_add(1).wrapping_add(opened.shift));
    rig.transmitted(INSIDE, from_target(&answer, opened.target));
    let ack = frame6::tcp(from, vip(80), ACK).seq(seq.wrapping_add(1), 9001);
    rig.transmitted(OUTSIDE, from_client(&ack));
    opened
}
