//! TCP segments that change in more than their numbers: SYNs, those with options, and those that take the client's address along.
//! Few of a connection's segments are.

use super::classify::{Stage, Staged};
use super::{Context, Worker, ahead};
use crate::client_address::Insertion;
use crate::client_address::mss::{self, Room};
use crate::client_address::proxy::{Gap, Header, Place, distance};
use crate::client_address::quote::{Inserted, Quoted};
use crate::client_address::segment::{Span, update};
use crate::client_address::toa::{self, Toa};
use crate::counters::ServiceCount;
use crate::family::Family;
use crate::flow::{Addresses, Flow, Side};
use crate::limits::{ETHERNET_HEADER, TCP_OPTIONS};
use crate::service::Timestamps;
use crate::tables::Tables;
use crate::wire::{icmp, tcp, u32_at};
use crate::{DropReason, Frame, Verdict};

impl Worker {
    /// Changes a segment of flow `number` from a side, before its addresses and numbers are rewritten; `stage` follows. What becomes of
    /// it instead, if it can't pass to its next hop so, or has gone behind a header that goes ahead.
    #[cold]
    pub(super) fn edit<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &mut Stage,
        (number, side, hop): (u32, Side, u16),
    ) -> Result<(), Verdict> {
        let range = stage.payload();
        let mut span = Span {
            start: range.start,
            end: range.end,
        };
        let growth = match side {
            Side::Client => self.growth::<V>(span.of(frame.bytes()), stage, number),
            Side::Target => Ok(0),
        };
        let growth = growth.map_err(Verdict::Drop)?;
        if let Some(verdict) = self.may_pass::<V>(context, frame.bytes(), stage, hop, growth) {
            return Err(verdict);
        }
        let ahead =
            side == Side::Client && self.goes_ahead::<V>(span.of(frame.bytes()), stage, number);
        let went = ahead && self.send_ahead::<V>(context, frame.bytes(), stage, (number, hop));
        match side {
            Side::Client => {
                let flow = (number, went);
                self.edit_from_client::<V, F>(context, frame, stage, flow, &mut span)
            }
            Side::Target => self.edit_from_target::<V, F>(context, frame, stage, number, &mut span),
        }
        .map_err(Verdict::Drop)?;
        stage.total = (span.end - ETHERNET_HEADER) as u16;
        if ahead {
            let way = (number, side, hop);
            return Err(self.send_behind::<V, F>(context, frame, stage, way));
        }
        Ok(())
    }

    /// How many bytes longer a client's segment leaves than it came; why it can't, if its numbers contradict the flow's.
    fn growth<V: Family>(
        &self,
        segment: &[u8],
        stage: &Stage,
        number: u32,
    ) -> Result<u16, DropReason> {
        let flow = self.flows.get(number);
        match (flow.insertion(), flow.gap()) {
            (Insertion::Toa, _) => Ok(option_growth::<V>(segment, stage.flags)),
            (_, None) => Ok(0),
            (_, Some(gap)) => match ahead::place::<V>(gap, segment, stage) {
                (Place::First, false) => Ok(gap.length as u16),
                (Place::First, true) | (Place::Before | Place::Behind, _) => Ok(0),
                (Place::Across, _) => Err(DropReason::ClientAddress),
            },
        }
    }

    /// Whether the PROXY header goes ahead of a client's segment.
    fn goes_ahead<V: Family>(&self, segment: &[u8], stage: &Stage, number: u32) -> bool {
        let gap = self.flows.get(number).gap();
        gap.is_some_and(|gap| ahead::place::<V>(gap, segment, stage).1)
    }

    /// Changes a client's segment of a flow. Where the PROXY header goes ahead of it: whether it `went`.
    fn edit_from_client<V: Family, F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        stage: &Stage,
        (number, went): (u32, bool),
        span: &mut Span,
    ) -> Result<(), DropReason> {
        let addresses = V::addresses(&self.flows, number);
        let flow = self.flows.get_mut(number);
        let service = flow.service();
        let segment = span.of_mut(frame.bytes_mut());
        let is_syn = stage.flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        // Timestamps alone don't count as options, but in a SYN they may have to go. So has MPTCP where something is put into segments: it
        // numbers the bytes of a subflow by options of its own (RFC 8684 3.3), in which a header has no place, and which give way to TOA.
        // Without it in the SYN both ends speak plain TCP (RFC 8684 3.7).
        if is_syn || stage.flags & tcp::OPTIONS != 0 {
            let (forged, mut delta) = toa::strip(segment);
            if is_syn && strips_timestamps(context.tables, flow) {
                delta = delta.and(tcp::strip_timestamps(segment));
            }
            if stage.flags & tcp::SYN != 0 && flow.insertion() != Insertion::None {
                delta = delta.and(tcp::strip_mptcp(segment));
            }
            update(segment, delta);
            self.cells
                .service(service, ServiceCount::ClientAddressForged, forged);
        }
        let done = match flow.insertion() {
            Insertion::ProxyOffered | Insertion::Proxy | Insertion::ProxyDone if is_syn => {
                // Early data would need the header in front of it. It is cut off; the client sends it again after the handshake.
                span.cut_payload(frame);
                if flow.insertion() == Insertion::ProxyDone {
                    // If both ends begin anew, which the target's SYN-ACK will say, the stream begins here.
                    let syn = u32_at(span.of(frame.bytes()), tcp::SEQUENCE);
                    flow.origin = syn.wrapping_add(1);
                }
                return Ok(());
            }
            Insertion::None | Insertion::ProxyDone | Insertion::ToaDone => return Ok(()),
            Insertion::ProxyOffered | Insertion::Proxy => {
                let Some(gap) = flow.gap() else { return Ok(()) };
                let move_on = |segment: &mut [u8]| {
                    let delta = gap.move_on(segment);
                    update(segment, delta);
                };
                match ahead::place::<V>(gap, segment, stage) {
                    (Place::Before | Place::Across, _) => return Ok(()),
                    (Place::Behind, _) => {
                        move_on(segment);
                        return Ok(());
                    }
                    (Place::First, true) => {
                        move_on(segment);
                        went
                    }
                    (Place::First, false) => {
                        let header = proxy_header::<V>(flow, &addresses);
                        span.insert_payload(frame, header.bytes())
                    }
                }
            }
            Insertion::Toa if stage.flags & tcp::RST != 0 => return Ok(()),
            Insertion::Toa => {
                let toa = toa_option::<V>(flow, &addresses);
                let inserted = span.insert_option(frame, toa.bytes());
                inserted || !is_syn && toa.overwrite(span.of_mut(frame.bytes_mut()))
            }
        };
        let count = if done {
            ServiceCount::ClientAddressInserted
        } else {
            ServiceCount::ClientAddressRefused
        };
        self.cells.service(service, count, 1);
        // A SYN without the option is as good; anything else would have the target take the LocalIP for the client.
        if done || is_syn {
            Ok(())
        } else {
            Err(DropReason::ClientAddress)
        }
    }

    fn edit_from_target<V: Family, F: Frame>(
        &mut self,
        context: &Context<'_>,
        frame: &mut F,
        stage: &Stage,
        number: u32,
        span: &mut Span,
    ) -> Result<(), DropReason> {
        if self.flows.get(number).insertion() == Insertion::None {
            return Ok(());
        }
        if stage.flags & tcp::SYN != 0 {
            let segment = span.of_mut(frame.bytes_mut());
            let delta = tcp::strip_mptcp(segment);
            update(segment, delta);
        }
        if stage.flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
            self.begin(span.of(frame.bytes()), number)?;
            // Of the link, not of the next hop: to look that up could make room among those that the packet at hand is bound for.
            let target = V::addresses(&self.flows, number).target;
            let way = context.tables.net::<V>().route(target);
            let mtu = way
                .and_then(|(port, _)| context.tables.port(port))
                .map_or(u16::MAX, |port| port.mtu);
            mss::lower(frame, span, room::<V>(self.flows.get(number), mtu));
            return Ok(());
        }
        let flow = self.flows.get_mut(number);
        let segment = span.of_mut(frame.bytes_mut());
        let acknowledged = u32_at(segment, tcp::ACKNOWLEDGMENT).wrapping_sub(flow.shift);
        let acknowledges = stage.flags & tcp::ACK != 0;
        match (flow.insertion(), flow.gap()) {
            (Insertion::Proxy, Some(gap)) if acknowledges && gap.is_filled_by(acknowledged) => {
                // From here on every number of the client is moved by the header's length, so the flow's shift can hold it.
                flow.shift = flow.shift.wrapping_add(gap.length);
                flow.client_next = gap.to_client(flow.client_next);
                flow.set_insertion(Insertion::ProxyDone);
            }
            (_, Some(gap)) if acknowledges => {
                let theirs = Gap {
                    origin: gap.origin.wrapping_add(flow.shift),
                    ..gap
                };
                let delta = theirs.acknowledge(segment);
                update(segment, delta);
            }
            (Insertion::Toa, _) if stage.flags & tcp::RST == 0 => {
                // What was sent for the connection before, and comes late, acknowledges nothing of this one.
                let ahead = distance(flow.origin, acknowledged);
                let is_open = ahead > 0 || ahead == 0 && tcp::occupies(segment) > 0;
                if acknowledges && is_open {
                    flow.set_insertion(Insertion::ToaDone);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes from a target's SYN-ACK where the client's stream begins: it is the target's word that counts, since the client may have
    /// sent any number of SYNs. One that answers none of them goes no further: the stream behind it would have no header, or one in the
    /// wrong place.
    fn begin(&mut self, segment: &[u8], number: u32) -> Result<(), DropReason> {
        let flow = self.flows.get_mut(number);
        let begins = u32_at(segment, tcp::ACKNOWLEDGMENT).wrapping_sub(flow.shift);
        let insertion = match flow.insertion() {
            Insertion::Toa | Insertion::ToaDone => Insertion::Toa,
            _ if begins == flow.origin || begins == flow.client_next => Insertion::Proxy,
            _ => return Err(DropReason::ClientAddress),
        };
        flow.origin = begins;
        flow.set_insertion(insertion);
        Ok(())
    }

    /// Takes out of the packet that an error from the target's side quotes what was put into it here, and off the size that it says
    /// would have passed; the packet's new length. The error's checksum is left to be made anew, the numbers to be restored.
    pub(super) fn edit_error<V: Family, F: Frame>(
        &self,
        frame: &mut F,
        staged: &Staged<V>,
        header: usize,
        number: u32,
    ) -> u16 {
        let flow = self.flows.get(number);
        let addresses = V::addresses(&self.flows, number);
        let range = staged.payload();
        let message = Span {
            start: range.start,
            end: range.end,
        };
        let bytes = message.of_mut(frame.bytes_mut());
        icmp::lower_mtu::<V>(bytes, inserted::<V>(flow));
        let mut quoted = Quoted::new(message, icmp::quote_before_extension::<V>(bytes), header);
        let (proxy, toa);
        let inserted = match flow.gap() {
            Some(gap) => {
                let segment = quoted.segment(frame.bytes());
                let sequence = u32_at(segment, tcp::SEQUENCE).wrapping_sub(flow.shift);
                proxy = proxy_header::<V>(flow, &addresses);
                (sequence == gap.origin).then(|| Inserted::Payload(proxy.bytes()))
            }
            None => {
                toa = toa_option::<V>(flow, &addresses);
                Some(Inserted::Option(toa.bytes()))
            }
        };
        if let Some(inserted) = inserted.filter(|it| quoted.can_hold(frame.bytes(), *it)) {
            quoted.take_out(frame, inserted);
        }
        (quoted.message.end - ETHERNET_HEADER) as u16
    }
}

/// What a segment grows by if it gets the option.
fn option_growth<V: Family>(segment: &[u8], flags: u8) -> u16 {
    let length = toa::length(V::IS_V6);
    let fits = tcp::header_length(segment) + length <= tcp::HEADER + TCP_OPTIONS;
    if fits && flags & tcp::RST == 0 {
        length as u16
    } else {
        0
    }
}

/// What a segment of the client may hold, if the link to the target takes packets of `mtu` bytes.
fn room<V: Family>(flow: &Flow, mtu: u16) -> Room {
    Room {
        default: if V::IS_V6 { 1220 } else { 536 },
        most: mtu.saturating_sub((V::HEADER + tcp::HEADER) as u16),
        inserted: inserted::<V>(flow),
    }
}

/// What is put into a segment of the client, bytes.
fn inserted<V: Family>(flow: &Flow) -> u16 {
    match flow.gap() {
        Some(gap) => gap.length as u16,
        None => toa::length(V::IS_V6) as u16,
    }
}

pub(super) fn proxy_header<V: Family>(flow: &Flow, addresses: &Addresses<V::Address>) -> Header {
    Header::new(
        (addresses.client.into(), flow.client_port).into(),
        (addresses.vip.into(), flow.vip_port).into(),
    )
}

fn toa_option<V: Family>(flow: &Flow, addresses: &Addresses<V::Address>) -> Toa {
    Toa::new((addresses.client.into(), flow.client_port).into())
}

/// Whether the service of a flow takes the timestamp option out of its SYN.
fn strips_timestamps(tables: &Tables, flow: &Flow) -> bool {
    tables
        .service(flow.service())
        .is_none_or(|service| service.config.timestamps == Timestamps::Strip)
}
