//! A worker: the loop that one lcore turns, run to completion.
//!
//! ```text
//!   every round: each port's queue ──▶ burst ──┬─▶ Transmit ──▶ port           ─┐
//!                other workers' ring ─▶ handed_over ├─▶ Redirect ──▶ other worker's ring ├─ at the end of the round
//!                exception port ───────────────┼─▶ the port                     │
//!                tick, events, questions       └─▶ Kernel ──▶ exception port   ─┘
//! ```
//!
//! It reads one immutable [`Tables`] snapshot, swapped whole by the control side, and waits for nobody.

mod ending;
mod inquiry;
mod lane;
mod poll;
mod state;
mod vlan;
mod walks;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use dataplane::{DropReason, Emitted, Event, Learned, MAX_BURST, Now, Tables, Verdict};
use tokio::sync::mpsc;

use crate::capture::Tap;
use crate::dpdk::{Mbuf, Pool, RingReceiver, RingSender, Tsc};

pub use ending::Ending;
pub use inquiry::{Announced, Found, Inquiry, Question};
pub(crate) use lane::WAITING as LANE_WAITING;
pub use lane::{Exception, Lane, Transmit};
pub use poll::Poll;
pub use state::{LoopCount, Times, WorkerState};
pub use vlan::Vlan;

use poll::Naps;
use walks::Walks;

/// Between two ticks of the data plane, in nanoseconds, where no sleep makes it longer ([`Poll::longest_tick`]).
const TICK: u64 = 1_000_000;

/// Something a worker tells the control side.
#[derive(Debug, Clone, Copy)]
pub struct News {
    /// Whose news.
    pub worker: u16,
    /// What happened.
    pub event: Event,
}

/// What a worker is made of. All of it is its own but for what is shared by design.
pub struct WorkerParts {
    /// The worker's number, from 0.
    pub index: u16,
    /// The forwarder.
    pub dataplane: dataplane::Worker,
    /// Its share of each port; the place is the [`dataplane::PortIndex`].
    pub lanes: Vec<Lane>,
    /// Frames that others redirected here.
    pub inbox: RingReceiver,
    /// The inboxes of all workers, by number.
    pub outboxes: Vec<RingSender>,
    /// What others learned.
    pub lessons: Receiver<Learned>,
    /// The other workers' `lessons`.
    pub peers: Vec<SyncSender<Learned>>,
    /// Where the control side hears of events.
    pub news: mpsc::Sender<News>,
    /// Questions of the control side.
    pub inquiries: Receiver<Question>,
    /// Buffers for frames made here.
    pub pool: Pool,
    /// The clock.
    pub tsc: Tsc,
    /// The snapshot in force.
    pub tables: Arc<ArcSwap<Tables>>,
    /// What others see of this worker.
    pub state: Arc<WorkerState>,
    /// How it waits for frames.
    pub poll: Poll,
}

