//! ICMP (RFC 792) messages.

use std::net::Ipv4Addr;

use super::{checksum, ipv4, u16_at};
use crate::DropReason;
use crate::flow::Tuple;
use crate::service::Protocol;

/// The header of every message used here, bytes.
pub(crate) const HEADER: usize = 8;

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const ECHO_REQUEST: u8 = 8;
pub(crate) const TIME_EXCEEDED: u8 = 11;
pub(crate) const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`].
pub(crate) const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]; the MTU is in the last two bytes of the header (RFC 1191).
pub(crate) const FRAGMENTATION_NEEDED: u8 = 4;

/// Checks a message's length and checksum; its type.
pub(crate) fn parse(message: &[u8]) -> Result<u8, DropReason> {
    if message.len() < HEADER || checksum::sum(message) != 0xffff {
        return Err(DropReason::BadIcmp);
    }
    Ok(message[0])
}

/// What an error quotes of the packet it is about. The quote may be cut after the first 8 bytes behind the IP header, and its
/// IP total length is that of the packet, not of the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// Bytes of the quoted IP header.
    pub(crate) header: usize,
    pub(crate) tuple: Tuple,
}

impl Quote {
    /// Parses what follows the ICMP header.
    pub(crate) fn parse(quote: &[u8]) -> Result<Self, DropReason> {
        let fixed: &[u8; ipv4::HEADER] = quote.first_chunk().ok_or(DropReason::BadIcmp)?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] >> 4 != 4 || header < ipv4::HEADER || quote.len() < header + 8 {
            return Err(DropReason::BadIcmp);
        }
        // A later fragment has no ports.
        if u16_at(fixed, 6) & 0x1fff != 0 {
            return Err(DropReason::IcmpNoFlow);
        }
        let protocol = match fixed[9] {
            ipv4::TCP => Protocol::Tcp,
            ipv4::UDP => Protocol::Udp,
            _ => return Err(DropReason::IcmpNoFlow),
        };
        let tuple = Tuple {
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            source_port: u16_at(quote, header),
            destination_port: u16_at(quote, header + 2),
            protocol,
        };
        Ok(Self { header, tuple })
    }
}
