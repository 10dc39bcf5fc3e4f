//! The applications behind the proxies: answers prepared once, bodies compared as they come. It speaks only what the proxies send here.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::exchange::{self, TAKEN, WEBSOCKET_ACCEPT, path, pattern};
use super::h1::value_of;
use super::wire::or_none;

const MAX_HEAD: usize = 16 << 10;
/// Of connections together.
const MAX_CONNECTIONS: usize = 4096;

pub(crate) struct Application {
    listener: TcpListener,
    connections: Slab<Connection>,
    answers: Answers,
}

/// What is sent, head and body in one.
struct Answers {
    small: Rc<[u8]>,
    wrong: Rc<[u8]>,
    broken: Rc<[u8]>,
    taken: Rc<[u8]>,
    upgraded: Rc<[u8]>,
    /// By their length.
    bodies: HashMap<usize, Rc<[u8]>>,
    /// What bodies of requests are compared with, as long as the longest so far.
    pattern: Vec<u8>,
}

struct Connection {
    tcp: TcpStream,
    /// Of a head that isn't complete.
    head: Vec<u8>,
    state: State,
    outgoing: Option<(Rc<[u8]>, usize)>,
}

enum State {
    Waits,
    /// For a body: its length, and what came.
    Takes(usize, usize),
    Tunnel,
}

impl Application {
    pub(crate) fn listen(registry: &Registry, token: Token) -> Result<Application> {
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        let mut wrong = pattern(exchange::SMALL);
        if let Some(last) = wrong.last_mut() {
            *last ^= 1;
        }
        let upgraded = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
        );
        Ok(Application {
            listener,
            connections: Slab::new(),
            answers: Answers {
                small: answer("200 OK", &pattern(exchange::SMALL)),
                wrong: answer("200 OK", &wrong),
                broken: answer("500 Internal Server Error", b"broken\n"),
                taken: answer("200 OK", TAKEN),
                upgraded: upgraded.into_bytes().into(),
                bodies: HashMap::new(),
                pattern: Vec::new(),
            },
        })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Takes new connections; `token` makes one of a connection's number.
    pub(crate) fn accept(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
    ) -> Result<()> {
        while let Some((mut tcp, _)) = or_none(self.listener.accept().map(Some), None)? {
            ensure!(
                self.connections.len() < MAX_CONNECTIONS,
                "{MAX_CONNECTIONS} connections to the application at once"
            );
            tcp.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let interests = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut tcp, token(entry.key()), interests)?;
            entry.insert(Connection {
                tcp,
                head: Vec::new(),
                state: State::Waits,
                outgoing: None,
            });
        }
        Ok(())
    }

    /// Serves one connection as far as that goes.
    pub(crate) fn ready(&mut self, key: usize, event: &Event, scratch: &mut [u8]) -> Result<()> {
        // It may have ended within this turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return Ok(());
        };
        connection.send()?;
        let is_closing = event.is_read_closed() || event.is_error();
        if (event.is_readable() || is_closing)
            && !connection.receive(&mut self.answers, scratch, is_closing)?
        {
            self.connections.remove(key);
        }
        Ok(())
    }

    /// Closes what is open.
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
    }
}

