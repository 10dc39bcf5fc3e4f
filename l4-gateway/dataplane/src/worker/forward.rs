//! A packet of a known flow: its state, its rewriting, its next hop.

use super::classify::{Stage, Staged};
use super::{Context, Worker};
use crate::counters::{TargetCount, WorkerCount};
use crate::family::Family;
use crate::flow::{FlowState, HOP_UNKNOWN, Numbers, Side};
use crate::limits::ETHERNET_HEADER;
use crate::nat::{self, Rewrite};
use crate::neighbour::{State, Waiting};
use crate::reply;
use crate::service::Protocol;
use crate::tables::By;
use crate::wire::icmp::Problem;
use crate::wire::{tcp, u32_at};
use crate::{DropReason, Frame, Verdict};

impl Worker {
    #[inline(always)]
    pub(super) fn forward<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
        side: Side,
    ) -> Verdict {
        if side == Side::Target && !self.is_on_its_port::<V>(context, number) {
            return Verdict::Drop(DropReason::WrongPort);
        }
        if self.cuts.is_under_way() && self.leaves(context, stage, number, side) {
            return self.leave::<V, F>(context, frame, stage, number);
        }
        // Few are: SYNs, those with options beyond timestamps, those that take the client's address along.
        let is_special =
            stage.flags & (tcp::SYN | tcp::OPTIONS) != 0 || self.flows.get(number).inserts();
        if is_special && self.begins_anew(context, frame.bytes(), stage, (number, side)) {
            return self.reschedule::<V, F>(context, frame, stage, number);
        }
        if !self.flows.get(number).is_two_sided() {
            return self.forward_direct::<V, F>(context, frame, stage, number);
        }
        let hop = match self.hop::<V>(context, number, side) {
            Ok(hop) => hop,
            Err(reason) => return self.no_hop::<V>(context, frame.bytes(), stage, reason),
        };
        let mut edited;
        let mut stage = stage;
        let way = (number, side, hop);
        if is_special {
            edited = *stage;
            if let Err(verdict) = self.edit::<V, F>(context, frame, &mut edited, way) {
                return verdict;
            }
            stage = &edited;
        }
        self.forward_edited::<V, F>(context, frame, stage, way)
    }

    /// Forwards a packet of a flow from a side to a next hop, after what changes in it beyond addresses and numbers.
    #[inline(always)]
    pub(super) fn forward_edited<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        (number, side, hop): (u32, Side, u16),
    ) -> Verdict {
        if let Some(verdict) = self.may_pass::<V>(context, frame.bytes(), stage, hop, 0) {
            return verdict;
        }
        if stage.protocol == Protocol::Tcp {
            self.follow_tcp::<V>(frame.bytes(), stage, number, side);
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
        self.cells.forwarded(flow, side, stage.total);
        let rewrite = Rewrite::new(flow, &addresses, side);
        stage.trim(frame);
        nat::rewrite::<V>(
            frame.bytes_mut(),
            stage.header,
            stage.total,
            stage.protocol,
            &rewrite,
        );
        let mtu = self.neighbours.get(hop).mtu;
        if stage.total > mtu {
            return self.send_in_pieces(context, hop, frame.bytes_mut(), mtu);
        }
        self.forward_to(context, hop, frame.bytes_mut())
    }

    /// Moves the flow's state by a segment, if it is believed.
    #[inline]
    fn follow_tcp<V: Family>(&mut self, frame: &[u8], stage: &Stage, number: u32, side: Side) {
        let flow = self.flows.get_mut(number);
        let flags = stage.flags & !tcp::OPTIONS;
        // The segments of an established connection, but for its end and what somebody makes up.
        let is_plain = flags == tcp::ACK && flow.progress.is_established();
        if is_plain && side == Side::Target {
            return;
        }
        let Some((numbers, next)) = numbers(frame, stage) else {
            return;
        };
        if !(is_plain && flow.hears_on(numbers, next)) {
            self.follow_turn::<V>(numbers, next, number, side);
        }
    }

    /// Moves the flow's state by a segment that may be a turn in its life.
    pub(super) fn follow_turn<V: Family>(
        &mut self,
        numbers: Numbers,
        next: u32,
        number: u32,
        side: Side,
    ) {
        let flow = self.flows.get_mut(number);
        let was_established = flow.is_established();
        let flags = numbers.flags;
        let believed = match side {
            Side::Client => flow.hears_client(numbers, next),
            Side::Target => flow.hears_target(numbers),
        };
        if !believed {
            self.cells.worker(WorkerCount::SegmentsDisbelieved, 1);
            return;
        }
        let before = flow.progress.state();
        flow.follow(side, numbers);
        let is_established = flow.is_established();
        if is_established != was_established {
            self.cells
                .flow_established(flow.service(), flow.target_id, is_established);
        }
        match side {
            Side::Client if flags & tcp::FIN != 0 => self.client_ended::<V>(number),
            Side::Target if flags & tcp::RST != 0 && before != FlowState::Closed => {
                self.cells.target(flow.target_id, TargetCount::Resets, 1);
                if before == FlowState::SynReceived {
                    self.cells
                        .target(flow.target_id, TargetCount::SynsRefused, 1);
                }
            }
            Side::Client | Side::Target => {}
        }
    }

    /// As [`Worker::client_ended`], where the last segment was the first fragment of one of any length.
    pub(super) fn may_have_ended_later<V: Family>(&mut self, number: u32) {
        let flow = self.flows.get_mut(number);
        if flow.is_alive() && flow.is_two_sided() {
            flow.client_next = flow.client_next.wrapping_add(u32::from(u16::MAX));
            self.client_ended::<V>(number);
        }
    }

    /// Counts a packet of `bytes` from one side as forwarded.
    pub(super) fn count_forwarded(&self, number: u32, side: Side, bytes: u16) {
        self.cells.forwarded(self.flows.get(number), side, bytes);
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
        let net = context.tables.net::<V>();
        // LocalIPs are of the port that leads to the target; answers may leave by any.
        let by = match side {
            Side::Client => By::OnePort,
            Side::Target => By::AnyPort,
        };
        let score = |router: V::Address| {
            let client = self.flows.get(number).client_key::<V>(&addresses);
            self.secret
                .hash_address(router.into(), self.flows.hash(&client))
        };
        let (port, address) = net
            .way(destination, by, self.routers.living(), score)
            .ok_or(DropReason::NoRoute)?;
        let slot = self
            .neighbours
            .slot(context.tables, context.now, port, address.into())
            .ok_or(DropReason::Unresolved)?;
        if self.neighbours.is_between_epochs() {
            return Ok(slot);
        }
        // After the lookup: making room for the neighbour may have begun a new epoch.
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
    pub(super) fn no_hop<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
        reason: DropReason,
    ) -> Verdict {
        if reason == DropReason::NoRoute {
            let staged = &stage.of::<V>(frame);
            let source = own_address(context, staged);
            let _told_or_damaged =
                self.tell_sender(context, frame, staged, source, Problem::NoRoute);
        }
        Verdict::Drop(reason)
    }

    /// What is to be done instead of forwarding, if its hops or the link's size run out: the verdict, the sender told. `growth`: bytes
    /// that are put into it on the way.
    #[inline(always)]
    pub(super) fn may_pass<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
        hop: u16,
        growth: u16,
    ) -> Option<Verdict> {
        if stage.ttl <= 1 {
            return Some(self.expire_ttl::<V>(context, frame, stage));
        }
        let mtu = self.neighbours.get(hop).mtu.saturating_sub(growth);
        // One that may be cut is, on its way out.
        if stage.total > mtu && stage.dont_fragment {
            return Some(self.too_big::<V>(context, frame, stage, mtu));
        }
        None
    }

    /// Drops a packet that is larger than the next link takes and must not be cut; its sender is told.
    #[cold]
    pub(super) fn too_big<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
        mtu: u16,
    ) -> Verdict {
        let staged = &stage.of::<V>(frame);
        let source = own_address(context, staged);
        let _told_or_damaged =
            self.tell_sender(context, frame, staged, source, Problem::TooBig(mtu));
        Verdict::Drop(DropReason::TooBig)
    }

    /// Tells the sender that its packet's time to live ran out here.
    #[cold]
    pub(super) fn expire_ttl<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
    ) -> Verdict {
        let staged = &stage.of::<V>(frame);
        let source = own_address(context, staged);
        let _told_or_damaged =
            self.tell_sender(context, frame, staged, source, Problem::TimeExceeded);
        Verdict::Drop(DropReason::TtlExpired)
    }

    /// Sends an ICMP error about a frame to its sender, unless the rate limit, RFC 1122 3.2.2 or RFC 4443 2.4 forbids; whether it went.
    ///
    /// The limit comes before the look at the checksum, so that a flood of such packets costs no more sums than it gets errors.
    ///
    /// # Errors
    /// The packet is damaged, so that nobody knows who its sender is.
    pub(super) fn tell_sender<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        source: V::Address,
        problem: Problem,
    ) -> Result<bool, DropReason> {
        if !super::admit::may_answer::<V>(context.tables, staged.ip.source) {
            return Ok(false);
        }
        let too_big = matches!(problem, Problem::TooBig(_));
        if !self.icmp_errors.take(context.now, too_big) {
            self.cells.worker(WorkerCount::IcmpErrorsSuppressed, 1);
            return Ok(false);
        }
        self.hold_sound(context, frame, staged)?;
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
        Ok(true)
    }

    /// Whether a packet of a flow's target came in where those come in: on the target's port, or where the LocalIP is at home
    /// (which is the same port but for flows older than a change of routes). Whoever is beyond another port can't be the target,
    /// whatever addresses it writes.
    #[inline]
    pub(super) fn is_on_its_port<V: Family>(&self, context: &Context<'_>, number: u32) -> bool {
        let addresses = V::addresses(&self.flows, number);
        let net = context.tables.net::<V>();
        net.route(addresses.target)
            .is_some_and(|(port, _)| port == context.port.index)
            || net.is_at_home(addresses.local, context.port)
    }

    /// As [`Worker::forward_to`], for what is rare, and of any length.
    #[cold]
    #[inline(never)]
    pub(super) fn send(
        &mut self,
        context: &mut Context<'_>,
        hop: u16,
        frame: &mut [u8],
    ) -> Verdict {
        let mtu = self.neighbours.get(hop).mtu;
        if frame.len() > ETHERNET_HEADER + usize::from(mtu) {
            return self.send_in_pieces(context, hop, frame, mtu);
        }
        self.forward_to(context, hop, frame)
    }

    /// Addresses a rewritten frame to its next hop, or keeps it until that is known.
    #[inline(always)]
    fn forward_to(&mut self, context: &mut Context<'_>, hop: u16, frame: &mut [u8]) -> Verdict {
        let neighbour = self.neighbours.sending(hop);
        match neighbour.state {
            State::Reachable | State::Probing | State::Contested => {
                if let Some(place) = frame.first_chunk_mut() {
                    *place = neighbour.header;
                }
                Verdict::Transmit(neighbour.port)
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
            State::Failed => Verdict::Drop(DropReason::Unresolved),
            State::Free => self.forward_awake(context, hop, frame),
        }
    }

    /// As [`Worker::forward_to`], where the next hop was given up since its flow looked it up.
    #[cold]
    #[inline(never)]
    fn forward_awake(&mut self, context: &mut Context<'_>, hop: u16, frame: &mut [u8]) -> Verdict {
        match self.neighbours.wake(context.tables, context.now, hop) {
            Some(hop) => self.forward_to(context, hop, frame),
            None => Verdict::Drop(DropReason::Unresolved),
        }
    }
}

/// From which address an error about a packet comes: the port's; the packet's own destination where the port has none of its family.
fn own_address<V: Family>(context: &Context<'_>, staged: &Staged<V>) -> V::Address {
    context.port.address::<V>().unwrap_or(staged.ip.destination)
}

/// The numbers of a segment, and the sequence number behind it.
#[inline]
pub(super) fn numbers(frame: &[u8], stage: &Stage) -> Option<(Numbers, u32)> {
    let start = ETHERNET_HEADER + usize::from(stage.header);
    let header = frame.get(start..).and_then(<[u8]>::first_chunk)?;
    let numbers = Numbers {
        flags: stage.flags & !tcp::OPTIONS,
        sequence: u32_at(header, tcp::SEQUENCE),
        acknowledgment: u32_at(header, tcp::ACKNOWLEDGMENT),
    };
    Some((
        numbers,
        tcp::next(header, u32::from(stage.total - stage.header)),
    ))
}
