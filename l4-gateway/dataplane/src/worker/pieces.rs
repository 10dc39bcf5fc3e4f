//! Packets too long for the next link that may be cut leave in pieces (`crate::fragments::cut`), by copies.

use super::{Context, Worker};
use crate::counters::WorkerCount;
use crate::family::{Family, V4};
use crate::fragments::cut;
use crate::limits::ETHERNET_HEADER;
use crate::neighbour::emit;
use crate::wire::{ethernet, ipv4, u16_at};
use crate::{DropReason, Verdict};

impl Worker {
    /// Sends a rewritten packet that is longer than the next link takes.
    #[cold]
    pub(super) fn send_in_pieces(
        &mut self,
        context: &mut Context<'_>,
        hop: u16,
        frame: &mut [u8],
        mtu: u16,
    ) -> Verdict {
        let is_ipv4 = frame
            .first_chunk()
            .is_some_and(|header| ethernet::ether_type(header) == ethernet::IPV4);
        let packet = frame.get_mut(ETHERNET_HEADER..).unwrap_or(&mut []);
        let word = u16_at(packet, ipv4::FRAGMENTATION);
        if !is_ipv4 || packet.len() < ipv4::HEADER || word & ipv4::DONT_FRAGMENT != 0 {
            return Verdict::Drop(DropReason::TooBig);
        }
        // Behind the address it leaves under the sender's identification may be another's. (That of a fragment was changed before.)
        if word & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0 {
            V4::renumber(packet, ipv4::IDENTIFICATION as u16, self.fragments.number());
        }
        let header = usize::from(packet[0] & 15) * 4;
        let total = usize::from(u16_at(packet, 2)).min(packet.len());
        let frame = &frame[..ETHERNET_HEADER + total];
        self.each_piece(context, frame, header, mtu, |worker, context, piece| {
            worker.send(context, hop, piece)
        })
    }

    /// Cuts the packet in a frame, `header` bytes of it its IP header, into pieces of at most `mtu` bytes, and emits those that `send`
    /// would transmit. The verdict on the whole: dropped if one of them is.
    pub(super) fn each_piece(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        header: usize,
        mtu: u16,
        mut send: impl FnMut(&mut Self, &mut Context<'_>, &mut Vec<u8>) -> Verdict,
    ) -> Verdict {
        let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET_HEADER) else {
            return Verdict::Drop(DropReason::TooBig);
        };
        let mut piece = std::mem::take(&mut self.piece);
        let mut verdict = Verdict::Consumed;
        let cut = cut(packet, header, mtu, |header, payload| {
            piece.clear();
            for part in [ethernet, header, payload] {
                piece.extend_from_slice(part);
            }
            match send(self, context, &mut piece) {
                Verdict::Transmit(port) => {
                    emit(context.out, &self.cells, port, &piece);
                }
                dropped @ Verdict::Drop(_) => verdict = dropped,
                Verdict::Held | Verdict::Consumed | Verdict::Kernel | Verdict::Redirect(_) => {}
            }
        });
        self.piece = piece;
        if !cut {
            return Verdict::Drop(DropReason::TooBig);
        }
        self.cells.worker(WorkerCount::PacketsCut, 1);
        verdict
    }

    /// Sends a frame made here.
    pub(super) fn dispatch(
        &mut self,
        context: &mut Context<'_>,
        hop: u16,
        frame: &mut [u8],
    ) -> Verdict {
        match self.send(context, hop, frame) {
            Verdict::Transmit(port) => {
                emit(context.out, &self.cells, port, frame);
                Verdict::Consumed
            }
            verdict => verdict,
        }
    }
}
