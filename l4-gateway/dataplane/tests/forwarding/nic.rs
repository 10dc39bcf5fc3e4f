//! NICs that spread frames over queues, in a test: by the book, and otherwise.

use std::sync::Arc;

use dataplane::{Fields, Hashed, Rss, Spread};

use super::frame::{octets, port_word};
use super::net::{BOTH, Net};

/// What is programmed into a NIC, and told to the node.
pub const KEY: [u8; 40] = [
    0x1f, 0x83, 0xd9, 0xab, 0xfb, 0x41, 0xbd, 0x6b, 0x5b, 0xe0, 0xcd, 0x19, 0x13, 0x7e, 0x21, 0x79,
    0xa5, 0x4f, 0xf5, 0x3a, 0x51, 0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c, 0x1f, 0x83, 0xd9, 0xab,
    0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85,
];

/// Where a frame arrives.
pub enum Nic {
    /// By the Toeplitz hash with this key, through a table of 128 entries that names the queues by turns.
    Toeplitz([u8; 40]),
    /// Answers to LocalIPs by the low bits of their port, everything else as [`Nic::Toeplitz`].
    Rules([u8; 40]),
    /// Anywhere; the state of a generator.
    Random(u64),
    /// On the first queue.
    First,
    /// By turns.
    Turns(usize),
}

impl Nic {
    /// The queue of a frame, of so many.
    pub fn queue(&mut self, frame: &[u8], queues: usize) -> usize {
        match self {
            Nic::Toeplitz(key) => usize::from(table(queues)[hash(key, frame) as usize % 128]),
            Nic::Rules(key) => {
                if is_answer(frame) {
                    usize::from(port_word(frame, 2)) & (queues - 1)
                } else {
                    usize::from(table(queues)[hash(key, frame) as usize % 128])
                }
            }
            Nic::Random(state) => {
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (*state >> 33) as usize % queues
            }
            Nic::First => 0,
            Nic::Turns(last) => {
                *last = (*last + 1) % queues;
                *last
            }
        }
    }
}

/// Whether it is TCP or UDP to one of the first LocalIPs.
fn is_answer(frame: &[u8]) -> bool {
    BOTH.iter().any(|net| {
        let (kind, protocol, destination) = match net {
            Net::V4 => ([8, 0], 23, 30..34),
            Net::V6 => ([0x86, 0xdd], 20, 38..54),
        };
        frame[12..14] == kind
            && [6, 17].contains(&frame[protocol])
            && frame[destination] == octets(net.local_ip())
    })
}

/// What the driver of a NIC with [`KEY`] says; `by_port`: of one with rules for the first LocalIPs.
pub fn spread(queues: u16, by_port: bool) -> Spread {
    through(&table(usize::from(queues)), by_port)
}

/// As [`spread`], through a table that names the queues the other way round.
pub fn reversed(queues: u16) -> Spread {
    let mut entries = table(usize::from(queues));
    entries.reverse();
    through(&entries, false)
}

fn through(entries: &[u16], by_port: bool) -> Spread {
    let all = Fields::AddressesAndPorts;
    let hashed = Hashed {
        tcp_v4: all,
        udp_v4: all,
        tcp_v6: all,
        udp_v6: all,
    };
    Spread {
        rss: Some(Arc::new(Rss::new(&KEY, hashed, entries).unwrap())),
        by_port: match by_port {
            true => BOTH.map(Net::local_ip).to_vec(),
            false => Vec::new(),
        },
    }
}

fn table(queues: usize) -> Vec<u16> {
    (0..128).map(|entry| (entry % queues) as u16).collect()
}

/// Bit by bit, as the specification has it. Without ports of anything but whole TCP segments and UDP datagrams; 0 of what is not IP.
fn hash(key: &[u8; 40], frame: &[u8]) -> u32 {
    let mut input = Vec::new();
    let packet = &frame[14..];
    let ports_at = match [frame[12], frame[13]] {
        [8, 0] => {
            input.extend(&packet[12..20]);
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            ([6, 17].contains(&packet[9]) && !fragment).then(|| usize::from(packet[0] & 15) * 4)
        }
        [0x86, 0xdd] => {
            input.extend(&packet[8..40]);
            [6, 17].contains(&packet[6]).then_some(40)
        }
        _ => return 0,
    };
    if let Some(at) = ports_at {
        input.extend(&packet[at..at + 4]);
    }
    let bit = |bytes: &[u8], place: usize| bytes[place / 8] >> (7 - place % 8) & 1 == 1;
    let mut result = 0;
    for place in (0..input.len() * 8).filter(|place| bit(&input, *place)) {
        let window = (place..place + 32).fold(0, |word, at| word << 1 | u32::from(bit(key, at)));
        result ^= window;
    }
    result
}
