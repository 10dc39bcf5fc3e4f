//! The hosts on the node's two segments as Ethernet knows them: who has which MAC, and answers for which address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use dataplane::{MacAddr, PortIndex};

use super::world::SECOND;
use crate::frame;
use crate::net::{ALL_NODES, BOTH, Net};
use crate::rig::{self, INSIDE, INSIDE_MAC, OUTSIDE, OUTSIDE_MAC};

/// The routers, and the hosts that are targets.
pub const ROUTERS: std::ops::RangeInclusive<u8> = 1..=2;
pub const TARGETS: std::ops::RangeInclusive<u8> = 21..=24;

/// Within this a next hop that says nothing of its new MAC must be found: it is believed 30 s, then asked six times.
const FOUND_WITHIN: u64 = 40 * SECOND;

/// Within this a silent router must be left for one that answers: it is asked five times a second, and may miss two; the workers hear of it
/// at their next turns, on the same snapshot.
const LEFT_WITHIN: u64 = 3 * SECOND;

/// Within this a node that believed somebody's claim to be a host must be back: where it knew of no MAC, or heard of none when it asked.
const UNMASKED_WITHIN: u64 = 2 * SECOND;

pub struct Hosts(BTreeMap<(PortIndex, u8), Host>);

#[derive(Default)]
struct Host {
    /// How many MACs it had before.
    generation: u8,
    changed: u64,
    /// It hears and says nothing in this time.
    silent_since: u64,
    silent_until: u64,
    /// When somebody else last claimed its addresses.
    forged: u64,
}

impl Host {
    fn is_silent(&self, lived: u64) -> bool {
        lived < self.silent_until
    }

    /// Whether it has spoken, by one MAC, for a while.
    fn is_settled(&self, lived: u64) -> bool {
        lived >= self.silent_until + LEFT_WITHIN && lived >= self.changed + LEFT_WITHIN
    }
}

/// Whom a frame is for.
pub enum Addressee {
    Everyone,
    One(u8),
    /// Who had the MAC once, or is silent.
    Nobody,
    /// Who said to be this host, which has spoken, by one MAC, for a while.
    Forger,
}

/// The MACs that forgers claim addresses by have this generation.
const FORGED: u8 = 0xff;

impl Hosts {
    pub fn new() -> Self {
        let targets = TARGETS.map(|n| (INSIDE, n));
        let all = targets.chain(ROUTERS.map(|n| (OUTSIDE, n)));
        Self(all.map(|key| (key, Host::default())).collect())
    }

