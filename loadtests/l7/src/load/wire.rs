//! A client's end of a connection: TCP, with TLS or without, never blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::exchange::HOST;

/// rustls reads so many bytes at least where there are as many: with fewer, the socket was empty.
const TLS_READ: usize = 4096;

pub(crate) struct Wire {
    pub(crate) tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Whether there may be more in the socket than was read; it is told only once of what comes.
    pub(crate) readable: bool,
    /// Whether the server has closed its side; what came before that may still be in the socket.
    pub(crate) is_closing: bool,
}

/// What a read found.
pub(crate) enum Found {
    Bytes(usize),
    Nothing,
    End,
}

impl Wire {
    pub(crate) fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Wire> {
        let tcp = TcpStream::connect(to).context("connecting")?;
        tcp.set_nodelay(true)?;
        let tls = match tls {
            Some(config) => {
                let name = HOST.try_into().context("a server name")?;
                Some(Box::new(ClientConnection::new(config.clone(), name)?))
            }
            None => None,
        };
        Ok(Wire {
            tcp,
            tls,
            readable: false,
            is_closing: false,
        })
    }

    /// Takes as many of the bytes as there is room for.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = match &mut self.tls {
            Some(tls) => tls.writer().write(bytes),
            None => self.tcp.write(bytes),
        };
        or_none(written, 0)
    }

    /// Sends what TLS has to send; whether all of it is gone.
    pub(crate) fn flush(&mut self) -> Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while tls.wants_write() {
            if or_none(tls.write_tls(&mut self.tcp), 0)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes what is left of `message` behind the bytes that are `sent`, and counts them; whether all of it has been taken.
    pub(crate) fn send(&mut self, message: &[u8], sent: &mut usize) -> Result<bool> {
        while let Some(rest) = message.get(*sent..).filter(|rest| !rest.is_empty()) {
            let written = self.write(rest)?;
            *sent += written;
            if !self.flush()? || written == 0 {
                return Ok(false);
            }
        }
        self.flush()?;
        Ok(true)
    }

    /// Reads once.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<Found> {
        let Some(tls) = &mut self.tls else {
            if !self.readable {
                return Ok(Found::Nothing);
            }
            let read = self.tcp.read(into);
            let read = self.noted(read, into.len())?;
            return Ok(read.map_or(Found::Nothing, |read| match read {
                0 => Found::End,
                _ => Found::Bytes(read),
            }));
        };
        if let Some(read) = or_none(tls.reader().read(into).map(Some), None)? {
            return Ok(if read == 0 {
                Found::End
            } else {
                Found::Bytes(read)
            });
        }
        if !self.readable {
            return Ok(Found::Nothing);
        }
        let read = tls.read_tls(&mut self.tcp);
        match self.noted(read, TLS_READ)? {
            // Without a close_notify: the same, for us.
            Some(0) => return Ok(Found::End),
            Some(_) => {}
            None => return Ok(Found::Nothing),
        }
        if let Some(tls) = &mut self.tls {
            tls.process_new_packets().context("TLS")?;
        }
        // Whatever came, it may have to be answered. What was in it, the next read finds.
        self.flush()?;
        Ok(Found::Bytes(0))
    }

    /// Sees whether the socket was emptied by a read of at most `room` bytes.
    fn noted(&mut self, read: io::Result<usize>, room: usize) -> Result<Option<usize>> {
        let read = or_none(read.map(Some), None).context("reading")?;
        self.readable = read.is_some_and(|read| read >= room || read == 0 || self.is_closing);
        Ok(read)
    }

    /// Says that no more will be sent.
    pub(crate) fn say_farewell(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush().map(|_| ())
    }

    /// Whether the handshake was whole or resumed, once that is known.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        let tls = self.tls.as_ref()?;
        tls.handshake_kind().filter(|_| !tls.is_handshaking())
    }
}

/// `none` where the socket has no room, or nothing, now.
pub(crate) fn or_none<T>(result: io::Result<T>, none: T) -> Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(none),
        // A connection that isn't there yet.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(none),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(none),
        other => Ok(other?),
    }
}
