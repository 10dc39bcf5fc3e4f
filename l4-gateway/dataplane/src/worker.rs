//! One lcore's forwarder. A burst goes through in stages, so that the cache lines its packets need are loaded side by side
//! instead of one after the other:
//!
//! 1. `classify` each frame: parse, hash, start loading the hash bucket;
//! 2. some frames behind: read each bucket, start loading the flow it points to; read that, start loading what else its packets touch;
//! 3. carry out each frame: [`forward`] a known flow, [`admit`] a new one, answer [`arp`], [`ndp`] and [`icmp`].
//!
//! A burst may mix IPv4 and IPv6: the stages are compiled once for each [`Family`].

mod admit;
mod ahead;
mod announce;
mod arp;
mod attempts;
mod classify;
mod cut;
mod direct;
mod echo;
mod edit;
mod end;
mod flows;
mod forward;
mod fragment;
mod icmp;
mod invariants;
mod ndp;
mod neighbours;
mod pieces;
mod plain;
mod policy;
mod priority;
mod reset;
mod routers;
mod soundness;

use std::sync::Arc;

pub use end::Ended;

use announce::Announcements;
use classify::{Kind, Stage, Staged, is_forwarded};
use routers::Routers;

use crate::counters::{Cells, Counters, WorkerCount};
use crate::emitted::{Emitted, Event, Learned};
use crate::family::{Family, V4, V6};
use crate::flow::{Due, Flow, FlowTable, NONE, Wheel};
use crate::fragments::Fragments;
use crate::frame::{Frame, Verdict};
use crate::limits::{
    LEARNED_PER_SECOND, Limits, MAX_BURST, MOVES_PER_SECOND, RESETS_PER_TICK, visits_per_tick,
};
use crate::neighbour::Neighbours;
use crate::offloads::WrongSums;
use crate::port::{Port, PortIndex};
use crate::ports::PortPool;
use crate::rate::{ErrorRate, Interval, TokenBucket};
use crate::secret::Secret;
use crate::sequence::Sequences;
use crate::sources::Seat;
use crate::steer;
use crate::tables::Tables;
use crate::time::Now;
use crate::wire::tcp;

/// How many frames behind the first stage the second one is.
const LAG: usize = 12;

/// One lcore's forwarder: its flows, local ports, next hops and timers. With the other workers it shares [`Counters`]: each
/// writes its own part of the counts, and all of them what limits and persistence know (`shared_state.rs`).
pub struct Worker {
    index: u16,
    workers: u16,
    secret: Secret,
    cells: Arc<Cells>,
    counters: Arc<Counters>,
    flows: FlowTable,
    /// By flow: its seat in `sources`, for flows that are counted against a limit of their source. Pages that nobody writes cost
    /// nothing.
    seats: Box<[u32]>,
    wheel: Wheel,
    ports: PortPool,
    sequences: Sequences,
    neighbours: Neighbours,
    /// Between epochs of the neighbours: how many flows have forgotten theirs.
    forgotten: usize,
    fragments: Fragments,
    /// Those of a burst.
    stages: Vec<Stage>,
    /// A frame that waited, or is made here; its memory is reused.
    scratch: Vec<u8>,
    /// A piece of a packet that is cut; its memory is reused.
    piece: Vec<u8>,
    /// Where round robin schedulers are, by service.
    cursors: Box<[u32]>,
    icmp_errors: ErrorRate,
    /// Errors of clients that say a packet was too big, to be passed on.
    client_sizes: TokenBucket,
    reports: Reports,
    /// How many [`Event::NextHopMoved`] may still go: all addresses of a host go over together.
    moves: TokenBucket,
    wrong_sums: WrongSums,
    lessons: Lessons,
    /// The snapshot seen last.
    serial: u64,
    announcements: Announcements,
    routers: Routers,
    /// Where the walk is that ends flows of targets to be cut.
    cuts: cut::Walk,
    /// Flows created so far; with the secret, the source of what must not be guessed.
    created: u64,
    /// For comparing `plain.rs` with what it shortens.
    #[cfg(test)]
    takes_short_way: bool,
    #[cfg(test)]
    went_short_way: u64,
}

