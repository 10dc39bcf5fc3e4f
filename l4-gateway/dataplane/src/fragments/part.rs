//! Reading from a fragment which packet it is a part of, and which part.

use std::net::IpAddr;

use crate::DropReason;
use crate::wire::{ipv4, u16_at, u32_at};

/// What the fragments of one packet have in common (RFC 791 3.2; RFC 8200 4.5: there the protocol is not part of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Datagram {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identification: u32,
    /// 0 for IPv6.
    pub(crate) protocol: u8,
}

/// One fragment's part of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) datagram: Datagram,
    /// Its bytes, counted in what was cut into pieces: from here,
    pub(crate) start: u16,
    /// up to, not including, here.
    pub(crate) end: u16,
    pub(crate) last: bool,
    /// Where the identification stands in the packet: 2 bytes of IPv4, 4 of IPv6.
    pub(crate) identification_at: u16,
}

impl Part {
    /// Of an IPv4 packet whose header was checked: `header` and `total` are its bytes without and with payload.
    pub(crate) fn of_ipv4(
        packet: &[u8],
        source: IpAddr,
        destination: IpAddr,
        header: u16,
        total: u16,
    ) -> Result<Self, DropReason> {
        let fixed: &[u8; ipv4::HEADER] = packet.first_chunk().ok_or(DropReason::Truncated)?;
        let word = u16_at(fixed, ipv4::FRAGMENTATION);
        let datagram = Datagram {
            source,
            destination,
            identification: u32::from(u16_at(fixed, ipv4::IDENTIFICATION)),
            protocol: fixed[9],
        };
        let start = u32::from(word & ipv4::OFFSET) * 8;
        let more = word & ipv4::MORE_FRAGMENTS != 0;
        let at = ipv4::IDENTIFICATION as u16;
        Self::new(datagram, start, total.saturating_sub(header), more, at)
    }

    /// Of an IPv6 packet whose fragment header stands at `at`; `total`: all its bytes.
    pub(crate) fn of_ipv6(
        packet: &[u8],
        source: IpAddr,
        destination: IpAddr,
        at: u16,
        total: u16,
    ) -> Result<Self, DropReason> {
        let header: &[u8; 8] = packet
            .get(usize::from(at)..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(DropReason::BadFragment)?;
        let word = u16_at(header, 2);
        let datagram = Datagram {
            source,
            destination,
            identification: u32_at(header, 4),
            protocol: 0,
        };
        let start = u32::from(word & 0xfff8);
        let length = total.saturating_sub(at + 8);
        Self::new(datagram, start, length, word & 1 != 0, at + 4)
    }

    fn new(
        datagram: Datagram,
        start: u32,
        length: u16,
        more: bool,
        identification_at: u16,
    ) -> Result<Self, DropReason> {
        let end = u16::try_from(start + u32::from(length)).map_err(|_| DropReason::BadFragment)?;
        // All but the last are cut at a multiple of 8 (RFC 791 3.2, RFC 8200 4.5), and none is cut empty.
        if length == 0 || more && !length.is_multiple_of(8) {
            return Err(DropReason::BadFragment);
        }
        Ok(Self {
            datagram,
            start: start as u16,
            end,
            last: !more,
            identification_at,
        })
    }
}
