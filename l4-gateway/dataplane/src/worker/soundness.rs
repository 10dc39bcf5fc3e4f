//! Packets that are answered here, or begin a flow, have their TCP or UDP checksum looked at first: a damaged one may say anything of where it
//! comes from and goes to (the IPv6 header has no checksum of its own), and a host would pass it over in silence (RFC 9293 3.1, RFC 1122 4.1.3.4).
//!
//! Packets of known flows are forwarded unseen. Their checksums are brought up to date by what changes, so that damage stays visible to who
//! gets them. A flow begins seldom enough for its first packet to be summed: that is 110 of the 4,500 instructions which a SYN takes. And
//! it is where checksums that are missing altogether show: without that look, a client whose NIC was to make them would connect to services in
//! vain, and nothing here would say why.

use super::classify::Staged;
use super::{Context, Event, Worker};
use crate::DropReason;
use crate::family::Family;
use crate::limits::ETHERNET_HEADER;
use crate::wire::transport::{self, Sum};

impl Worker {
    /// Whether a packet has come undamaged, as far as its checksum tells. Of a fragment it tells nothing.
    pub(super) fn hold_sound<V: Family>(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V>,
    ) -> Result<(), DropReason> {
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
        if V::is_part(packet) {
            return Ok(());
        }
        let payload = frame.get(staged.payload()).unwrap_or(&[]);
        match transport::sum(&staged.ip, payload) {
            Sum::Right => Ok(()),
            wrong => {
                self.note_wrong_sum(context, wrong);
                Err(DropReason::BadTransportChecksum)
            }
        }
    }

    #[cold]
    fn note_wrong_sum(&mut self, context: &mut Context<'_>, wrong: Sum) {
        if self.wrong_sums.note(context.now, wrong) {
            let due = self.reports.wrong_sums.pass(context.now);
            let port = context.port.index;
            self.report_if(due, context.out, Event::WrongChecksums { port });
        }
    }
}
