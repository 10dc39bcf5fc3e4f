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
use crate::service::Protocol;
use crate::wire::checksum::Delta;
use crate::wire::{put, tcp, u16_at};

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
    /// Sends the header of a flow in a segment like the client's in `frame`, which begins the stream, but without its payload. If it is
    /// lost, or can't be sent, the client sends its segment again.
    #[cold]
    pub(super) fn send_ahead<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        stage: &Stage,
        (number, hop): (u32, u16),
    ) {
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
        if span.insert_payload(&mut alone, header.bytes()) {
            let total = (span.end - ETHERNET_HEADER) as u16;
            nat::rewrite::<V>(&mut alone, stage.header, total, Protocol::Tcp, &rewrite);
            self.dispatch(context, hop, &mut alone);
        }
        self.scratch = alone;
    }
}