    pub fn mac(&self, port: PortIndex, host: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, self.0[&(port, host)].generation, host])
    }

    /// A host is another machine from now on, or has another card.
    pub fn change_mac(&mut self, port: PortIndex, host: u8, lived: u64) {
        let host = self.0.get_mut(&(port, host)).expect("a host");
        host.generation += 1;
        host.changed = lived;
    }

    pub fn silence(&mut self, port: PortIndex, host: u8, lived: u64, until: u64) {
        let host = self.0.get_mut(&(port, host)).expect("a host");
        if !host.is_silent(lived) {
            host.silent_since = lived;
        }
        host.silent_until = until;
    }

    /// The routers that forward, or all if none does.
    pub fn routers(&self, lived: u64) -> Vec<u8> {
        let speaks = |number: &u8| !self.0[&(OUTSIDE, *number)].is_silent(lived);
        let speaking: Vec<u8> = ROUTERS.filter(speaks).collect();
        match speaking.is_empty() {
            true => ROUTERS.collect(),
            false => speaking,
        }
    }

    /// Whether a host has been there for a while.
    pub fn is_settled(&self, port: PortIndex, host: u8, lived: u64) -> bool {
        self.0[&(port, host)].is_settled(lived)
    }

    /// Whether all routers have been there for a while.
    pub fn are_routers_settled(&self, lived: u64) -> bool {
        ROUTERS
            .into_iter()
            .all(|n| self.0[&(OUTSIDE, n)].is_settled(lived))
    }

    /// Asserts that a packet was not sent by a router that has been silent for long while the other answers.
    pub fn hold_for_way_out(&self, frame: &[u8], lived: u64) {
        let router = |number: u8| &self.0[&(OUTSIDE, number)];
        let number = frame[5];
        let (by, other) = (router(number), router(ROUTERS.sum::<u8>() - number));
        let is_left = by.is_silent(lived) && lived > by.silent_since + LEFT_WITHIN;
        assert!(
            !(is_left && other.is_settled(lived)),
            "by router {number}, which has been silent for {} ms",
            (lived - by.silent_since) * 1000 / SECOND
        );
    }

    /// Whether a host hears and says nothing.
    pub fn is_silent(&self, port: PortIndex, host: u8, lived: u64) -> bool {
        self.0[&(port, host)].is_silent(lived)
    }

    /// Whom a frame that the node sent is for, so long as it has lived.
    pub fn addressee(&self, port: PortIndex, frame: &[u8], lived: u64) -> Addressee {
        let own = if port == OUTSIDE {
            OUTSIDE_MAC
        } else {
            INSIDE_MAC
        };
        assert_eq!(frame[6..12], own.0, "the node's own MAC");
        let [group, _, _, _, generation, number] = *frame.first_chunk().expect("a MAC");
        if group & 1 == 1 {
            return Addressee::Everyone;
        }
        let Some(host) = self.0.get(&(port, number)) else {
            panic!("a frame to nobody: {:x?}", &frame[..14]);
        };
        if generation == FORGED {
            let is_left = host.is_settled(lived) && lived > host.forged + UNMASKED_WITHIN;
            assert!(!is_left, "to who claimed to be host {number}");
            return match host.is_settled(lived) {
                true => Addressee::Forger,
                false => Addressee::Nobody,
            };
        }
        if generation != host.generation {
            assert!(
                lived < host.changed + FOUND_WITHIN,
                "host {number} has had another MAC for {} s",
                (lived - host.changed) / SECOND
            );
            return Addressee::Nobody;
        }
        if host.is_silent(lived) {
            return Addressee::Nobody;
        }
        Addressee::One(number)
    }

    /// The answer to a frame that asks for a MAC, if there is one and one who has it.
    pub fn answer(&self, port: PortIndex, frame: &[u8], lived: u64) -> Option<Vec<u8>> {
        let asked = question(frame)?;
        let number = last_byte(asked);
        let host = self.0.get(&(port, number))?;
        if host.is_silent(lived) {
            return None;
        }
        Some(rig::answer(port, asked, self.mac(port, number)))
    }

    /// What a host says of its MAC to everyone, for each of its addresses.
    pub fn announcements(&self, port: PortIndex, host: u8) -> [Vec<u8>; 2] {
        let mac = self.mac(port, host);
        addresses(port, host).map(|address| announcement(address, mac))
    }

    /// What somebody else says to have a host's addresses by: to everyone, or as if he had been asked.
    pub fn forge(&mut self, port: PortIndex, host: u8, lived: u64, answers: bool) -> [Vec<u8>; 2] {
        self.0.get_mut(&(port, host)).expect("a host").forged = lived;
        let mac = MacAddr([2, 0, 0, 0, FORGED, host]);
        addresses(port, host).map(|address| match answers {
            true => rig::answer(port, address, mac),
            false => announcement(address, mac),
        })
    }
}

fn addresses(port: PortIndex, host: u8) -> [IpAddr; 2] {
    BOTH.map(|net| match port {
        OUTSIDE => router(net, host),
        _ => net.target_ip(host),
    })
}

/// A router's address.
pub fn router(net: Net, number: u8) -> IpAddr {
    match net.gateway() {
        IpAddr::V4(_) => net.address(1, number),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() - 1 + u128::from(number)).into(),
    }
}

/// The address a frame asks for; an announcement asks nobody.
fn question(frame: &[u8]) -> Option<IpAddr> {
    let ipv4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("4"));
    let ipv6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("16"));
    let (asked, asking) = match frame[12..14] {
        [8, 6] if frame[21] == 1 => (ipv4(38), ipv4(28)),
        [0x86, 0xdd] if frame[20] == 58 && frame[54] == 135 => (ipv6(62), ipv6(22)),
        _ => return None,
    };
    (asked != asking).then_some(asked)
}

/// Whether a frame is of ARP or neighbour discovery.
pub fn is_discovery(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
        || frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && (135..=136).contains(&frame[54])
}

/// `address` is at `mac`, to everyone.
fn announcement(address: IpAddr, mac: MacAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let target = (MacAddr::default(), address);
            frame::arp(1, MacAddr::BROADCAST, (mac, address), target)
        }
        IpAddr::V6(_) => {
            let everyone = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
            frame::ndp(136, (address, ALL_NODES), 0x20, address, Some((2, mac)))
                .macs(mac, everyone)
                .frame()
        }
    }
}

pub use crate::rig::last as last_byte;

/// The family of an address.
pub fn net(address: IpAddr) -> Net {
    if address.is_ipv4() { Net::V4 } else { Net::V6 }
}

/// Whether an address is one of the first so many of the VIPs, or of the LocalIPs.
pub fn is_numbered(address: IpAddr, segment: u8, last: std::ops::RangeInclusive<u8>) -> bool {
    let number = last_byte(address);
    last.contains(&number) && net(address).address(segment, number) == address
}

/// Whether an address is ever one of the node's LocalIPs.
pub fn is_local_ip(address: IpAddr) -> bool {
    is_numbered(address, 2, 100..=102)
}
