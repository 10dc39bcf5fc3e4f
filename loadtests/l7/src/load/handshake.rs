//! A client that only shakes hands: it leaves when the server has sent its tickets, the last thing it does for a handshake.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};

use super::Done;
use super::wire::{Found, Wire};

/// Tickets are used once; more than this are forgotten, the oldest first.
const TICKETS: usize = 256;

/// Where clients keep tickets.
pub(crate) struct Tickets {
    /// Whether any is ever used.
    used: bool,
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
    came: AtomicU64,
}

impl Tickets {
    /// With which every handshake is a whole one, or every one that can be is resumed.
    pub(crate) fn new(used: bool) -> Arc<Tickets> {
        Arc::new(Tickets {
            used,
            kept: Mutex::default(),
            came: AtomicU64::new(0),
        })
    }

    fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({})", self.came())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.came.fetch_add(1, Ordering::Relaxed);
        if self.used {
            let mut kept = self.kept();
            kept.push_back(ticket);
            if kept.len() > TICKETS {
                kept.pop_front();
            }
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().pop_front()
    }
}

pub(crate) struct Handshake {
    tickets: Arc<Tickets>,
    due: Option<Instant>,
}

impl Handshake {
    pub(crate) fn new(tickets: Arc<Tickets>) -> Handshake {
        Handshake { tickets, due: None }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.due.is_none()
    }

    pub(crate) fn start(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Whether it is over.
    pub(crate) fn receive(
        &mut self,
        wire: &mut Wire,
        scratch: &mut [u8],
        done: &mut Vec<Done>,
    ) -> Result<bool> {
        // All clients are on one thread, so a ticket that comes now is this one's.
        let before = self.tickets.came();
        loop {
            match wire.read(scratch)? {
                Found::Nothing => break,
                Found::End => bail!("the server closed before the handshake was over"),
                Found::Bytes(read) => ensure!(read == 0, "bytes that nobody asked for"),
            }
        }
        if self.tickets.came() == before {
            return Ok(false);
        }
        let kind = wire.handshake().context("a ticket before the handshake")?;
        wire.say_farewell()?;
        done.push(Done {
            due: self.due.context("nothing was begun")?,
            resumed: kind == HandshakeKind::Resumed,
        });
        Ok(true)
    }
}
