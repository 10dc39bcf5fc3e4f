//! A fragment: which packet's, whose, and what its first fragment says about it (`crate::fragments`).

use super::classify::{Stage, is_forwarded};
use super::{Context, NONE, Worker, echo};
use crate::client_address::Insertion;
use crate::counters::WorkerCount;
use crate::family::Family;
use crate::flow::{Side, Tuple};
use crate::fragments::{Head, Part, Ports, Turn};
use crate::limits::ETHERNET_HEADER;
use crate::nat;
use crate::service::{Mode, Protocol};
use crate::steer;
use crate::tables::Owned;
use crate::wire::ip::{self, Ip};
use crate::wire::{icmp, tcp, u16_at, udp};
use crate::{DropReason, Frame, Verdict};

/// A fragment as found in a frame.
struct Found<V: Family> {
    ip: Ip<V>,
    part: Part,
    /// Of the first: what it says, and its TCP flags.
    head: Option<(Head, u8)>,
}

/// What is known of a fragment's packet.
#[derive(Clone, Copy)]
struct Known {
    head: Head,
    /// The identification its fragments leave by under FULLNAT.
    number: u32,
    /// Its flow, unless that went in the meantime.
    flow: Option<u32>,
    /// This worker is the packet's director.
    directs: bool,
}

