//! One connection through a node, over either family, by numbers that count from the first byte of the client's stream.

use std::net::{IpAddr, SocketAddr};

use dataplane::{ClientAddress, DropReason, Frame, PortIndex, Protocol, ServiceConfig, Verdict};

use crate::frame::{self, ACK, Packet, SYN, octets};
use crate::net::Net;
use crate::rig::{self, INSIDE, OUTSIDE, Rig, up};

/// The client's initial sequence number: the header crosses the wrap.
pub const ISN: u32 = 0xffff_ffef;
/// The first byte of its stream.
pub const ORIGIN: u32 = ISN + 1;
/// What the target's numbers start from.
pub const TARGET_ISN: u32 = 9000;

pub fn client(net: Net) -> SocketAddr {
    net.client(7, 40_000)
}

fn target(net: Net) -> SocketAddr {
    net.target(21, 8080)
}

/// The PROXY header, by the specification.
pub fn header(net: Net) -> Vec<u8> {
    let (client, vip) = (client(net), net.vip(80));
    let mut header = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21".to_vec();
    header.extend(match net {
        Net::V4 => [0x11, 0, 12],
        Net::V6 => [0x21, 0, 36],
    });
    header.extend(octets(client.ip()));
    header.extend(octets(vip.ip()));
    header.extend(client.port().to_be_bytes());
    header.extend(vip.port().to_be_bytes());
    header
}

/// The TCP option.
pub fn toa(net: Net) -> Vec<u8> {
    let address = octets(client(net).ip());
    let mut option = vec![254, 4 + address.len() as u8];
    option.extend(client(net).port().to_be_bytes());
    option.extend(address);
    option
}

/// A segment, addresses apart. `n` is the number that counts the client's bytes, from the first of its stream: of a client its sequence
/// number, of the target its acknowledgment.
#[derive(Clone, Debug)]
pub struct Part {
    pub n: i32,
    pub flags: u8,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
    pub urgent: u16,
}

pub fn part(n: i32, flags: u8) -> Part {
    Part {
        n,
        flags,
        options: Vec::new(),
        data: Vec::new(),
        urgent: 0,
    }
}

impl Part {
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// As a packet.
    fn between(&self, from: SocketAddr, to: SocketAddr, (seq, ack): (u32, u32)) -> Packet {
        let ack = if self.flags & ACK != 0 { ack } else { 0 };
        frame::tcp(from, to, self.flags)
            .seq(seq, ack)
            .tcp_options(&self.options)
            .data(&self.data)
            .with(|packet| packet.tcp_mut().urgent = self.urgent)
    }

    /// The target's sequence number.
    fn theirs(&self) -> u32 {
        TARGET_ISN + u32::from(self.flags & SYN == 0)
    }
}

/// An ICMP error "too big" with a size.
pub fn too_big(net: Net, from: IpAddr, to: IpAddr, mtu: u32, quote: &[u8]) -> Packet {
    let (kind, code) = net.too_big();
    frame::icmp(from, to, kind, code, mtu, quote)
}

/// A buffer without room for more.
struct Full(Vec<u8>);

impl Frame for Full {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn trim(&mut self, len: usize) {
        self.0.truncate(len);
    }
    fn make_room(&mut self, _at: usize, _len: usize) -> bool {
        false
    }
    fn cut(&mut self, at: usize, len: usize) -> bool {
        self.0.cut(at, len)
    }
}

/// A connection from the client to the target, by a node with one service.
pub struct Talk {
    pub rig: Rig,
    mtus: [u16; 2],
    /// What the target sees.
    pub local: SocketAddr,
    /// What the node adds to the client's numbers, the header apart.
    pub shift: u32,
}

impl Talk {
    /// Up to the SYN's arrival.
    pub fn begin(net: Net, client_address: ClientAddress) -> Self {
        Self::over(net, client_address, [1500, 1500], &part(-1, SYN))
    }

    /// With these MTUs outside and inside, and this SYN.
    pub fn over(net: Net, client_address: ClientAddress, mtus: [u16; 2], syn: &Part) -> Self {
        let service = service(net, client_address);
        let rig = rig::node(&rig::small(), &ports(net, mtus), &[service]).speaking(net);
        let mut talk = Self {
            rig,
            mtus,
            local: net.local(0),
            shift: 0,
        };
        let frame = talk.from_client(syn).expect("a SYN is forwarded");
        talk.local.set_port(frame::source_port(&frame));
        talk.shift = frame::tcp_word(&frame, 4).wrapping_sub(ISN);
        talk
    }

    /// With the handshake behind it.
    pub fn established(net: Net, client_address: ClientAddress) -> Self {
        let mut talk = Self::begin(net, client_address);
        talk.from_target(&part(0, SYN | ACK).options(&[2, 4, 5, 0xb4]))
            .unwrap();
        talk.from_client(&part(0, ACK)).unwrap();
        talk
    }

