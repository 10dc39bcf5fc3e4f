//! Random frames, and good ones with random damage, on both sides of a gateway.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dataplane::MacAddr;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngCore, SeedableRng};

use crate::frame::{self, FIN, FRAGMENT, Packet, Payload, RST, SYN};
use crate::lab::dual::{Client, Family, Fate, ask, tcp, udp};
use crate::lab::wire::Wire;
use crate::lab::{Gateway, Lab, WORKERS, pattern};
use crate::talk::Talk;

/// For how long garbage is sent, unless `WEIR_GARBAGE_SECONDS` says.
const SECONDS: u64 = 5;

/// Ports of the VIPs that services have.
const SERVED: [u16; 7] = [80, 81, 82, 8080, 53, 54, 5353];

/// Frames in a row, a millisecond between rows.
const ROW: usize = 8;

/// Frames of live flows that are kept to be damaged.
const KEPT: usize = 64;

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test lasts, and its seed, are no configuration"
)]
fn wish(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text:?}: expected a whole number")),
    )
}

#[test]
fn hostile_garbage_leaves_forwarding_intact() {
    let length = Duration::from_secs(wish("WEIR_GARBAGE_SECONDS").unwrap_or(SECONDS));
    let seed = wish("WEIR_GARBAGE_SEED").unwrap_or_else(rand::random);
    println!(
        "WEIR_GARBAGE_SECONDS={} WEIR_GARBAGE_SEED={seed}",
        length.as_secs()
    );
    let lab = Lab::dual();
    lab.target().dual_targets();
    let services = [
        tcp("tcp", 80, ""),
        tcp(
            "toa",
            81,
            "client_address = \"toa\"\nlimits = { source_connections = 1000 }\n",
        ),
        tcp(
            "proxy",
            82,
            "client_address = \"proxy_v2\"\npersistence = { timeout = \"1s\" }\n",
        ),
        tcp("dr", 8080, "mode = \"dr\"\n"),
        udp("udp", 53, ""),
        udp("each", 54, "one_packet = true\n"),
        udp("tunnel", 5353, "mode = \"tunnel\"\n"),
    ];
    // Flows that garbage opens are soon gone.
    let services = services.concat().replace(
        "[[services]]\n",
        "[[services]]\ntimeouts = { syn = \"2s\", udp = \"2s\" }\n",
    );
    let head = WORKERS.replace("[workers]", "[workers]\ncount = 2");
    let mut gateway = Gateway::start(&lab, &lab.dual_config(&head, "", &services));
    let talk = Talk::begin(&lab, [80, 81]);
    let sides = [
        (lab.client(), Ipv4Addr::new(10, 2, 0, 254), "ext"),
        (lab.target(), Ipv4Addr::new(10, 3, 0, 254), "int"),
    ];
    let until = Instant::now() + length;
    let senders: Vec<_> = sides
        .iter()
        .zip(0u64..)
        .map(|((place, absent, port), side)| {
            let wire = Wire::open(place, *absent);
            let mut garbage = Garbage::new(seed ^ side, gateway.mac(port));
            place.spawn(move || garbage.send_until(until, &wire))
        })
        .collect();
    let newcomers = lab.client().spawn(move || {
        let mut served = 0;
        while Instant::now() < until {
            for family in Family::BOTH {
                // A SYN may be lost where so much is sent.
                if let Ok(mut echo) = family.connect(Client::Near, 80) {
                    echo.stream
                        .set_read_timeout(Some(Duration::from_secs(30)))
                        .unwrap();
                    echo.exchange(&pattern(2_000, served));
                    served += 1;
                }
            }
            sleep(Duration::from_millis(100));
        }
        served
    });
    let sent: Vec<u64> = senders
        .into_iter()
        .map(|sender| sender.join().unwrap())
        .collect();
    let newcomers = newcomers.join().unwrap();
    let exchanges = talk.end();
    println!("{sent:?} frames, {newcomers} new connections, {exchanges:?} exchanges");
    let least = length.as_secs();
    assert!(
        sent.iter().all(|sent| *sent > 500 * least),
        "{sent:?} frames"
    );
    assert!(
        exchanges.iter().all(|times| *times > least),
        "{exchanges:?} exchanges"
    );
    assert!(newcomers > least, "{newcomers} new connections");

    let status = gateway.status();
    println!("{}", status["drops"]);
    for reason in [
        "truncated",
        "bad_source",
        "bad_arp",
        "bad_ip_header",
        "bad_ip_checksum",
        "bad_ip_options",
        "bad_extension_header",
        "martian_source",
        "bad_fragment",
        "fragment_overlap",
        "bad_tcp",
        "bad_tcp_flags",
        "bad_udp",
        "bad_icmp",
        "icmp_no_flow",
        "icmp_ignored",
        "no_service",
        "no_flow",
        "ttl_expired",
    ] {
        let count = status["drops"][reason].as_u64();
        assert!(count > Some(0), "none was {reason}: {}", status["drops"]);
    }
    assert_eq!(gateway.ready(), Ok(()));
    assert!(gateway.is_running());
    let rounds = gateway.workers("rounds");
    gateway.wait("turning with all its workers", || {
        let now = gateway.workers("rounds");
        now.len() == 2 && now.iter().zip(&rounds).all(|(now, before)| now > before)
    });
    let log = gateway.log();
    assert!(!log.contains("panicked"), "{log}");
    lab.client().run(|| {
        for family in Family::BOTH {
            let mut echo = family.connect(Client::Far, 80).expect("a connection");
            echo.exchange(&pattern(100_000, 1));
            let socket = family.datagrams(Client::Far, 53);
            assert!(matches!(ask(&socket, b"and datagrams?"), Fate::Served(_)));
        }
    });
}

