//! The node: workers side by side, rings between them, and a NIC that gives each frame to one of them.
//!
//! A worker has its turn now and then: it takes what others handed over or have learned, goes over to the newest snapshot when it gets
//! round to it, and runs its timers. So two workers may be a snapshot apart, as in life.

use std::collections::VecDeque;
use std::sync::Arc;

use dataplane::{
    Counters, Cut, Emitted, Event, FlowView, Ids, Learned, Limits, Now, PortIndex, Secret, Tables,
    TablesBuilder, TablesError, Verdict, Worker,
};

use super::world::SECOND;
use crate::nic::Nic;

/// Frames a ring between workers holds.
const RING: usize = 32;

pub struct Node {
    pub now: Now,
    pub ids: Ids,
    pub counters: Arc<Counters>,
    pub lanes: Vec<Lane>,
    pub limits: Limits,
    pub newest: Arc<Snapshot>,
    nic: Nic,
    /// What was sent and not yet put on the wire.
    pub sent: Vec<(PortIndex, Vec<u8>)>,
}

/// What workers forward by.
pub struct Snapshot {
    pub tables: Tables,
    /// What it cuts beside targets.
    cuts: Vec<Cut>,
}

impl Snapshot {
    /// Whether a flow has had its time.
    pub fn is_cut(&self, flow: &FlowView) -> bool {
        let target = self.tables.target(flow.target_id);
        let cut = |cut: &Cut| match *cut {
            Cut::Service(vip, protocol, ports) => {
                (flow.vip.ip(), flow.protocol) == (vip, protocol) && ports.contains(flow.vip.port())
            }
            Cut::LocalIp(address) => flow.local.is_some_and(|local| local.ip() == address),
        };
        target.is_some_and(|target| target.config.cut) || self.cuts.iter().any(cut)
    }
}

/// One worker and what is its own.
pub struct Lane {
    pub worker: Worker,
    pub snapshot: Arc<Snapshot>,
    /// Where each frame came in, and how often it was handed over.
    ring: VecDeque<(PortIndex, Vec<u8>, u8)>,
    lessons: VecDeque<Learned>,
    out: Emitted,
}

impl Node {
    pub fn new(
        workers: u16,
        limits: &Limits,
        nic: Nic,
        described: (TablesBuilder, Vec<Cut>),
    ) -> Self {
        let counters = Arc::new(Counters::new(workers, limits));
        let mut ids = Ids::new(limits);
        let (builder, cuts) = described;
        let tables = builder.build(&mut ids, None).expect("a snapshot");
        let newest = Arc::new(Snapshot { tables, cuts });
        let lane = |index| Lane {
            worker: Worker::new(
                index,
                workers,
                limits,
                Secret::new([7; 32]),
                Arc::clone(&counters),
            ),
            snapshot: Arc::clone(&newest),
            ring: VecDeque::new(),
            lessons: VecDeque::new(),
            out: Emitted::new(),
        };
        Self {
            now: Now(SECOND),
            ids,
            lanes: (0..workers).map(lane).collect(),
            limits: limits.clone(),
            counters,
            newest,
            nic,
            sent: Vec::new(),
        }
    }

