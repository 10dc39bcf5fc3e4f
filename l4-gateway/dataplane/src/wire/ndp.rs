//! Neighbour solicitations and advertisements (RFC 4861 4.3, 4.4).

use std::net::Ipv6Addr;

use super::ip::Ip;
use super::{ethernet, icmp, ipv6, put};
use crate::family::{Family, V6};
use crate::limits::{ETHERNET_HEADER, NDP_HOP_LIMIT};
use crate::{DropReason, MacAddr};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The message up to its options, bytes.
const MESSAGE: usize = 24;
/// A link-layer address option for Ethernet, bytes.
const OPTION: usize = 8;
/// A whole frame with its option.
pub(crate) const FRAME: usize = ETHERNET_HEADER + ipv6::HEADER + MESSAGE + OPTION;

/// Bits of an advertisement's first byte behind the checksum.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// What a message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Solicitation,
    Advertisement {
        /// It answers a solicitation.
        solicited: bool,
        /// It counts against what is known.
        overrides: bool,
    },
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ndp {
    pub(crate) kind: Kind,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    /// Who is asked for, or advertised.
    pub(crate) target: Ipv6Addr,
    /// The MAC of the source (solicitation) or the target (advertisement), if given.
    pub(crate) mac: Option<MacAddr>,
}

impl Ndp {
    /// Checks and parses a message (RFC 4861 7.1.1, 7.1.2).
    pub(crate) fn parse(ip: &Ip<V6>, message: &[u8]) -> Result<Self, DropReason> {
        let kind = icmp::parse::<V6>(ip, message).map_err(|_| DropReason::BadNdp)?;
        let fixed: &[u8; MESSAGE] = message.first_chunk().ok_or(DropReason::BadNdp)?;
        let (kind, wanted) = match kind {
            SOLICITATION => (Kind::Solicitation, 1),
            ADVERTISEMENT => (
                Kind::Advertisement {
                    solicited: fixed[4] & SOLICITED != 0,
                    overrides: fixed[4] & OVERRIDE != 0,
                },
                2,
            ),
            _ => return Err(DropReason::BadNdp),
        };
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[8..]);
        let ndp = Self {
            kind,
            source: ip.source,
            destination: ip.destination,
            target: Ipv6Addr::from(octets),
            mac: link_layer_address(&message[MESSAGE..], wanted)?,
        };
        // A fragment never is what it looks like (RFC 6980); it doesn't get here, but as one that is whole.
        let valid = ip.ttl == NDP_HOP_LIMIT
            && fixed[1] == 0
            && !ndp.target.is_multicast()
            && !ndp.source.is_multicast()
            && match kind {
                Kind::Solicitation if ndp.source.is_unspecified() => {
                    ndp.mac.is_none() && ndp.destination == ipv6::solicited_node(ndp.target)
                }
                Kind::Solicitation => true,
                Kind::Advertisement { .. } if ndp.source.is_unspecified() => false,
                Kind::Advertisement { solicited, .. } => {
                    !solicited || !ndp.destination.is_multicast()
                }
            };
        if valid {
            Ok(ndp)
        } else {
            Err(DropReason::BadNdp)
        }
    }

    /// The whole frame from this MAC to another, the MAC given as an option.
    pub(crate) fn frame(&self, own: MacAddr, to: MacAddr) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        put(&mut frame, 0, ethernet::header(to, own, ethernet::IPV6));
        let packet = &mut frame[ETHERNET_HEADER..];
        let length = MESSAGE + OPTION;
        V6::write_header(
            packet,
            self.source,
            self.destination,
            V6::ICMP,
            length,
            NDP_HOP_LIMIT,
        );
        let message = &mut packet[ipv6::HEADER..];
        let (kind, flags, option) = match self.kind {
            Kind::Solicitation => (SOLICITATION, 0, 1),
            Kind::Advertisement {
                solicited,
                overrides,
            } => (
                ADVERTISEMENT,
                (if solicited { SOLICITED } else { 0 }) | (if overrides { OVERRIDE } else { 0 }),
                2,
            ),
        };
        message[0] = kind;
        message[4] = flags;
        put(message, 8, self.target.octets());
        message[MESSAGE] = option;
        message[MESSAGE + 1] = 1;
        put(message, MESSAGE + 2, own.0);
        icmp::seal::<V6>(self.source, self.destination, message);
        frame
    }
}

/// The Ethernet address among the options (of type `wanted`). All must have a length (RFC 4861 7.1.1); unknown ones are skipped.
fn link_layer_address(options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    let mut rest = options;
    while let [kind, eights, ..] = *rest {
        let option = rest
            .get(..8 * usize::from(eights))
            .filter(|option| !option.is_empty())
            .ok_or(DropReason::BadNdp)?;
        if let (true, [_, 1, a, b, c, d, e, f]) = (kind == wanted, option) {
            found = Some(MacAddr([*a, *b, *c, *d, *e, *f]));
        }
        rest = &rest[option.len()..];
    }
    match found {
        Some(mac) if mac.is_group() || mac == MacAddr::default() => Err(DropReason::BadNdp),
        _ if !rest.is_empty() => Err(DropReason::BadNdp),
        found => Ok(found),
    }
}

/// The MAC that stands for a multicast address (RFC 2464 7).
pub(crate) fn multicast_mac(address: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = address.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}
