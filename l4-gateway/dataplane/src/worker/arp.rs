//! ARP: answering for our addresses, learning from answers.

use super::neighbours::Heard;
use super::{Context, Worker};
use crate::Verdict;
use crate::counters::WorkerCount;
use crate::family::V4;
use crate::limits::ETHERNET_HEADER;
use crate::tables::Owned;
use crate::wire::arp::{Arp, Operation};
use crate::wire::{ethernet, put};

impl Worker {
    /// The kernel sees what isn't answered here too: it resolves next hops of its own.
    pub(super) fn arp(&mut self, context: &mut Context<'_>, frame: &mut [u8]) -> Verdict {
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
        let arp = match Arp::parse(packet) {
            Ok(arp) => arp,
            Err(reason) => return Verdict::Drop(reason),
        };
        if let Some(owned) = context.tables.v4().owned(arp.sender) {
            // Nothing to learn, and answering would feed the quarrel.
            self.contend(context, arp.sender.into(), owned, arp.sender_mac);
            return Verdict::Kernel;
        }
        let ours = context.port.address::<V4>() == Some(arp.target);
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

    /// Takes in what a reply to us, an announcement or a question tells of its sender, here and in the other workers.
    fn learn_arp(&mut self, context: &mut Context<'_>, arp: &Arp) {
        let heard = Heard {
            address: arp.sender.into(),
            mac: arp.sender_mac,
            overrides: true,
            answers_us: arp.operation == Operation::Reply
                && context.port.address::<V4>() == Some(arp.target),
            announces: arp.sender == arp.target,
        };
        self.hear(context, &heard);
    }
}

/// Whether a request is answered here: for an address of ours that belongs on the port it came in on.
fn answers(context: &Context<'_>, arp: &Arp) -> bool {
    let port = context.port;
    match context.tables.v4().owned(arp.target) {
        Some(Owned::Port { answers }) => answers && port.address::<V4>() == Some(arp.target),
        Some(Owned::LocalIp(_)) => port.covers::<V4>(arp.target),
        Some(Owned::Vip { arp: wanted }) => wanted && port.covers::<V4>(arp.target),
        None => false,
    }
}
