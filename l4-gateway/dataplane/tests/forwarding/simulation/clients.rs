//! The clients: each opens one connection after another from its port, sends a stream and expects it back, and asks by UDP now and then.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use dataplane::Protocol;

use super::configuration::{drawn, ports};
use super::endpoint::{Endpoint, Segment, State, refuse};
use super::hosts::{is_numbered, last_byte};
use super::packet::{ICMP, ICMP6, Made, Packet, Reassembly, TCP, UDP, offering, tcp};
use super::random::Random;
use super::world::{MILLISECOND, SECOND};
use crate::frame;
use crate::net::{BOTH, Net};

/// A SYN that nobody answers is sent for so long.
const TRIES_FOR: u64 = 4 * SECOND;
/// A connection that doesn't get on is kept for so long.
const WAITS_FOR: u64 = 60 * SECOND;

pub struct Clients {
    connections: BTreeMap<SocketAddr, Connection>,
    reassembly: BTreeMap<IpAddr, Reassembly>,
    /// The largest packet that reaches a VIP, as far as is known.
    sizes: BTreeMap<IpAddr, usize>,
    /// Only connections that complete count from now on, one each.
    pub last_ones: bool,
    pub ends: Ends,
}

/// How connections ended, and what was answered.
#[derive(Default, Debug, Clone, Copy)]
pub struct Ends {
    pub completed: u32,
    pub refused: u32,
    pub unanswered: u32,
    /// Reset when they were established, for the reasons that [`Excuse`] has.
    pub excused: u32,
    pub datagrams: u32,
    pub in_fragments: u32,
    pub too_big: u32,
    /// Packets that came damaged.
    pub damaged: u32,
}

struct Connection {
    vip: SocketAddr,
    endpoint: Endpoint,
    started: u64,
    /// When it last got on, and how far.
    advanced: u64,
    progress: (State, usize, u32),
    excuse: Option<Excuse>,
    is_last: bool,
}

/// Why an established connection may end by an RST.
#[derive(Clone, Copy, Debug)]
pub enum Excuse {
    /// The clock leapt beyond its flow's deadline.
    Expired,
    /// Its target, service or LocalIP was left.
    Cut,
    /// Its target had heard nothing for a minute.
    GivenUp,
}

impl Clients {
    pub fn new() -> Self {
        Self {
            connections: BTreeMap::new(),
            reassembly: BTreeMap::new(),
            sizes: BTreeMap::new(),
            last_ones: false,
            ends: Ends::default(),
        }
    }

    /// From four hosts of each family two ports.
    pub fn sockets() -> impl Iterator<Item = SocketAddr> {
        let of_net = |net: Net| (0..8u8).map(move |n| net.client(n % 4, 4000 + u16::from(n / 4)));
        BOTH.into_iter().flat_map(of_net)
    }

    /// A client's turn: what it sends, and in how long it has its next.
    pub fn turn(
        &mut self,
        client: SocketAddr,
        random: &mut Random,
        lived: u64,
    ) -> (Vec<Made>, u64) {
        let mut packets = Vec::new();
        if self.is_done(client) {
            return (packets, SECOND);
        }
        if !self.last_ones && random.one_in(4) {
            packets.push(query(client, None, random));
        }
        let over = match self.connections.get_mut(&client) {
            None => true,
            Some(connection) => connection.look(client, lived, &mut self.ends),
        };
        let Some(connection) = self.connections.get(&client).filter(|_| !over) else {
            let connection = Connection::new(client, random, lived, self.last_ones);
            self.connections.insert(client, connection);
            // The same port again, at once or a while later, with whatever initial sequence number.
            let pause = if random.one_in(3) {
                random.below(4 * SECOND)
            } else {
                0
            };
            return (packets, pause + MILLISECOND);
        };
        let segments = connection.endpoint.poll();
        packets.extend(
            segments
                .iter()
                .map(|segment| offering(tcp(client, connection.vip, segment), segment)),
        );
        (packets, 100 * MILLISECOND)
    }

