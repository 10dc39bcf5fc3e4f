//! Echo requests to our addresses are answered here (RFC 792, RFC 4443 4.2), of any length: one that comes in fragments is answered by its
//! fragments turned round. Nothing is put together, so that nothing but what the tracker of fragments holds is kept of it, and its checksum
//! is the sender's to see: the change of type changes it by a constant, the exchange of addresses not at all.
//!
//! Later fragments don't say what they are of. Were they turned round without looking at their first, two nodes would send one that is
//! addressed from the one to the other round and round.

use super::classify::trim;
use super::{Context, Worker};
use crate::counters::WorkerCount;
use crate::family::Family;
use crate::limits::ETHERNET_HEADER;
use crate::tables::Owned;
use crate::wire::ip::Ip;
use crate::wire::{ipv4, put, u16_at};
use crate::{DropReason, Frame, Verdict, reply};

impl Worker {
    /// Answers a request, or a fragment of one.
    pub(super) fn echo<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        ip: &Ip<V>,
    ) -> Verdict {
        if !super::admit::may_answer::<V>(context.tables, ip.source) {
            return Verdict::Drop(DropReason::MartianSource);
        }
        // A link that takes more than its port is told to: only routers and senders cut IPv6 packets, and none would send it so.
        let is_long = ip.total > context.port.mtu;
        if is_long && V::IS_V6 {
            return Verdict::Drop(DropReason::TooBig);
        }
        trim(frame, ip.total);
        reply::echo(frame.bytes_mut(), ip, context.port.mac);
        if ip.first {
            self.cells.worker(WorkerCount::EchoReplies, 1);
        }
        if is_long {
            return self.echo_in_pieces(context, frame.bytes_mut(), ip);
        }
        Verdict::Transmit(context.port.index)
    }

    /// Sends an IPv4 answer that is longer than its link takes. It is a packet made here, so whether its question could be cut says nothing.
    #[cold]
    fn echo_in_pieces<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut [u8],
        ip: &Ip<V>,
    ) -> Verdict {
        let packet = frame.get_mut(ETHERNET_HEADER..).unwrap_or(&mut []);
        let word = u16_at(packet, ipv4::FRAGMENTATION) & !ipv4::DONT_FRAGMENT;
        put(packet, ipv4::FRAGMENTATION, word.to_be_bytes());
        if !ip.fragment {
            let number = self.fragments.number();
            V::renumber(packet, ipv4::IDENTIFICATION as u16, number);
        }
        let (port, mtu) = (context.port.index, context.port.mtu);
        let end = ETHERNET_HEADER + usize::from(ip.total);
        let frame = frame.get(..end).unwrap_or(&[]);
        self.each_piece(context, frame, usize::from(ip.header), mtu, |_, _, _| {
            Verdict::Transmit(port)
        })
    }
}

/// Whether echo requests to an address are answered here, where they come in by this port.
pub(super) fn is_answered<V: Family>(context: &Context<'_>, destination: V::Address) -> bool {
    match context.tables.net::<V>().owned(destination) {
        Some(Owned::Vip { .. } | Owned::LocalIp(_)) => true,
        Some(Owned::Port { answers }) => {
            answers && context.port.address::<V>() == Some(destination)
        }
        None => false,
    }
}
