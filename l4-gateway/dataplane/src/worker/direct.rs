//! DR and tunnel: what a client sends goes to its target as it is, by the target's MAC or inside another packet. The target has
//! the VIP and answers the client past this node, which sees one side of each flow.
//!
//! The packet is forwarded as a router would: it loses a hop (as in LVS: two nodes that took each other for a target would
//! send a packet round for ever), and one too long for the way is cut, or its sender told.

use super::classify::{Stage, Staged};
use super::forward::numbers;
use super::{Context, Worker};
use crate::client_address::segment::update;
use crate::client_address::toa;
use crate::counters::{ServiceCount, WorkerCount};
use crate::family::Family;
use crate::flow::Side;
use crate::limits::ETHERNET_HEADER;
use crate::service::Protocol;
use crate::tunnel;
use crate::wire::icmp::{self, Quote};
use crate::wire::{put, tcp, u32_at};
use crate::{DropReason, Frame, Verdict, steer};

impl Worker {
    /// A packet of a one-sided flow.
    #[inline(never)]
    pub(super) fn forward_direct<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
    ) -> Verdict {
        let hop = match self.hop::<V>(context, number, Side::Client) {
            Ok(hop) => hop,
            Err(reason) => return self.no_hop::<V>(context, frame.bytes(), stage, reason),
        };
        if stage.ttl <= 1 {
            return self.expire_ttl::<V>(context, frame.bytes(), stage);
        }
        let mtu = self.inner_mtu::<V>(hop, number);
        if stage.total > mtu && stage.dont_fragment {
            return self.too_big::<V>(context, frame.bytes(), stage, mtu);
        }
        if stage.flags & tcp::OPTIONS != 0 {
            self.strip_forged(frame, stage, number);
        }
        if stage.protocol == Protocol::Tcp {
            self.follow_client_alone(frame.bytes(), stage, number);
        }
        let flow = self.flows.get_mut(number);
        let lifetime = context
            .tables
            .timeout(flow.service(), flow.progress.timed_as());
        flow.deadline = context.now.tick() + lifetime;
        self.count_forwarded(number, Side::Client, stage.total);
        self.pass_on::<V, F>(context, frame, stage, number, hop)
    }

    /// Moves the state by a segment of the client, if it is believed.
    fn follow_client_alone(&mut self, frame: &[u8], stage: &Stage, number: u32) {
        let Some((numbers, next)) = numbers(frame, stage) else {
            return;
        };
        let flow = self.flows.get_mut(number);
        if flow.hears_client(numbers, next) {
            let was_established = flow.is_established();
            flow.progress = flow.progress.after_client_alone(numbers.flags);
            let is_established = flow.is_established();
            if is_established != was_established {
                self.cells
                    .flow_established(flow.service(), flow.target_id, is_established);
            }
        } else {
            self.cells.worker(WorkerCount::SegmentsDisbelieved, 1);
        }
    }

    /// Takes out what a target could believe to be the client's address: the client has no business to send it.
    #[cold]
    fn strip_forged<F: Frame>(&mut self, frame: &mut F, stage: &Stage, number: u32) {
        let Some(segment) = frame.bytes_mut().get_mut(stage.payload()) else {
            return;
        };
        let (forged, delta) = toa::strip(segment);
        update(segment, delta);
        let service = self.flows.get(number).service();
        self.cells
            .service(service, ServiceCount::ClientAddressForged, forged);
    }

    /// The longest packet of a flow that goes on in one piece.
    pub(super) fn inner_mtu<V: Family>(&self, hop: u16, number: u32) -> u16 {
        let outer = if self.flows.get(number).is_tunnelled() {
            V::HEADER as u16
        } else {
            0
        };
        self.neighbours.get(hop).mtu.saturating_sub(outer)
    }

    /// Sends a checked packet of a one-sided flow on: whole, or in pieces if it is too long and may be cut.
    pub(super) fn pass_on<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
        hop: u16,
    ) -> Verdict {
        let total = ETHERNET_HEADER + usize::from(stage.total);
        if self.flows.get(number).is_tunnelled() {
            // Padding isn't needed any more.
            frame.trim(total);
        } else {
            stage.trim(frame);
        }
        if let Some(packet) = frame.bytes_mut().get_mut(ETHERNET_HEADER..) {
            let (source, destination) = V::ends(packet);
            V::readdress(packet, source, destination, 1);
        }
        let mtu = self.inner_mtu::<V>(hop, number);
        if stage.total > mtu {
            let Some(bytes) = frame.bytes().get(..total) else {
                return Verdict::Drop(DropReason::TooBig);
            };
            let header = usize::from(stage.header);
            return self.each_piece(context, bytes, header, mtu, |worker, context, piece| {
                worker.send_direct::<V, _>(context, piece, number, hop, stage.hash)
            });
        }
        self.send_direct::<V, F>(context, frame, number, hop, stage.hash)
    }

    /// Sends a packet that fits, inside another if the flow is tunnelled.
    fn send_direct<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        number: u32,
        hop: u16,
        hash: u64,
    ) -> Verdict {
        if self.flows.get(number).is_tunnelled()
            && let Err(reason) = self.wrap::<V, F>(context, frame, number, hop, hash)
        {
            return Verdict::Drop(reason);
        }
        self.send(context, hop, frame.bytes_mut())
    }

    /// Puts a packet into an outer one from the egress port to the target.
    fn wrap<V: Family, F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        number: u32,
        hop: u16,
        hash: u64,
    ) -> Result<(), DropReason> {
        let egress = context.tables.port(self.neighbours.get(hop).port);
        let source = egress
            .and_then(|port| port.address::<V>())
            .ok_or(DropReason::NoRoute)?;
        let target = V::addresses(&self.flows, number).target;
        if !frame.make_room(ETHERNET_HEADER, V::HEADER) {
            return Err(DropReason::TooBig);
        }
        let packet = frame.bytes_mut().get_mut(ETHERNET_HEADER..);
        let Some((outer, inner)) = packet.and_then(|packet| packet.split_at_mut_checked(V::HEADER))
        else {
            return Err(DropReason::TooBig);
        };
        let identification = self.fragments.number();
        V::wrap(outer, inner, source, target, identification, hash);
        Ok(())
    }

    /// An ICMP error to the VIP about what the target sent the client: the target's.
    pub(super) fn pass_icmp<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged<V>,
        number: u32,
        hop: u16,
    ) -> Verdict {
        let stage = Stage::found(&staged.ip, &staged.tuple, 0, staged.hash);
        // Never an error about an error (RFC 1122 3.2.2).
        if stage.total > self.inner_mtu::<V>(hop, number) && stage.dont_fragment {
            return Verdict::Drop(DropReason::TooBig);
        }
        let service = self.flows.get(number).service();
        self.cells.worker(WorkerCount::IcmpForwarded, 1);
        self.cells.service(service, ServiceCount::IcmpForwarded, 1);
        self.pass_on::<V, F>(context, frame, &stage, number, hop)
    }

    /// An ICMP error to one of our ports: if it is about an outer packet of ours and came from where that went, its client hears what it
    /// means for the inner one (RFC 2003 4, RFC 2473 8), as far as what is quoted tells whose it was. None if it is nothing of the kind.
    #[cold]
    pub(super) fn tunnel_error<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &F,
        staged: &Staged<V>,
    ) -> Option<Verdict> {
        let message = frame.bytes().get(staged.payload())?;
        let quoted = message.get(icmp::HEADER..)?;
        let outer = V::parse_quoted(quoted).ok()?;
        let kind = icmp::parse(&staged.ip, message).ok()?;
        let ours = outer.protocol == V::TUNNELLED
            && outer.source == staged.ip.destination
            && V::KINDS.is_error(kind);
        if !ours {
            return None;
        }
        let inner = quoted.get(usize::from(outer.header)..)?;
        // `icmp::parse` has taken no message shorter than its header.
        let error = (kind, message[1], u32_at(message, 4));
        Some(
            match self.tell_client::<V>(context, outer.destination, inner, error) {
                Ok(verdict) => verdict,
                Err(reason) => Verdict::Drop(reason),
            },
        )
    }

    fn tell_client<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        target: V::Address,
        inner: &[u8],
        error: tunnel::Error,
    ) -> Result<Verdict, DropReason> {
        let key = Quote::<V>::parse(inner)
            .map_err(|_| DropReason::IcmpNoFlow)?
            .tuple;
        let hash = self.flows.hash(&key);
        if context.steer {
            let owner = steer::owner(context.tables, &key, hash, self.workers);
            if owner != self.index {
                return Ok(Verdict::Redirect(owner));
            }
        }
        let flow = self.flows.find(hash, super::NONE, &key);
        let (number, _) = flow
            .filter(|(number, side)| {
                *side == Side::Client
                    && self.flows.get(*number).is_tunnelled()
                    && V::addresses(&self.flows, *number).target == target
            })
            .ok_or(DropReason::IcmpNoFlow)?;
        // The way to the target begins at its port: who is beyond another has not seen our outer packets.
        let way = context.tables.net::<V>().route(target);
        if way.is_none_or(|(port, _)| port != context.port.index) {
            return Err(DropReason::WrongPort);
        }
        let (kind, code, rest) = V::meaning(error).ok_or(DropReason::IcmpIgnored)?;
        let too_big = V::KINDS.is_too_big(kind, code);
        if !self.icmp_errors.take(context.now, too_big) {
            return Err(DropReason::IcmpRate);
        }
        let hop = self.hop::<V>(context, number, Side::Target)?;
        let quote = &inner[..inner.len().min(V::QUOTE)];
        // The answer is resized to all its parts, so that they can be indexed.
        let length = icmp::HEADER + quote.len();
        let mut answer = std::mem::take(&mut self.scratch);
        answer.clear();
        answer.resize(ETHERNET_HEADER + V::HEADER + length, 0);
        put(&mut answer, 12, V::ETHER_TYPE.to_be_bytes());
        let packet = &mut answer[ETHERNET_HEADER..];
        V::write_header(
            packet,
            key.destination,
            key.source,
            V::ICMP,
            length,
            crate::limits::OWN_TTL,
        );
        let message = &mut packet[V::HEADER..];
        (message[0], message[1]) = (kind, code);
        put(message, 4, rest.to_be_bytes());
        message[icmp::HEADER..].copy_from_slice(quote);
        icmp::seal::<V>(key.destination, key.source, message);
        let verdict = self.dispatch(context, hop, &mut answer);
        self.scratch = answer;
        let service = self.flows.get(number).service();
        self.cells.worker(WorkerCount::TunnelErrors, 1);
        self.cells.service(service, ServiceCount::IcmpForwarded, 1);
        Ok(verdict)
    }
}
