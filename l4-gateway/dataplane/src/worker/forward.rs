//! A packet of a known flow: its state, its rewriting, its next hop.

use super::classify::Staged;
use super::{Context, Worker};
use crate::counters::{TargetCount, WorkerCount};
use crate::family::Family;
use crate::flow::{Flow, FlowState, HOP_UNKNOWN, Side};
use crate::limits::ETHERNET_HEADER;
use crate::nat::{self, Rewrite};
use crate::neighbour::{State, Waiting};
use crate::reply;
use crate::service::{Protocol, Target, Timestamps};
use crate::tables::Tables;
use crate::wire::icmp::Problem;
use crate::wire::{tcp, u32_at};
use crate::{DropReason, Frame, Verdict};

impl Worker {
    #[inline]
    pub(super) fn forward<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged<V>,
        number: u32,
        side: Side,
    ) -> Verdict {
        if side == Side::Target && !self.is_on_its_port::<V>(context, number) {
            return Verdict::Drop(DropReason::WrongPort);
        }
        let state = self.flows.get(number).progress.state();
        let is_syn = staged.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if is_syn && side == Side::Client && state.is_closing() && staged.ip.ttl > 1 {
            return self.reschedule(context, frame, staged, number);
        }
        let hop = match self.hop::<V>(context, number, side) {
            Ok(hop) => hop,
            Err(reason) => return self.no_hop(context, frame.bytes(), staged, reason),
        };
        if let Some(verdict) = self.may_pass(context, frame.bytes(), staged, hop) {
            return verdict;
        }
        if staged.tuple.protocol == Protocol::Tcp {
            self.follow_tcp(frame.bytes(), staged, number, side);
        }
        let addresses = V::addresses(&self.flows, number);
        let flow = self.flows.get_mut(number);
        let deadline = context.now.tick()
            + context
                .tables
                .timeout(flow.service(), flow.progress.timed_as());
        if flow.deadline != deadline {
            flow.deadline = deadline;
        }
        let bytes = u64::from(staged.ip.total);
        match side {
            Side::Client => self
                .cells
                .forwarded_in(flow.service(), flow.target_id, bytes),
            Side::Target => self
                .cells
                .forwarded_out(flow.service(), flow.target_id, bytes),
        }
        let rewrite = Rewrite::new(flow, &addresses, side);
        staged.trim(frame);
        if is_syn && side == Side::Client && strips_timestamps(context.tables, flow) {
            nat::strip_timestamps(frame.bytes_mut(), &staged.ip);
        }
        nat::rewrite(frame.bytes_mut(), &staged.ip, &staged.tuple, &rewrite);
        self.send(context, hop, frame.bytes_mut())
    }

    /// Moves the flow's state by a segment.
    #[inline]
    fn follow_tcp<V: Family>(&mut self, frame: &[u8], staged: &Staged<V>, number: u32, side: Side) {
        let flow = self.flows.get_mut(number);
        let before = flow.progress.state();
        flow.progress = flow.progress.after(side, staged.flags);
        match side {
            Side::Client => {
                let segment = frame.get(staged.payload()).unwrap_or(&[]);
                flow.client_next =
                    u32_at(segment, tcp::SEQUENCE).wrapping_add(tcp::occupies(segment));
                if staged.flags & tcp::ACK != 0 {
                    flow.client_acked = u32_at(segment, tcp::ACKNOWLEDGMENT);
                }
                if staged.flags & tcp::FIN != 0 {
                    self.client_ended::<V>(number);
                }
            }
            Side::Target => {
                if staged.flags & tcp::RST != 0 && before != FlowState::Closed {
                    self.cells.target(flow.target_id, TargetCount::Resets, 1);
                }
            }
        }
    }

    /// The target may keep the port in TIME_WAIT from here on; the next connection over it starts above.
    #[cold]
    fn client_ended<V: Family>(&mut self, number: u32) {
        let addresses = V::addresses(&self.flows, number);
        let flow = self.flows.get(number);
        let end = flow.client_next.wrapping_add(flow.shift);
        let key = self.flows.hash(&flow.target_key::<V>(&addresses));
        self.sequences.ended(key, end);
    }

    /// The next hop of packets from `side`, looked up again if what the flow remembers may be stale.
    #[inline]
    pub(super) fn hop<V: Family>(
        &mut self,
        context: &Context<'_>,
        number: u32,
        side: Side,
    ) -> Result<u16, DropReason> {
        let epoch = self.neighbours.epoch();
        let flow = self.flows.get(number);
        let remembered = match side {
            Side::Client => flow.hop_to_target,
            Side::Target => flow.hop_to_client,
        };
        if flow.hop_epoch == epoch && remembered != HOP_UNKNOWN {
            return Ok(remembered);
        }
        self.look_up_hop::<V>(context, number, side)
    }

    #[cold]
    fn look_up_hop<V: Family>(
        &mut self,
        context: &Context<'_>,
        number: u32,
        side: Side,
    ) -> Result<u16, DropReason> {
        let addresses = V::addresses(&self.flows, number);
        let destination = match side {
            Side::Client => addresses.target,
            Side::Target => addresses.client,
        };
        let (port, address) = context
            .tables
            .net::<V>()
            .route(destination)
            .ok_or(DropReason::NoRoute)?;
        let slot = self
            .neighbours
            .slot(context.tables, context.now, port, address.into())
            .ok_or(DropReason::Unresolved)?;
        // After the lookup: making room for the neighbour may have begun a new epoch.
        self.forget_old_hops();
        let epoch = self.neighbours.epoch();
        let flow = self.flows.get_mut(number);
        if flow.hop_epoch != epoch {
            (flow.hop_to_client, flow.hop_to_target) = (HOP_UNKNOWN, HOP_UNKNOWN);
            flow.hop_epoch = epoch;
        }
        match side {
            Side::Client => flow.hop_to_target = slot,
            Side::Target => flow.hop_to_client = slot,
        }
        Ok(slot)
    }

    /// Drops a packet without next hop; its sender is told if no route leads on.
    #[cold]
    fn no_hop<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        reason: DropReason,
    ) -> Verdict {
        if reason == DropReason::NoRoute {
            let source = own_address(context, staged);
            self.icmp_error(context, frame, staged, source, Problem::NoRoute);
        }
        Verdict::Drop(reason)
    }

    /// What is to be done instead of forwarding, if its hops or the link's size run out: the verdict, the sender told.
    #[inline]
    pub(super) fn may_pass<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        hop: u16,
    ) -> Option<Verdict> {
        if staged.ip.ttl <= 1 {
            return Some(self.expire_ttl(context, frame, staged));
        }
        let mtu = self.neighbours.get(hop).mtu;
        if staged.ip.total > mtu {
            if staged.ip.dont_fragment {
                let source = own_address(context, staged);
                self.icmp_error(context, frame, staged, source, Problem::TooBig(mtu));
            }
            return Some(Verdict::Drop(DropReason::TooBig));
        }
        None
    }

    /// Tells the sender that its packet's time to live ran out here.
    pub(super) fn expire_ttl<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
    ) -> Verdict {
        let source = own_address(context, staged);
        self.icmp_error(context, frame, staged, source, Problem::TimeExceeded);
        Verdict::Drop(DropReason::TtlExpired)
    }

    /// Sends an ICMP error about a frame to its sender, unless the rate limit, RFC 1122 3.2.2 or RFC 4443 2.4 forbids; whether it went.
    pub(super) fn icmp_error<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        source: V::Address,
        problem: Problem,
    ) -> bool {
        if !super::admit::may_answer::<V>(context.tables, staged.ip.source) {
            return false;
        }
        if !self.icmp_errors.take(context.now) {
            self.cells.worker(WorkerCount::IcmpErrorsSuppressed, 1);
            return false;
        }
        self.cells.worker(WorkerCount::IcmpErrorsSent, 1);
        reply::icmp_error(
            frame,
            &staged.ip,
            context.port.mac,
            source,
            problem,
            |bytes| {
                crate::neighbour::emit(context.out, &self.cells, context.port.index, bytes);
            },
        );
        true
    }

    /// Whether a packet of a flow's target came in where those come in: on the target's port, or where the LocalIP is at home
    /// (which is the same port but for flows older than a change of routes). Whoever is beyond another port can't be the target,
    /// whatever addresses it writes.
    #[inline]
    pub(super) fn is_on_its_port<V: Family>(&self, context: &Context<'_>, number: u32) -> bool {
        let on_targets_port = |target: &Target| target.port == context.port.index;
        context
            .tables
            .target(self.flows.get(number).target_id)
            .is_some_and(on_targets_port)
            || context
                .tables
                .net::<V>()
                .is_at_home(V::addresses(&self.flows, number).local, context.port)
    }

    /// Addresses a rewritten frame to its next hop, or keeps it until that is known.
    #[inline]
    pub(super) fn send(
        &mut self,
        context: &mut Context<'_>,
        hop: u16,
        frame: &mut [u8],
    ) -> Verdict {
        let neighbour = self.neighbours.get(hop);
        match neighbour.state {
            State::Reachable | State::Probing => {
                let (header, port) = (neighbour.header, neighbour.port);
                if let Some(place) = frame.first_chunk_mut() {
                    *place = header;
                }
                self.neighbours.touch(hop);
                Verdict::Transmit(port)
            }
            State::Incomplete => {
                debug_assert!(frame.len() >= ETHERNET_HEADER);
                let waiting = self.neighbours.hold(
                    context.tables,
                    context.now,
                    hop,
                    frame,
                    context.out,
                    &self.cells,
                );
                match waiting {
                    Waiting::Held => Verdict::Held,
                    Waiting::NoRoom => Verdict::Drop(DropReason::Unresolved),
                }
            }
            State::Failed | State::Free => {
                self.neighbours.touch(hop);
                Verdict::Drop(DropReason::Unresolved)
            }
        }
    }
}

/// From which address an error about a packet comes: the port's; the packet's own destination where the port has none of its family.
fn own_address<V: Family>(context: &Context<'_>, staged: &Staged<V>) -> V::Address {
    context.port.address::<V>().unwrap_or(staged.ip.destination)
}

/// Whether the service of a flow takes the timestamp option out of its SYN.
fn strips_timestamps(tables: &Tables, flow: &Flow) -> bool {
    tables
        .service(flow.service())
        .is_none_or(|service| service.config.timestamps == Timestamps::Strip)
}