/// When each kind of event was last reported.
#[derive(Default)]
struct Reports {
    ports_exhausted: Interval,
    flow_table_full: Interval,
    no_target: Interval,
    address_conflict: Interval,
    next_hop_contested: Interval,
    wrong_sums: Interval,
}

/// How many [`Event::Learned`] may still go. Next hops that the snapshot names have an allowance of their own: other workers'
/// traffic hangs on them, so a flood of announcements of anyone else's must not use it up.
struct Lessons {
    named: TokenBucket,
    others: TokenBucket,
}

impl Lessons {
    fn new() -> Self {
        Self {
            named: TokenBucket::new(LEARNED_PER_SECOND),
            others: TokenBucket::new(LEARNED_PER_SECOND),
        }
    }
}

/// What a call works with.
struct Context<'a> {
    tables: &'a Tables,
    now: Now,
    /// The port the frames came in on; any, where none did.
    port: &'a Port,
    /// Its MAC as a number.
    mac: u64,
    /// The tick of `now`.
    tick: u32,
    out: &'a mut Emitted,
    /// Whether frames of other workers may be redirected.
    steer: bool,
}

impl Worker {
    /// Makes worker `index` of `workers` and allocates all it will ever hold. All workers of a process get the same limits,
    /// secret and counters.
    ///
    /// # Panics
    /// If the counters were made for fewer workers.
    #[must_use]
    pub fn new(
        index: u16,
        workers: u16,
        limits: &Limits,
        secret: Secret,
        counters: Arc<Counters>,
    ) -> Self {
        let workers = workers.max(1);
        let cursors = vec![u32::from(index); limits.services as usize];
        Self {
            index,
            workers,
            cells: counters.cells(index),
            counters,
            flows: FlowTable::new(limits.flows, secret.clone()),
            seats: vec![0; limits.flows as usize].into_boxed_slice(),
            wheel: Wheel::new(),
            ports: PortPool::new(index, workers, limits, &secret),
            sequences: Sequences::new(&secret),
            neighbours: Neighbours::new(limits, secret.clone()),
            forgotten: 0,
            fragments: Fragments::new(limits, index, workers, &secret),
            stages: Vec::with_capacity(MAX_BURST),
            scratch: Vec::new(),
            piece: Vec::new(),
            secret,
            // Workers begin at different turns, or the first targets would get each worker's first flow.
            cursors: cursors.into_boxed_slice(),
            icmp_errors: ErrorRate::new(limits.icmp_errors_per_second),
            client_sizes: TokenBucket::new(limits.icmp_errors_per_second),
            reports: Reports::default(),
            moves: TokenBucket::new(MOVES_PER_SECOND),
            wrong_sums: WrongSums::default(),
            lessons: Lessons::new(),
            serial: 0,
            announcements: Announcements::new(),
            routers: Routers::default(),
            cuts: cut::Walk::NONE,
            created: 0,
            #[cfg(test)]
            takes_short_way: true,
            #[cfg(test)]
            went_short_way: 0,
        }
    }

