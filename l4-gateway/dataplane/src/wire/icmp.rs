//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages: the same in form, numbered differently.

use super::ip::{Ip, TCP, UDP};
use super::{checksum, tcp, u16_at, u32_at};
use crate::DropReason;
use crate::family::Family;
use crate::flow::Tuple;
use crate::service::Protocol;

/// The header of every message used here, bytes.
pub(crate) const HEADER: usize = 8;
/// Offset of the checksum.
pub(crate) const CHECKSUM: usize = 2;

/// The numbers of one ICMP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kinds {
    pub(crate) echo_request: u8,
    pub(crate) echo_reply: u8,
    /// Errors that are passed on to the other end.
    errors: &'static [u8],
    port_unreachable: (u8, u8),
    no_route: (u8, u8),
    time_exceeded: (u8, u8),
    too_big: (u8, u8),
    /// Its type with any code says the same: receivers ignore it (RFC 4443 3.2).
    too_big_by_type: bool,
    /// Neighbour discovery: solicitation and advertisement.
    neighbours: &'static [u8],
}

/// RFC 792, RFC 1191.
pub(crate) const V4: Kinds = Kinds {
    echo_request: 8,
    echo_reply: 0,
    // Unreachable, time exceeded, parameter problem.
    errors: &[3, 11, 12],
    port_unreachable: (3, 3),
    no_route: (3, 0),
    time_exceeded: (11, 0),
    too_big: (3, 4),
    too_big_by_type: false,
    neighbours: &[],
};

/// RFC 4443, RFC 4861.
pub(crate) const V6: Kinds = Kinds {
    echo_request: 128,
    echo_reply: 129,
    // Unreachable, packet too big, time exceeded, parameter problem.
    errors: &[1, 2, 3, 4],
    port_unreachable: (1, 4),
    no_route: (1, 0),
    time_exceeded: (3, 0),
    too_big: (2, 0),
    too_big_by_type: true,
    neighbours: &[135, 136],
};

/// An error made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    PortUnreachable,
    NoRoute,
    TimeExceeded,
    /// The next link takes packets of this many bytes.
    TooBig(u16),
}

impl Kinds {
    #[inline]
    pub(crate) fn is_error(&self, kind: u8) -> bool {
        self.errors.contains(&kind)
    }

    /// Whether an error says that a packet was too big.
    pub(crate) fn is_too_big(&self, kind: u8, code: u8) -> bool {
        kind == self.too_big.0 && (self.too_big_by_type || code == self.too_big.1)
    }

    /// Whether an error says that a packet's receiver can't be reached, or doesn't listen: unreachable for whatever reason but the packet's
    /// size.
    pub(crate) fn is_unreachable(&self, kind: u8, code: u8) -> bool {
        kind == self.no_route.0 && !self.is_too_big(kind, code)
    }

    #[inline]
    pub(crate) fn is_neighbour_discovery(&self, kind: u8) -> bool {
        self.neighbours.contains(&kind)
    }

    /// Type, code, and the second half of the header.
    pub(crate) fn of(&self, problem: Problem) -> (u8, u8, u32) {
        let ((kind, code), rest) = match problem {
            Problem::PortUnreachable => (self.port_unreachable, 0),
            Problem::NoRoute => (self.no_route, 0),
            Problem::TimeExceeded => (self.time_exceeded, 0),
            Problem::TooBig(mtu) => (self.too_big, u32::from(mtu)),
        };
        (kind, code, rest)
    }
}

/// Checks the length and checksum of a packet's message; its type.
pub(crate) fn parse<V: Family>(ip: &Ip<V>, message: &[u8]) -> Result<u8, DropReason> {
    let seed = V::icmp_seed(ip.source, ip.destination, message.len() as u16);
    if message.len() < HEADER || checksum::add(seed, checksum::sum(message)) != 0xffff {
        return Err(DropReason::BadIcmp);
    }
    Ok(message[0])
}

