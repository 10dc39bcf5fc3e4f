//! What ARP and neighbour discovery share: taking in what others say of their addresses.

use std::net::IpAddr;

use super::{Context, Event, Worker};
use crate::counters::WorkerCount;
use crate::neighbour::Lesson;
use crate::next_hops::NextHop;
use crate::{Learned, MacAddr};

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
    /// Takes in what a neighbour says, here and in the other workers.
    pub(super) fn hear(&mut self, context: &mut Context<'_>, heard: &Heard) {
        let learned = Learned {
            port: context.port.index,
            address: heard.address,
            mac: heard.mac,
            overrides: heard.overrides,
        };
        self.routers.heard(NextHop {
            port: learned.port,
            address: learned.address,
        });
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
        if let Lesson::Known {
            named: true,
            moved: Some(from),
            ..
        } = lesson
        {
            self.cells.worker(WorkerCount::NextHopsMoved, 1);
            let due = self.reports.next_hop_moved.pass(context.now);
            let event = Event::NextHopMoved {
                port: learned.port,
                address: learned.address,
                from,
                to: learned.mac,
            };
            self.report_if(due, context.out, event);
        }
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
