//! The TCP option by which a target learns a client's address ("TOA", as LVS and DPVS send it): kind 254, the length, the port, the
//! address. 8 bytes for IPv4, 20 for IPv6.
//!
//! The kernel module at the target reads the segment that completes the handshake there. Which one that will be, nobody knows: the first
//! ACK may be lost, or be passed over for the first data (`TCP_DEFER_ACCEPT`). So the option goes into all that the client
//! sends until the target acknowledges data or sends some, which it can't before its side of the connection stands; a mere ACK proves
//! nothing, as it also answers what is out of the window. And it goes into the SYN where there is room, for those who read that.
//!
//! What a client itself puts there would be believed as well, hence it is taken out of every segment of every service.

use std::net::{IpAddr, SocketAddr};

use super::segment::update;
use crate::wire::checksum::Delta;
use crate::wire::{put, tcp};

const KIND: u8 = 254;
/// Bytes of the option with an IPv4 address.
const IPV4: usize = 8;
/// Bytes of the option with an IPv6 address.
const IPV6: usize = 20;

/// The option of one connection.
pub(crate) struct Toa {
    bytes: [u8; IPV6],
    length: usize,
}

impl Toa {
    pub(crate) fn new(client: SocketAddr) -> Self {
        let mut bytes = [0; IPV6];
        let length = match client.ip() {
            IpAddr::V4(address) => {
                put(&mut bytes, 4, address.octets());
                IPV4
            }
            IpAddr::V6(address) => {
                put(&mut bytes, 4, address.octets());
                IPV6
            }
        };
        put(&mut bytes, 0, [KIND, length as u8]);
        put(&mut bytes, 2, client.port().to_be_bytes());
        Self { bytes, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Puts the option in the place of all others of a segment without room for it, or a client could hide by filling them up. The
    /// segments that complete a handshake are as good without: there is nothing to acknowledge selectively yet. False if those
    /// options are too short.
    #[must_use]
    pub(crate) fn overwrite(&self, segment: &mut [u8]) -> bool {
        let header = tcp::header_length(segment);
        let Some(options) = segment.get_mut(tcp::HEADER..header) else {
            return false;
        };
        if options.len() < self.length {
            return false;
        }
        let removed = Delta::removed(options);
        options.fill(tcp::NOP);
        options[..self.length].copy_from_slice(self.bytes());
        let delta = removed.and(Delta::added(options));
        update(segment, delta);
        true
    }
}

/// Bytes of the option.
pub(crate) fn length(is_v6: bool) -> usize {
    if is_v6 { IPV6 } else { IPV4 }
}

/// Takes out of a client's segment what the target would believe; how many there were, and how that changes the checksum.
///
/// What else is known under this kind (an early TCP Fast Open, RFC 6994) goes along if it is as long: the connection is as good without.
pub(crate) fn strip(segment: &mut [u8]) -> (u64, Delta) {
    let mut stripped = 0;
    let mut delta = Delta::NONE;
    tcp::each_option(segment, |segment, at, kind, length| {
        if kind == KIND && matches!(length, IPV4 | IPV6) {
            delta = delta.and(tcp::blank(segment, at, length));
            stripped += 1;
        }
    });
    (stripped, delta)
}
