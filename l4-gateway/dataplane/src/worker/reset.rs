//! RSTs for a flow that ends before its connection: both ends learn of it at once, instead of by a timeout of their own.

use super::{Context, Worker};
use crate::counters::{ServiceCount, WorkerCount};
use crate::family::{Family, V4, V6};
use crate::flow::Side;
use crate::limits::{ETHERNET_HEADER, LARGEST_RESET};
use crate::service::Protocol;
use crate::tables::Tables;
use crate::wire::{put, tcp};
use crate::{Emitted, Now, Verdict, neighbour, reply};

impl Worker {
    /// Whether the ends of a flow that expires hear of it: those of an open connection, unless its service says otherwise.
    pub(super) fn resets_on_expiry(&self, tables: &Tables, number: u32) -> bool {
        let flow = self.flows.get(number);
        let service = tables.service(flow.service());
        flow.is_open() && service.is_none_or(|service| service.config.reset_on_expiry)
    }

    /// Sends both ends of a TCP flow the RST that ends their connection. Each has the number that its receiver expects next, by all that
    /// passed here: no other is taken at once (RFC 5961 3.2). Where the next hop isn't known yet they wait for it as packets do.
    ///
    /// The flow itself stays as it is.
    pub(super) fn reset_both_ends(
        &mut self,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
        number: u32,
    ) {
        let flow = self.flows.get(number);
        if flow.protocol() != Protocol::Tcp {
            return;
        }
        // Nothing came in; what is called from here asks for no port of arrival.
        let Some(port) = tables.ports().first() else {
            return;
        };
        let context = &mut Context {
            tables,
            now,
            tick: now.tick(),
            port,
            mac: port.mac.number(),
            out,
            steer: false,
        };
        let (is_v6, is_two_sided) = (flow.is_v6(), flow.is_two_sided());
        for to in [Side::Client, Side::Target] {
            // The way to a target that answers clients itself isn't a rewritten one.
            match (is_v6, to) {
                (_, Side::Target) if !is_two_sided => {}
                (true, _) => self.reset_end::<V6>(context, number, to),
                (false, _) => self.reset_end::<V4>(context, number, to),
            }
        }
    }

    fn reset_end<V: Family>(&mut self, context: &mut Context<'_>, number: u32, to: Side) {
        let flow = *self.flows.get(number);
        let ends = V::addresses(&self.flows, number);
        let (source, destination, sequence, from) = match to {
            Side::Client => (
                (ends.vip, flow.vip_port),
                (ends.client, flow.client_port),
                flow.client_acked,
                Side::Target,
            ),
            Side::Target => (
                (ends.local, flow.local_port),
                (ends.target, flow.target_port),
                flow.client_next.wrapping_add(flow.shift),
                Side::Client,
            ),
        };
        // Without a way there is nobody to tell.
        let Ok(hop) = self.hop::<V>(context, number, from) else {
            return;
        };
        let mut frame = [0; LARGEST_RESET];
        put(&mut frame, ETHERNET_HEADER - 2, V::ETHER_TYPE.to_be_bytes());
        let numbers = (tcp::RST, sequence, 0);
        let length = reply::write_segment::<V>(&mut frame, source, destination, numbers);
        let Some(frame) = frame.get_mut(..length) else {
            return;
        };
        match self.send(context, hop, frame) {
            Verdict::Transmit(port) => {
                neighbour::emit(context.out, &self.cells, port, frame);
            }
            Verdict::Held => {}
            _ => return,
        }
        self.cells.worker(WorkerCount::ResetsSent, 1);
        if to == Side::Client {
            self.cells
                .service(flow.service(), ServiceCount::ResetsSent, 1);
        }
    }
}
