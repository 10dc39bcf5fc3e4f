//! Several workers in a test, and NICs in front of them.

use std::sync::Arc;

use dataplane::{Counters, Event, Limits, PortIndex, Spread, TablesBuilder, Verdict};

use super::net::Net;
use super::nic::Nic;
use super::rig::{self, INSIDE, OUTSIDE, Rig};

/// Workers with hand-over between them, and events passed on.
pub struct Node {
    pub rigs: Vec<Rig>,
    /// Where frames arrive: any queue must do.
    nic: Nic,
}

impl Node {
    /// A node whose NICs say nothing of what they do: frames arrive on all queues by turns.
    pub fn new(net: Net, workers: u16, limits: &Limits) -> Self {
        Self::behind(net, Nic::Turns(0), None, workers, limits)
    }

    /// A node behind NICs of which `spread` is said.
    pub fn behind(
        net: Net,
        nic: Nic,
        spread: Option<Spread>,
        workers: u16,
        limits: &Limits,
    ) -> Self {
        let mut builder = rig::builder(&net.ports(), &net.services());
        for port in [OUTSIDE, INSIDE] {
            builder.spread(port, spread.clone().unwrap_or_default());
        }
        Self::made_of(net, &builder, nic, workers, limits)
    }

    pub fn made_of(
        net: Net,
        builder: &TablesBuilder,
        nic: Nic,
        workers: u16,
        limits: &Limits,
    ) -> Self {
        let counters = Arc::new(Counters::new(workers, limits));
        let rigs = (0..workers)
            .map(|index| Rig::sharing(limits, builder, index, &counters).speaking(net))
            .collect();
        let mut node = Self { rigs, nic };
        for rig in &mut node.rigs[1..] {
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            rig.out.clear();
        }
        // All answers arrive at the first worker; the others hear of them.
        node.rigs[0].refresh();
        node.pass_events_on();
        node
    }

    pub fn reload(&mut self, builder: &TablesBuilder) {
        for rig in &mut self.rigs {
            rig.tables = builder.build(&mut rig.ids, Some(&rig.tables)).unwrap();
        }
    }

    /// Frames that were handed over so far, of all.
    pub fn redirected(&self) -> (u64, u64) {
        let counters = &self.rigs[0].counters;
        let of = |index| counters.worker(index as u16);
        (0..self.rigs.len()).fold((0, 0), |(redirected, frames), index| {
            (
                redirected + of(index).redirected,
                frames + of(index).frames_in,
            )
        })
    }

    pub fn pass_events_on(&mut self) {
        let events: Vec<Event> = self.rigs.iter_mut().flat_map(|rig| rig.events()).collect();
        for rig in &mut self.rigs {
            rig.out.clear();
            for event in &events {
                if let Event::Learned(learned) = event {
                    rig.worker.learn(rig.now, *learned, &mut rig.out);
                }
            }
        }
    }

    /// A frame in on some queue; who worked on it, where it went and as what.
    pub fn send(&mut self, port: PortIndex, frame: Vec<u8>) -> (usize, Verdict, Vec<u8>) {
        let queue = self.nic.queue(&frame, self.rigs.len());
        let before = frame.clone();
        let (verdict, frame) = self.rigs[queue].try_send(port, frame);
        let Verdict::Redirect(owner) = verdict else {
            return (queue, verdict, frame);
        };
        assert_eq!(frame, before, "a redirected frame is untouched");
        assert_ne!(usize::from(owner), queue);
        let rig = &mut self.rigs[usize::from(owner)];
        let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
        rig.worker.handed_over(
            &rig.tables,
            rig.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut rig.out,
        );
        rig.worker.check_invariants();
        let [frame] = frames;
        assert!(
            !matches!(verdicts[0], Verdict::Redirect(_)),
            "a frame is redirected once"
        );
        (usize::from(owner), verdicts[0], frame)
    }
}