impl Worker {
    /// A fragment to one of our addresses.
    pub(super) fn fragment<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
    ) -> Verdict {
        let found = match find::<V>(context, frame.bytes()) {
            Ok(found) => found,
            Err(reason) => return Verdict::Drop(reason),
        };
        let director = self.fragments.director(&found.part.datagram, self.workers);
        if context.steer && director != self.index {
            return Verdict::Redirect(director);
        }
        let head = found.head.map(|(head, _)| head);
        let turn = self
            .fragments
            .take(context.now, &found.part, head, &self.cells);
        let known = |head, number, flow| Known {
            head,
            number,
            flow,
            directs: director == self.index,
        };
        match turn {
            Ok(Turn::Early { place }) => {
                let port = context.port.index;
                if self.fragments.hold(place, frame.bytes(), port, context.now) {
                    Verdict::Held
                } else {
                    Verdict::Drop(DropReason::FragmentNoRoom)
                }
            }
            Ok(Turn::Follows { head, number, flow }) => {
                self.follow_first(context, frame, &found, known(head, number, flow))
            }
            Ok(Turn::First {
                head,
                number,
                place,
            }) => {
                let mut known = known(head, number, None);
                let verdict = self.go_first(context, frame, &found, &mut known);
                if let Some(flow) = known.flow {
                    self.fragments.note(place, flow);
                }
                self.release::<V>(context, place, known);
                verdict
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The fragments that came before their first go now, in the order they came.
    fn release<V: Family>(&mut self, context: &mut Context<'_>, place: u16, known: Known) {
        let mut frame = std::mem::take(&mut self.scratch);
        while let Some(port) = self.fragments.pop(place, &mut frame) {
            let verdict = match (find::<V>(context, &frame), context.tables.port(port)) {
                (Ok(found), Some(port)) => {
                    let mut context = Context {
                        port,
                        mac: port.mac.number(),
                        tables: context.tables,
                        now: context.now,
                        tick: context.tick,
                        out: &mut *context.out,
                        steer: context.steer,
                    };
                    self.follow_first(&mut context, &mut frame, &found, known)
                }
                _ => Verdict::Kernel,
            };
            let went = match verdict {
                Verdict::Transmit(to) => {
                    crate::neighbour::emit(context.out, &self.cells, to, &frame);
                    true
                }
                Verdict::Redirect(worker) if context.out.handover(worker, port, &frame) => {
                    self.cells.worker(WorkerCount::Redirected, 1);
                    true
                }
                Verdict::Held | Verdict::Consumed => true,
                Verdict::Redirect(_) | Verdict::Drop(_) | Verdict::Kernel => false,
            };
            if !went {
                self.cells.worker(WorkerCount::EarlyFragmentsDropped, 1);
            }
        }
        self.scratch = frame;
    }

    /// The first fragment goes the way of a whole packet, of an echo request back. Its flow is noted. Where the client's address goes along none does: room for it
    /// would have to move all the others.
    fn go_first<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        found: &Found<V>,
        known: &mut Known,
    ) -> Verdict {
        let ports = match known.head {
            Head::Ports(ports) => ports,
            Head::Echo => return self.echo(context, frame, &found.ip),
            Head::Message => return Verdict::Kernel,
        };
        let tuple = tuple(found, ports);
        let hash = self.flows.hash(&tuple);
        if let Some(owner) = self.other_owner(context, &tuple, hash, known.directs) {
            return Verdict::Redirect(owner);
        }
        let flags = found.head.map_or(0, |(_, flags)| flags);
        let stage = Stage::found(&found.ip, &tuple, flags, hash);
        let (number, side) = match self.flows.find(hash, NONE, &tuple) {
            Some(found) => found,
            None if flags & tcp::SYN != 0 && takes_address_along(context, &tuple) => {
                return Verdict::Drop(DropReason::ClientAddress);
            }
            None => match self.enter::<V, F>(context, frame, &stage, None) {
                Ok(number) => (number, Side::Client),
                Err(verdict) => return verdict,
            },
        };
        let flow = self.flows.get(number);
        if flow.inserts() || flags & tcp::SYN != 0 && flow.insertion() != Insertion::None {
            return Verdict::Drop(DropReason::ClientAddress);
        }
        known.flow = Some(number);
        if self.flows.get(number).is_two_sided() {
            renumber::<V>(frame.bytes_mut(), &found.part, known.number);
        }
        let verdict = self.forward::<V, F>(context, frame, &stage, number, side);
        if flags & tcp::FIN != 0 && side == Side::Client {
            self.may_have_ended_later::<V>(number);
        }
        verdict
    }

    /// A later fragment goes where the first went; if that was refused, there is no flow. Whatever is wrong with it, its sender isn't
    /// told (RFC 1122 3.2.2): the first was the one to tell of.
    fn follow_first<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        found: &Found<V>,
        known: Known,
    ) -> Verdict {
        let ports = match known.head {
            Head::Ports(ports) => ports,
            Head::Echo => return self.echo(context, frame, &found.ip),
            Head::Message => return Verdict::Kernel,
        };
        let tuple = tuple(found, ports);
        let hash = self.flows.hash(&tuple);
        if let Some(owner) = self.other_owner(context, &tuple, hash, known.directs) {
            return Verdict::Redirect(owner);
        }
        // One of one packet each isn't found by its client's packets.
        let noted = || known.flow.filter(|flow| self.is_of_client(*flow, &tuple));
        let flow = self.flows.find(hash, NONE, &tuple);
        let Some((number, side)) = flow.or_else(|| Some((noted()?, Side::Client))) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        if side == Side::Target && !self.is_on_its_port::<V>(context, number) {
            return Verdict::Drop(DropReason::WrongPort);
        }
        let hop = match self.hop::<V>(context, number, side) {
            Ok(hop) => hop,
            Err(reason) => return Verdict::Drop(reason),
        };
        if found.ip.ttl <= 1 {
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let stage = Stage::found(&found.ip, &tuple, 0, hash);
        if stage.total > self.inner_mtu::<V>(hop, number) && stage.dont_fragment {
            return Verdict::Drop(DropReason::TooBig);
        }
        self.count_forwarded(number, side, stage.total);
        if !self.flows.get(number).is_two_sided() {
            return self.pass_on::<V, F>(context, frame, &stage, number, hop);
        }
        stage.trim(frame);
        renumber::<V>(frame.bytes_mut(), &found.part, known.number);
        let addresses = V::addresses(&self.flows, number);
        nat::readdress::<V>(frame.bytes_mut(), &addresses, side);
        self.send(context, hop, frame.bytes_mut())
    }

    /// Whether a flow is of the client that sent a packet.
    fn is_of_client<V: Family>(&self, number: u32, packet: &Tuple<V>) -> bool {
        let flow = self.flows.get(number);
        flow.is_alive()
            && flow.is_v6() == V::IS_V6
            && flow.client_key::<V>(&V::addresses(&self.flows, number)) == *packet
    }

    /// The worker that owns the flow, if it is another and this one directs.
    fn other_owner<V: Family>(
        &self,
        context: &Context<'_>,
        tuple: &Tuple<V>,
        hash: u64,
        directs: bool,
    ) -> Option<u16> {
        if !directs || self.workers == 1 {
            return None;
        }
        let owner = steer::owner(context.tables, tuple, hash, self.workers);
        (owner != self.index).then_some(owner)
    }
}

/// Reads a fragment; the first is checked as a whole packet is.
fn find<V: Family>(context: &Context<'_>, frame: &[u8]) -> Result<Found<V>, DropReason> {
    let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
    let ip = V::parse(packet)?;
    let part = V::part(packet, &ip)?;
    if !ip.first {
        return Ok(Found {
            ip,
            part,
            head: None,
        });
    }
    let payload = packet
        .get(usize::from(ip.header)..usize::from(ip.total))
        .unwrap_or(&[]);
    // The whole transport header must be in the first fragment (RFC 1858, RFC 7112).
    let (protocol, flags) = match ip.protocol {
        ip::TCP => (Protocol::Tcp, tcp::parse(payload)?),
        ip::UDP => {
            udp::parse_start::<V>(payload)?;
            (Protocol::Udp, 0)
        }
        protocol if protocol == V::ICMP => {
            let owned = context.tables.net::<V>().owned(ip.destination);
            let head = match icmp::parse_start::<V>(payload) {
                Ok(()) => Head::Echo,
                Err(_) if matches!(owned, Some(Owned::Port { .. })) => Head::Message,
                Err(reason) => return Err(reason),
            };
            return Ok(Found {
                ip,
                part,
                head: Some((head, 0)),
            });
        }
        _ => return Err(DropReason::Fragment),
    };
    let ports = Ports {
        source: u16_at(payload, 0),
        destination: u16_at(payload, 2),
        protocol,
    };
    Ok(Found {
        ip,
        part,
        head: Some((Head::Ports(ports), flags)),
    })
}

fn tuple<V: Family>(found: &Found<V>, ports: Ports) -> Tuple<V> {
    Tuple {
        source: found.ip.source,
        destination: found.ip.destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: ports.protocol,
    }
}

/// Writes another identification into a fragment.
fn renumber<V: Family>(frame: &mut [u8], part: &Part, number: u32) {
    if let Some(packet) = frame.get_mut(ETHERNET_HEADER..) {
        V::renumber(packet, part.identification_at, number);
    }
}

/// Whether a fragment is ours to forward, or to answer; if not, what becomes of it.
#[cold]
pub(super) fn is_followed<V: Family>(context: &Context<'_>, ip: &Ip<V>) -> Result<(), Verdict> {
    if ip.protocol == V::ICMP && echo::is_answered::<V>(context, ip.destination) {
        return Ok(());
    }
    if !is_forwarded::<V>(context, ip.destination) {
        return Err(Verdict::Kernel);
    }
    // What a later IPv6 fragment says of the protocol counts for nothing (RFC 8200 4.5).
    if !matches!(ip.protocol, ip::TCP | ip::UDP) && (ip.first || !V::IS_V6) {
        return Err(Verdict::Drop(DropReason::Fragment));
    }
    Ok(())
}

/// Whether the first segment of a connection would take the client's address to its target.
fn takes_address_along<V: Family>(context: &Context<'_>, tuple: &Tuple<V>) -> bool {
    let net = context.tables.net::<V>();
    net.service_at(tuple.destination, tuple.destination_port, tuple.protocol)
        .and_then(|id| context.tables.service(id))
        .is_some_and(|service| {
            service.config.mode == Mode::FullNat
                && Insertion::new(service.config.client_address) != Insertion::None
        })
}