    /// Works on one burst received on `port` and writes one verdict a frame. `verdicts` must be at least as long as `frames`;
    /// frames beyond it are left alone. Frames of the worker's own go to `out`, which is added to, not cleared.
    ///
    /// With [`Verdict::Redirect`] and [`Verdict::Kernel`] a frame's bytes are as they came, but that a priority tag is off; with any other
    /// verdict they may have been changed.
    pub fn burst<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        frames: &mut [F],
        verdicts: &mut [Verdict],
        out: &mut Emitted,
    ) {
        self.cells
            .worker(WorkerCount::FramesIn, frames.len() as u64);
        self.run(tables, now, port, frames, verdicts, out, self.workers > 1);
    }

    /// Like [`Worker::burst`] for frames another worker answered [`Verdict::Redirect`] for; `port` is where they came in. They
    /// are never redirected again.
    pub fn handed_over<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        frames: &mut [F],
        verdicts: &mut [Verdict],
        out: &mut Emitted,
    ) {
        self.cells
            .worker(WorkerCount::FramesHandedOver, frames.len() as u64);
        self.run(tables, now, port, frames, verdicts, out, false);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two entry points differ by one argument"
    )]
    fn run<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        frames: &mut [F],
        verdicts: &mut [Verdict],
        out: &mut Emitted,
        steer: bool,
    ) {
        self.follow(tables, now);
        let Some(port) = tables.port(port) else {
            // A port that left the configuration: nothing on it is ours.
            for verdict in verdicts.iter_mut().take(frames.len()) {
                *verdict = self.count(Verdict::Kernel);
            }
            return;
        };
        let mut context = Context {
            tables,
            now,
            tick: now.tick(),
            port,
            mac: port.mac.number(),
            out,
            steer,
        };
        for (frames, verdicts) in frames
            .chunks_mut(MAX_BURST)
            .zip(verdicts.chunks_mut(MAX_BURST))
        {
            self.chunk(&mut context, frames, verdicts);
        }
    }

    /// The three stages over at most [`MAX_BURST`] frames.
    fn chunk<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frames: &mut [F],
        verdicts: &mut [Verdict],
    ) {
        // Their memory is reused: to fill it anew for each burst would take longer than a packet.
        let mut stages = std::mem::take(&mut self.stages);
        stages.resize(MAX_BURST, Stage::NOTHING);
        let flags = self.look(context, frames, &mut stages);
        if flags & (tcp::SYN | tcp::FIN) != 0 {
            for stage in stages.iter().take(frames.len()) {
                self.look_further(stage);
            }
        }
        if context.tables.has_many_targets() {
            for stage in stages.iter().take(frames.len()) {
                if let Some((service, target)) = self.flows.ends(stage.candidate) {
                    self.cells.prefetch(service, target);
                }
            }
        }
        let mut transmitted = 0;
        for ((stage, frame), verdict) in stages.iter().zip(frames).zip(verdicts) {
            if stage.is_plain
                && let Some(port) = self.pass(context, frame, stage)
            {
                *verdict = Verdict::Transmit(port);
                transmitted += 1;
                continue;
            }
            *verdict = self.carry_out(context, frame, stage);
            match verdict {
                Verdict::Transmit(_) => transmitted += 1,
                verdict => {
                    self.count(*verdict);
                }
            }
        }
        self.cells.worker(WorkerCount::Transmitted, transmitted);
        self.stages = stages;
    }

    /// The third stage of one frame that doesn't go the short way of `plain.rs`.
    #[inline(always)]
    fn carry_out<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
    ) -> Verdict {
        match stage.kind {
            Kind::Transport if stage.is_v6 => self.transport::<V6, F>(context, frame, stage),
            Kind::Transport => self.transport::<V4, F>(context, frame, stage),
            Kind::Settled(verdict) => verdict,
            _ => self.apart(context, frame, stage),
        }
    }

    /// The first two stages, the second [`LAG`] frames behind the first; the flags that any frame has.
    ///
    /// One load that is asked for between other work costs little; many at a time wait for one another, as each needs its address translated.
    #[inline(always)]
    fn look<F: Frame>(&self, context: &Context<'_>, frames: &[F], stages: &mut [Stage]) -> u8 {
        let mut flags = 0;
        for index in 0..frames.len() + LAG {
            if let (Some(frame), Some(stage)) = (frames.get(index), stages.get_mut(index)) {
                self.classify(context, frame.bytes(), stage);
                flags |= stage.flags;
                // Of the few frames that no flow is looked up for too: to ask which they are would cost all the others more.
                self.flows.prefetch_bucket(stage.hash);
            }
            if let Some(before) = index.checked_sub(LAG)
                && let Some(stage) = stages.get_mut(before)
            {
                stage.candidate = self.flows.prefetch_entry(stage.hash, stage.is_v6);
            }
        }
        flags
    }

    /// Starts loading what the first and the last packets of a connection touch beyond their flow. Not of SYN-ACKs and a target's FINs, which
    /// touch no more.
    #[inline]
    fn look_further(&self, stage: &Stage) {
        let is_syn = stage.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if (is_syn || stage.flags & tcp::FIN != 0)
            && let Some(hash) = self.flows.hash_of_answers(stage.candidate)
        {
            if is_syn {
                // The flow may be about to make room for another.
                self.flows.prefetch_bucket(hash);
            } else if hash != stage.hash {
                self.sequences.prefetch(hash);
            }
        }
    }

    /// The third stage of everything that is rare beside whole transport packets.
    #[cold]
    #[inline(never)]
    fn apart<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
    ) -> Verdict {
        match stage.kind {
            Kind::Fragment if stage.is_v6 => self.fragment::<V6, F>(context, frame),
            Kind::Fragment => self.fragment::<V4, F>(context, frame),
            Kind::Icmp if stage.is_v6 => {
                let staged = stage.of::<V6>(frame.bytes());
                self.icmp(context, frame, &staged)
            }
            Kind::Icmp => {
                let staged = stage.of::<V4>(frame.bytes());
                self.icmp(context, frame, &staged)
            }
            Kind::Neighbour => {
                let staged = stage.of(frame.bytes());
                self.ndp(context, frame.bytes(), &staged)
            }
            Kind::Arp => self.arp(context, frame.bytes_mut()),
            Kind::Multicast => self.multicast(context, frame.bytes()),
            Kind::PriorityTagged => self.priority_tagged(context, frame),
            Kind::Transport => Verdict::Kernel,
            Kind::Settled(verdict) => verdict,
        }
    }

    /// The third stage of one transport packet.
    #[inline(never)]
    fn transport<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
    ) -> Verdict {
        let tuple = stage.tuple::<V>(frame.bytes());
        match self.flows.find(stage.hash, stage.candidate, &tuple) {
            Some((number, side)) => self.forward::<V, F>(context, frame, stage, number, side),
            None => match self.elsewhere(context, &stage.of::<V>(frame.bytes())) {
                Some(owner) => Verdict::Redirect(owner),
                None => self.admit::<V, F>(context, frame, stage, None),
            },
        }
    }

    /// The worker that may know the flow of a packet of which this one knows none.
    #[inline]
    fn elsewhere<V: Family>(&self, context: &Context<'_>, staged: &Staged<V>) -> Option<u16> {
        if !context.steer {
            return None;
        }
        let owner = steer::owner(context.tables, &staged.tuple, staged.hash, self.workers);
        (owner != self.index && is_forwarded::<V>(context, staged.tuple.destination))
            .then_some(owner)
    }

    fn count(&self, verdict: Verdict) -> Verdict {
        let count = match verdict {
            Verdict::Transmit(_) => WorkerCount::Transmitted,
            Verdict::Redirect(_) => WorkerCount::Redirected,
            Verdict::Kernel => WorkerCount::Kernel,
            Verdict::Held => WorkerCount::Held,
            Verdict::Consumed => WorkerCount::Consumed,
            Verdict::Drop(reason) => {
                self.cells.dropped(reason);
                WorkerCount::Dropped
            }
        };
        self.cells.worker(count, 1);
        verdict
    }

    /// Notices a new snapshot.
    fn follow(&mut self, tables: &Tables, now: Now) {
        if self.serial != tables.serial() {
            self.serial = tables.serial();
            self.routers.follow(tables, now, self.index == 0);
            self.neighbours.follow(tables, now, &self.cells);
            self.follow_cuts(tables);
            // One worker does it for all.
            if self.index == 0 {
                self.announcements.follow(tables, now);
            }
        }
    }

    /// Takes over what another worker learned ([`Event::Learned`]); frames that waited for it go to `out`.
    pub fn learn(&mut self, now: Now, learned: Learned, out: &mut Emitted) {
        self.take_in(now, learned, out);
    }

    /// Runs the timers: flows that expired go, next hops are refreshed or asked for again. Call it about every millisecond;
    /// the work of one call is bounded, what is left is done by the next.
    pub fn tick(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        self.follow(tables, now);
        let visits = visits_per_tick(self.flows.capacity() as u32);
        let (mut budget, mut resets) = (visits as usize, RESETS_PER_TICK);
        while resets > 0
            && let Some(due) = self
                .wheel
                .next_due(&mut self.flows, now.tick(), &mut budget)
        {
            match due {
                Due::Expired(number) => {
                    if self.resets_on_expiry(tables, number) {
                        resets -= 1;
                        self.reset_both_ends(tables, now, out, number);
                    }
                    self.cells.worker(WorkerCount::FlowsExpired, 1);
                    self.note_unanswered(number);
                    self.end_flow(tables, now, number);
                    self.flows.free(number);
                }
                Due::Removed(number) => self.flows.free(number),
                Due::Persists(number) => self.persist(tables, now, number),
            }
        }
        self.cut(tables, now, out);
        self.announce(tables, now, out);
        self.watch_routers(tables, now, out);
        self.neighbours.tick(tables, now, out, &self.cells);
        self.tell_settled(now, out);
        self.fragments.tick(now, &self.cells);
        if self.neighbours.is_between_epochs() {
            self.forget_old_hops();
        }
    }

    /// Where the epochs of next hops have run out: makes some flows forget theirs, and begins the epochs anew when all have.
    #[cold]
    fn forget_old_hops(&mut self) {
        let count = visits_per_tick(self.flows.capacity() as u32) as usize;
        if self.flows.forget_hops(self.forgotten, count) {
            self.forgotten += count;
        } else {
            self.forgotten = 0;
            self.neighbours.begin_epochs();
        }
    }

    /// Ends a flow that has come to its end; its source stays with its target from now on for as long as persistence says.
    fn end_flow(&mut self, tables: &Tables, now: Now, number: u32) {
        if self.flows.get(number).is_persistent() {
            self.persist(tables, now, number);
        }
        self.forget_flow(number);
    }

    /// Takes a flow out of the table; its port is free, its entry is when the wheel passes.
    fn forget_flow(&mut self, number: u32) {
        let flow = self.flows.get(number);
        let (service, seated) = (flow.service(), flow.is_seated());
        let (target_id, local) = (flow.target_id, flow.local_ip());
        let is_established = flow.is_established();
        if seated {
            self.give_seat_back(number);
        }
        self.flows.remove(number);
        if let Some(local) = local {
            self.ports.release(target_id, local);
        }
        if is_established {
            self.cells.flow_established(service, target_id, false);
        }
        self.cells.flow_ended(service, target_id, local);
    }

    /// Notes where a flow is counted for its source.
    fn take_seat(&mut self, number: u32, Seat(seat): Seat) {
        if let Some(place) = self.seats.get_mut(number as usize) {
            *place = seat;
            let flow = self.flows.get_mut(number);
            *flow = flow.seated();
        }
    }

    #[cold]
    fn give_seat_back(&mut self, number: u32) {
        if let Some(seat) = self.seats.get(number as usize) {
            self.counters.shared().sources.leave(Seat(*seat));
        }
    }

    /// Reports an event if one of its kind is due, or counts why not: it came too soon after others, or there was no room.
    fn report_if(&self, due: bool, out: &mut Emitted, event: Event) {
        if !due {
            self.cells.worker(WorkerCount::EventsSuppressed, 1);
        } else if !out.event(event) {
            self.cells.worker(WorkerCount::EmittedOverflow, 1);
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}