/// A sender of garbage to a port.
struct Garbage {
    random: StdRng,
    port: MacAddr,
    /// Frames of live flows: sent to the port, and by it.
    sent: VecDeque<Vec<u8>>,
    received: VecDeque<Vec<u8>>,
}

impl Garbage {
    fn new(seed: u64, port: MacAddr) -> Garbage {
        Garbage {
            random: StdRng::seed_from_u64(seed),
            port,
            sent: VecDeque::new(),
            received: VecDeque::new(),
        }
    }

    /// How many frames left.
    fn send_until(&mut self, until: Instant, wire: &Wire) -> u64 {
        let mut sent = 0;
        while Instant::now() < until {
            for _ in 0..ROW {
                self.look(wire);
                let frame = self.frame();
                sent += u64::from(wire.send(&frame));
            }
            sleep(Duration::from_millis(1));
        }
        sent
    }

    /// Keeps a frame of a live flow that passed.
    fn look(&mut self, wire: &Wire) {
        let Some(frame) = wire.passed() else {
            return;
        };
        let kept = if frame[..6] == self.port.0 {
            &mut self.sent
        } else if frame[6..12] == self.port.0 {
            &mut self.received
        } else {
            return;
        };
        if tcp_at(&frame).is_some() {
            kept.truncate(KEPT - 1);
            kept.push_front(frame);
        }
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = match self.random.random_range(0..16) {
            0 => self.noise(),
            1 => self.arp(),
            2..5 => self.fragment(),
            5..8 => self.live(),
            8 => self.error_about_live(),
            9 => {
                let message = self.likely().frame();
                self.damaged(message)
            }
            _ => self.likely().frame(),
        };
        if self.random.random_ratio(1, 16) && frame.len() > 14 {
            // A VLAN tag, perhaps two.
            for _ in 0..self.random.random_range(1..3) {
                let kind = *[[0x81, 0x00], [0x88, 0xa8]]
                    .choose(&mut self.random)
                    .unwrap();
                let tag = [kind, self.random.random::<u16>().to_be_bytes()].concat();
                frame.splice(12..12, tag);
            }
        }
        frame
    }

    /// Ethernet addresses and nothing sensible behind them.
    fn noise(&mut self) -> Vec<u8> {
        let kinds = [
            [0x08, 0x00],
            [0x86, 0xdd],
            [0x08, 0x06],
            [0x88, 0xcc],
            [0, 64],
        ];
        let kind = *kinds.choose(&mut self.random).unwrap();
        let source = self.source();
        let mut frame = [&self.port.0[..], &source.0, &kind].concat();
        let mut bytes = vec![0; self.random.random_range(1..1400)];
        self.random.fill_bytes(&mut bytes);
        frame.extend(bytes);
        frame
    }

    /// ARP of hosts nobody has: forged ARP of those that there are is the link's to prevent.
    fn arp(&mut self) -> Vec<u8> {
        let (source, other) = (self.source(), self.source());
        let [sender, target] =
            [(); 2].map(|()| Ipv4Addr::new(10, 2, 0, self.random.random_range(128..=255)));
        let target = *[target, Ipv4Addr::new(10, 3, 0, 100)]
            .choose(&mut self.random)
            .unwrap();
        let mut frame = frame::arp(
            self.random.random_range(0..4),
            self.port,
            (source, sender),
            (other, target),
        );
        // Up to the sender's address.
        if self.random.random() {
            frame[self.random.random_range(14..22)] = self.random.random();
        }
        if self.random.random() {
            frame.truncate(self.random.random_range(14..28));
        }
        frame
    }

