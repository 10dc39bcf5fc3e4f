//! The five values a packet is known by.

use std::net::Ipv4Addr;

use crate::secret::Secret;
use crate::service::Protocol;

/// Source, destination and protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: Protocol,
}

impl Tuple {
    /// The tuple of the answer.
    pub(crate) fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    #[inline]
    pub(crate) fn hash(&self, secret: &Secret) -> u64 {
        let addresses =
            u64::from(self.source.to_bits()) << 32 | u64::from(self.destination.to_bits());
        let ports = u64::from(self.source_port) << 32
            | u64::from(self.destination_port) << 16
            | self.protocol as u64;
        secret.hash(addresses, ports)
    }
}
