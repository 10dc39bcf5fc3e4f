//! ARP: answering for our addresses, learning from answers.

use super::{Context, Event, Worker};
use crate::counters::WorkerCount;
use crate::limits::ETHERNET_HEADER;
use crate::neighbour::{Lesson, emit};
use crate::tables::{LocalIp, Owned};
use crate::wire::arp::{Arp, Operation};
use crate::wire::{ethernet, put};
use crate::{Emitted, MacAddr, Tables, Verdict};

impl Worker {
    /// The kernel sees what isn't answered here too: it resolves next hops of its own.
    pub(super) fn arp(&mut self, context: &mut Context<'_>, frame: &mut [u8]) -> Verdict {
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
        let arp = match Arp::parse(packet) {
            Ok(arp) => arp,
            Err(reason) => return Verdict::Drop(reason),
        };
        if context.tables.owned(arp.sender).is_some() {
            // Someone else uses one of our addresses: nothing to learn, and answering would feed the quarrel.
            return Verdict::Kernel;
        }
        let ours = context.port.address == arp.target;
        let answered = arp.operation == Operation::Request && answers(context, &arp);
        if arp.operation == Operation::Reply && ours || arp.sender == arp.target || answered {
            self.learn_arp(context, &arp);
        }
        match arp.operation {
            Operation::Request if answered => {
                let answer = Arp {
                    operation: Operation::Reply,
                    sender_mac: context.port.mac,
                    sender: arp.target,
                    target_mac: arp.sender_mac,
                    target: arp.sender,
                };
                let destination = frame.first_chunk().map_or(arp.sender_mac, ethernet::source);
                put(frame, 0, answer.frame(destination));
                self.cells.worker(WorkerCount::ArpReplies, 1);
                Verdict::Transmit(context.port.index)
            }
            Operation::Reply if ours && context.port.answers => Verdict::Consumed,
            Operation::Request | Operation::Reply => Verdict::Kernel,
        }
    }

    /// Announces LocalIPs that are new or moved to another port or MAC, so that no target goes on with what it knew before
    /// (RFC 5227 3). One worker does it for all.
    pub(super) fn announce(&mut self, tables: &Tables, out: &mut Emitted) {
        let places = || {
            let place = |local: &LocalIp| tables.port(local.port).map(|port| (local.address, port));
            tables.local_ips().iter().filter_map(place)
        };
        let hash = places().fold(1, |hash, (address, port)| {
            let [a, b, c, d, e, f] = port.mac.0;
            let mac = u64::from_be_bytes([0, port.index.0 as u8, a, b, c, d, e, f]);
            self.secret.hash(hash ^ u64::from(address.to_bits()), mac)
        });
        if self.index != 0 || hash == self.announced {
            return;
        }
        self.announced = hash;
        for (address, port) in places().filter(|(address, port)| port.covers(*address)) {
            let announcement = Arp {
                operation: Operation::Request,
                sender_mac: port.mac,
                sender: address,
                target_mac: MacAddr::default(),
                target: address,
            };
            self.cells.worker(WorkerCount::ArpRequests, 1);
            emit(
                out,
                &self.cells,
                port.index,
                &announcement.frame(MacAddr::BROADCAST),
            );
        }
    }

    /// Takes in what a reply to us, an announcement or a question tells of its sender, here and in the other workers.
    fn learn_arp(&mut self, context: &mut Context<'_>, arp: &Arp) {
        let (port, address, mac) = (context.port.index, arp.sender, arp.sender_mac);
        let lesson =
            self.neighbours
                .learn(context.now, port, address, mac, context.out, &self.cells);
        let worth_telling = match lesson {
            // Another worker may have asked.
            _ if arp.operation == Operation::Reply && arp.target == context.port.address => true,
            // It may be known to another worker, if it announces itself; hosts that only ask are many.
            Lesson::Unknown => arp.sender == arp.target,
            Lesson::Known { news, .. } => news,
        };
        if self.workers == 1 || !worth_telling {
            return;
        }
        let allowance = match lesson {
            Lesson::Known { named: true, .. } => &mut self.lessons.named,
            Lesson::Known { .. } | Lesson::Unknown => &mut self.lessons.others,
        };
        if allowance.take(context.now) {
            self.report(context.out, Event::Learned { port, address, mac });
        }
    }
}

/// Whether a request is answered here: for an address of ours that belongs on the port it came in on.
fn answers(context: &Context<'_>, arp: &Arp) -> bool {
    match context.tables.owned(arp.target) {
        Some(Owned::Port { answers }) => answers && context.port.address == arp.target,
        Some(Owned::LocalIp(_)) => context.port.covers(arp.target),
        Some(Owned::Vip { arp: wanted }) => wanted && context.port.covers(arp.target),
        None => false,
    }
}