    /// Swaps the tables for those of a service with this change.
    pub fn reload(&mut self, client_address: ClientAddress, change: impl Fn(&mut ServiceConfig)) {
        let net = self.rig.net;
        let mut service = service(net, client_address);
        change(&mut service);
        let builder = rig::builder(&ports(net, self.mtus), &[service]);
        let tables = builder.build(&mut self.rig.ids, Some(&self.rig.tables));
        self.rig.tables = tables.unwrap();
    }

    /// What the client sends reaches the target as this.
    #[track_caller]
    pub fn up(&mut self, sent: &Part, arrives: &Part) {
        let expected = rig::to_target(&self.as_target_sees(arrives).ttl(63), 21);
        assert_eq!(self.from_client(sent), Ok(expected), "{sent:?}");
    }

    /// What the target sends reaches the client as this.
    #[track_caller]
    pub fn down(&mut self, sent: &Part, arrives: &Part) {
        let expected = rig::to_client(&self.as_client_sees(arrives).ttl(63));
        assert_eq!(self.from_target(sent), Ok(expected), "{sent:?}");
    }

    pub fn from_client(&mut self, part: &Part) -> Result<Vec<u8>, DropReason> {
        let frame = rig::from_client(&self.as_client_sends(part));
        let (verdict, frame) = self.rig.try_send(OUTSIDE, frame);
        sent(verdict, INSIDE, frame)
    }

    pub fn from_target(&mut self, part: &Part) -> Result<Vec<u8>, DropReason> {
        let acknowledged = ORIGIN.wrapping_add(self.shift).wrapping_add_signed(part.n);
        let numbers = (part.theirs(), acknowledged);
        self.inside(&part.between(target(self.rig.net), self.local, numbers))
    }

    /// Anything from the target's side.
    pub fn inside(&mut self, packet: &Packet) -> Result<Vec<u8>, DropReason> {
        let (verdict, frame) = self.rig.try_send(INSIDE, rig::from_target(packet, 21));
        sent(verdict, OUTSIDE, frame)
    }

    /// A client's segment in a buffer that is full.
    pub fn full(&mut self, part: &Part) -> Verdict {
        let frame = rig::from_client(&self.as_client_sends(part));
        self.rig.try_send(OUTSIDE, Full(frame)).0
    }

    /// A segment from the client.
    pub fn as_client_sends(&self, part: &Part) -> Packet {
        let (net, sequence) = (self.rig.net, ORIGIN.wrapping_add_signed(part.n));
        part.between(client(net), net.vip(80), (sequence, TARGET_ISN + 1))
    }

    /// A segment from the node to the target.
    pub fn as_target_sees(&self, part: &Part) -> Packet {
        let sequence = ORIGIN.wrapping_add(self.shift).wrapping_add_signed(part.n);
        let target = target(self.rig.net);
        part.between(self.local, target, (sequence, TARGET_ISN + 1))
    }

    /// A segment from the VIP to the client.
    pub fn as_client_sees(&self, part: &Part) -> Packet {
        let (net, acknowledged) = (self.rig.net, ORIGIN.wrapping_add_signed(part.n));
        part.between(net.vip(80), client(net), (part.theirs(), acknowledged))
    }

    /// The RSTs that end the connection: the client's has the number of what it acknowledged, the target's counts from the first byte of
    /// the stream, header included.
    pub fn resets(&self, target_expects: i32) -> [(PortIndex, Vec<u8>); 2] {
        let bare = |packet: Packet| packet.window(0).with(|packet| packet.tcp_mut().ack = 0);
        let to_client = bare(self.as_client_sees(&part(0, frame::RST)));
        let to_target = bare(self.as_target_sees(&part(target_expects, frame::RST)));
        [
            (OUTSIDE, rig::to_client(&to_client)),
            (INSIDE, rig::to_target(&to_target, 21)),
        ]
    }

    /// What the node sent by itself since it was last asked.
    pub fn emitted(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        let frames = self.rig.emitted();
        self.rig.out.clear();
        frames
    }

    /// Segments that took the address along, that could not, and options that were taken out.
    pub fn told(&self) -> (u64, u64, u64) {
        let counts = self.rig.service_counts(80, Protocol::Tcp);
        (
            counts.client_address_inserted,
            counts.client_address_refused,
            counts.client_address_forged,
        )
    }
}

fn sent(verdict: Verdict, expected: PortIndex, frame: Vec<u8>) -> Result<Vec<u8>, DropReason> {
    match verdict {
        Verdict::Transmit(port) => {
            assert_eq!(port, expected);
            Ok(frame)
        }
        Verdict::Drop(reason) => Err(reason),
        other => panic!("neither sent nor dropped: {other:?}"),
    }
}

fn ports(net: Net, mtus: [u16; 2]) -> [dataplane::Port; 2] {
    let mut ports = net.ports();
    for (port, mtu) in ports.iter_mut().zip(mtus) {
        port.mtu = mtu;
    }
    ports
}

fn service(net: Net, client_address: ClientAddress) -> ServiceConfig {
    let mut service = ServiceConfig::new(net.vip_ip(), Protocol::Tcp, 80);
    service.client_address = client_address;
    service.targets = vec![up(target(net))];
    service
}
