//! A packet of no known flow: a new flow, or a refusal that the sender hears of.

use std::net::{IpAddr, SocketAddr};

use std::cell::Cell;

use super::classify::{Stage, Staged};
use super::policy::{Choice, refusal};
use super::{Context, Event, Flow, Worker};
use crate::client_address::Insertion;
use crate::counters::{ServiceCount, TargetCount, WorkerCount};
use crate::family::Family;
use crate::flow::{Addresses, Side};
use crate::ids::{ServiceId, TargetId};
use crate::policy::Refusal;
use crate::service::{Mode, Protocol, Service, Target, UnknownSegment};
use crate::sources::Seat;
use crate::tables::{LocalIp, Owned, Tables};
use crate::wire::icmp::Problem;
use crate::wire::{tcp, u32_at};
use crate::{DropReason, Frame, Verdict, reply};

impl Worker {
    /// Decides a packet without flow. `reuse`: the entry of a flow it replaces, already removed but still on the wheel.
    pub(super) fn admit<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        reuse: Option<u32>,
    ) -> Verdict {
        match self.enter::<V, F>(context, frame, stage, reuse) {
            Ok(number) => self.forward::<V, F>(context, frame, stage, number, Side::Client),
            Err(verdict) => verdict,
        }
    }

    /// Finds the flow for a packet without one; its number, or the verdict on the packet.
    pub(super) fn enter<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        reuse: Option<u32>,
    ) -> Result<u32, Verdict> {
        let staged = &stage.of::<V>(frame.bytes());
        let tables = context.tables;
        let tuple = &staged.tuple;
        let net = tables.net::<V>();
        let service = net
            .service_at(tuple.destination, tuple.destination_port, tuple.protocol)
            .and_then(|id| tables.service(id));
        let Some(service) = service else {
            return Err(match net.owned(tuple.destination) {
                Some(Owned::Vip { .. }) => {
                    self.refuse(context, frame, staged, None, DropReason::NoService)
                }
                Some(Owned::LocalIp(_)) => {
                    self.refuse(context, frame, staged, None, DropReason::NoFlow)
                }
                Some(Owned::Port { .. }) | None => Verdict::Kernel,
            });
        };
        if !may_forward::<V>(tables, tuple.source) {
            return Err(Verdict::Drop(DropReason::MartianSource));
        }
        let opens =
            tuple.protocol == Protocol::Udp || staged.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if !opens {
            self.cells.service(service.id, ServiceCount::NoFlow, 1);
            return Err(match service.config.unknown_segment {
                UnknownSegment::Reset => {
                    self.refuse(context, frame, staged, Some(service.id), DropReason::NoFlow)
                }
                UnknownSegment::Drop => Verdict::Drop(DropReason::NoFlow),
            });
        }
        if staged.ip.ttl <= 1 {
            return Err(self.expire_ttl::<V>(context, frame.bytes(), stage));
        }
        self.create(context, frame.bytes(), staged, service, reuse)
            .map_err(|reason| match refusal(&service.config.policy, reason) {
                Refusal::Reset => self.refuse(context, frame, staged, Some(service.id), reason),
                Refusal::Drop => Verdict::Drop(reason),
            })
    }

    /// A SYN from a client whose old connection is closing, or can't come about: that one goes, a new one takes its place.
    pub(super) fn reschedule<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
    ) -> Verdict {
        let staged = &stage.of::<V>(frame.bytes());
        if let Err(reason) = self.hold_sound(context, frame.bytes(), staged) {
            return Verdict::Drop(reason);
        }
        self.cells.worker(WorkerCount::FlowsRescheduled, 1);
        self.end_flow(context.tables, context.now, number);
        self.admit::<V, F>(context, frame, stage, Some(number))
    }

    /// Creates the flow of a packet from a client, if it is let in; its number, or why not.
    fn create<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        service: &Service,
        reuse: Option<u32>,
    ) -> Result<u32, DropReason> {
        let (tables, now) = (context.tables, context.now);
        let (hash, tuple) = (staged.hash, &staged.tuple);
        let client: (IpAddr, u16) = (tuple.source.into(), tuple.source_port);
        self.is_granted(service, client.0)?;
        let mut choice = None;
        if service.config.is_one_packet() {
            let flow_to = |worker: &Self, target| worker.flows.find_one_packet(hash, tuple, target);
            let has_flow = |worker: &Self, target| flow_to(worker, target).is_some();
            let chosen = self.pick(tables, now, context.out, service, client, has_flow)?;
            if let Some(number) = flow_to(self, chosen.target) {
                return Ok(number);
            }
            choice = Some(chosen);
        }
        // What takes a flow's place was looked at before that had to go.
        if reuse.is_none() {
            self.hold_sound(context, frame, staged)?;
        }
        if reuse.is_none() && self.flows.is_full() {
            self.cells
                .service(service.id, ServiceCount::FlowTableFull, 1);
            let due = self.reports.flow_table_full.pass(now);
            self.report_if(due, context.out, Event::FlowTableFull);
            return Err(DropReason::FlowTableFull);
        }
        let seat = self.seat(service, client.0, now)?;
        let choice = match choice {
            Some(choice) => Ok(choice),
            None => self.pick(tables, now, context.out, service, client, |_, _| false),
        };
        let created = choice.and_then(|choice| {
            let flow = self.create_as(context, frame, staged, service, (choice, seat))?;
            self.place::<V>(flow, reuse, now.tick())
        });
        match (&created, seat) {
            (Ok(number), Some(seat)) if service.config.policy.limits.source.connections > 0 => {
                self.take_seat(*number, seat);
            }
            (_, Some(seat)) => self.counters.shared().sources.leave(seat),
            (_, None) => {}
        }
        created
    }

    /// The flow of a packet from a client to the target chosen, or the one its source goes to by another worker's choice. It is all but in
    /// the table: what is limited is taken, and its source stays with the target.
    fn create_as<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
        service: &Service,
        (choice, seat): (Choice, Option<Seat>),
    ) -> Result<(Flow, Addresses<V::Address>), DropReason> {
        let (tables, now) = (context.tables, context.now);
        let mut created = self.create_towards(context, staged, service, choice.target)?;
        let settled = self.settle(tables, now, service, &choice);
        if settled != choice.target {
            self.give_port_back(&created.0);
            created = self.create_towards(context, staged, service, settled)?;
        }
        if let Err(reason) = self.take_rates(service, seat, settled, now) {
            self.give_port_back(&created.0);
            return Err(reason);
        }
        let (flow, addresses) = &mut created;
        if flow.protocol() == Protocol::Tcp {
            self.number(frame, staged, service, flow, addresses);
        }
        Ok(created)
    }

    fn give_port_back(&mut self, flow: &Flow) {
        if let Some(local) = flow.local_ip() {
            self.ports.release(flow.target_id, local);
        }
    }

    /// A flow of a packet from a client to a target, with a local port.
    fn create_towards<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        staged: &Staged<V>,
        service: &Service,
        target: TargetId,
    ) -> Result<(Flow, Addresses<V::Address>), DropReason> {
        let tables = context.tables;
        let id = service.id;
        let target = tables.target(target).ok_or(DropReason::NoTarget)?;
        // Snapshots don't mix families.
        let Some(target_ip) = V::address(target.config.address.ip()) else {
            return Err(DropReason::NoTarget);
        };
        let tuple = &staged.tuple;
        let target_port = target.config.port_for(tuple.destination_port);
        let mut addresses = Addresses {
            client: tuple.source,
            vip: tuple.destination,
            target: target_ip,
            local: V::unspecified(),
        };
        let mode = service.config.mode;
        let mut flow = Flow::new(tuple, target_port, 0)
            .with_service(id)
            .in_mode(mode);
        if service.config.is_one_packet() {
            flow = flow.one_packet();
        }
        if service.config.policy.persistence.is_some() {
            flow = flow.persistent();
        }
        flow.target_id = target.id;
        if mode == Mode::FullNat {
            let (local, port) = self.claim::<V>(context, id, target, &flow, &addresses)?;
            (flow.local_id, flow.local_port, addresses.local) = (local.id, port, local.address);
        }
        flow.deadline = context.now.tick() + tables.timeout(id, flow.progress.timed_as());
        Ok((flow, addresses))
    }

    /// Works out the sequence numbers of a TCP flow from its SYN.
    fn number<V: Family>(
        &mut self,
        frame: &[u8],
        staged: &Staged<V>,
        service: &Service,
        flow: &mut Flow,
        addresses: &Addresses<V::Address>,
    ) {
        let chosen_by_client = u32_at(frame.get(staged.payload()).unwrap_or(&[]), tcp::SEQUENCE);
        flow.origin = chosen_by_client.wrapping_add(1);
        if flow.is_two_sided() {
            flow.set_insertion(Insertion::new(service.config.client_address));
            self.created += 1;
            let random = self.secret.hash(self.created, staged.hash);
            let key = self.flows.hash(&flow.target_key::<V>(addresses));
            let initial = self.sequences.initial(key, random);
            flow.shift = initial.wrapping_sub(chosen_by_client);
        }
    }

    /// A LocalIP and a port of it that are free towards a flow's target.
    fn claim<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        service: ServiceId,
        target: &Target,
        flow: &Flow,
        addresses: &Addresses<V::Address>,
    ) -> Result<(LocalIp<V::Address>, u16), DropReason> {
        let tables = context.tables;
        let (flows, index) = (&self.flows, self.index);
        let answers = tables.steering().of_answers(target.port, self.workers);
        // What the ports tried on a LocalIP have in common, for four of them at a time.
        let worked_out = [const { Cell::new(None) }; 4];
        let comes_here = |local: &LocalIp<V::Address>, port| {
            let kept = &worked_out[usize::from(local.id.0) % worked_out.len()];
            let between = match kept.get() {
                Some((id, between)) if id == local.id => between,
                _ => {
                    let answers = answers.filter(|_| !local.by_port);
                    let from = SocketAddr::new(addresses.target.into(), flow.target_port);
                    let between = answers
                        .and_then(|rss| rss.between(flow.protocol(), from, local.address.into()));
                    kept.set(Some((local.id, between)));
                    between
                }
            };
            between.is_none_or(|between| between.queue(port) == index)
        };
        let claimed = self.ports.claim(
            target.id,
            tables.net::<V>().local_ips_on(target.port),
            answers.is_some().then_some(&comes_here),
            |local, port| {
                let mut key = flow.target_key::<V>(addresses);
                (key.destination, key.destination_port) = (local.address, port);
                flows.contains(&key)
            },
        );
        if let Some((local, port)) = claimed {
            self.load_ahead::<V>(tables, target, flow, addresses);
            return Ok((*local, port));
        }
        self.cells.service(service, ServiceCount::PortExhausted, 1);
        self.cells.target(target.id, TargetCount::PortExhausted, 1);
        let due = self.reports.ports_exhausted.pass(context.now);
        let target = target.id;
        self.report_if(due, context.out, Event::PortsExhausted { service, target });
        Err(DropReason::PortExhausted)
    }

    /// Starts loading what the next flow to a target is going to need, which is known by its port.
    fn load_ahead<V: Family>(
        &self,
        tables: &Tables,
        target: &Target,
        flow: &Flow,
        addresses: &Addresses<V::Address>,
    ) {
        let locals = tables.net::<V>().local_ips_on(target.port);
        if let Some((local, port)) = self.ports.next(target.id, locals) {
            let mut key = flow.target_key::<V>(addresses);
            (key.destination, key.destination_port) = (local.address, port);
            let hash = self.flows.hash(&key);
            self.flows.prefetch_bucket(hash);
            self.sequences.prefetch(hash);
        }
    }

    /// Puts a flow into the table and on the wheel.
    fn place<V: Family>(
        &mut self,
        (flow, addresses): (Flow, Addresses<V::Address>),
        reuse: Option<u32>,
        now: u32,
    ) -> Result<u32, DropReason> {
        let number = match reuse {
            Some(number) => {
                self.flows.replace::<V>(number, flow, &addresses);
                number
            }
            None => {
                let Some(number) = self.flows.insert::<V>(flow, &addresses) else {
                    self.give_port_back(&flow);
                    return Err(DropReason::FlowTableFull);
                };
                self.wheel.insert(&mut self.flows, number, now);
                number
            }
        };
        self.cells
            .flow_began(flow.service(), flow.target_id, flow.local_ip());
        Ok(number)
    }

    /// Refuses a packet so that its sender knows at once: TCP gets an RST, UDP a port unreachable (rate-limited).
    fn refuse<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged<V>,
        service: Option<ServiceId>,
        reason: DropReason,
    ) -> Verdict {
        if !may_answer::<V>(context.tables, staged.ip.source) {
            return Verdict::Drop(DropReason::MartianSource);
        }
        match staged.tuple.protocol {
            // Never an RST for an RST (RFC 9293 3.10.7.1).
            Protocol::Tcp if staged.flags & tcp::RST != 0 => Verdict::Drop(reason),
            Protocol::Tcp => {
                if let Err(damaged) = self.hold_sound(context, frame.bytes(), staged) {
                    return Verdict::Drop(damaged);
                }
                reply::reset(frame, &staged.ip, context.port.mac);
                self.cells.worker(WorkerCount::ResetsSent, 1);
                if let Some(service) = service {
                    self.cells.service(service, ServiceCount::ResetsSent, 1);
                } else if reason == DropReason::NoService {
                    self.cells.worker(WorkerCount::SegmentsUnserved, 1);
                }
                Verdict::Transmit(context.port.index)
            }
            Protocol::Udp => {
                let sent = self.tell_sender(
                    context,
                    frame.bytes(),
                    staged,
                    staged.ip.destination,
                    Problem::PortUnreachable,
                );
                if let (Some(service), Ok(true)) = (service, sent) {
                    self.cells.service(service, ServiceCount::IcmpErrorsSent, 1);
                }
                Verdict::Drop(sent.err().unwrap_or(reason))
            }
        }
    }
}

/// Whether packets from this source may be forwarded: it can be one host, beyond its own link, and isn't us.
pub(super) fn may_forward<V: Family>(tables: &Tables, source: V::Address) -> bool {
    V::is_routable(source) && tables.net::<V>().owned(source).is_none()
}

/// Whether packets from this source may be answered; a host on the link may use its link-local address.
pub(super) fn may_answer<V: Family>(tables: &Tables, source: V::Address) -> bool {
    V::is_host(source) && tables.net::<V>().owned(source).is_none()
}
