//! HTTP/2 frame by frame, for what no client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `GET / ` to `a`, by HPACK's static table and one literal.
pub const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// A connection on which the preface and empty settings have been sent.
pub fn open(address: SocketAddr) -> TcpStream {
    let mut stream = client::connect(address);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("preface");
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[]))
        .expect("settings");
    stream
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small payload")
        .to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as HPACK literals that are indexed nowhere (RFC 7541 section 6.2.2), as they are written here.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(
                u8::try_from(text.len())
                    .ok()
                    .filter(|length| *length < 127)
                    .expect("short"),
            );
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Reads frames until the connection ends; the kinds that came.
pub fn kinds(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    let mut kinds = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        kinds.push(rest[3]);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    kinds
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status, where its code is in HPACK's static table, or written out.
    pub status: u16,
    pub body: Vec<u8>,
    /// The code of a RST_STREAM or GOAWAY.
    pub error: Option<u32>,
}

/// Sends a request and reads what comes of it. `body` are DATA frames, `trailers` a block behind them.
pub fn request(
    address: SocketAddr,
    fields: &[(&str, &str)],
    body: &[&[u8]],
    trailers: Option<&[(&str, &str)]>,
) -> Outcome {
    let mut stream = open(address);
    let ends = |last: bool| if last { END_STREAM } else { 0 };
    let bare = body.is_empty() && trailers.is_none();
    let mut bytes = frame(HEADERS, END_HEADERS | ends(bare), 1, &block(fields));
    for (number, part) in body.iter().enumerate() {
        let last = number + 1 == body.len() && trailers.is_none();
        bytes.extend(frame(DATA, ends(last), 1, part));
    }
    if let Some(trailers) = trailers {
        bytes.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &block(trailers),
        ));
    }
    stream.write_all(&bytes).expect("a request");
    outcome(&mut stream)
}

/// Reads what comes of stream 1.
pub fn outcome(stream: &mut TcpStream) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return outcome;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            return outcome;
        }
        match head[3] {
            // Trailers have no status; it stays.
            HEADERS => outcome.status = status(&payload).unwrap_or(outcome.status),
            DATA => outcome.body.extend_from_slice(&payload),
            RST_STREAM => {
                outcome.error = payload.first_chunk().map(|code| u32::from_be_bytes(*code))
            }
            GOAWAY => {
                outcome.error = payload
                    .get(4..)
                    .and_then(|rest| rest.first_chunk())
                    .map(|code| u32::from_be_bytes(*code))
            }
            _ => continue,
        }
        let ended = matches!(head[3], HEADERS | DATA) && head[4] & END_STREAM != 0;
        if ended || outcome.error.is_some() {
            return outcome;
        }
    }
}

/// The status at the head of a block: indexed (RFC 7541 appendix A), or a literal whose digits are Huffman codes or plain.
fn status(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(indexed - 0x88)]),
        [0x48 | 0x08 | 0x18, 0x82, high, low, ..] => huffman(u16::from_be_bytes([*high, *low])),
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => {
            std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Three digits: `0`, `1` and `2` are five bits long, the others six (RFC 7541 appendix B).
fn huffman(bits: u16) -> Option<u16> {
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let rest = bits << at;
        let (digit, width) = match rest >> 11 {
            short @ 0..=2 => (short, 5),
            _ => ((rest >> 10).checked_sub(0x19)? + 3, 6),
        };
        number = number * 10 + digit;
        at += width;
    }
    Some(number)
}
