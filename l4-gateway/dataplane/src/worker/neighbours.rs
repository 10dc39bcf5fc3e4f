//! What ARP and neighbour discovery share: announcing our addresses, and taking in what others say of theirs.

use std::net::IpAddr;

use super::{Context, Event, Worker};
use crate::counters::WorkerCount;
use crate::family::{V4, V6};
use crate::neighbour::{Lesson, emit};
use crate::tables::{LocalIp, Tables};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ipv6::ALL_NODES;
use crate::wire::ndp::{self, Ndp};
use crate::{Emitted, Learned, MacAddr};

/// What a neighbour says of itself.
pub(super) struct Heard {
    pub(super) address: IpAddr,
    pub(super) mac: MacAddr,
    /// It counts against what is known.
    pub(super) overrides: bool,
    /// It answers a question asked from our port's address.
    pub(super) answers_us: bool,
    /// It tells everyone.
    pub(super) announces: bool,
}

impl Worker {
    /// Announces LocalIPs that are new or moved to another port or MAC, so that no target goes on with what it knew before
    /// (RFC 5227 3, RFC 4861 7.2.6).
    pub(super) fn announce(&mut self, tables: &Tables, out: &mut Emitted) {
        let places = || {
            let place = |local: &LocalIp| tables.port(local.port).map(|port| (local.address, port));
            tables.local_ips().iter().filter_map(place)
        };
        let hash = places().fold(1, |hash, (address, port)| {
            let [a, b, c, d, e, f] = port.mac.0;
            let mac = u64::from_be_bytes([0, port.index.0 as u8, a, b, c, d, e, f]);
            let address = match address {
                IpAddr::V4(address) => u128::from(address.to_bits()),
                IpAddr::V6(address) => address.to_bits(),
            };
            self.secret.hash_wide(address, u128::from(mac), hash)
        });
        if hash == self.announced {
            return;
        }
        self.announced = hash;
        for (address, port) in places() {
            match address {
                IpAddr::V4(address) if port.covers::<V4>(address) => {
                    let announcement = Arp {
                        operation: Operation::Request,
                        sender_mac: port.mac,
                        sender: address,
                        target_mac: MacAddr::default(),
                        target: address,
                    };
                    self.cells.worker(WorkerCount::ArpRequests, 1);
                    let frame = announcement.frame(MacAddr::BROADCAST);
                    emit(out, &self.cells, port.index, &frame);
                }
                IpAddr::V6(address) if port.covers::<V6>(address) => {
                    let announcement = Ndp {
                        kind: ndp::Kind::Advertisement {
                            solicited: false,
                            overrides: true,
                        },
                        source: address,
                        destination: ALL_NODES,
                        target: address,
                        mac: Some(port.mac),
                    };
                    self.cells.worker(WorkerCount::NeighbourAdvertisements, 1);
                    let frame = announcement.frame(port.mac, ndp::multicast_mac(ALL_NODES));
                    emit(out, &self.cells, port.index, &frame);
                }
                IpAddr::V4(_) | IpAddr::V6(_) => {}
            }
        }
    }

    /// Takes in what a neighbour says, here and in the other workers.
    pub(super) fn hear(&mut self, context: &mut Context<'_>, heard: &Heard) {
        let learned = Learned {
            port: context.port.index,
            address: heard.address,
            mac: heard.mac,
            overrides: heard.overrides,
        };
        let lesson = self
            .neighbours
            .learn(context.now, learned, context.out, &self.cells);
        let worth_telling = match lesson {
            // Another worker may have asked.
            _ if heard.answers_us => true,
            // It may be known to another worker, if it announces itself; hosts that only ask are many.
            Lesson::Unknown => heard.announces,
            Lesson::Known { news, .. } => news,
        };
        if self.workers == 1 || !worth_telling {
            return;
        }
        let allowance = match lesson {
            Lesson::Known { named: true, .. } => &mut self.lessons.named,
            Lesson::Known { .. } | Lesson::Unknown => &mut self.lessons.others,
        };
        let due = allowance.take(context.now);
        self.report_if(due, context.out, Event::Learned(learned));
    }
}
