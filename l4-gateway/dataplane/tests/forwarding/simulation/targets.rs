//! The targets: each echoes what it hears, over TCP and UDP, and tells at once if it hears of the wrong client.
//!
//! Under FULLNAT they are spoken to by a LocalIP at their own address; under DR and through tunnels by the client at the VIP, and answer
//! it past the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use dataplane::{ClientAddress, Protocol};

use super::clients::{Named, name_of};
use super::configuration::ports as ports_of;
use super::endpoint::{Endpoint, Segment, State, refuse};
use super::hosts::{is_local_ip, is_numbered, last_byte, net};
use super::packet::{ICMP, ICMP6, Made, Packet, Reassembly, TCP, UDP, offering, tcp};
use super::random::Random;
use super::world::SECOND;
use crate::frame::{self, ACK, RST, SYN, octets};
use crate::net::Net;

/// A connection of which nothing was heard for so long is given up, as TIME_WAIT is.
const GIVES_UP_AFTER: u64 = 60 * SECOND;

pub struct Targets {
    told_by: ClientAddress,
    servers: BTreeMap<Ends, Server>,
    reassembly: BTreeMap<u8, Reassembly>,
    /// Segments from which a target learned more of a stream whose client it was told.
    pub told: u64,
    /// Packets that came damaged.
    pub damaged: u64,
}

/// Which target, its own end and the other.
type Ends = (u8, SocketAddr, SocketAddr);

/// A target's end of a connection.
struct Server {
    endpoint: Endpoint,
    /// The number of its SYN.
    opened_by: u32,
    /// When it last heard of the other end.
    seen: u64,
    /// The client, by the option of the segment that completed the handshake.
    option: Option<SocketAddr>,
}

impl Targets {
    pub fn new(told_by: ClientAddress) -> Self {
        Self {
            told_by,
            servers: BTreeMap::new(),
            reassembly: BTreeMap::new(),
            told: 0,
            damaged: 0,
        }
    }

    /// A packet arrives; what is answered.
    pub fn take(
        &mut self,
        host: u8,
        packet: Packet,
        random: &mut Random,
        lived: u64,
    ) -> Option<Made> {
        let packet = match packet.inner() {
            Some(inner) => {
                let own = net(packet.destination).address(2, host);
                let node = net(packet.destination).address(2, 11);
                assert_eq!((packet.source, packet.destination), (node, own));
                assert_eq!(packet.hops, 64, "a tunnel begins at the node");
                inner
            }
            None => packet,
        };
        assert!(
            packet.hops == 63 || packet.hops == 64 && packet.is_of_node(),
            "the node is one hop: {packet:?}"
        );
        let packet = self
            .reassembly
            .entry(host)
            .or_default()
            .take(lived, packet)?;
        if packet.is_damaged() {
            self.damaged += 1;
            return None;
        }
        packet.check();
        if [ICMP, ICMP6].contains(&packet.protocol) {
            return None;
        }
        let ends = (host, packet.to(), packet.from());
        check_ends(ends);
        match packet.protocol {
            UDP => {
                let (_, own, peer) = ends;
                let named = Named::read(packet.data());
                if is_vip(own.ip()) {
                    assert_eq!((named.client, named.vip), (peer, own));
                }
                assert_eq!(
                    named.vip.port(),
                    own.port(),
                    "targets have the services' ports"
                );
                Some(frame::udp(own, peer, packet.data()))
            }
            TCP => {
                let segment = packet.segment();
                let answer = self.to_server(ends, &segment, packet.told(), random, lived)?;
                Some(offering(tcp(ends.1, ends.2, &answer), &answer))
            }
            protocol => panic!("protocol {protocol}"),
        }
    }

    fn to_server(
        &mut self,
        ends: Ends,
        segment: &Segment,
        option: Option<SocketAddr>,
        random: &mut Random,
        lived: u64,
    ) -> Option<Segment> {
        let is_syn = segment.flags & (SYN | ACK | RST) == SYN;
        let is_direct = is_vip(ends.1.ip());
        let is_past = |server: &Server| match server.endpoint.state {
            State::Reset => true,
            // But for the connection's own SYN, late. That numbers rise is held where they leave the node.
            State::Done => is_syn && segment.seq != server.opened_by,
            _ => false,
        };
        if self.servers.get(&ends).is_some_and(is_past) {
            self.servers.remove(&ends);
        }
        let Some(server) = self.servers.get_mut(&ends) else {
            if !is_syn {
                return refuse(segment);
            }
            let server = Server {
                endpoint: Endpoint::accept(random.next() as u32, segment),
                opened_by: segment.seq,
                seen: lived,
                option: None,
            };
            let answer = server.endpoint.poll().pop();
            self.servers.insert(ends, server);
            return answer;
        };
        server.seen = lived;
        let before = server.endpoint.state;
        let answer = server.endpoint.input(segment);
        if before == State::SynReceived && server.endpoint.state == State::Established {
            server.option = option;
        }
        let (client, stream) = if is_direct {
            assert_eq!(option, None, "nobody tells of clients under DR");
            (Some(ends.2), &server.endpoint.received[..])
        } else {
            server.heard(self.told_by, ends.1.port())
        };
        if let (Some(client), Some(named)) = (client, stream.first_chunk()) {
            assert_eq!(name_of(client), *named, "of {stream:?}");
            self.told += 1;
        }
        // Echo; close when the client has.
        server.endpoint.outgoing = stream.to_vec();
        server.endpoint.closing = server.endpoint.peer_closed;
        answer
    }

