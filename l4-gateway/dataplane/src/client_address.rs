//! The client's address, told to the target: in front of the stream, or in a TCP option.
//!
//! What is put into a client's segment is put there before its addresses are rewritten, and what that means for the sequence
//! numbers of answers is undone before theirs are. So the rewriting knows nothing of it, and each part can be read alone:
//!
//! - [`proxy`]: the PROXY header, and what it does to sequence numbers;
//! - [`toa`]: the TCP option, and the forged ones of clients;
//! - [`mss`]: the segments of clients stay as much smaller as they grow here;
//! - [`quote`]: what errors of routers quote;
//! - [`segment`]: the editing.

pub(crate) mod mss;
pub(crate) mod proxy;
pub(crate) mod quote;
pub(crate) mod segment;
pub(crate) mod toa;

use std::net::IpAddr;

/// How a service's targets learn the address of a client, beyond seeing the LocalIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    None,
    /// By a PROXY protocol v2 header in front of the stream, which goes with the client's first bytes: not for protocols in which the
    /// server speaks first and expects the header before. Every target has to expect it.
    ProxyV2,
    /// By the TCP option 254 ("TOA"), for targets with the kernel module or the BPF program that reads it; others ignore it.
    Toa,
}

impl ClientAddress {
    /// Bytes that segments to a target grow by: the TCP option. A PROXY header is none; it goes ahead of a segment that has no room for it.
    pub fn option_length(self, target: IpAddr) -> u16 {
        match self {
            ClientAddress::None | ClientAddress::ProxyV2 => 0,
            ClientAddress::Toa => toa::length(target.is_ipv6()) as u16,
        }
    }
}

/// What a flow does to segments so that its target learns the client's address. The flow keeps what its service said when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Insertion {
    /// Nothing, ever.
    None = 0,
    /// Nothing any more: the target has acknowledged the PROXY header, whose length is part of the flow's shift now.
    ProxyDone = 1,
    /// Nothing any more: the target has shown that its side of the connection stands.
    ToaDone = 2,
    /// A PROXY header goes in front of the stream; where that begins, only the client's SYN has said so far.
    ProxyOffered = ACTIVE,
    /// A PROXY header goes in front of the stream, which begins where the target's SYN-ACK said.
    Proxy = ACTIVE | 1,
    /// The option goes into each segment.
    Toa = ACTIVE | 2,
}

/// The bit of all [`Insertion`]s that do something now.
const ACTIVE: u8 = 0b100;

impl Insertion {
    /// Of a flow that begins.
    pub(crate) fn new(client_address: ClientAddress) -> Self {
        match client_address {
            ClientAddress::None => Self::None,
            ClientAddress::ProxyV2 => Self::ProxyOffered,
            ClientAddress::Toa => Self::Toa,
        }
    }

    /// As [`Insertion::number`] made it.
    pub(crate) fn from_number(number: u16) -> Self {
        match number {
            1 => Self::ProxyDone,
            2 => Self::ToaDone,
            4 => Self::ProxyOffered,
            5 => Self::Proxy,
            6 => Self::Toa,
            _ => Self::None,
        }
    }

    /// Three bits, the highest of which says whether segments change now, SYNs apart.
    pub(crate) fn number(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests;
