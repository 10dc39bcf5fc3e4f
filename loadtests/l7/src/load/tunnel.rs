//! A client of a WebSocket: messages through the tunnel and back, one at a time.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use super::Done;
use super::exchange::{message, upgrade};
use super::wire::{Found, Wire};

pub(crate) struct Tunnel {
    outgoing: Rc<[u8]>,
    sent: usize,
    /// The head of the answer, until the tunnel is open.
    head: Option<Vec<u8>>,
    message: Rc<[u8]>,
    /// Since when a message is under way, and what came back of it.
    under_way: Option<(Instant, usize)>,
}

impl Tunnel {
    pub(crate) fn new() -> Tunnel {
        Tunnel {
            outgoing: upgrade().into(),
            sent: 0,
            head: Some(Vec::new()),
            message: message(),
            under_way: None,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.head.is_none() && self.under_way.is_none()
    }

    pub(crate) fn start(&mut self, due: Instant) {
        self.outgoing = self.message.clone();
        self.sent = 0;
        self.under_way = Some((due, 0));
    }

    pub(crate) fn send(&mut self, wire: &mut Wire) -> Result<()> {
        wire.send(&self.outgoing, &mut self.sent).map(|_| ())
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
                Found::End => bail!("the tunnel was closed"),
                Found::Bytes(read) => self.take(scratch.get(..read).unwrap_or_default(), done)?,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], done: &mut Vec<Done>) -> Result<()> {
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if let Some(end) = memmem::find(head, b"\r\n\r\n") {
                ensure!(
                    head.starts_with(b"HTTP/1.1 101 ") && end + 4 == head.len(),
                    "not a 101: {}",
                    String::from_utf8_lossy(head)
                );
                self.head = None;
            }
            return Ok(());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let (due, came) = self.under_way.context("bytes that nobody sent")?;
        let now = came + bytes.len();
        ensure!(
            self.message.get(came..now) == Some(bytes),
            "a message that differs from what was sent"
        );
        if now == self.message.len() {
            self.under_way = None;
            done.push(Done {
                due,
                resumed: false,
            });
        } else {
            self.under_way = Some((due, now));
        }
        Ok(())
    }
}