    /// One more datagram of a client to a VIP.
    pub fn ask(client: SocketAddr, vip: SocketAddr, random: &mut Random) -> Made {
        query(client, Some(vip), random)
    }

    fn is_done(&self, client: SocketAddr) -> bool {
        self.connections.get(&client).is_some_and(|connection| {
            connection.is_last && connection.endpoint.state == State::Done
        })
    }

    /// Whether all clients have completed one of the last connections.
    pub fn are_done(&self) -> bool {
        Self::sockets().all(|client| self.is_done(client))
    }

    /// Those that have not.
    pub fn unfinished(&self) -> Vec<String> {
        let unfinished = Self::sockets().filter(|client| !self.is_done(*client));
        unfinished
            .map(|client| match self.connections.get(&client) {
                Some(Connection { vip, endpoint, .. }) => {
                    format!("{client} to {vip}: {endpoint:?}")
                }
                None => format!("{client}"),
            })
            .collect()
    }

    /// A packet arrives; what is answered.
    pub fn take(&mut self, packet: Packet, lived: u64) -> Option<Made> {
        let client = packet.destination;
        assert!(is_numbered(client, 9, 0..=99), "{packet:?} to no client");
        let reassembly = self.reassembly.entry(client).or_default();
        let was_part = packet.is_part();
        let packet = reassembly.take(lived, packet)?;
        self.ends.in_fragments += u32::from(was_part);
        if packet.is_damaged() {
            self.ends.damaged += 1;
            return None;
        }
        packet.check();
        match packet.protocol {
            ICMP | ICMP6 => {
                if let Some(largest) = packet.largest() {
                    let least = if client.is_ipv4() { 576 } else { 1280 };
                    assert!((least..1500).contains(&largest), "{largest} bytes");
                    self.sizes.insert(client, largest);
                    self.ends.too_big += 1;
                }
                None
            }
            UDP => {
                let named = Named::read(packet.data());
                assert_eq!(
                    (named.client, named.vip),
                    (packet.to(), packet.from()),
                    "a datagram of someone else"
                );
                self.ends.datagrams += 1;
                None
            }
            TCP => {
                let (own, vip) = (packet.to(), packet.from());
                let answer = self.to_client(own, vip, &packet.segment())?;
                Some(tcp(own, vip, &answer))
            }
            protocol => panic!("protocol {protocol}"),
        }
    }

    fn to_client(
        &mut self,
        client: SocketAddr,
        vip: SocketAddr,
        segment: &Segment,
    ) -> Option<Segment> {
        assert!(
            is_numbered(vip.ip(), 0, 100..=101)
                && ports(Protocol::Tcp, last_byte(vip.ip())).contains(vip.port()),
            "clients hear from a VIP only, not {vip}"
        );
        let connection = self.connections.get_mut(&client);
        let Some(connection) = connection.filter(|connection| connection.hears(vip)) else {
            return refuse(segment);
        };
        let before = connection.endpoint.state;
        let answer = connection.endpoint.input(segment);
        if before == State::Established && connection.endpoint.state == State::Reset {
            assert!(
                connection.excuse.is_some(),
                "an established connection of {client} to {vip} is reset for no reason: {:?}",
                connection.endpoint
            );
            self.ends.excused += 1;
        } else if before == State::SynSent && connection.endpoint.state == State::Reset {
            self.ends.refused += 1;
        }
        answer
    }

    /// A client's connection to a VIP may end by an RST from now on.
    pub fn excuse(&mut self, client: SocketAddr, vip: SocketAddr, excuse: Excuse) {
        if let Some(connection) = self.connections.get_mut(&client)
            && connection.vip == vip
        {
            connection.excuse = Some(excuse);
        }
    }

    /// The largest packet a client sends in one piece.
    pub fn size(&self, client: IpAddr) -> usize {
        self.sizes.get(&client).copied().unwrap_or(1500)
    }
}

