//! The pcapng file format, as much as a capture needs: written by the node, looked through by the command.
//!
//! Little endian, blocks padded to four bytes (draft-ietf-opsawg-pcapng, sections 3 and 4). Own code because the format is five blocks here and
//! the crate for it is between releases.

use std::borrow::Cow;

const SECTION: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
/// The value 9 says nanoseconds.
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;

/// Bytes that make a block without content: type, length, and the length again.
const FRAME: usize = 12;
/// A block this long is not ours.
const MOST: usize = 1 << 20;

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// It came in.
    In = 1,
    /// It left.
    Out = 2,
}

/// A packet as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet<'p> {
    /// The interface's place in the header.
    pub(crate) interface: u32,
    /// Nanoseconds of Unix time.
    pub(crate) at: u64,
    pub(crate) direction: Direction,
    /// Its length on the wire in bytes.
    pub(crate) length: u32,
    /// What was kept of it.
    pub(crate) bytes: &'p [u8],
    pub(crate) comment: Option<Cow<'p, str>>,
}

/// What a file begins with: the section, and an interface for each name, of whose packets `snap` bytes are kept.
pub(crate) fn header(application: &str, interfaces: &[String], snap: u32) -> Vec<u8> {
    let mut file = Vec::new();
    block(&mut file, SECTION, |body| {
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(body, SECTION_APPLICATION, application.as_bytes());
        option(body, END_OF_OPTIONS, &[]);
    });
    for name in interfaces {
        block(&mut file, INTERFACE, |body| {
            body.extend(ETHERNET.to_le_bytes());
            body.extend(0u16.to_le_bytes());
            body.extend(snap.to_le_bytes());
            option(body, INTERFACE_NAME, name.as_bytes());
            option(body, INTERFACE_RESOLUTION, &[9]);
            option(body, END_OF_OPTIONS, &[]);
        });
    }
    file
}

/// Adds a packet.
pub(crate) fn packet(file: &mut Vec<u8>, packet: &Packet<'_>) {
    block(file, PACKET, |body| {
        body.extend(packet.interface.to_le_bytes());
        time(body, packet.at);
        body.extend((packet.bytes.len() as u32).to_le_bytes());
        body.extend(packet.length.to_le_bytes());
        padded(body, packet.bytes);
        option(body, PACKET_FLAGS, &(packet.direction as u32).to_le_bytes());
        if let Some(comment) = &packet.comment {
            option(body, COMMENT, comment.as_bytes());
        }
        option(body, END_OF_OPTIONS, &[]);
    });
}

/// Adds how an interface fared: packets that matched, and those of them that there was no room for.
pub(crate) fn statistics(file: &mut Vec<u8>, interface: u32, at: u64, matched: u64, lost: u64) {
    block(file, STATISTICS, |body| {
        body.extend(interface.to_le_bytes());
        time(body, at);
        option(body, STATISTICS_RECEIVED, &matched.to_le_bytes());
        option(body, STATISTICS_DROPPED, &lost.to_le_bytes());
        option(body, END_OF_OPTIONS, &[]);
    });
}