/// Turns the loop until [`WorkerState::stop`].
pub fn run(parts: WorkerParts) {
    let WorkerParts {
        dataplane,
        lanes,
        inbox,
        outboxes,
        lessons,
        peers,
        news,
        inquiries,
        pool,
        tsc,
        tables,
        state,
        poll,
        index,
    } = parts;
    let mut tables = Cache::new(tables);
    let mut naps = Naps::new(poll);
    let frames = Vec::with_capacity(MAX_BURST);
    let mut round = Round {
        redirects: outboxes
            .iter()
            .map(|_| Vec::with_capacity(MAX_BURST * lanes.len()))
            .collect(),
        verdicts: vec![Verdict::Drop(DropReason::Truncated); frames.capacity()],
        frames,
        emitted: Emitted::new(),
        index,
        dataplane,
        lanes,
        inbox,
        outboxes,
        peers,
        news,
        pool,
        state: state.clone(),
        tap: None,
    };
    let mut walks = Walks::default();
    let mut started = tsc.now();
    let mut next_tick = started.0;
    while !state.stopping() {
        // The kernel may move an unpinned worker to a CPU whose counter is a little behind, here and in `rest`.
        let now = tsc.now().max(started);
        let snapshot = tables.load();
        let mut worked = round.receive(snapshot, now);
        worked |= round.take_over(snapshot, now);
        worked |= round.take_from_kernel();
        if now.0 >= next_tick {
            next_tick = now.0 + TICK;
            round.tick(snapshot, now, &lessons);
            round.walk(&mut walks, snapshot, now);
            if walks.have_room() {
                match inquiries.try_recv() {
                    Ok(Question::Flows(inquiry)) => walks.search(inquiry),
                    Ok(Question::End(ending)) => walks.end(ending),
                    Ok(Question::Neighbours(reply)) => walks.list_neighbours(reply),
                    Ok(Question::Announce(addresses, reply)) => {
                        let announced = round.dataplane.announce_again(now, addresses.as_deref());
                        // Who asked may have given up this moment; that is theirs to know.
                        let _ = reply.send(announced);
                    }
                    Ok(Question::Capture(tap)) => {
                        tap.begin();
                        round.tap = Some(tap);
                    }
                    Err(_) => {}
                }
            }
        }
        round.flush();
        state.beat();
        state.spent(worked, now.0.saturating_sub(started.0));
        started = now;
        if let Some(sleep) = naps.after_round(worked) {
            started = rest(&state, || tsc.now(), started, sleep);
        }
    }
}

/// The place of the port by which a frame came in. Ports never change, so it is there.
fn lane_of(lanes: &[Lane], dpdk_port: u16) -> usize {
    lanes
        .iter()
        .position(|lane| lane.dpdk_port == dpdk_port)
        .unwrap_or_default()
}

/// Sleeps; `clock` may have stepped back since `started`, and does so meanwhile, but the time that is returned never does.
fn rest(state: &WorkerState, clock: impl Fn() -> Now, started: Now, sleep: Duration) -> Now {
    let before = clock().max(started);
    std::thread::sleep(sleep);
    let after = clock().max(before);
    state.slept(after.0 - before.0);
    after
}

/// The worker's things in the shape of the loop.
struct Round {
    index: u16,
    dataplane: dataplane::Worker,
    lanes: Vec<Lane>,
    inbox: RingReceiver,
    outboxes: Vec<RingSender>,
    peers: Vec<SyncSender<Learned>>,
    news: mpsc::Sender<News>,
    pool: Pool,
    state: Arc<WorkerState>,
    /// Frames for other workers, by worker.
    redirects: Vec<Vec<Mbuf>>,
    /// The burst being worked on; empty between bursts.
    frames: Vec<Mbuf>,
    verdicts: Vec<Verdict>,
    emitted: Emitted,
    /// A capture that runs.
    tap: Option<Box<Tap>>,
}

impl Round {
    /// One burst from each port.
    #[inline]
    fn receive(&mut self, tables: &Tables, now: Now) -> bool {
        let mut worked = false;
        for lane in 0..self.lanes.len() {
            let Lane {
                receive: Some(queue),
                port,
                vlan,
                ..
            } = &mut self.lanes[lane]
            else {
                continue;
            };
            let (port, vlan) = (*port, *vlan);
            let refused = queue.unreadable();
            let received = queue.receive(&mut self.frames);
            self.state
                .add(LoopCount::Unreadable, queue.unreadable() - refused);
            if received == 0 {
                continue;
            }
            worked = true;
            if let Some(vlan) = vlan {
                let others = vlan.take_off(&mut self.frames);
                self.state.add(LoopCount::OtherVlan, others);
            }
            if let Some(tap) = &mut self.tap {
                tap.before(now, &self.frames);
            }
            self.dataplane.burst(
                tables,
                now,
                port,
                &mut self.frames,
                &mut self.verdicts,
                &mut self.emitted,
            );
            if let Some(tap) = &mut self.tap {
                tap.after(port, &self.frames, &self.verdicts);
            }
            self.carry_out();
            self.say();
        }
        worked
    }

