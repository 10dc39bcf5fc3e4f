//! Neighbour discovery (RFC 4861): answering for our addresses, learning from answers, by the rules of ARP. Router discovery is the
//! kernel's.

use super::classify::Staged;
use super::neighbours::Heard;
use super::{Context, Worker};
use crate::counters::WorkerCount;
use crate::family::{Family, V6};
use crate::limits::ETHERNET_HEADER;
use crate::neighbour::emit;
use crate::tables::Owned;
use crate::wire::ipv6::ALL_NODES;
use crate::wire::ndp::{self, Ndp};
use crate::wire::{ethernet, ipv6};
use crate::{MacAddr, Verdict};

impl Worker {
    /// An IPv6 packet to a multicast MAC: ours to answer if it asks for an address of ours; nothing else is forwarded.
    #[cold]
    pub(super) fn multicast(&mut self, context: &mut Context<'_>, frame: &[u8]) -> Verdict {
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
        let Ok(ip) = V6::parse(packet) else {
            return Verdict::Kernel;
        };
        let kind = packet.get(usize::from(ip.header));
        let discovers = kind.is_some_and(|kind| V6::KINDS.is_neighbour_discovery(*kind));
        if ip.protocol != ipv6::ICMP || ip.fragment || !discovers {
            return Verdict::Kernel;
        }
        self.ndp(context, frame, &Staged::apart(&ip, frame))
    }

    /// The kernel sees what isn't answered here too: it resolves next hops of its own.
    #[cold]
    pub(super) fn ndp(
        &mut self,
        context: &mut Context<'_>,
        frame: &[u8],
        staged: &Staged<V6>,
    ) -> Verdict {
        let message = frame.get(staged.payload()).unwrap_or(&[]);
        let ndp = match Ndp::parse(&staged.ip, message) {
            Ok(ndp) => ndp,
            Err(reason) => return Verdict::Drop(reason),
        };
        let net = context.tables.v6();
        let from = frame
            .first_chunk()
            .map_or(MacAddr::default(), ethernet::source);
        if let Some(owned) = net.owned(ndp.source) {
            // Nothing to learn, and answering would feed the quarrel.
            let mac = ndp.mac.unwrap_or(from);
            self.contend(context, ndp.source.into(), owned, mac);
            return Verdict::Kernel;
        }
        match ndp.kind {
            ndp::Kind::Solicitation if answers(context, &ndp) => {
                // Who probes for a duplicate (RFC 4862 5.4) has no address yet; a host that asks without its MAC has it.
                if let Some(mac) = ndp.mac.filter(|_| !ndp.source.is_unspecified()) {
                    let heard = Heard {
                        address: ndp.source.into(),
                        mac,
                        overrides: true,
                        answers_us: false,
                        announces: false,
                    };
                    self.hear(context, &heard);
                }
                self.advertise(context, &ndp, from);
                Verdict::Consumed
            }
            ndp::Kind::Solicitation => Verdict::Kernel,
            ndp::Kind::Advertisement {
                solicited,
                overrides,
            } => {
                if let Some(owned) = net.owned(ndp.target) {
                    let mac = ndp.mac.unwrap_or(from);
                    self.contend(context, ndp.target.into(), owned, mac);
                    return Verdict::Kernel;
                }
                let ours = context.port.address::<V6>() == Some(ndp.destination);
                let answers_us = solicited && ours;
                let announces = ndp.destination == ALL_NODES;
                if answers_us || announces {
                    // Only an answer to a unicast question may leave the MAC out (RFC 4861 4.4): then it is who sent it.
                    let heard = Heard {
                        address: ndp.target.into(),
                        mac: ndp.mac.unwrap_or(from),
                        overrides: overrides && ndp.mac.is_some(),
                        answers_us,
                        announces,
                    };
                    self.hear(context, &heard);
                }
                if answers_us && context.port.answers {
                    Verdict::Consumed
                } else {
                    Verdict::Kernel
                }
            }
        }
    }

    /// Answers a solicitation for an address of ours; a probe for duplicates by telling everyone (RFC 4861 7.2.4).
    fn advertise(&mut self, context: &mut Context<'_>, asked: &Ndp, from: MacAddr) {
        let probed = asked.source.is_unspecified();
        let (destination, to) = if probed {
            (ALL_NODES, ndp::multicast_mac(ALL_NODES))
        } else {
            (asked.source, asked.mac.unwrap_or(from))
        };
        let mac = context.port.mac;
        let answer = Ndp {
            kind: ndp::Kind::Advertisement {
                solicited: !probed,
                overrides: true,
            },
            source: asked.target,
            destination,
            target: asked.target,
            mac: Some(mac),
        };
        self.cells.worker(WorkerCount::NeighbourAdvertisements, 1);
        let frame = answer.frame(mac, to);
        emit(context.out, &self.cells, context.port.index, &frame);
    }
}

/// Whether a solicitation is answered here: for an address of ours that belongs on the port it came in on.
fn answers(context: &Context<'_>, asked: &Ndp) -> bool {
    let port = context.port;
    match context.tables.v6().owned(asked.target) {
        Some(Owned::Port { answers }) => answers && port.address::<V6>() == Some(asked.target),
        Some(Owned::LocalIp(_)) => port.covers::<V6>(asked.target),
        Some(Owned::Vip { arp: wanted }) => wanted && port.covers::<V6>(asked.target),
        None => false,
    }
}
