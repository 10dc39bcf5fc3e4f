//! What ARP and neighbour discovery share: taking in what others say of their addresses.

use std::net::IpAddr;

use super::{Context, Event, Worker};
use crate::counters::WorkerCount;
use crate::neighbour::Lesson;
use crate::next_hops::NextHop;
use crate::{Emitted, Learned, MacAddr, Now, Weight};

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
        let hop = NextHop {
            port: context.port.index,
            address: heard.address,
        };
        let weight = match heard.overrides {
            false => Weight::Hint,
            true if self.routers.is_silent(hop) => Weight::Settled,
            true => Weight::Claim,
        };
        let learned = Learned {
            port: hop.port,
            address: hop.address,
            mac: heard.mac,
            weight,
        };
        let lesson = self.take_in(context.now, learned, context.out);
        let is_named = match lesson {
            // It may be known to another worker, if it answers or announces itself; hosts that only ask are many.
            Lesson::Unknown if heard.answers_us || heard.announces => false,
            // Another worker may have asked.
            Lesson::Believed { named, news, .. } if heard.answers_us || news => named,
            Lesson::Unknown | Lesson::Disbelieved | Lesson::Believed { .. } => return,
        };
        if let Lesson::Believed {
            named: true,
            moved: Some(from),
            ..
        } = lesson
        {
            self.report_moved(context.now, learned, from, context.out);
        }
        self.tell(context.now, learned, is_named, context.out);
    }

    /// Takes in what is said of a neighbour, whoever heard it.
    pub(super) fn take_in(&mut self, now: Now, learned: Learned, out: &mut Emitted) -> Lesson {
        let lesson = self.neighbours.learn(now, learned, out, &self.cells);
        if lesson != Lesson::Disbelieved {
            let hop = NextHop {
                port: learned.port,
                address: learned.address,
            };
            self.routers.heard(hop, now);
        }
        if let Lesson::Believed {
            named: true,
            kept_against: Some(other),
            ..
        } = lesson
        {
            self.cells.worker(WorkerCount::NextHopsContested, 1);
            let due = self.reports.next_hop_contested.pass(now);
            let event = Event::NextHopContested {
                port: learned.port,
                address: learned.address,
                mac: learned.mac,
                other,
            };
            self.report_if(due, out, event);
        }
        lesson
    }

    /// Reports the neighbours that went over to another MAC because theirs no longer answered.
    pub(super) fn tell_settled(&mut self, now: Now, out: &mut Emitted) {
        while let Some(settled) = self.neighbours.settled() {
            if settled.named {
                self.report_moved(now, settled.learned, settled.from, out);
            }
            self.tell(now, settled.learned, settled.named, out);
        }
    }

    fn report_moved(&mut self, now: Now, to: Learned, from: MacAddr, out: &mut Emitted) {
        self.cells.worker(WorkerCount::NextHopsMoved, 1);
        let due = self.moves.take(now);
        let event = Event::NextHopMoved {
            port: to.port,
            address: to.address,
            from,
            to: to.mac,
        };
        self.report_if(due, out, event);
    }

    /// Tells the other workers, within what they are told of at most.
    fn tell(&mut self, now: Now, learned: Learned, is_named: bool, out: &mut Emitted) {
        if self.workers == 1 {
            return;
        }
        let allowance = match is_named {
            true => &mut self.lessons.named,
            false => &mut self.lessons.others,
        };
        let due = allowance.take(now);
        self.report_if(due, out, Event::Learned(learned));
    }
}
