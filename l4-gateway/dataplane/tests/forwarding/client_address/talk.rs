//! One connection through a node, over either family, by numbers that count from the first byte of the client's stream.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::{
    ClientAddress, Counters, DropReason, Emitted, Frame, Ids, Limits, MacAddr, Now, Port,
    PortIndex, Protocol, Secret, Segment, ServiceConfig, ServiceCounts, Tables, TargetConfig,
    Verdict, Worker,
};

use crate::frame::{ACK, SYN, checksum};

/// The client's initial sequence number: the header crosses the wrap.
pub const ISN: u32 = 0xffff_ffef;
/// The first byte of its stream.
pub const ORIGIN: u32 = ISN + 1;
/// What the target's numbers start from.
pub const TARGET_ISN: u32 = 9000;

const OUTSIDE: PortIndex = PortIndex(0);
const INSIDE: PortIndex = PortIndex(1);
const OUTSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 10]);
const INSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 11]);
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const TARGET_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 21]);

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub local_ip: IpAddr,
    pub target: SocketAddr,
    /// A router on the target's side.
    pub router: IpAddr,
    gateway: IpAddr,
}

pub fn nets() -> [Net; 2] {
    let net = |addresses: [&str; 6]| Net {
        client: addresses[0].parse().unwrap(),
        vip: addresses[1].parse().unwrap(),
        local_ip: addresses[2].parse().unwrap(),
        target: addresses[3].parse().unwrap(),
        router: addresses[4].parse().unwrap(),
        gateway: addresses[5].parse().unwrap(),
    };
    [
        net([
            "10.1.0.7:40000",
            "10.0.0.100:80",
            "10.3.0.100",
            "10.3.0.21:8080",
            "10.3.0.1",
            "10.2.0.1",
        ]),
        net([
            "[2001:db8:1::7]:40000",
            "[2001:db8::100]:80",
            "2001:db8:3::100",
            "[2001:db8:3::21]:8080",
            "2001:db8:3::1",
            "2001:db8:2::1",
        ]),
    ]
}

impl Net {
    pub fn is_v6(&self) -> bool {
        self.vip.is_ipv6()
    }

    /// Bytes of the IP header.
    pub fn ip(&self) -> usize {
        if self.is_v6() { 40 } else { 20 }
    }

    /// The PROXY header, by the specification.
    pub fn header(&self) -> Vec<u8> {
        let mut header = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21".to_vec();
        header.extend(if self.is_v6() {
            [0x21, 0, 36]
        } else {
            [0x11, 0, 12]
        });
        header.extend(octets(self.client.ip()));
        header.extend(octets(self.vip.ip()));
        header.extend(self.client.port().to_be_bytes());
        header.extend(self.vip.port().to_be_bytes());
        header
    }