    /// Swaps the snapshot; the workers follow when they get round to it. False if there is no room for all its names, and the one
    /// before stays.
    pub fn reload(&mut self, (builder, cuts): (TablesBuilder, Vec<Cut>)) -> bool {
        if self.is_up_to_date() {
            self.ids.reclaim(&self.newest.tables, &self.counters);
        }
        match builder.build(&mut self.ids, Some(&self.newest.tables)) {
            Ok(tables) => self.newest = Arc::new(Snapshot { tables, cuts }),
            Err(TablesError::LimitReached(_)) => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn is_up_to_date(&self) -> bool {
        let newest = &self.newest;
        self.lanes
            .iter()
            .all(|lane| Arc::ptr_eq(&lane.snapshot, newest))
    }

    /// A frame arrives at some queue: which worker looked at it first. `follows`: it notices the newest snapshot with it.
    pub fn receive(&mut self, port: PortIndex, frame: Vec<u8>, follows: bool) -> (usize, Verdict) {
        let queue = if has_ports(&frame) {
            self.nic.queue(&frame, self.lanes.len())
        } else {
            0
        };
        let lane = &mut self.lanes[queue];
        if follows {
            lane.snapshot = Arc::clone(&self.newest);
        }
        let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
        lane.worker.burst(
            &lane.snapshot.tables,
            self.now,
            port,
            &mut frames,
            &mut verdicts,
            &mut lane.out,
        );
        let [frame] = frames;
        self.carry_out(queue, port, frame, verdicts[0], 0);
        self.pass_on(queue, 0);
        (queue, verdicts[0])
    }

    /// A worker's turn; `follows`: it notices the newest snapshot now. What was handed to it as it came, and the verdicts on it.
    pub fn turn(&mut self, index: usize, follows: bool) -> Vec<(PortIndex, Vec<u8>, Verdict)> {
        let lane = &mut self.lanes[index];
        if follows {
            lane.snapshot = Arc::clone(&self.newest);
        }
        while let Some(learned) = lane.lessons.pop_front() {
            lane.worker.learn(self.now, learned, &mut lane.out);
        }
        let mut all = Vec::new();
        for (port, frame, times) in std::mem::take(&mut self.lanes[index].ring) {
            let came = frame.clone();
            let lane = &mut self.lanes[index];
            let (mut frames, mut verdicts) = ([frame], [Verdict::Kernel]);
            lane.worker.handed_over(
                &lane.snapshot.tables,
                self.now,
                port,
                &mut frames,
                &mut verdicts,
                &mut lane.out,
            );
            let [frame] = frames;
            self.carry_out(index, port, frame, verdicts[0], times);
            self.pass_on(index, times);
            all.push((port, came, verdicts[0]));
        }
        let lane = &mut self.lanes[index];
        lane.worker
            .tick(&lane.snapshot.tables, self.now, &mut lane.out);
        self.pass_on(index, 0);
        all
    }

    fn carry_out(
        &mut self,
        from: usize,
        port: PortIndex,
        frame: Vec<u8>,
        verdict: Verdict,
        times: u8,
    ) {
        match verdict {
            Verdict::Transmit(to) => self.sent.push((to, frame)),
            Verdict::Redirect(owner) => {
                assert_ne!(usize::from(owner), from, "redirected to itself");
                self.hand_over(usize::from(owner), port, frame, times);
            }
            _ => {}
        }
    }

    /// Frames go to their owner at once, fragments by the worker that directs them.
    fn hand_over(&mut self, owner: usize, port: PortIndex, frame: Vec<u8>, times: u8) {
        assert!(
            times == 0 || times == 1 && is_fragment(&frame),
            "handed over again and again: {frame:?}"
        );
        let ring = &mut self.lanes[owner].ring;
        if ring.len() < RING {
            ring.push_back((port, frame, times + 1));
        }
    }

    /// Takes what a worker emitted.
    fn pass_on(&mut self, index: usize, times: u8) {
        let mut out = std::mem::take(&mut self.lanes[index].out);
        let frames = out.frames().map(|(port, frame)| (port, frame.to_vec()));
        self.sent.extend(frames);
        for (owner, port, frame) in out.handovers() {
            assert_ne!(usize::from(owner), index, "handed to itself");
            self.hand_over(usize::from(owner), port, frame.to_vec(), times);
        }
        for event in out.events() {
            let Event::Learned(learned) = *event else {
                continue;
            };
            for (other, lane) in self.lanes.iter_mut().enumerate() {
                if other != index {
                    lane.lessons.push_back(learned);
                }
            }
        }
        out.clear();
        self.lanes[index].out = out;
    }

    /// All flows, each with its worker.
    pub fn flows(&self) -> impl Iterator<Item = (usize, FlowView)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.flat_map(|(index, lane)| lane.worker.flows(self.now).map(move |flow| (index, flow)))
    }
}

/// Whether a frame is long enough for the fields that a NIC hashes.
fn has_ports(frame: &[u8]) -> bool {
    let least = match frame.get(12..14) {
        Some([8, 0]) => 14 + usize::from(frame.get(14).unwrap_or(&0) & 15) * 4 + 4,
        Some([0x86, 0xdd]) => 14 + 40 + 4,
        Some(_) => 0,
        None => return false,
    };
    frame.len() >= least.max(34)
}

fn is_fragment(frame: &[u8]) -> bool {
    match frame[12..14] {
        [8, 0] => u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff != 0,
        _ => frame[20] == 44,
    }
}