    /// What is to be sent (again) now.
    pub fn poll(&self) -> Vec<(u8, Made)> {
        let due = self.servers.iter().flat_map(|(ends, server)| {
            let segments = server.endpoint.poll();
            let (host, own, peer) = *ends;
            segments
                .into_iter()
                .map(move |segment| (host, tcp(own, peer, &segment)))
        });
        due.collect()
    }

    /// Gives up connections of which nothing was heard for long; own end and peer of each.
    pub fn give_up(&mut self, lived: u64) -> Vec<(SocketAddr, SocketAddr)> {
        let is_over = |server: &Server| lived.saturating_sub(server.seen) >= GIVES_UP_AFTER;
        let over: Vec<Ends> = self
            .servers
            .iter()
            .filter(|(_, server)| is_over(server))
            .map(|(ends, _)| *ends)
            .collect();
        over.iter().for_each(|ends| {
            self.servers.remove(ends);
        });
        over.into_iter().map(|(_, own, peer)| (own, peer)).collect()
    }
}

impl Server {
    /// The client, as far as it is known, and its stream.
    fn heard(&self, told_by: ClientAddress, port: u16) -> (Option<SocketAddr>, &[u8]) {
        let Self {
            endpoint, option, ..
        } = self;
        match told_by {
            ClientAddress::ProxyV2 => behind_header(&endpoint.received, port),
            ClientAddress::Toa => {
                // An RST may come before the handshake is complete here, though it is for the node.
                assert!(
                    endpoint.state == State::Reset
                        || option.is_some() != (endpoint.state == State::SynReceived),
                    "the handshake is complete and the client is unknown"
                );
                (*option, &endpoint.received)
            }
            ClientAddress::None => (None, &endpoint.received),
        }
    }
}

fn is_vip(address: IpAddr) -> bool {
    is_numbered(address, 0, 100..=101)
}

/// Targets hear at their own address from a LocalIP, or at a VIP from a client.
fn check_ends((host, own, peer): Ends) {
    if is_vip(own.ip()) {
        assert!(
            is_numbered(peer.ip(), 9, 0..=99),
            "{own} hears from {peer} past the NAT"
        );
    } else {
        assert_eq!(last_byte(own.ip()), host, "a packet to another host");
        assert!(
            is_numbered(own.ip(), 2, host..=host) && is_local_ip(peer.ip()),
            "target {own} hears from {peer}"
        );
    }
}

/// The client that a PROXY header names, as soon as it is there, and the stream behind it; the client sent to this port.
fn behind_header(received: &[u8], sent_to: u16) -> (Option<SocketAddr>, &[u8]) {
    let mut start = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    start.truncate(received.len());
    assert!(received.starts_with(&start), "no header: {received:?}");
    let Some(family) = received.get(13) else {
        return (None, &[]);
    };
    let (net, bytes) = match family {
        0x11 => (Net::V4, 4),
        0x21 => (Net::V6, 16),
        other => panic!("family {other}"),
    };
    let Some((header, stream)) = received.split_at_checked(16 + 2 * bytes + 4) else {
        return (None, &[]);
    };
    assert_eq!(header[14..16], [0, 2 * bytes as u8 + 4]);
    let last = |end: usize| header[16 + end * bytes - 1];
    let ports = &header[16 + 2 * bytes..];
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let client = net.client(last(1), port(0));
    let vip = net.vip(port(2));
    let expected = [octets(client.ip()), octets(net.address(0, last(2)))].concat();
    assert_eq!(header[16..16 + 2 * bytes], expected);
    assert!((100..=101).contains(&last(2)) && vip.port() == sent_to);
    assert!(ports_of(Protocol::Tcp, last(2)).contains(sent_to));
    (Some(client), stream)
}
