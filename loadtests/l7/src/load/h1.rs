//! A client that speaks HTTP/1.1, one request at a time, and looks at every byte that comes back.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use super::Done;
use super::exchange::{Answer, Exchange};
use super::wire::{Found, Wire};

/// A head that is longer is none of ours.
const MAX_HEAD: usize = 8 << 10;

#[derive(Default)]
pub(crate) struct H1 {
    /// Under way: what, and since when it is due.
    exchange: Option<(Rc<Exchange>, Instant)>,
    sent: usize,
    /// The head, until it is complete.
    head: Vec<u8>,
    /// Bytes of the body: those that must come and those that came.
    body: Option<(usize, usize)>,
    /// Whether the server closes after the answer.
    closes: bool,
    answered: bool,
    /// Of an answer that is to be looked at.
    pub(crate) kept: Vec<u8>,
}

impl H1 {
    /// For one request on one connection.
    pub(crate) fn that_closes() -> H1 {
        H1 {
            closes: true,
            ..H1::default()
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.exchange.is_none()
    }

    pub(crate) fn start(&mut self, exchange: Rc<Exchange>, due: Instant) {
        self.exchange = Some((exchange, due));
        self.sent = 0;
        self.body = None;
        self.head.clear();
        self.kept.clear();
    }

    pub(crate) fn send(&mut self, wire: &mut Wire) -> Result<()> {
        let message = match &self.exchange {
            Some((exchange, _)) => &exchange.h1[..],
            None => &[],
        };
        wire.send(message, &mut self.sent).map(|_| ())
    }

    /// Reads all there is; whether the connection is over.
    pub(crate) fn receive(
        &mut self,
        wire: &mut Wire,
        scratch: &mut [u8],
        done: &mut Vec<Done>,
    ) -> Result<bool> {
        loop {
            match wire.read(scratch)? {
                Found::Nothing => return Ok(false),
                Found::End => {
                    ensure!(
                        self.closes && self.answered,
                        "the server closed a connection that was to stay"
                    );
                    self.finish(done)?;
                    return Ok(true);
                }
                Found::Bytes(read) => {
                    let read = scratch.get(..read).unwrap_or_default();
                    self.take(read, done)?;
                }
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], done: &mut Vec<Done>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some((exchange, _)) = self.exchange.clone().filter(|_| !self.answered) else {
            bail!("{} bytes came that were not asked for", bytes.len());
        };
        if self.body.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
                ensure!(self.head.len() < MAX_HEAD, "a head without end");
                return Ok(());
            };
            let length = read_head(self.head.get(..end + 4).unwrap_or_default())?;
            if let Answer::Exactly(body) = &exchange.answer {
                ensure!(
                    length == body.len(),
                    "content-length {length} in place of {}",
                    body.len()
                );
            }
            self.body = Some((length, 0));
            bytes = bytes.get(end + 4 - before..).unwrap_or_default();
        }
        let Some((length, came)) = &mut self.body else {
            return Ok(());
        };
        ensure!(
            bytes.len() <= *length - *came,
            "more came than content-length says"
        );
        match &exchange.answer {
            Answer::Exactly(body) => ensure!(
                body.get(*came..*came + bytes.len()) == Some(bytes),
                "a body that differs from what was sent, within {} bytes after {came}",
                bytes.len()
            ),
            Answer::Kept => self.kept.extend_from_slice(bytes),
        }
        *came += bytes.len();
        if came == length {
            ensure!(
                self.sent == exchange.h1.len(),
                "an answer before the request was sent"
            );
            if self.closes {
                self.answered = true;
            } else {
                self.finish(done)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, done: &mut Vec<Done>) -> Result<()> {
        let (_, due) = self.exchange.take().context("nothing was asked")?;
        done.push(Done {
            due,
            resumed: false,
        });
        Ok(())
    }
}

/// The length of the body of a 200.
fn read_head(head: &[u8]) -> Result<usize> {
    let said = || String::from_utf8_lossy(head).into_owned();
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "not a 200: {}", said());
    let mut lines = head.split(|byte| *byte == b'\n');
    lines
        .find_map(|line| value_of(line, b"content-length"))
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("no content-length: {}", said()))
}

/// The value of a field, if that is its name.
pub(crate) fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l str> {
    let (is, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    if !is.eq_ignore_ascii_case(name) {
        return None;
    }
    std::str::from_utf8(value).ok().map(str::trim)
}