impl Connection {
    /// Whether it is still open.
    fn receive(
        &mut self,
        answers: &mut Answers,
        scratch: &mut [u8],
        is_closing: bool,
    ) -> Result<bool> {
        loop {
            let read = match self.tcp.read(scratch) {
                // A proxy that was ended; what it still owed, its client misses.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Ok(false);
                }
                read => or_none(read.map(Some), None)?,
            };
            let Some(read) = read else { return Ok(true) };
            if read == 0 {
                return Ok(false);
            }
            self.take(scratch.get(..read).unwrap_or_default(), answers)?;
            // It was emptied: whatever comes is told anew, but for an end that was told already.
            if read < scratch.len() && !is_closing {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, bytes: &[u8], answers: &mut Answers) -> Result<()> {
        match &mut self.state {
            State::Tunnel => self.queue(bytes.into()),
            State::Takes(length, came) => {
                let expected = answers.pattern.get(*came..*came + bytes.len());
                ensure!(
                    expected == Some(bytes) && *came + bytes.len() <= *length,
                    "the body of a request differs from what was sent"
                );
                *came += bytes.len();
                if came == length {
                    self.state = State::Waits;
                    self.queue(answers.taken.clone())?;
                }
                Ok(())
            }
            State::Waits => {
                let is_whole = self.head.is_empty();
                let mut head = std::mem::take(&mut self.head);
                if !is_whole {
                    head.extend_from_slice(bytes);
                }
                let all = if is_whole { bytes } else { &head };
                let Some(end) = memmem::find(all, b"\r\n\r\n") else {
                    ensure!(all.len() < MAX_HEAD, "a head without end");
                    self.head = all.to_vec();
                    return Ok(());
                };
                let (head, body) = all.split_at(end + 4);
                self.answer(head, answers)?;
                if body.is_empty() {
                    return Ok(());
                }
                ensure!(
                    !matches!(self.state, State::Waits),
                    "{} bytes after a request that has no body",
                    body.len()
                );
                self.take(body, answers)
            }
        }
    }

    fn answer(&mut self, head: &[u8], answers: &mut Answers) -> Result<()> {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let target = std::str::from_utf8(target).context("a target that is text")?;
        let number = |prefix: &str| -> Option<usize> { target.strip_prefix(prefix)?.parse().ok() };
        if method == Some(b"POST") {
            let length = number(path::TAKE).context("a POST to somewhere")?;
            let mut lines = head.split(|byte| *byte == b'\n');
            let said = lines.find_map(|line| value_of(line, b"content-length"));
            ensure!(
                said.and_then(|said| said.parse().ok()) == Some(length),
                "a body of {length} bytes came on as: {}",
                String::from_utf8_lossy(head)
            );
            if answers.pattern.len() < length {
                answers.pattern = pattern(length);
            }
            self.state = State::Takes(length, 0);
            return Ok(());
        }
        let answer = match target {
            path::SMALL => answers.small.clone(),
            path::HEAD => answer("200 OK", head),
            path::BROKEN => answers.broken.clone(),
            path::WRONG => answers.wrong.clone(),
            path::TUNNEL => {
                self.state = State::Tunnel;
                answers.upgraded.clone()
            }
            _ if target.starts_with(path::ROUTE) => answers.small.clone(),
            _ => match number(path::BYTES) {
                Some(bytes) => answers
                    .bodies
                    .entry(bytes)
                    .or_insert_with(|| answer("200 OK", &pattern(bytes)))
                    .clone(),
                None => bail!("nobody asked for {target}"),
            },
        };
        self.queue(answer)
    }

    fn queue(&mut self, bytes: Rc<[u8]>) -> Result<()> {
        match &mut self.outgoing {
            // A tunnel whose other end is slow.
            Some((rest, sent)) => {
                let mut both = rest.get(*sent..).unwrap_or_default().to_vec();
                both.extend_from_slice(&bytes);
                self.outgoing = Some((both.into(), 0));
            }
            None => self.outgoing = Some((bytes, 0)),
        }
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        while let Some((bytes, sent)) = &mut self.outgoing {
            let rest = bytes.get(*sent..).unwrap_or_default();
            match self.tcp.write(rest) {
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                    ) =>
                {
                    self.outgoing = None;
                }
                written => match or_none(written, 0)? {
                    0 => return Ok(()),
                    written => *sent += written,
                },
            }
            if self
                .outgoing
                .as_ref()
                .is_some_and(|(bytes, sent)| *sent == bytes.len())
            {
                self.outgoing = None;
            }
        }
        Ok(())
    }
}

fn answer(status: &str, body: &[u8]) -> Rc<[u8]> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nServer: bench\r\nDate: Mon, 30 Nov 2026 06:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer.into()
}
