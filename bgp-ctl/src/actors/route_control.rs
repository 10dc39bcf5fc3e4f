//! Routing control: follows one L4 node on the bus, decides about each of its VIPs, and tells the speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle};
use shared::bus::{
    Bus, Change, Expiry, Key, NodeRecord, Prefix, Record, Tier, VipRecord, VipState, unix_ms,
};
use shared::telemetry::monotonic;

use crate::config::BgpSection;
use crate::decision::{Decider, Facts, Force, Verdict};
use crate::metrics::VipMetrics;
use crate::speaker::{Embedded, Speaker};
use crate::status::{StatusBoard, VipStatus};

/// How often records are looked at for expiry: well below the shortest time they are given.
const EXPIRY_CHECK: Duration = Duration::from_millis(100);

/// Withdraw everything, take leave of the routers with this text (RFC 9003), and answer when that is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// Told to the routers; up to 128 bytes.
    pub text: String,
}

/// An operator forces a VIP, or (`None`) leaves it to the facts again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SetForce {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// What to do about it.
    pub force: Option<Force>,
}

/// Follows a node and announces its VIPs.
pub struct RouteControl {
    section: BgpSection,
    node_id: String,
    bus: Bus,
    speaker: Box<dyn Speaker>,
    decider: Decider,
    force: BTreeMap<Ipv4Addr, Force>,
    expiry: Expiry,
    /// The node's record ran out; it counts as gone until it is put again.
    expired: bool,
    /// The node itself was heard of, not only what the servers kept of it: it may have died before this process began.
    proven: bool,
    /// Everything the servers kept was told.
    connected: bool,
    stopping: bool,
    /// What was last done about each VIP.
    vips: BTreeMap<Ipv4Addr, VipStatus>,
    status: StatusBoard,
    metrics: VipMetrics,
    timer: Option<SpawnHandle>,
}

impl RouteControl {
    /// Starts routing control in the current actix system: the sessions of `section`, for the VIPs of the L4 node `node_id`, whose
    /// record and drain record are watched on `bus`. The state is kept on a board the caller can read at any time.
    ///
    /// It may share the caller's thread, and in l4-gateway should: when that thread stalls, so do our KEEPALIVEs, and the routers turn
    /// to other nodes.
    pub fn start_reporting(
        section: BgpSection,
        node_id: impl Into<String>,
        bus: Bus,
        status: StatusBoard,
    ) -> Addr<Self> {
        let speaker = Box::new(Embedded::start(&section, &status));
        Self::with_speaker(section, node_id, bus, status, speaker).start()
    }

    /// Routing control with another speaker.
    pub fn with_speaker(
        section: BgpSection,
        node_id: impl Into<String>,
        bus: Bus,
        status: StatusBoard,
        speaker: Box<dyn Speaker>,
    ) -> Self {
        let node_id = node_id.into();
        status.change(|board| board.node.clone_from(&node_id));
        Self {
            decider: Decider::new(section.vips.keys().copied()),
            section,
            node_id,
            bus,
            speaker,
            force: BTreeMap::new(),
            expiry: Expiry::new(),
            expired: false,
            proven: false,
            connected: false,
            stopping: false,
            vips: BTreeMap::new(),
            status,
            metrics: VipMetrics::default(),
            timer: None,
        }
    }

    fn node_key(&self) -> Key {
        Key::Node {
            tier: Tier::L4,
            id: self.node_id.clone(),
        }
    }

    fn drain_key(&self) -> Key {
        Key::Drain {
            tier: Tier::L4,
            id: self.node_id.clone(),
        }
    }

    /// The node's record as the bus knows it, unless it has run out or nobody is known to stand behind it.
    fn node(&self) -> Option<NodeRecord> {
        match self.bus.get(&self.node_key()) {
            Some(Record::Node(node)) if self.proven && !self.expired => Some(node),
            _ => None,
        }
    }

    /// Decides about every VIP and carries it out.
    fn decide(&mut self, context: &mut Context<Self>) {
        let node = self.node();
        let drain =
            matches!(self.bus.get(&self.drain_key()), Some(Record::Drain(drain)) if drain.drain);
        let facts = Facts {
            node: node.as_ref(),
            drain,
            stopping: self.stopping,
            force: &self.force,
            allowed: &self.section.allowed,
        };
        let section = &self.section;
        let verdicts = self
            .decider
            .decide(Instant::now(), facts, |vip| section.vip(vip).policy);
        self.status.change(|board| {
            board.node_known = node.is_some();
            board.drain = drain;
            board.stopping = self.stopping;
        });
        self.forget(|vip| !verdicts.contains_key(vip));
        for (vip, verdict) in verdicts {
            self.carry_out(vip, verdict);
        }
        self.set_timer(context);
    }

