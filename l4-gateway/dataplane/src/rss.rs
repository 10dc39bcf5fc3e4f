//! Which queue a NIC with receive side scaling gives a packet: the Toeplitz hash of its addresses and ports, through the NIC's
//! redirection table (Microsoft's "RSS hashing functions", which all NICs follow).
//!
//! The hash is linear: each bit of the input adds (by exclusive or) the 32 bits of the key that begin at its place, whatever the other bits
//! are. So what each value of each input byte adds is worked out once, and what all packets between two hosts have in common once for
//! all the ports tried between them.

use std::net::{IpAddr, SocketAddr};

use crate::service::Protocol;

/// Bytes of the longest input: two IPv6 addresses and two ports.
const LONGEST_INPUT: usize = 36;

/// Bytes of a hash, by which a key must be longer than the input.
const HASH: usize = 4;

/// What a NIC does to choose the queue of a packet.
pub struct Rss {
    key: Box<[u8]>,
    hashed: Hashed,
    redirection: Box<[u16]>,
    queues: u16,
    /// What a byte adds to the hash, by its place and value: 36 KiB, of which the ports tried for one flow touch two.
    adds: Box<[[u32; 256]]>,
}

/// What is hashed of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fields {
    /// Nothing: nobody can tell its queue.
    #[default]
    Nothing,
    /// Source and destination address.
    Addresses,
    /// Addresses, source and destination port.
    AddressesAndPorts,
}

/// What is hashed, by the kind of packet. Of a fragment, even a first one, NICs hash the addresses at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hashed {
    /// TCP over IPv4.
    pub tcp_v4: Fields,
    /// UDP over IPv4.
    pub udp_v4: Fields,
    /// TCP over IPv6.
    pub tcp_v6: Fields,
    /// UDP over IPv6.
    pub udp_v6: Fields,
}

/// Why a NIC's settings are none that a queue could be worked out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RssError {
    /// A key of fewer bytes than the hash needs.
    #[error("the key has {key} bytes, what is hashed needs {needed}")]
    ShortKey {
        /// Bytes of the key.
        key: usize,
        /// Bytes needed: those hashed, and four.
        needed: usize,
    },
    /// A redirection table without entries.
    #[error("the redirection table is empty")]
    NoRedirection,
}

impl Rss {
    /// The NIC with this key, what it hashes, and its redirection table: the queue for each value of the hash, modulo the table's
    /// length.
    ///
    /// # Errors
    /// A key too short for what is hashed, or an empty table.
    pub fn new(key: &[u8], hashed: Hashed, redirection: &[u16]) -> Result<Self, RssError> {
        let needed = hashed.longest_input() + HASH;
        if key.len() < needed {
            return Err(RssError::ShortKey {
                key: key.len(),
                needed,
            });
        }
        let queues = redirection.iter().max().ok_or(RssError::NoRedirection)? + 1;
        Ok(Self {
            key: key.into(),
            hashed,
            redirection: redirection.into(),
            queues,
            adds: (0..LONGEST_INPUT).map(|place| adds(key, place)).collect(),
        })
    }

    /// Queues that packets are spread over: the highest in the redirection table, and one.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// What is hashed.
    #[must_use]
    pub fn hashed(&self) -> Hashed {
        self.hashed
    }

    /// The queue of a packet, if its kind is hashed.
    #[must_use]
    pub fn queue(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<u16> {
        let between = self.between(protocol, source, destination.ip())?;
        Some(between.queue(destination.port()))
    }

    /// What packets from `source` to `destination` have in common, whatever port they go to; none if their kind is not hashed, or the
    /// addresses are of two families.
    #[must_use]
    pub fn between(
        &self,
        protocol: Protocol,
        source: SocketAddr,
        destination: IpAddr,
    ) -> Option<Between<'_>> {
        let (addresses, ports_at) = match (source.ip(), destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (self.add(0, &from.octets()) ^ self.add(4, &to.octets()), 8)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (self.add(0, &from.octets()) ^ self.add(16, &to.octets()), 32)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let (hash, port_at) = match self.hashed.of(protocol, destination) {
            Fields::Nothing => return None,
            Fields::Addresses => (addresses, None),
            Fields::AddressesAndPorts => (
                addresses ^ self.add(ports_at, &source.port().to_be_bytes()),
                Some(ports_at + 2),
            ),
        };
        Some(Between {
            rss: self,
            hash,
            port_at,
        })
    }

    /// What bytes from a place of the input on add.
    fn add(&self, place: usize, bytes: &[u8]) -> u32 {
        self.adds
            .iter()
            .skip(place)
            .zip(bytes)
            .fold(0, |hash, (adds, byte)| hash ^ adds[usize::from(*byte)])
    }
}

/// Two NICs that do the same are equal.
impl PartialEq for Rss {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, self.hashed, &self.redirection)
            == (&other.key, other.hashed, &other.redirection)
    }
}

impl Eq for Rss {}

impl std::fmt::Debug for Rss {
    /// Without the key: who knows it can send everything to one queue.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rss")
            .field("hashed", &self.hashed)
            .field("redirection", &self.redirection.len())
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

impl Hashed {
    /// What is hashed of packets between addresses of this family.
    fn of(self, protocol: Protocol, address: IpAddr) -> Fields {
        match (protocol, address) {
            (Protocol::Tcp, IpAddr::V4(_)) => self.tcp_v4,
            (Protocol::Udp, IpAddr::V4(_)) => self.udp_v4,
            (Protocol::Tcp, IpAddr::V6(_)) => self.tcp_v6,
            (Protocol::Udp, IpAddr::V6(_)) => self.udp_v6,
        }
    }

    /// Bytes.
    fn longest_input(self) -> usize {
        let bytes = |fields, addresses| match fields {
            Fields::Nothing => 0,
            Fields::Addresses => addresses,
            Fields::AddressesAndPorts => addresses + 4,
        };
        let v4 = bytes(self.tcp_v4, 8).max(bytes(self.udp_v4, 8));
        v4.max(bytes(self.tcp_v6, 32)).max(bytes(self.udp_v6, 32))
    }
}

/// What packets from one address and port to another address have in common.
#[derive(Clone, Copy, Debug)]
pub struct Between<'a> {
    rss: &'a Rss,
    hash: u32,
    /// Where the destination port is in the input; none if ports aren't hashed.
    port_at: Option<usize>,
}

impl Between<'_> {
    /// The queue of those that go to this port.
    #[inline]
    #[must_use]
    pub fn queue(&self, destination_port: u16) -> u16 {
        let table = &self.rss.redirection;
        let entry = self.hash(destination_port) as usize % table.len();
        table[entry]
    }

    #[inline]
    fn hash(&self, destination_port: u16) -> u32 {
        self.port_at.map_or(self.hash, |place| {
            self.hash ^ self.rss.add(place, &destination_port.to_be_bytes())
        })
    }
}

/// What each value of the byte at a place adds: for each of its bits, the most significant first, the 32 bits of the key that begin there.
fn adds(key: &[u8], place: usize) -> [u32; 256] {
    let byte = |at: usize| u64::from(key.get(at).copied().unwrap_or(0));
    let window = (0..5).fold(0, |window, at| window << 8 | byte(place + at));
    let mut adds = [0; 256];
    for (value, add) in adds.iter_mut().enumerate() {
        for bit in 0..8 {
            if value & 0x80 >> bit != 0 {
                *add ^= (window >> (8 - bit)) as u32;
            }
        }
    }
    adds
}

#[cfg(test)]
mod tests;
