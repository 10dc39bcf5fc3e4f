//! Routing control: knows one L4 node, the process it is part of or one it follows on the bus, decides about each of its VIPs, and tells the
//! speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle};
use shared::admin::Asked;
use shared::bus::{
    Bus, Change, Key, NodeRecord, Prefix, Record, Tier, VipRecord, VipState, unix_ms,
};
use shared::telemetry::monotonic;

use crate::config::BgpSection;
use crate::decision::{Decider, Facts, Force, Verdict};
use crate::followed::Followed;
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
    /// By whom and why.
    pub asked: Asked,
}

/// Go on by this section, which differs from the one before only in what can change while the process runs. Sessions that stay as they were are not
/// touched.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub BgpSection);

/// What the node says of itself, told by the process that is the node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct NodeIs {
    /// Its record.
    pub record: NodeRecord,
    /// Why nothing may be announced for it all the same.
    pub hold: Option<String>,
}

/// Where the facts about the node come from.
enum Source {
    /// From the process itself: nothing anybody writes on the bus changes them.
    Itself(Option<NodeIs>),
    /// From the bus, where another process puts them.
    Followed(Followed),
}

/// Announces the VIPs of a node.
pub struct RouteControl {
    section: BgpSection,
    node_id: String,
    bus: Bus,
    speaker: Box<dyn Speaker>,
    decider: Decider,
    force: BTreeMap<Ipv4Addr, Force>,
    /// Who forces them, and why.
    asked: BTreeMap<Ipv4Addr, Asked>,
    source: Source,
    stopping: bool,
    /// What was last done about each VIP.
    vips: BTreeMap<Ipv4Addr, VipStatus>,
    status: StatusBoard,
    metrics: VipMetrics,
    timer: Option<SpawnHandle>,
}

impl RouteControl {
    /// Starts routing control in the current actix system, for the node that this process is: `node_id`, which tells of itself by [`NodeIs`]. An operator's
    /// wish to drain it is watched on `bus`, nothing else.
    ///
    /// It may share the caller's thread, and in l4-gateway should: when that thread stalls, so do our KEEPALIVEs, and the routers turn
    /// to other nodes.
    pub fn start_within(
        section: BgpSection,
        node_id: impl Into<String>,
        bus: Bus,
        status: StatusBoard,
    ) -> Addr<Self> {
        crate::metrics::register();
        let speaker = Box::new(Embedded::start(&section, &status));
        let mut control = Self::with_speaker(section, node_id, bus, status, speaker);
        control.source = Source::Itself(None);
        control.start()
    }

    /// Starts routing control in the current actix system: the sessions of `section`, for the VIPs of the L4 node `node_id`, whose
    /// record and drain record are watched on `bus`. The state is kept on a board the caller can read at any time.
    pub fn start_reporting(
        section: BgpSection,
        node_id: impl Into<String>,
        bus: Bus,
        status: StatusBoard,
    ) -> Addr<Self> {
        crate::metrics::register();
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
            source: Source::Followed(Followed::new(&node_id)),
            node_id,
            bus,
            speaker,
            force: BTreeMap::new(),
            asked: BTreeMap::new(),
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

    /// Decides about every VIP and carries it out.
    fn decide(&mut self, context: &mut Context<Self>) {
        let (node, hold) = match &self.source {
            Source::Itself(told) => {
                let told = told.as_ref();
                (
                    told.map(|told| &told.record),
                    told.and_then(|told| told.hold.as_deref()),
                )
            }
            Source::Followed(followed) => (followed.node(), None),
        };
        let drain =
            matches!(self.bus.get(&self.drain_key()), Some(Record::Drain(drain)) if drain.drain);
        let facts = Facts {
            node,
            hold,
            drain,
            stopping: self.stopping,
            force: &self.force,
            allowed: &self.section.allowed,
        };
        let section = &self.section;
        let verdicts = self
            .decider
            .decide(Instant::now(), facts, |vip| section.vip(vip).policy);
        let node_known = node.is_some();
        self.status.change(|board| {
            board.node_known = node_known;
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
        let operator = self.asked.get(&vip).cloned();
        let before = self.vips.get(&vip);
        let changed = before.is_none_or(|before| before.state != state);
        let since_unix_ms = match before {
            Some(before) if !changed => before.since_unix_ms,
            _ => unix_ms(),
        };
        let same = before.is_some_and(|before| {
            !changed && before.why == why && before.force == force && before.operator == operator
        });
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
                operator,
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
        let Source::Followed(followed) = &mut self.source else {
            return;
        };
        if followed.has_expired(monotonic()) {
            tracing::warn!(
                node = self.node_id,
                "the node's record has expired: it was not renewed, and would have been heard"
            );
            self.decide(context);
        }
    }

    /// Takes note of what the bus says.
    fn observe(&mut self, change: &Change) {
        if let Change::Connected(connected) = change {
            self.status.change(|board| board.bus_connected = *connected);
        }
        let key = self.node_key();
        if let Source::Followed(followed) = &mut self.source {
            followed.observe(monotonic(), change, self.bus.is_own(&key));
        }
    }
}

impl Actor for RouteControl {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let to = context.address().recipient();
        if matches!(self.source, Source::Followed(_)) {
            let node = Prefix::Node(Tier::L4, self.node_id.clone());
            self.bus.watch(node, to.clone());
        }
        self.bus
            .watch(Prefix::Drain(Tier::L4, self.node_id.clone()), to);
        context.run_interval(EXPIRY_CHECK, Self::check_expiry);
    }
}

impl Handler<Change> for RouteControl {
    type Result = ();

    fn handle(&mut self, change: Change, context: &mut Self::Context) {
        self.observe(&change);
        // A proof is nothing to decide about.
        if !matches!(change, Change::Heard(_)) {
            self.decide(context);
        }
    }
}

impl Handler<NodeIs> for RouteControl {
    type Result = ();

    fn handle(&mut self, told: NodeIs, context: &mut Self::Context) {
        self.source = Source::Itself(Some(told));
        self.decide(context);
    }
}

impl Handler<SetForce> for RouteControl {
    type Result = ();

    fn handle(&mut self, set: SetForce, context: &mut Self::Context) {
        let SetForce { vip, force, asked } = set;
        match force {
            Some(force) => {
                self.force.insert(vip, force);
                self.asked.insert(vip, asked);
            }
            None => {
                self.force.remove(&vip);
                self.asked.remove(&vip);
            }
        }
        self.decide(context);
    }
}

impl Handler<Reconfigure> for RouteControl {
    type Result = ();

    fn handle(&mut self, Reconfigure(section): Reconfigure, context: &mut Self::Context) {
        let before = std::mem::replace(&mut self.section, section);
        self.decider.expect(self.section.vips.keys().copied());
        self.speaker.reconfigure(&self.section);
        for (vip, status) in &self.vips {
            let attributes = &self.section.vip(*vip).attributes;
            if status.state == VipState::Announced && before.vip(*vip).attributes != *attributes {
                self.speaker.announce(*vip, attributes);
            }
        }
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