    /// What other workers redirected here, port by port.
    #[inline]
    fn take_over(&mut self, tables: &Tables, now: Now) -> bool {
        if self.inbox.receive(&mut self.frames) == 0 {
            return false;
        }
        let mut left = 0;
        while left < self.frames.len() {
            let dpdk_port = self.frames[left].port();
            let same = self.frames[left..]
                .iter()
                .take_while(|frame| frame.port() == dpdk_port)
                .count();
            let run = left..left + same;
            let port = self.lanes[lane_of(&self.lanes, dpdk_port)].port;
            let frames = &mut self.frames[run.clone()];
            let verdicts = &mut self.verdicts[run];
            if let Some(tap) = &mut self.tap {
                tap.before(now, frames);
            }
            self.dataplane
                .handed_over(tables, now, port, frames, verdicts, &mut self.emitted);
            if let Some(tap) = &mut self.tap {
                tap.after(port, frames, verdicts);
            }
            left += same;
        }
        self.carry_out();
        self.say();
        true
    }

    /// Frames of the kernel behind a port leave by the port as they are.
    #[inline]
    fn take_from_kernel(&mut self) -> bool {
        let mut worked = false;
        for lane in &mut self.lanes {
            let Some(queue) = lane
                .exception
                .as_mut()
                .and_then(|exception| exception.receive.as_mut())
            else {
                continue;
            };
            let received = queue.receive(&mut self.frames);
            if received > 0 {
                worked = true;
                self.state.add(LoopCount::FromKernel, received as u64);
                for frame in self.frames.drain(..) {
                    let room = lane.transmit.push(frame);
                    self.state.add(LoopCount::TransmitFull, u64::from(!room));
                }
            }
        }
        worked
    }

    /// Does what the verdicts say about the burst.
    #[inline]
    fn carry_out(&mut self) {
        if self.sends_all() {
            return;
        }
        let (mut full, mut to_kernel, mut left) = (0, 0, 0);
        for (frame, verdict) in self.frames.drain(..).zip(&self.verdicts) {
            match *verdict {
                Verdict::Transmit(port) => match self.lanes.get_mut(usize::from(port.0)) {
                    Some(lane) => full += u64::from(!lane.transmit.push(frame)),
                    None => debug_assert!(false, "verdict names {port:?}, which does not exist"),
                },
                Verdict::Redirect(worker) => match self.redirects.get_mut(usize::from(worker)) {
                    Some(redirects) => redirects.push(frame),
                    None => {
                        debug_assert!(false, "verdict names worker {worker}, which does not exist")
                    }
                },
                Verdict::Kernel => {
                    let lane = lane_of(&self.lanes, frame.port());
                    match &mut self.lanes[lane].exception {
                        Some(exception) => {
                            to_kernel += 1;
                            full += u64::from(!exception.transmit.push(frame));
                        }
                        None => left += 1,
                    }
                }
                Verdict::Drop(_) | Verdict::Held | Verdict::Consumed => {}
            }
        }
        self.state.add(LoopCount::TransmitFull, full);
        self.state.add(LoopCount::ToKernel, to_kernel);
        self.state.add(LoopCount::LeftToKernel, left);
    }

    /// Sends the burst on as a whole if every verdict is to transmit by one port, which is what most bursts get.
    #[inline]
    fn sends_all(&mut self) -> bool {
        let verdicts = self.verdicts.get(..self.frames.len()).unwrap_or(&[]);
        let Some(first @ Verdict::Transmit(port)) = verdicts.first() else {
            return false;
        };
        verdicts.iter().all(|verdict| verdict == first)
            && self
                .lanes
                .get_mut(usize::from(port.0))
                .is_some_and(|lane| lane.transmit.push_all(&mut self.frames))
    }

