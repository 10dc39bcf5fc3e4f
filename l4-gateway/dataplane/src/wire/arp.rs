//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::ethernet;
use crate::limits::ETHERNET_HEADER;
use crate::{DropReason, MacAddr};

/// The packet behind the Ethernet header, bytes.
pub(crate) const PACKET: usize = 28;
/// A whole frame without padding.
pub(crate) const FRAME: usize = ETHERNET_HEADER + PACKET;

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Request,
    Reply,
}

/// One ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) operation: Operation,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: MacAddr,
    pub(crate) target: Ipv4Addr,
}

impl Arp {
    /// Parses what follows the Ethernet header.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let packet: &[u8; PACKET] = packet.first_chunk().ok_or(DropReason::Truncated)?;
        // Ethernet, IPv4, address lengths 6 and 4.
        if packet[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(DropReason::BadArp);
        }
        let operation = match packet[6..8] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return Err(DropReason::BadArp),
        };
        let mac = |at: usize| {
            let mut octets = [0; 6];
            octets.copy_from_slice(&packet[at..at + 6]);
            MacAddr(octets)
        };
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let arp = Self {
            operation,
            sender_mac: mac(8),
            sender: address(14),
            target_mac: mac(18),
            target: address(24),
        };
        if arp.sender_mac.is_group() || arp.sender_mac == MacAddr::default() {
            return Err(DropReason::BadArp);
        }
        Ok(arp)
    }

    /// The whole frame, to `destination`.
    pub(crate) fn frame(&self, destination: MacAddr) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[..14].copy_from_slice(&ethernet::header(
            destination,
            self.sender_mac,
            ethernet::ARP,
        ));
        frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame[21] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }
}