    /// The TCP option.
    pub fn toa(&self) -> Vec<u8> {
        let address = octets(self.client.ip());
        let mut option = vec![254, 4 + address.len() as u8];
        option.extend(self.client.port().to_be_bytes());
        option.extend(address);
        option
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
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
    pub may_fragment: bool,
}

pub fn part(n: i32, flags: u8) -> Part {
    Part {
        n,
        flags,
        options: Vec::new(),
        data: Vec::new(),
        urgent: 0,
        may_fragment: false,
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
}

/// The IP packet of a segment, all checksums right.
pub fn packet(
    from: SocketAddr,
    to: SocketAddr,
    (seq, ack): (u32, u32),
    ttl: u8,
    part: &Part,
) -> Vec<u8> {
    let mut segment = from.port().to_be_bytes().to_vec();
    segment.extend(to.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(if part.flags & ACK != 0 { ack } else { 0 }.to_be_bytes());
    segment.push(((5 + part.options.len() / 4) << 4) as u8);
    segment.push(part.flags);
    segment.extend([0xfa, 0xf0, 0, 0]);
    segment.extend(part.urgent.to_be_bytes());
    segment.extend(&part.options);
    segment.extend(&part.data);
    let mut pseudo = [octets(from.ip()), octets(to.ip())].concat();
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    pseudo.extend(&segment);
    segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let fragment = if part.may_fragment { 0 } else { 0x40 };
    ip(from.ip(), to.ip(), 6, ttl, fragment, &segment)
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, ttl: u8, fragment: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = if from.is_ipv6() {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([protocol, ttl]);
        packet
    } else {
        let mut packet = vec![0x45, 0];
        packet.extend((20 + payload.len() as u16).to_be_bytes());
        packet.extend([0, 0, fragment, 0, ttl, protocol, 0, 0]);
        packet
    };
    packet.extend(octets(from));
    packet.extend(octets(to));
    if from.is_ipv4() {
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

/// An ICMP error "too big" with a size.
pub fn too_big(from: IpAddr, to: IpAddr, mtu: u32, ttl: u8, quote: &[u8]) -> Vec<u8> {
    let (kind, protocol) = if from.is_ipv6() {
        ([2, 0], 58u8)
    } else {
        ([3, 4], 1)
    };
    let mut message = kind.to_vec();
    message.extend([0, 0]);
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let mut summed = Vec::new();
    if from.is_ipv6() {
        summed.extend([octets(from), octets(to)].concat());
        summed.extend((message.len() as u32).to_be_bytes());
        summed.extend([0, 0, 0, protocol]);
    }
    summed.extend(&message);
    let sum = checksum(&summed);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, ttl, 0x40, &message)
}

pub fn frame(source: MacAddr, destination: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ether_type: [u8; 2] = if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    [&destination.0[..], &source.0, &ether_type, packet].concat()
}

/// A buffer without room for more.
pub struct Full(pub Vec<u8>);

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
}

/// A connection from the client to the target, by a node with one service.
pub struct Talk {
    pub net: Net,
    pub now: Now,
    pub out: Emitted,
    pub worker: Worker,
    counters: Arc<Counters>,
    ids: Ids,
    tables: Tables,
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
        let limits = Limits {
            flows: 16,
            services: 4,
            targets: 4,
            ..Limits::default()
        };
        let counters = Arc::new(Counters::new(1, &limits));
        let mut ids = Ids::new(&limits);
        let tables = tables(net, client_address, mtus, &mut ids, None);
        let mut talk = Self {
            net,
            now: Now(1_000_000_000),
            out: Emitted::new(),
            worker: Worker::new(0, 1, &limits, Secret::new([7; 32]), Arc::clone(&counters)),
            counters,
            ids,
            tables,
            mtus,
            local: (net.local_ip, 0).into(),
            shift: 0,
        };
        talk.worker.tick(&talk.tables, talk.now, &mut talk.out);
        for (port, address, mac) in [
            (OUTSIDE, net.gateway, ROUTER_MAC),
            (INSIDE, net.target.ip(), TARGET_MAC),
        ] {
            talk.worker
                .learn(talk.now, port, address, mac, &mut talk.out);
        }
        talk.out.clear();
        let frame = talk.from_client(syn).expect("a SYN is forwarded");
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let tcp = 14 + net.ip();
        talk.local.set_port(word(tcp));
        let sent = u32::from(word(tcp + 4)) << 16 | u32::from(word(tcp + 6));
        talk.shift = sent.wrapping_sub(ISN);
        talk
    }

    /// With the handshake behind it.
    pub fn established(net: Net, client_address: ClientAddress) -> Self {
        let mut talk = Self::begin(net, client_address);
        talk.from_target(&part(0, SYN | ACK).options(&[2, 4, 5, 0xb4]))
            .unwrap();
        talk.from_client(&part(0, ACK)).unwrap();
        talk.worker.check_invariants();
        talk
    }

    /// Swaps the tables for those of another kind of service.
    pub fn reload(&mut self, client_address: ClientAddress) {
        self.tables = tables(
            self.net,
            client_address,
            self.mtus,
            &mut self.ids,
            Some(&self.tables),
        );
    }

    /// What the client sends reaches the target as this.
    #[track_caller]
    pub fn up(&mut self, sent: &Part, arrives: &Part) {
        let expected = self.at_target(arrives);
        assert_eq!(self.from_client(sent), Ok(expected), "{sent:?}");
    }

    /// What the target sends reaches the client as this.
    #[track_caller]
    pub fn down(&mut self, sent: &Part, arrives: &Part) {
        let expected = frame(OUTSIDE_MAC, ROUTER_MAC, &self.as_client_sees(arrives, 63));
        assert_eq!(self.from_target(sent), Ok(expected), "{sent:?}");
    }

    pub fn from_client(&mut self, part: &Part) -> Result<Vec<u8>, DropReason> {
        let frame = frame(ROUTER_MAC, OUTSIDE_MAC, &self.as_client_sends(part));
        let (verdict, frame) = self.burst(OUTSIDE, frame);
        sent(verdict, INSIDE, frame)
    }

    pub fn from_target(&mut self, part: &Part) -> Result<Vec<u8>, DropReason> {
        let acknowledged = ORIGIN.wrapping_add(self.shift).wrapping_add_signed(part.n);
        let packet = packet(
            self.net.target,
            self.local,
            (sequence_of(part), acknowledged),
            64,
            part,
        );
        self.inside(&packet)
    }

    /// Anything from the target's side.
    pub fn inside(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let (verdict, frame) = self.burst(INSIDE, frame(TARGET_MAC, INSIDE_MAC, packet));
        sent(verdict, OUTSIDE, frame)
    }

    pub fn to_client(&self, packet: &[u8]) -> Vec<u8> {
        frame(OUTSIDE_MAC, ROUTER_MAC, packet)
    }

    pub fn burst<F: Frame>(&mut self, port: PortIndex, frame: F) -> (Verdict, F) {
        let mut frames = [frame];
        let mut verdicts = [Verdict::Kernel];
        self.worker.burst(
            &self.tables,
            self.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut self.out,
        );
        let [frame] = frames;
        (verdicts[0], frame)
    }

    pub fn full(&mut self, part: &Part) -> Verdict {
        let frame = frame(ROUTER_MAC, OUTSIDE_MAC, &self.as_client_sends(part));
        self.burst(OUTSIDE, Full(frame)).0
    }

    /// The packet of a segment from the client.
    pub fn as_client_sends(&self, part: &Part) -> Vec<u8> {
        let numbers = (ORIGIN.wrapping_add_signed(part.n), TARGET_ISN + 1);
        packet(self.net.client, self.net.vip, numbers, 64, part)
    }

    /// The packet of a segment from the node to the target.
    pub fn as_target_sees(&self, part: &Part, ttl: u8) -> Vec<u8> {
        let sequence = ORIGIN.wrapping_add(self.shift).wrapping_add_signed(part.n);
        packet(
            self.local,
            self.net.target,
            (sequence, TARGET_ISN + 1),
            ttl,
            part,
        )
    }

    /// The packet of a segment from the VIP to the client.
    pub fn as_client_sees(&self, part: &Part, ttl: u8) -> Vec<u8> {
        let acknowledged = ORIGIN.wrapping_add_signed(part.n);
        packet(
            self.net.vip,
            self.net.client,
            (sequence_of(part), acknowledged),
            ttl,
            part,
        )
    }

    fn at_target(&self, part: &Part) -> Vec<u8> {
        frame(INSIDE_MAC, TARGET_MAC, &self.as_target_sees(part, 63))
    }

    /// What the node sent by itself since it was last asked.
    pub fn emitted(&mut self) -> Vec<Vec<u8>> {
        let frames = self.out.frames().map(|(_, frame)| frame.to_vec()).collect();
        self.out.clear();
        frames
    }

    pub fn counts(&self) -> ServiceCounts {
        let net = self.net;
        let service = self
            .tables
            .service_at(net.vip.ip(), net.vip.port(), Protocol::Tcp);
        self.counters.service(service.unwrap().id)
    }

    /// Segments that took the address along, that could not, and options that were taken out.
    pub fn told(&self) -> (u64, u64, u64) {
        let counts = self.counts();
        (
            counts.client_address_inserted,
            counts.client_address_refused,
            counts.client_address_forged,
        )
    }
}

fn sequence_of(part: &Part) -> u32 {
    if part.flags & SYN != 0 {
        TARGET_ISN
    } else {
        TARGET_ISN + 1
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

fn tables(
    net: Net,
    client_address: ClientAddress,
    mtus: [u16; 2],
    ids: &mut Ids,
    previous: Option<&Tables>,
) -> Tables {
    let mut builder = Tables::builder();
    for (index, mac, mtu, v4, v6) in [
        (OUTSIDE, OUTSIDE_MAC, mtus[0], "10.2.0.11", "2001:db8:2::11"),
        (INSIDE, INSIDE_MAC, mtus[1], "10.3.0.11", "2001:db8:3::11"),
    ] {
        builder.port(Port {
            index,
            mac,
            ipv4: Some(Segment {
                address: v4.parse().unwrap(),
                prefix: 24,
                gateway: (index == OUTSIDE).then(|| "10.2.0.1".parse().unwrap()),
            }),
            ipv6: Some(Segment {
                address: v6.parse().unwrap(),
                prefix: 64,
                gateway: (index == OUTSIDE).then(|| "2001:db8:2::1".parse().unwrap()),
            }),
            mtu,
            answers: true,
        });
    }
    builder.local_ip(net.local_ip);
    let mut service = ServiceConfig::new(net.vip.ip(), Protocol::Tcp, net.vip.port());
    service.client_address = client_address;
    service.targets = vec![TargetConfig {
        address: net.target,
        weight: 1,
        up: true,
        draining: false,
        cut: false,
    }];
    builder.service(service);
    builder.build(ids, previous).unwrap()
}
