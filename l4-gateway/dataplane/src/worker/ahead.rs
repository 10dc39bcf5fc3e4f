//! A PROXY header that goes ahead in a segment of its own, where the client's segment would not pass the path with it.
//!
//! Every IPv6 link takes packets of 1280 bytes, and a host whose path takes no more sends them of that size, whatever it is told beyond
//! (RFC 8201 4): it can't make room for the header. The header alone repeats as the segment does, and means the same to the target.

use super::classify::Stage;
use super::{Context, Worker};
use crate::client_address::proxy::{Gap, Place};
use crate::client_address::segment::{Span, update};
use crate::client_address::toa;
use crate::family::Family;
use crate::flow::Side;
use crate::limits::{ETHERNET_HEADER, LEAST_PATH_MTU};
use crate::nat::{self, Rewrite};
use crate::neighbour::emit;
use crate::service::Protocol;
use crate::wire::checksum::Delta;
use crate::wire::{put, tcp, u16_at};
use crate::{Frame, Verdict};

/// How a client's segment lies to the header, and whether the header goes ahead of it.
pub(super) fn place<V: Family>(gap: Gap, segment: &[u8], stage: &Stage) -> (Place, bool) {
    let place = gap.place(segment);
    let with_header = u32::from(stage.total) + gap.length;
    let ahead = V::IS_V6
        && place == Place::First
        && stage.total <= LEAST_PATH_MTU
        && with_header > u32::from(LEAST_PATH_MTU);
    (place, ahead)
}

impl Worker {
    /// Sends the header of a flow in a segment like the client's in `frame`, which begins the stream, but without its payload. Whether it
    /// goes, or waits for its next hop; if not, the client's segment must not go either, so that the client sends it again.
    #[cold]
    pub(super) fn send_ahead<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
        (number, hop): (u32, u16),
    ) -> bool {
        let range = stage.payload();
        let mut span = Span {
            start: range.start,
            end: range.end,
        };
        let mut alone = std::mem::take(&mut self.scratch);
        alone.clear();
        alone.extend_from_slice(frame.get(..span.end).unwrap_or(&[]));
        span.cut_payload(&mut alone);
        let segment = span.of_mut(&mut alone);
        let (_, delta) = toa::strip(segment);
        // The stream goes on behind it.
        let old = u16_at(segment, tcp::OFFSET);
        let new = old & !u16::from(tcp::FIN | tcp::URG);
        put(segment, tcp::OFFSET, new.to_be_bytes());
        update(segment, delta.and(Delta::word(old, new)));
        let addresses = V::addresses(&self.flows, number);
        let flow = self.flows.get(number);
        let header = super::edit::proxy_header::<V>(flow, &addresses);
        let rewrite = Rewrite::new(flow, &addresses, Side::Client);
        let inserted = span.insert_payload(&mut alone, header.bytes());
        let verdict = inserted.then(|| {
            let total = (span.end - ETHERNET_HEADER) as u16;
            nat::rewrite::<V>(&mut alone, stage.header, total, Protocol::Tcp, &rewrite);
            self.send(context, hop, &mut alone)
        });
        let goes = match verdict {
            Some(Verdict::Transmit(port)) => emit(context.out, &self.cells, port, &alone),
            Some(Verdict::Held) => true,
            _ => false,
        };
        self.scratch = alone;
        goes
    }

    /// Sends a client's segment, edited, behind the header that goes ahead of it. What leaves from the burst leaves before what is
    /// emitted, so it is emitted too.
    #[cold]
    pub(super) fn send_behind<V: Family, F: Frame>(
        &mut self,
        context: &mut Context<'_>,
        frame: &mut F,
        stage: &Stage,
        way: (u32, Side, u16),
    ) -> Verdict {
        match self.forward_edited::<V, F>(context, frame, stage, way) {
            Verdict::Transmit(port) => {
                emit(context.out, &self.cells, port, frame.bytes());
                Verdict::Consumed
            }
            verdict => verdict,
        }
    }
}
