//! ICMP and ICMPv6: echo answered for our addresses ([`echo`]), errors about our flows rewritten and passed on.

use super::classify::{Staged, is_forwarded};
use super::{Context, NONE, Worker, echo};
use crate::counters::{ServiceCount, WorkerCount};
use crate::family::Family;
use crate::flow::{Addresses, Flow, Side};
use crate::limits::{ETHERNET_HEADER, LEAST_PATH_MTU};
use crate::nat;
use crate::service::Protocol;
use crate::wire::icmp::{self, Quote};
use crate::{DropReason, Frame, Verdict, steer};

impl Worker {
    pub(super) fn icmp<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged<V>,
    ) -> Verdict {
        let destination = staged.ip.destination;
        if !is_forwarded::<V>(context, destination)
            && let Some(verdict) = self.tunnel_error(context, frame, staged)
        {
            return verdict;
        }
        if !echo::is_answered::<V>(context, destination) {
            return Verdict::Kernel;
        }
        let message = frame.bytes().get(staged.payload()).unwrap_or(&[]);
        let kind = match icmp::parse(&staged.ip, message) {
            Ok(kind) => kind,
            Err(reason) => return Verdict::Drop(reason),
        };
        match kind {
            kind if kind == V::KINDS.echo_request => self.echo(context, frame, &staged.ip),
            kind if V::KINDS.is_error(kind) && is_forwarded::<V>(context, destination) => {
                self.forward_icmp(context, frame, staged)
            }
            _ if is_forwarded::<V>(context, destination) => Verdict::Drop(DropReason::IcmpIgnored),
            _ => Verdict::Kernel,
        }
    }

    /// Passes an error on to the other end of the flow that it quotes: the quote becomes the packet that end sent, the error
    /// comes from the address it sent to (routers on one side mean nothing on the other).
    fn forward_icmp<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        staged: &Staged<V>,
    ) -> Verdict {
        let message = frame.bytes().get(staged.payload()).unwrap_or(&[]);
        let quote = match Quote::<V>::parse(message.get(icmp::HEADER..).unwrap_or(&[])) {
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
        if side == Side::Target && !self.is_on_its_port::<V>(context, number) {
            return Verdict::Drop(DropReason::WrongPort);
        }
        if side == Side::Target {
            self.note_unreachable(message, &quote, number);
        }
        if side == Side::Client
            && let Err(reason) = self.may_tell_target::<V>(context, message, &quote, number)
        {
            return Verdict::Drop(reason);
        }
        if staged.ip.ttl <= 1 {
            // Never an error about an error (RFC 1122 3.2.2).
            return Verdict::Drop(DropReason::TtlExpired);
        }
        let hop = match self.hop::<V>(context, number, side) {
            Ok(hop) => hop,
            Err(reason) => return Verdict::Drop(reason),
        };
        if !self.flows.get(number).is_two_sided() {
            return self.pass_icmp(context, frame, staged, number, hop);
        }
        if staged.ip.total > self.neighbours.get(hop).mtu {
            return Verdict::Drop(DropReason::TooBig);
        }
        let flow = *self.flows.get(number);
        let mut staged = *staged;
        if side == Side::Target && flow.inserts() {
            staged.ip.total = self.edit_error(frame, &staged, quote.header, number);
        }
        staged.trim(frame);
        let addresses = V::addresses(&self.flows, number);
        rewrite(frame.bytes_mut(), &staged, &quote, &flow, &addresses, side);
        self.cells.worker(WorkerCount::IcmpForwarded, 1);
        self.cells
            .service(flow.service(), ServiceCount::IcmpForwarded, 1);
        self.send(context, hop, frame.bytes_mut())
    }

    /// Whether the target of a flow may hear an error from the client's side. Under FULLNAT it keeps a path's MTU by LocalIP, for minutes
    /// (RFC 1191 6.3: ten): what one client says there of its own path slows down the connections of all others over that LocalIP.
    fn may_tell_target<V: Family>(
        &mut self,
        context: &Context<'_>,
        message: &[u8],
        quote: &Quote<V>,
        number: u32,
    ) -> Result<(), DropReason> {
        let Some(mtu) = icmp::mtu::<V>(message) else {
            return Ok(());
        };
        let flow = self.flows.get(number);
        if !flow.is_two_sided() {
            return Ok(());
        }
        let least = context
            .tables
            .service(flow.service())
            .map_or(LEAST_PATH_MTU, |service| service.config.least_path_mtu);
        if mtu < u32::from(least) {
            return Err(DropReason::PathMtu);
        }
        // Who has not seen the packet that is quoted would have to guess its number, and uses up nothing of the rate.
        let is_tcp = flow.protocol() == Protocol::Tcp;
        if is_tcp
            && !quote
                .sequence(message)
                .is_some_and(|sent| flow.may_have_sent(sent))
        {
            return Err(DropReason::IcmpNoFlow);
        }
        if !self.client_sizes.take(context.now) {
            return Err(DropReason::IcmpRate);
        }
        Ok(())
    }
}

/// Rewrites an error from `side` outside and inside. Errors are rare and their checksum was verified, so it is made anew.
fn rewrite<V: Family>(
    frame: &mut [u8],
    staged: &Staged<V>,
    quote: &Quote<V>,
    flow: &Flow,
    addresses: &Addresses<V::Address>,
    side: Side,
) {
    let (source, destination) = match side {
        Side::Target => (addresses.vip, addresses.client),
        Side::Client => (addresses.local, addresses.target),
    };
    let ip = &staged.ip;
    let packet = &mut frame[ETHERNET_HEADER..];
    V::readdress(packet, source, destination, 1);
    let message = &mut packet[usize::from(ip.header)..usize::from(ip.total)];
    nat::restore_quote::<V>(
        &mut message[icmp::HEADER..],
        quote.header,
        flow,
        addresses,
        side,
    );
    icmp::seal::<V>(source, destination, message);
}
