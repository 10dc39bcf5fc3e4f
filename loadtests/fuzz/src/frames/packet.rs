//! IP packets as any receiver reads them: lengths, checksums, addresses told. Written apart from the data plane, whose output it judges.

use super::{ETHERNET, LOCAL_IP, LOCAL_IP6};

/// The IP packet of a frame, cut to its length.
pub(super) struct Packet<'f> {
    pub(super) bytes: &'f [u8],
    /// Bytes of the header with its options or extension headers.
    pub(super) header: usize,
    /// What is behind it.
    pub(super) protocol: u8,
    pub(super) is_v6: bool,
    pub(super) is_fragment: bool,
}

impl<'f> Packet<'f> {
    pub(super) fn of(frame: &'f [u8]) -> Option<Packet<'f>> {
        let bytes = frame.get(ETHERNET..)?;
        match ([frame[12], frame[13]], bytes.first()? >> 4) {
            ([8, 0], 4) if bytes.len() >= 20 => {
                let header = usize::from(bytes[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                (20..=total).contains(&header).then_some(())?;
                Some(Packet {
                    bytes: bytes.get(..total)?,
                    header,
                    protocol: bytes[9],
                    is_v6: false,
                    is_fragment: u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0,
                })
            }
            ([0x86, 0xdd], 6) if bytes.len() >= 40 => {
                let total = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
                let bytes = bytes.get(..total)?;
                let (mut protocol, mut header) = (bytes[6], 40);
                let mut is_fragment = false;
                while matches!(protocol, 0 | 43 | 44 | 60) {
                    let extension = bytes.get(header..header + 8)?;
                    let fragments = protocol == 44;
                    is_fragment |= fragments && extension[2..4] != [0, 0];
                    protocol = extension[0];
                    header += if fragments {
                        8
                    } else {
                        8 + 8 * usize::from(extension[1])
                    };
                }
                bytes.get(header..)?;
                Some(Packet {
                    bytes,
                    header,
                    protocol,
                    is_v6: true,
                    is_fragment,
                })
            }
            _ => None,
        }
    }

    pub(super) fn header_is_right(&self) -> bool {
        self.is_v6 || sum_is_right(&self.bytes[..self.header])
    }

    pub(super) fn hops(&self) -> u8 {
        self.bytes[if self.is_v6 { 7 } else { 8 }]
    }

    pub(super) fn payload(&self) -> &'f [u8] {
        &self.bytes[self.header..]
    }

    pub(super) fn addresses(&self) -> std::ops::Range<usize> {
        if self.is_v6 { 8..40 } else { 12..20 }
    }

    /// Where in a segment from a LocalIP options are that a target takes for its client's address (TOA), as such a target looks for them.
    pub(super) fn addresses_told(&self) -> Vec<usize> {
        let source = &self.bytes[self.addresses()][..if self.is_v6 { 16 } else { 4 }];
        let ours = source == LOCAL_IP.octets() || source == LOCAL_IP6.octets();
        let whole = if self.is_v6 {
            self.header == 40
        } else {
            u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x1fff == 0
        };
        let mut told = Vec::new();
        if self.protocol != 6 || !ours || !whole {
            return told;
        }
        let segment = self.payload();
        let end = segment
            .get(12)
            .map_or(0, |offset| usize::from(offset >> 4) * 4);
        let mut at = 20;
        while let Some(&kind) = segment.get(at).filter(|_| at < end) {
            let length = match (kind, segment.get(at + 1)) {
                (0, _) | (_, None) => break,
                (1, _) => 1,
                (_, Some(&length)) => usize::from(length),
            };
            if kind != 1 && (length < 2 || at + length > end) {
                break;
            }
            if kind == 254 && matches!(length, 8 | 20) {
                told.push(at);
            }
            at += length;
        }
        told
    }

    /// ICMP or ICMPv6.
    pub(super) fn is_icmp(&self) -> bool {
        self.protocol == if self.is_v6 { 58 } else { 1 }
    }

    /// The sum of the payload, with the pseudo header where there is one.
    pub(super) fn sum(&self) -> u16 {
        let pseudo = match (self.is_icmp(), self.is_v6) {
            (true, false) => 0,
            _ => {
                u32::from(sum(&self.bytes[self.addresses()], 0))
                    + u32::from(self.protocol)
                    + self.payload().len() as u32
            }
        };
        sum(self.payload(), pseudo)
    }

    /// Where its payload has a checksum, if it has one.
    pub(super) fn checksum(&self) -> Option<usize> {
        let length = self.payload().len();
        match self.protocol {
            6 if length >= 20 => Some(16),
            17 if length >= 8 && self.payload()[6..8] != [0, 0] => Some(6),
            _ if self.is_icmp() && length >= 8 => Some(2),
            _ => None,
        }
    }
}

/// Whether a frame holds an IP packet, and no fragment, whose lengths and checksums are right.
pub(super) fn is_correct(frame: &[u8]) -> bool {
    let Some(packet) = Packet::of(frame) else {
        return false;
    };
    let payload = packet.payload();
    if packet.protocol == 4 || packet.protocol == 41 {
        // A tunnel's: what is inside.
        let inner = [&frame[..ETHERNET], payload].concat();
        return packet.header_is_right() && is_correct(&inner);
    }
    let fits = packet.protocol != 17
        || payload.len() >= 8
            && usize::from(u16::from_be_bytes([payload[4], payload[5]])) == payload.len();
    let unchecked = packet.protocol == 17 && !packet.is_v6 && packet.checksum().is_none();
    packet.header_is_right()
        && !packet.is_fragment
        && fits
        && (unchecked || packet.checksum().is_some() && packet.sum() == 0xffff)
}

/// Computes the checksums anew; a UDP checksum of 0 stays, as it says that there is none.
pub(crate) fn fix_checksums(frame: &mut [u8]) {
    let Some(packet) = Packet::of(frame) else {
        return;
    };
    let (header, is_v6, is_udp) = (packet.header, packet.is_v6, packet.protocol == 17);
    let place = packet.checksum();
    if !is_v6 {
        let packet = &mut frame[ETHERNET..];
        packet[10..12].fill(0);
        let sum = !sum(&packet[..header], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Some(at) = place.map(|place| ETHERNET + header + place) else {
        return;
    };
    frame[at..at + 2].fill(0);
    let sum = match Packet::of(frame).map_or(0, |packet| !packet.sum()) {
        0 if is_udp => 0xffff,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn sum_is_right(bytes: &[u8]) -> bool {
    sum(bytes, 0) == 0xffff
}

/// The ones' complement sum of RFC 1071.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_by_the_book() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0),
            0xddf2
        );
    }
}
