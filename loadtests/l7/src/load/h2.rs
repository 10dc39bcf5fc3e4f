//! A client that speaks as much HTTP/2 (RFC 9113) as a bench needs: GETs, several at once, every byte of their answers looked at.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::Done;
use super::exchange::{Answer, Exchange};
use super::wire::{Found, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The largest window there is (section 6.9.1): the server shall never wait for us.
const WINDOW: u32 = (1 << 31) - 1;
/// What a connection's window is until something else is said.
const INITIAL_WINDOW: u32 = 65_535;
/// After so many bytes the window is opened again.
const REFILL: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of DATA and HEADERS; of SETTINGS and PING it is ACK.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED_OR_PRIORITY: u8 = 0x28;

pub(crate) struct H2 {
    limit: usize,
    next: u32,
    streams: Vec<Stream>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    /// Bytes of bodies since the window was opened.
    consumed: u32,
    pub(crate) kept: Vec<u8>,
}

struct Stream {
    id: u32,
    exchange: Rc<Exchange>,
    due: Instant,
    has_head: bool,
    came: usize,
}

impl H2 {
    /// With at most `limit` requests at once.
    pub(crate) fn new(limit: usize) -> H2 {
        let mut outgoing = PREFACE.to_vec();
        // SETTINGS_ENABLE_PUSH 0, SETTINGS_INITIAL_WINDOW_SIZE.
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend(WINDOW.to_be_bytes());
        frame(&mut outgoing, SETTINGS, 0, 0, &settings);
        let more = (WINDOW - INITIAL_WINDOW).to_be_bytes();
        frame(&mut outgoing, WINDOW_UPDATE, 0, 0, &more);
        H2 {
            limit,
            next: 1,
            streams: Vec::new(),
            incoming: Vec::new(),
            outgoing,
            sent: 0,
            consumed: 0,
            kept: Vec::new(),
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.streams.len() < self.limit
    }

    pub(crate) fn start(&mut self, exchange: Rc<Exchange>, due: Instant) {
        let id = self.next;
        self.next += 2;
        let block = &exchange.h2[usize::from(id != 1)];
        frame(
            &mut self.outgoing,
            HEADERS,
            END_STREAM | END_HEADERS,
            id,
            block,
        );
        self.kept.clear();
        self.streams.push(Stream {
            id,
            exchange,
            due,
            has_head: false,
            came: 0,
        });
    }

    pub(crate) fn send(&mut self, wire: &mut Wire) -> Result<()> {
        if wire.send(&self.outgoing, &mut self.sent)? {
            self.outgoing.clear();
            self.sent = 0;
        }
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        wire: &mut Wire,
        scratch: &mut [u8],
        done: &mut Vec<Done>,
    ) -> Result<bool> {
        loop {
            match wire.read(scratch)? {
                Found::Nothing => return Ok(false),
                Found::End => bail!("the server closed a connection that was to stay"),
                Found::Bytes(read) => {
                    let read = scratch.get(..read).unwrap_or_default();
                    if self.incoming.is_empty() {
                        let used = self.take(read, done)?;
                        let rest = read.get(used..).unwrap_or_default();
                        self.incoming.extend_from_slice(rest);
                    } else {
                        let mut incoming = std::mem::take(&mut self.incoming);
                        incoming.extend_from_slice(read);
                        let used = self.take(&incoming, done)?;
                        incoming.drain(..used);
                        self.incoming = incoming;
                    }
                }
            }
        }
    }

    /// Takes whole frames; how many bytes they were.
    fn take(&mut self, bytes: &[u8], done: &mut Vec<Done>) -> Result<usize> {
        let mut used = 0;
        while let Some((head, rest)) = bytes
            .get(used..)
            .and_then(|rest| rest.split_first_chunk::<FRAME_HEAD>())
        {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = rest.get(..length) else {
                break;
            };
            used += FRAME_HEAD + length;
            self.frame(kind, flags, u32::from_be_bytes(stream), payload, done)?;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        done: &mut Vec<Done>,
    ) -> Result<()> {
        match kind {
            HEADERS | DATA => {
                ensure!(flags & PADDED_OR_PRIORITY == 0, "a padded frame");
                let at = self.streams.iter().position(|stream| stream.id == id);
                let at = at.with_context(|| format!("a frame on stream {id}, which is over"))?;
                let stream = &mut self.streams[at];
                if kind == HEADERS {
                    ensure!(!stream.has_head, "trailers");
                    ensure!(flags & END_HEADERS != 0, "a head in several frames");
                    ensure!(is_200(payload), "not a 200: field block {payload:02x?}");
                    stream.has_head = true;
                } else {
                    ensure!(stream.has_head, "a body without a head");
                    self.consumed += payload.len() as u32;
                    match &stream.exchange.answer {
                        Answer::Exactly(body) => ensure!(
                            body.get(stream.came..stream.came + payload.len()) == Some(payload),
                            "a body that differs from what was sent"
                        ),
                        Answer::Kept => self.kept.extend_from_slice(payload),
                    }
                    stream.came += payload.len();
                }
                if flags & END_STREAM != 0 {
                    let stream = self.streams.swap_remove(at);
                    if let Answer::Exactly(body) = &stream.exchange.answer {
                        ensure!(
                            stream.came == body.len(),
                            "{} bytes of {}",
                            stream.came,
                            body.len()
                        );
                    }
                    done.push(Done {
                        due: stream.due,
                        resumed: false,
                    });
                }
                if self.consumed >= REFILL {
                    let consumed = std::mem::take(&mut self.consumed).to_be_bytes();
                    frame(&mut self.outgoing, WINDOW_UPDATE, 0, 0, &consumed);
                }
            }
            SETTINGS if flags & END_STREAM == 0 => frame(&mut self.outgoing, SETTINGS, 1, 0, &[]),
            PING if flags & END_STREAM == 0 => frame(&mut self.outgoing, PING, 1, 0, payload),
            SETTINGS | PING | WINDOW_UPDATE => {}
            RST_STREAM => bail!("stream {id} was reset: {payload:?}"),
            GOAWAY => bail!("the server takes its leave: {payload:?}"),
            other => bail!("a frame of type {other}"),
        }
        Ok(())
    }
}

/// Whether a field block begins with `:status: 200`, after changes of the table's size (RFC 7541, section 6.3).
fn is_200(block: &[u8]) -> bool {
    let mut block = block;
    while let [first, rest @ ..] = block {
        if first & 0xe0 != 0x20 {
            break;
        }
        block = rest;
        if first & 0x1f == 0x1f {
            let more = block.iter().take_while(|byte| **byte & 0x80 != 0).count();
            block = block.get(more + 1..).unwrap_or_default();
        }
    }
    // Index 8 of the static table.
    block.first() == Some(&0x88)
}

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    into.extend_from_slice(&length);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_is_a_200() {
        assert!(is_200(&[0x88, 0x5c]));
        assert!(is_200(&[0x20, 0x88]));
        assert!(is_200(&[0x3f, 0xe1, 0x1f, 0x88]));
        // 204, 500, a literal, nothing.
        for block in [&[0x89][..], &[0x8e], &[0x48, 3, b'2', b'0', b'1'], &[]] {
            assert!(!is_200(block), "{block:?}");
        }
    }
}