impl Connection {
    fn new(client: SocketAddr, random: &mut Random, lived: u64, is_last: bool) -> Self {
        let vip = drawn(Protocol::Tcp, client.is_ipv4(), random);
        let length = random.below(200) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        // Who it is from, for the target to compare with what it is told.
        if let Some(place) = bytes.first_chunk_mut() {
            *place = name_of(client);
        }
        Self {
            vip,
            endpoint: Endpoint::connect(random.next() as u32, bytes),
            started: lived,
            advanced: lived,
            progress: (State::SynSent, 0, 0),
            excuse: None,
            is_last,
        }
    }

    fn hears(&self, vip: SocketAddr) -> bool {
        self.vip == vip && self.endpoint.state != State::Reset
    }

    /// Looks after the connection: whether it is over.
    fn look(&mut self, client: SocketAddr, lived: u64, ends: &mut Ends) -> bool {
        let endpoint = &self.endpoint;
        let (sent, got) = (&endpoint.outgoing, &endpoint.received);
        assert!(sent.starts_with(got), "the echo differs from what was sent");
        let progress = (endpoint.state, got.len(), endpoint.acknowledged);
        if progress != self.progress {
            (self.progress, self.advanced) = (progress, lived);
        }
        match endpoint.state {
            State::Done => {
                assert_eq!(
                    sent, got,
                    "the connection closed in order, but bytes are missing"
                );
                ends.completed += 1;
                true
            }
            State::Reset => true,
            State::SynSent | State::SynReceived => {
                let over = lived - self.started > TRIES_FOR;
                ends.unanswered += u32::from(over);
                over
            }
            State::Established => {
                let over = lived - self.advanced > WAITS_FOR;
                assert!(
                    !over || self.excuse.is_some(),
                    "the connection of {client} to {} hangs for no reason: {endpoint:?}",
                    self.vip
                );
                over
            }
        }
    }
}

/// What a client's stream begins with.
pub fn name_of(client: SocketAddr) -> [u8; 4] {
    let [high, low] = client.port().to_be_bytes();
    let family = if client.is_ipv4() { 4 } else { 6 };
    [family, last_byte(client.ip()), high, low]
}

/// A datagram of some length, to this VIP or any, that says who asks whom, and is otherwise made of its own number.
fn query(client: SocketAddr, vip: Option<SocketAddr>, random: &mut Random) -> Made {
    let drawn = drawn(Protocol::Udp, client.is_ipv4(), random);
    let vip = vip.unwrap_or(drawn);
    let length = match random.below(8) {
        0 => 1380 + random.below(120),
        1 => random.below(3000),
        _ => random.below(60),
    };
    let data = Named { client, vip }.write(random.next() as u8, length as usize);
    frame::udp(client, vip, &data)
}

/// Who sent a datagram, to whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub client: SocketAddr,
    pub vip: SocketAddr,
}

impl Named {
    fn write(&self, number: u8, length: usize) -> Vec<u8> {
        let mut data = name_of(self.client).to_vec();
        data.push(last_byte(self.vip.ip()));
        data.extend(self.vip.port().to_be_bytes());
        data.push(number);
        data.extend(filling(number, length));
        data
    }

    /// Reads a datagram, all bytes of which must be what they were.
    pub fn read(data: &[u8]) -> Self {
        let (&[family, client, high, low, vip, vip_high, vip_low, number], rest) =
            data.split_first_chunk().expect("a name");
        assert!(
            filling(number, rest.len()).eq(rest.iter().copied()),
            "a datagram was changed: {data:?}"
        );
        let net = if family == 4 { BOTH[0] } else { BOTH[1] };
        Self {
            client: net.client(client, u16::from_be_bytes([high, low])),
            vip: SocketAddr::new(net.address(0, vip), u16::from_be_bytes([vip_high, vip_low])),
        }
    }
}

fn filling(number: u8, length: usize) -> impl Iterator<Item = u8> {
    (0..length).map(move |at| number ^ (at as u8).wrapping_mul(167) ^ (at >> 8) as u8)
}
