//! ICMP: echo answered for our addresses, errors about our flows rewritten and passed on.

use super::classify::{Staged, is_forwarded};
use super::forward::is_on_its_port;
use super::{Context, NONE, Worker};
use crate::counters::{ServiceCount, WorkerCount};
use crate::flow::{Flow, Side};
use crate::limits::ETHERNET_HEADER;
use crate::nat;
use crate::tables::Owned;
use crate::wire::icmp::{self, Quote};
use crate::wire::{checksum, put};
use crate::{DropReason, Frame, Verdict, reply, steer};

impl Worker {
    pub(super) fn icmp<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged,
    ) -> Verdict {
        let destination = staged.ip.destination;
        let ours = match context.tables.owned(destination) {
            Some(Owned::Vip { .. } | Owned::LocalIp(_)) => true,
            Some(Owned::Port { answers }) => answers && context.port.address == destination,
            None => false,
        };
        if !ours {
            return Verdict::Kernel;
        }
        let message = frame.bytes().get(staged.payload()).unwrap_or(&[]);
        let kind = match icmp::parse(message) {
            Ok(kind) => kind,
            Err(reason) => return Verdict::Drop(reason),
        };
        match kind {
            icmp::ECHO_REQUEST if super::admit::may_answer(context.tables, staged.ip.source) => {
                staged.trim(frame);
                reply::echo(frame.bytes_mut(), &staged.ip, context.port.mac);
                self.cells.worker(WorkerCount::EchoReplies, 1);
                Verdict::Transmit(context.port.index)
            }
            icmp::ECHO_REQUEST => Verdict::Drop(DropReason::MartianSource),
            icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM
                if is_forwarded(context, destination) =>
            {
                self.forward_icmp(context, frame, staged)
            }
            _ if is_forwarded(context, destination) => Verdict::Drop(DropReason::IcmpIgnored),
            _ => Verdict::Kernel,
        }
    }

    /// Passes an error on to the other end of the flow that it quotes: the quote becomes the packet that end sent, the error
    /// comes from the address it sent to (routers on one side mean nothing on the other).
    fn forward_icmp<F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged,
    ) -> Verdict {
        let message = frame.bytes().get(staged.payload()).unwrap_or(&[]);
        let quote = match Quote::parse(message.get(icmp::HEADER..).unwrap_or(&[])) {
            Ok(quote) => quote,
            Err(reason) => return Verdict::Drop(reason),
        };
        // What came back is about what we sent: the flow is found by the answer to it.
        let key = quote.tuple.reversed();
        if key.destination != staged.ip.destination {
            return Verdict::Drop(DropReason::IcmpNoFlow);
        }
        let hash = self.flows.hash(&key);
        if context.steer {
            let owner = steer::owner(context.tables, &key, hash, self.workers);
            if owner != self.index {
                return Verdict::Redirect(owner);
            }
        }
        let Some((number, side)) = self.flows.find(hash, NONE, &key) else {
            return Verdict::Drop(DropReason::IcmpNoFlow);
        };
        if side == Side::Target && !is_on_its_port(context, self.flows.get(number)) {
            return Verdict::Drop(DropReason::WrongPort);
        }
        if staged.ip.ttl <= 1 {
            // Never an error about an error (RFC 1122 3.2.2).
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let hop = match self.hop(context, number, side) {
            Ok(hop) => hop,
            Err(reason) => return Verdict::Drop(reason),
        };
        if staged.ip.total > self.neighbours.get(hop).mtu {
            return Verdict::Drop(DropReason::TooBig);
        }
        let flow = *self.flows.get(number);
        staged.trim(frame);
        rewrite(frame.bytes_mut(), staged, quote.header, &flow, side);
        self.cells.worker(WorkerCount::IcmpForwarded, 1);
        self.cells
            .service(flow.service, ServiceCount::IcmpForwarded, 1);
        self.send(context, hop, frame.bytes_mut())
    }
}

/// Rewrites an error from `side` outside and inside. Errors are rare and their checksum was verified, so it is made anew.
fn rewrite(frame: &mut [u8], staged: &Staged, quote_header: usize, flow: &Flow, side: Side) {
    let (source, destination) = match side {
        Side::Target => (flow.vip, flow.client),
        Side::Client => (flow.local, flow.target),
    };
    let packet = &mut frame[ETHERNET_HEADER..];
    packet[8] = packet[8].wrapping_sub(1);
    put(packet, 12, source.octets());
    put(packet, 16, destination.octets());
    put(packet, 10, [0, 0]);
    let sum = checksum::checksum(&packet[..usize::from(staged.ip.header)]);
    put(packet, 10, sum.to_be_bytes());
    let message = &mut packet[usize::from(staged.ip.header)..usize::from(staged.ip.total)];
    nat::restore_quote(&mut message[icmp::HEADER..], quote_header, flow, side);
    put(message, 2, [0, 0]);
    let sum = checksum::checksum(message);
    put(message, 2, sum.to_be_bytes());
}
