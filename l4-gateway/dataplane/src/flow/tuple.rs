//! The five values a packet is known by.

use std::net::SocketAddr;

use crate::family::Family;
use crate::secret::Secret;
use crate::service::Protocol;

/// Source, destination and protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple<V: Family> {
    pub(crate) source: V::Address,
    pub(crate) destination: V::Address,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: Protocol,
}

impl<V: Family> Tuple<V> {
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

    /// From where, and to where.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (
            SocketAddr::new(self.source.into(), self.source_port),
            SocketAddr::new(self.destination.into(), self.destination_port),
        )
    }

    #[inline]
    pub(crate) fn hash(&self, secret: &Secret) -> u64 {
        let ports = u64::from(self.source_port) << 32
            | u64::from(self.destination_port) << 16
            | self.protocol as u64;
        V::hash(secret, self.source, self.destination, ports)
    }
}