    /// A packet that could be, its checksums right: TCP with any flags, UDP, ICMP, other protocols, options and extension headers.
    fn likely(&mut self) -> Packet {
        let (from, to) = self.ends();
        let mut data = vec![0; self.random.random_range(0..64)];
        self.random.fill_bytes(&mut data);
        let is_v4 = from.is_ipv4();
        let mut packet = match self.random.random_range(0..8) {
            0..4 => {
                let flags = *[SYN, SYN, FIN, RST, self.random.random()]
                    .choose(&mut self.random)
                    .unwrap();
                let segment =
                    frame::tcp(from, to, flags).seq(self.random.random(), self.random.random());
                let options = 4 * self.random.random_range(0..4);
                let mut bytes = vec![0; options];
                self.random.fill_bytes(&mut bytes);
                segment.data(&data).tcp_options(&bytes)
            }
            4..6 => frame::udp(from, to, &data),
            6 => {
                let kinds: &[u8] = if is_v4 {
                    &[0, 3, 4, 5, 8, 11, 12, 13]
                } else {
                    &[1, 2, 3, 4, 128, 129, 133, 134, 137]
                };
                let kind = *kinds.choose(&mut self.random).unwrap();
                let rest = self.random.random();
                frame::icmp(
                    from.ip(),
                    to.ip(),
                    kind,
                    self.random.random_range(0..8),
                    rest,
                    &data,
                )
            }
            _ => Packet::new(from.ip(), to.ip(), Payload::Raw(self.random.random(), data)),
        };
        packet.ttl = *[64, 64, 255, 1, 0].choose(&mut self.random).unwrap();
        if self.random.random_ratio(1, 8) {
            let mut bytes = vec![0; 8 * self.random.random_range(0..3) + 6];
            self.random.fill_bytes(&mut bytes);
            match is_v4 {
                true => packet.options = bytes[..bytes.len() / 4 * 4].to_vec(),
                false => {
                    bytes[0] = (bytes.len() / 8) as u8;
                    let kinds = [
                        frame::HOP_BY_HOP,
                        frame::ROUTING,
                        frame::OPTIONS,
                        frame::NOTHING,
                    ];
                    packet = packet.extension(*kinds.choose(&mut self.random).unwrap(), &bytes);
                }
            }
        }
        let source = self.source();
        packet.macs(source, self.port)
    }

    /// Two ends: often those of a client and a VIP, or of a target and a LocalIP, else any.
    fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let family = *Family::BOTH.choose(&mut self.random).unwrap();
        let (stranger, on_link): (IpAddr, IpAddr) = match family {
            Family::V4 => {
                let last = self.random.random_range(128..255);
                (
                    Ipv4Addr::from_bits(self.random.random()).into(),
                    [10, 2, 0, last].into(),
                )
            }
            Family::V6 => {
                let last = self.random.random_range(128..=u16::MAX);
                (
                    self.random.random::<u128>().to_be_bytes().into(),
                    [0xfd00, 2, 0, 0, 0, 0, 0, last].into(),
                )
            }
        };
        let (multicast, loopback): (IpAddr, IpAddr) = match family {
            Family::V4 => ([224, 0, 0, 1].into(), [127, 0, 0, 1].into()),
            Family::V6 => (
                [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
                [0, 0, 0, 0, 0, 0, 0, 1].into(),
            ),
        };
        let [near, far] = [Client::Near, Client::Far].map(|client| family.client(client));
        let (vip, local_ip) = (family.vip(80).ip(), family.local_ip());
        let any = [
            vip,
            local_ip,
            family.first(),
            near,
            far,
            stranger,
            on_link,
            multicast,
            loopback,
        ];
        let [own, high] = [(); 2].map(|()| self.random.random_range(1024..=u16::MAX));
        let pair = match self.random.random_range(0..4) {
            0 | 1 => {
                let wanted = SERVED.choose(&mut self.random).copied();
                let wanted = wanted.filter(|_| self.random.random_ratio(7, 8));
                let source = *[near, far, stranger, on_link]
                    .choose(&mut self.random)
                    .unwrap();
                ((source, own), (vip, wanted.unwrap_or(high)))
            }
            2 => (
                (
                    family.first(),
                    *[8080, 5353].choose(&mut self.random).unwrap(),
                ),
                (local_ip, high),
            ),
            _ => {
                let [source, destination] =
                    [(); 2].map(|()| *any.choose(&mut self.random).unwrap());
                ((source, own), (destination, high))
            }
        };
        (pair.0.into(), pair.1.into())
    }

