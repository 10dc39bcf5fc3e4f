//! The checksum of a TCP segment or UDP datagram (RFC 9293 3.1, RFC 768), as the receiver sums it.

use super::ip::{Ip, TCP};
use super::{checksum, tcp, u16_at, udp};
use crate::family::Family;

/// What a packet's checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// It is right, or there is none and none is needed.
    Right,
    /// Something was damaged.
    Wrong,
    /// It is that of the pseudo header alone: the sender left the rest to its NIC, and there was none that did it.
    Unfinished,
}

/// Sums a whole packet's payload, which [`tcp::parse`] or [`udp::parse`] has taken.
pub(crate) fn sum<V: Family>(ip: &Ip<V>, payload: &[u8]) -> Sum {
    let (payload, field) = match ip.protocol {
        TCP => (payload, tcp::CHECKSUM),
        // What is behind the datagram isn't summed.
        _ => {
            let length = usize::from(u16_at(payload, 4));
            (payload.get(..length).unwrap_or(payload), udp::CHECKSUM)
        }
    };
    let written = u16_at(payload, field);
    if V::UDP_MAY_BE_UNCHECKED && ip.protocol != TCP && written == 0 {
        return Sum::Right;
    }
    let length = payload.len() as u16;
    let pseudo = V::pseudo_header(ip.source, ip.destination, ip.protocol, length);
    match checksum::add(pseudo, checksum::sum(payload)) {
        0xffff => Sum::Right,
        _ if written == pseudo => Sum::Unfinished,
        _ => Sum::Wrong,
    }
}