/// As [`parse`] of the first fragment of a message, whose checksum is of all of it: it has to be an echo request.
pub(crate) fn parse_start<V: Family>(message: &[u8]) -> Result<(), DropReason> {
    match message.first() {
        Some(kind) if message.len() >= HEADER && *kind == V::KINDS.echo_request => Ok(()),
        _ => Err(DropReason::Fragment),
    }
}

/// Writes the checksum of a message between these addresses.
pub(crate) fn seal<V: Family>(source: V::Address, destination: V::Address, message: &mut [u8]) {
    super::put(message, 2, [0, 0]);
    let seed = V::icmp_seed(source, destination, message.len() as u16);
    let sum = checksum::add(seed, checksum::sum(message));
    super::put(message, 2, (!sum).to_be_bytes());
}

/// The size that an error which says a packet was too big says would pass (RFC 1191 4, RFC 4443 3.2), bytes: 0 from an old router,
/// which names none. None of other messages.
pub(crate) fn mtu<V: Family>(message: &[u8]) -> Option<u32> {
    let [kind, code] = *message.first_chunk()?;
    V::KINDS
        .is_too_big(kind, code)
        .then(|| u32_at(message, 4) & mtu_bits::<V>())
}

/// Lowers the size in an error that says a packet was too big; others are left alone, and so is one that names none.
pub(crate) fn lower_mtu<V: Family>(message: &mut [u8], by: u16) {
    let Some(mtu) = mtu::<V>(message) else {
        return;
    };
    let rest = u32_at(message, 4) & !mtu_bits::<V>();
    let lowered = mtu.saturating_sub(u32::from(by));
    super::put(message, 4, (rest | lowered).to_be_bytes());
}

/// Which bits of an error's second word are the size.
fn mtu_bits<V: Family>() -> u32 {
    if V::IS_V6 { u32::MAX } else { 0xffff }
}

/// Bytes of the quote of an error, where more stands behind it (RFC 4884 4): the header tells in double words, of IPv6 in pairs of them.
pub(crate) fn quote_before_extension<V: Family>(message: &[u8]) -> Option<usize> {
    let (length, unit) = match V::IS_V6 {
        // There the field is part of the size.
        true if mtu::<V>(message).is_some() => return None,
        true => (message.get(4)?, 8),
        false => (message.get(5)?, 4),
    };
    (*length != 0).then_some(usize::from(*length) * unit)
}

/// What an error quotes of the packet it is about. The quote may be cut after the first 8 bytes behind the IP header, and its
/// IP length is that of the packet, not of the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote<V: Family> {
    /// Bytes of the quoted IP header, with its options or extension headers.
    pub(crate) header: usize,
    pub(crate) tuple: Tuple<V>,
}

impl<V: Family> Quote<V> {
    /// The sequence number of the TCP segment that a message quotes.
    pub(crate) fn sequence(&self, message: &[u8]) -> Option<u32> {
        let quoted = message.get(HEADER + self.header + tcp::SEQUENCE..)?;
        quoted.first_chunk().copied().map(u32::from_be_bytes)
    }

    /// Parses what follows the ICMP header.
    pub(crate) fn parse(quote: &[u8]) -> Result<Self, DropReason> {
        let ip = V::parse_quoted(quote).map_err(|_| DropReason::BadIcmp)?;
        let header = usize::from(ip.header);
        let protocol = match ip.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return Err(DropReason::IcmpNoFlow),
        };
        // A later fragment has no ports.
        if ip.fragment && !ip.first {
            return Err(DropReason::IcmpNoFlow);
        }
        if quote.len() < header + 8 {
            return Err(DropReason::BadIcmp);
        }
        let tuple = Tuple {
            source: ip.source,
            destination: ip.destination,
            source_port: u16_at(quote, header),
            destination_port: u16_at(quote, header + 2),
            protocol,
        };
        Ok(Self { header, tuple })
    }
}