fn block(file: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = file.len();
    file.extend(kind.to_le_bytes());
    file.extend([0; 4]);
    fill(file);
    let length = (file.len() - start + 4) as u32;
    file.extend(length.to_le_bytes());
    if let Some(place) = file.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// The upper half first, whatever the byte order (section 4.3).
fn time(body: &mut Vec<u8>, at: u64) {
    body.extend(((at >> 32) as u32).to_le_bytes());
    body.extend((at as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.extend(std::iter::repeat_n(
        0,
        bytes.len().next_multiple_of(4) - bytes.len(),
    ));
}

/// What a capture came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Packets written.
    pub(crate) packets: u64,
    /// Packets that matched and were lost.
    pub(crate) lost: u64,
}

/// Takes whole blocks out of a stream and counts what they hold.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    partial: Vec<u8>,
    tally: Tally,
}

impl Blocks {
    /// Adds what came and returns the blocks that are whole now.
    ///
    /// # Errors
    /// When it is no pcapng of ours.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.partial.extend_from_slice(bytes);
        let mut whole = 0;
        while let Some(head) = self
            .partial
            .get(whole..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            let [k0, k1, k2, k3, l0, l1, l2, l3] = *head;
            let kind = u32::from_le_bytes([k0, k1, k2, k3]);
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let ours = matches!(kind, SECTION | INTERFACE | PACKET | STATISTICS);
            if !ours || !(FRAME..=MOST).contains(&length) {
                return Err("the node did not answer with a capture".into());
            }
            let Some(block) = self.partial.get(whole..whole + length) else {
                break;
            };
            match kind {
                PACKET => self.tally.packets += 1,
                STATISTICS => self.tally.lost = self.tally.lost.saturating_add(lost(block)),
                _ => {}
            }
            whole += length;
        }
        Ok(self.partial.drain(..whole).collect())
    }

    /// What came so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }
}

/// The packets that a statistics block reports as dropped.
fn lost(block: &[u8]) -> u64 {
    let mut options = block.get(20..).unwrap_or_default();
    while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
        let (code, length) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([l0, l1]));
        if code == STATISTICS_DROPPED {
            return rest
                .first_chunk()
                .map_or(0, |value| u64::from_le_bytes(*value));
        }
        let padded = usize::from(length).next_multiple_of(4);
        options = rest.get(padded..).unwrap_or_default();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = header("l4-gateway 0", &["ext".into(), "int".into()], 96);
        for (interface, direction, comment) in [
            (0, Direction::In, None),
            (1, Direction::Out, Some("dropped: no_flow".into())),
        ] {
            let bytes = b"five!";
            packet(
                &mut file,
                &Packet {
                    interface,
                    at: 0x0123_4567_89ab_cdef,
                    direction,
                    length: 60,
                    bytes,
                    comment,
                },
            );
        }
        statistics(&mut file, 0, 1, 5, 3);
        statistics(&mut file, 1, 1, 5, 4);
        file
    }

    #[test]
    fn a_packet_is_written_as_the_format_says() {
        let mut file = Vec::new();
        packet(
            &mut file,
            &Packet {
                interface: 1,
                at: 0x0123_4567_89ab_cdef,
                direction: Direction::Out,
                length: 60,
                bytes: b"five!",
                comment: None,
            },
        );
        let expected = [
            &[6, 0, 0, 0, 52, 0, 0, 0][..],
            &[1, 0, 0, 0],
            &[0x67, 0x45, 0x23, 0x01, 0xef, 0xcd, 0xab, 0x89],
            &[5, 0, 0, 0, 60, 0, 0, 0],
            b"five!\0\0\0",
            &[2, 0, 4, 0, 2, 0, 0, 0],
            &[0, 0, 0, 0],
            &[52, 0, 0, 0],
        ]
        .concat();
        assert_eq!(file, expected);
    }

    #[test]
    fn blocks_come_out_whole_however_they_arrive() {
        let file = sample();
        for step in [1, 7, 64, file.len()] {
            let mut blocks = Blocks::default();
            let mut out = Vec::new();
            for piece in file.chunks(step) {
                out.extend(blocks.push(piece).unwrap());
            }
            assert_eq!(out, file);
            assert_eq!(
                blocks.tally(),
                Tally {
                    packets: 2,
                    lost: 7
                }
            );
        }
        let mut cut = Blocks::default();
        let out = cut.push(&file[..file.len() - 1]).unwrap();
        assert_eq!(out.len() % 4, 0);
        assert!(out.len() < file.len() - 1, "half a block is held back");
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        assert!(Blocks::default().push(b"{\"error\": \"no\"}\n").is_err());
        assert!(
            Blocks::default()
                .push(&[6, 0, 0, 0, 255, 255, 255, 255])
                .is_err()
        );
    }
}
