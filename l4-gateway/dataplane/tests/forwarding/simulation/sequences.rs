//! A local port that is used again begins above where its last connection ended, as a target in TIME_WAIT wants it (RFC 9293 3.6.1): held
//! where segments leave the node, in the order they do.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::packet::{Packet, TCP};
use crate::frame::{FIN, RST, SYN};

/// No stream of a client is longer, whatever the node puts in front of it.
const LONGEST: u32 = 1000;

/// By LocalIP with port and target: what was last begun there.
#[derive(Default)]
pub struct Sequences(BTreeMap<(SocketAddr, SocketAddr), Begun>);

struct Begun {
    first: u32,
    /// The node chose the number. Not if a client began anew with another before its first handshake was complete: the shift stays.
    is_chosen: bool,
    /// Behind the FIN, if there was one.
    end: Option<u32>,
}

impl Sequences {
    /// A packet leaves towards a target under FULLNAT; `makes_flows`: as the first of its flow.
    pub fn look(&mut self, packet: &Packet, makes_flows: bool) {
        if packet.protocol != TCP || packet.is_part() {
            return;
        }
        let (segment, ports) = (packet.segment(), (packet.from(), packet.to()));
        if segment.flags & (SYN | RST) == SYN {
            let begun = self.0.get(&ports);
            if begun.is_some_and(|begun| begun.first == segment.seq) {
                return;
            }
            if let Some(Begun { end: Some(end), .. }) = begun {
                assert!(
                    !makes_flows || segment.seq.wrapping_sub(*end) < 1 << 31,
                    "{ports:?} ended at {end} and begins at {}",
                    segment.seq
                );
            }
            let new = Begun {
                first: segment.seq,
                is_chosen: makes_flows,
                end: None,
            };
            self.0.insert(ports, new);
        } else if segment.flags & FIN != 0
            && let Some(begun) = self.0.get_mut(&ports)
        {
            // One of an older connection is late, and no end of this one.
            let end = segment.seq.wrapping_add(segment.data.len() as u32 + 1);
            if begun.is_chosen && end.wrapping_sub(begun.first) < LONGEST {
                begun.end = Some(end);
            }
        }
    }
}