    fn carry_out(&mut self, vip: Ipv4Addr, verdict: Verdict) {
        let (state, why) = match verdict {
            Verdict::Announced => (
                VipState::Announced,
                "forwarding, enough targets healthy".to_owned(),
            ),
            Verdict::Withdrawn(why) => (VipState::Withdrawn, why),
        };
        let force = self.force.get(&vip).copied();
        let before = self.vips.get(&vip);
        let changed = before.is_none_or(|before| before.state != state);
        let since_unix_ms = match before {
            Some(before) if !changed => before.since_unix_ms,
            _ => unix_ms(),
        };
        let same =
            before.is_some_and(|before| !changed && before.why == why && before.force == force);
        if changed {
            match state {
                VipState::Announced => self
                    .speaker
                    .announce(vip, &self.section.vip(vip).attributes),
                VipState::Withdrawn | VipState::Depreferred => self.speaker.withdraw(vip),
            }
            self.metrics.announced(vip, state == VipState::Announced);
            tracing::info!(%vip, ?state, why, "VIP");
        }
        if !same {
            let status = VipStatus {
                state,
                why: why.clone(),
                since_unix_ms,
                force,
            };
            self.vips.insert(vip, status.clone());
            self.status.change(|board| {
                board.vips.insert(vip, status);
            });
            self.bus.put(VipRecord {
                vip: IpAddr::V4(vip),
                node: self.node_id.clone(),
                state,
                why,
                since_unix_ms,
            });
        }
    }

    /// VIPs that nobody serves any more are not spoken of for ever.
    fn forget(&mut self, gone: impl Fn(&Ipv4Addr) -> bool) {
        for (vip, _) in self.vips.extract_if(.., |vip, _| gone(vip)) {
            self.status.change(|board| {
                board.vips.remove(&vip);
            });
            self.bus.delete(&Key::Vip {
                vip: IpAddr::V4(vip),
                node: self.node_id.clone(),
            });
        }
    }

    fn set_timer(&mut self, context: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let section = &self.section;
        if let Some(at) = self.decider.deadline(|vip| section.vip(vip).policy) {
            let wait = at.saturating_duration_since(Instant::now());
            self.timer = Some(context.run_later(wait, |actor, context| {
                actor.timer = None;
                actor.decide(context);
            }));
        }
    }

    fn check_expiry(&mut self, context: &mut Context<Self>) {
        let gone = self.expiry.expired(monotonic());
        if gone.contains(&self.node_key()) {
            tracing::warn!(
                node = self.node_id,
                "the node's record has expired: it was not renewed while the bus was connected"
            );
            self.expired = true;
            self.decide(context);
        }
    }

    /// Whether the node's record is more than what a dead node left at the servers: it is put while connected, or by this process, or made to
    /// stay.
    fn is_proof(&self, change: &Change) -> bool {
        let node = self.node_key();
        self.bus.get(&node).is_some_and(|record| {
            record.ttl().is_none()
                || self.bus.is_own(&node)
                || (self.connected && matches!(change, Change::Put(_)))
        })
    }

    /// Keeps the clock of the node's record. Two prefixes are watched and a snapshot doesn't say of which it is.
    fn observe(&mut self, change: &Change) {
        let node = self.node_key();
        let concerns_node = match change {
            Change::Snapshot(records) => {
                records.iter().any(|record| record.key() == node) || self.bus.get(&node).is_none()
            }
            Change::Put(record) => record.key() == node,
            Change::Deleted(key) => *key == node,
            Change::Connected(connected) => {
                self.connected = *connected;
                self.status.change(|board| board.bus_connected = *connected);
                true
            }
        };
        if concerns_node {
            self.expiry.observe(monotonic(), change);
            if matches!(change, Change::Put(_)) {
                self.expired = false;
            }
            self.proven = self.proven || self.is_proof(change);
        }
    }
}

impl Actor for RouteControl {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let to = context.address().recipient();
        self.bus
            .watch(Prefix::Node(Tier::L4, self.node_id.clone()), to.clone());
        self.bus
            .watch(Prefix::Drain(Tier::L4, self.node_id.clone()), to);
        context.run_interval(EXPIRY_CHECK, Self::check_expiry);
    }
}

impl Handler<Change> for RouteControl {
    type Result = ();

    fn handle(&mut self, change: Change, context: &mut Self::Context) {
        self.observe(&change);
        self.decide(context);
    }
}

impl Handler<SetForce> for RouteControl {
    type Result = ();

    fn handle(&mut self, SetForce { vip, force }: SetForce, context: &mut Self::Context) {
        match force {
            Some(force) => self.force.insert(vip, force),
            None => self.force.remove(&vip),
        };
        self.decide(context);
    }
}

impl Handler<Shutdown> for RouteControl {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Shutdown { text }: Shutdown, context: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        self.decide(context);
        let wait = self.section.shutdown_wait;
        let control = context.address();
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            // An error means that the actor's system has ended, and the sessions with it.
            if let Ok(left) = control.send(Leave { text }).await {
                left.0.await;
            }
        })
    }
}

/// The sessions may be closed now: the withdrawals have had their time.
#[derive(Message)]
#[rtype(result = "Left")]
struct Leave {
    text: String,
}

struct Left(futures_util::future::BoxFuture<'static, ()>);

impl Handler<Leave> for RouteControl {
    type Result = actix::MessageResult<Leave>;

    fn handle(&mut self, Leave { text }: Leave, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(Left(self.speaker.shutdown(&text)))
    }
}