    /// A fragment of one of a few packets, so that they overlap and leave gaps.
    fn fragment(&mut self) -> Vec<u8> {
        let (from, to) = self.ends();
        let mut data = vec![0; *[8, 64, 512, 13].choose(&mut self.random).unwrap()];
        self.random.fill_bytes(&mut data);
        let start: u16 = self.random.random_range(0..20) * 8;
        let more = self.random.random::<bool>();
        let (id, id6) = (
            self.random.random_range(0..8),
            self.random.random_range(0..8u32),
        );
        let mut packet = match start {
            0 => frame::udp(from, to, &data),
            _ => Packet::new(from.ip(), to.ip(), Payload::Raw(17, data)),
        };
        if from.is_ipv4() {
            packet.id = id;
            packet.fragment = (start / 8) | (u16::from(more) << 13);
        } else {
            let place = start | u16::from(more);
            let body = [&[0][..], &place.to_be_bytes(), &id6.to_be_bytes()].concat();
            packet = packet.extension(FRAGMENT, &body);
        }
        let source = self.source();
        packet.macs(source, self.port).frame()
    }

    /// A segment of a live connection, damaged: neither end may take it, as its checksum is wrong.
    fn live(&mut self) -> Vec<u8> {
        let Some(mut frame) = self.sent.iter().choose(&mut self.random).cloned() else {
            return self.noise();
        };
        let Some(at) = tcp_at(&frame) else {
            return self.noise();
        };
        let flags = frame[at + 13];
        if self.random.random() {
            // What moves states.
            frame[at + 13] = *[SYN, RST, FIN, flags | RST, flags | FIN]
                .choose(&mut self.random)
                .unwrap();
        }
        frame = self.damaged(frame);
        if frame.len() < at + 20 {
            return frame;
        }
        if frame[at + 13] != flags {
            // Who knows both numbers of a connection can end it. Garbage knows neither.
            self.random.fill_bytes(&mut frame[at + 4..at + 12]);
        }
        if is_sound(&frame, at) {
            frame[at + 16] ^= 0x55;
        }
        frame
    }

    /// An ICMP error about a segment that the port sent.
    fn error_about_live(&mut self) -> Vec<u8> {
        let Some(about) = self.received.iter().choose(&mut self.random).cloned() else {
            return self.noise();
        };
        let kept = self.random.random_range(14..about.len());
        // From the end itself; and the addresses of the packet that it quotes.
        let (kinds, other, own): (&[u8], _, _) = if about[12] == 8 {
            (&[3, 4, 11, 12], &about[26..30], &about[30..34])
        } else {
            (&[1, 2, 3, 4], &about[22..38], &about[38..54])
        };
        let kind = *kinds.choose(&mut self.random).unwrap();
        let message = frame::icmp(
            address(own),
            address(other),
            kind,
            self.random.random_range(0..16),
            self.random.random(),
            &about[14..kept],
        );
        let source = self.source();
        let frame = message.macs(source, self.port).frame();
        match self.random.random() {
            true => frame,
            false => self.damaged(frame),
        }
    }

    /// Some bytes behind the Ethernet addresses are others, and perhaps it ends early.
    fn damaged(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.random.random_range(1..6) {
            let place = self.random.random_range(12..frame.len());
            frame[place] = self.random.random();
        }
        if self.random.random_ratio(1, 4) {
            frame.truncate(self.random.random_range(14..frame.len()));
        }
        frame
    }

    /// Some neighbour, at times a group's MAC, which nobody sends from.
    fn source(&mut self) -> MacAddr {
        let mut source = frame::mac(self.random.random());
        source.0[0] |= u8::from(self.random.random_ratio(1, 50));
        source
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
    }
}

/// Where the TCP segment of a frame begins that has neither options nor extension headers.
fn tcp_at(frame: &[u8]) -> Option<usize> {
    match (
        frame.get(12..14)?,
        frame.get(14)?,
        frame.get(20)?,
        frame.get(23)?,
    ) {
        ([8, 0], 0x45, _, 6) if frame.len() >= 54 => Some(34),
        ([0x86, 0xdd], _, 6, _) if frame.len() >= 74 => Some(54),
        _ => None,
    }
}

/// Whether a receiver would find the checksum of the segment right.
fn is_sound(frame: &[u8], at: usize) -> bool {
    let addresses = if at == 34 { 26..34 } else { 22..54 };
    let length = (frame.len() - at) as u16;
    let pseudo = [
        &frame[addresses],
        &[0, 6],
        &length.to_be_bytes(),
        &frame[at..],
    ];
    frame::checksum(&pseudo.concat()) == 0
}