    /// Timers, and what others learned.
    fn tick(&mut self, tables: &Tables, now: Now, lessons: &Receiver<Learned>) {
        if let Some(tap) = &mut self.tap {
            tap.turn(now);
        }
        if self.tap.as_ref().is_some_and(|tap| tap.is_over()) {
            self.tap = None;
        }
        for learned in lessons.try_iter().take(MAX_BURST) {
            self.dataplane.learn(now, learned, &mut self.emitted);
        }
        self.dataplane.tick(tables, now, &mut self.emitted);
        self.say();
    }

    /// Goes on with the walks through the flows.
    fn walk(&mut self, walks: &mut Walks, tables: &Tables, now: Now) {
        walks.step(&mut self.dataplane, tables, now, &mut self.emitted);
        self.say();
    }

    /// Sends the data plane's own frames, hands others over, and passes its events on.
    #[inline]
    fn say(&mut self) {
        if self.emitted.is_empty() {
            return;
        }
        if let Some(tap) = &mut self.tap {
            tap.made(self.emitted.frames());
        }
        for (port, bytes) in self.emitted.frames() {
            let frame = self
                .pool
                .allocate()
                .and_then(|mut frame| frame.fill(bytes).then_some(frame));
            let lane = self.lanes.get_mut(usize::from(port.0));
            match (frame, lane) {
                (Some(frame), Some(lane)) => {
                    let room = lane.transmit.push(frame);
                    self.state.add(LoopCount::TransmitFull, u64::from(!room));
                }
                _ => self.state.add(LoopCount::NoBuffer, 1),
            }
        }
        for (worker, port, bytes) in self.emitted.handovers() {
            let frame = self
                .pool
                .allocate()
                .and_then(|mut frame| frame.fill(bytes).then_some(frame));
            let lane = self.lanes.get(usize::from(port.0));
            let redirects = self.redirects.get_mut(usize::from(worker));
            match (frame, lane, redirects) {
                (Some(mut frame), Some(lane), Some(redirects)) => {
                    frame.set_port(lane.dpdk_port);
                    redirects.push(frame);
                }
                _ => self.state.add(LoopCount::NoBuffer, 1),
            }
        }
        for event in self.emitted.events() {
            let told = match *event {
                Event::Learned(learned) => {
                    let untold = |peer: &&SyncSender<_>| peer.try_send(learned).is_err();
                    self.peers.iter().filter(untold).count() == 0
                }
                event => self
                    .news
                    .try_send(News {
                        worker: self.index,
                        event,
                    })
                    .is_ok(),
            };
            self.state.add(LoopCount::EventsLost, u64::from(!told));
        }
        self.emitted.clear();
    }

    /// Sends what the round collected.
    #[inline]
    fn flush(&mut self) {
        for lane in &mut self.lanes {
            let (sent, dropped) = lane.transmit.flush();
            self.state.add(LoopCount::Transmitted, sent);
            self.state.add(LoopCount::TransmitFull, dropped);
            if let Some(exception) = &mut lane.exception {
                let (_, dropped) = exception.transmit.flush();
                self.state.add(LoopCount::TransmitFull, dropped);
            }
        }
        for (outbox, frames) in self.outboxes.iter().zip(&mut self.redirects) {
            if !frames.is_empty() {
                outbox.send(frames);
                self.state.add(LoopCount::RedirectFull, frames.len() as u64);
                frames.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_worker_woken_on_a_cpu_whose_clock_is_behind_does_not_go_back_in_time() {
        let state = WorkerState::default();
        for (started, clock, woken, asleep) in [
            (100, [110, 150], 150, 40),
            (100, [110, 90], 110, 40),
            (100, [80, 90], 100, 40),
            (100, [80, 130], 130, 70),
        ] {
            let times = RefCell::new(clock.into_iter());
            let clock = || Now(times.borrow_mut().next().unwrap());
            assert_eq!(
                rest(&state, clock, Now(started), Duration::ZERO),
                Now(woken)
            );
            assert_eq!(state.times().asleep, asleep, "in all");
        }
    }
}
