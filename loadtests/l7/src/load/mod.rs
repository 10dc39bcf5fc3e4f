//! Clients and applications, all on one thread, without blocking: the other core is the proxy's alone.
//!
//! ```text
//!   Clients  h1, h2, tunnel or handshake ── wire (TCP, TLS) ──▶  proxy  ── TCP ──▶ application
//!      └────────────────────────────── one epoll instance, in Load ─────────────────────┘
//! ```

mod application;
mod exchange;
mod h1;
mod h2;
mod handshake;
mod tunnel;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::ClientConfig;
use slab::Slab;

use application::Application;
pub(crate) use exchange::{Answer, Exchange, HOST, MESSAGE, path, pattern};
use h1::H1;
use h2::H2;
use handshake::Handshake;
pub(crate) use handshake::Tickets;
use tunnel::Tunnel;
use wire::Wire;

const LISTENER: Token = Token(usize::MAX - 1);
/// Bytes read at once at most.
const SCRATCH: usize = 256 << 10;
/// If nothing is done for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are opened at once at most, fewer than a listener's queue holds.
const AT_ONCE: usize = 64;

/// The clients' and the applications' thread.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    application: Application,
    clients: Slab<Client>,
    /// Numbers given to [`Clients`].
    numbers: u64,
    /// Requests answered by each server.
    answered: HashMap<SocketAddr, u64>,
    scratch: Vec<u8>,
    done: Vec<Done>,
}

/// Something that was done, checked whole.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// When it began, or was to begin.
    due: Instant,
    /// Of a handshake.
    resumed: bool,
}

/// What a client does.
#[derive(Clone)]
pub(crate) enum Kind {
    H1,
    /// A connection for each request.
    H1Fresh,
    /// With so many requests at once.
    H2(usize),
    Tunnel,
    /// A connection for each.
    Handshake(Arc<Tickets>),
}

/// Clients of one server.
pub(crate) struct Clients {
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    kind: Kind,
    /// What they ask, in turns.
    exchanges: Vec<Rc<Exchange>>,
    number: u64,
    next: usize,
    open: Vec<usize>,
}

/// When clients stop to begin anything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Instant),
    /// So many were begun.
    Count(u64),
}

/// What clients did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Played {
    pub(crate) done: u64,
    /// Of handshakes.
    pub(crate) resumed: u64,
    pub(crate) took: Duration,
}

struct Client {
    /// Which [`Clients`] it is one of.
    of: u64,
    wire: Wire,
    talk: Talk,
}

enum Talk {
    H1(H1),
    H2(H2),
    Tunnel(Tunnel),
    Handshake(Handshake),
}

impl Load {
    pub(crate) fn start() -> Result<Load> {
        let poll = Poll::new()?;
        let application = Application::listen(poll.registry(), LISTENER)?;
        Ok(Load {
            poll,
            events: Events::with_capacity(1024),
            application,
            clients: Slab::new(),
            numbers: 0,
            answered: HashMap::new(),
            scratch: vec![0; SCRATCH],
            done: Vec::new(),
        })
    }

    /// Clients that have no connection yet.
    pub(crate) fn clients(
        &mut self,
        server: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        kind: Kind,
        exchanges: Vec<Rc<Exchange>>,
    ) -> Clients {
        self.numbers += 1;
        Clients {
            server,
            tls,
            kind,
            exchanges,
            number: self.numbers,
            next: 0,
            open: Vec::new(),
        }
    }

    /// How many requests were answered by the server at this address in [`Load::play`], by now.
    pub(crate) fn answered(&self, server: SocketAddr) -> u64 {
        self.answered.get(&server).copied().unwrap_or(0)
    }

    /// There is a new server at these addresses, that has answered nothing yet.
    pub(crate) fn forget(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            self.answered.remove(address);
        }
    }

    /// Where the application listens.
    pub(crate) fn application(&self) -> Result<SocketAddr> {
        self.application.address()
    }

    /// Ends every connection, after a failure.
    pub(crate) fn clear(&mut self) {
        self.clients.clear();
        self.application.clear();
        self.done.clear();
    }

    /// Ends the connections of these clients.
    pub(crate) fn close(&mut self, clients: &mut Clients) {
        for key in clients.open.drain(..) {
            self.clients.try_remove(key);
        }
    }

    /// Has up to `connections` clients ask one thing after the other, each without a pause, and waits until all that was begun is done.
    pub(crate) fn play(
        &mut self,
        clients: &mut Clients,
        connections: usize,
        until: Until,
    ) -> Result<Played> {
        let began = Instant::now();
        let mut played = Played::default();
        let mut begun = 0u64;
        let mut now = began;
        let may = |begun: u64, now: Instant| match until {
            // Something, however late: tunnels must be opened first.
            Until::Time(end) => now < end || begun == 0,
            Until::Count(count) => begun < count,
        };
        while clients.open.len() < connections {
            self.open(clients)?;
        }
        for index in 0..clients.open.len() {
            let key = clients.open[index];
            while self.is_free(key) && may(begun, now) {
                self.begin(clients, key, now)?;
                begun += 1;
            }
            self.send(key)?;
        }
        let mut last = began;
        loop {
            // A tunnel that is being opened has nothing under way, and wants to.
            let waits = played.done < begun
                || may(begun, now) && clients.open.iter().any(|key| !self.is_free(*key));
            if !waits {
                break;
            }
            let ready = self.turn(Some(Duration::from_millis(100)))?;
            now = Instant::now();
            if !self.done.is_empty() {
                last = now;
            }
            played.done += self.done.len() as u64;
            played.resumed += self.done.iter().filter(|done| done.resumed).count() as u64;
            self.done.clear();
            ensure!(
                now - last < PATIENCE,
                "nothing was done for {PATIENCE:?}, with {} under way",
                begun - played.done
            );
            for (key, is_over) in ready {
                if !self.is_of(key, clients)? {
                    continue;
                }
                let key = if is_over {
                    clients.open.retain(|open| *open != key);
                    self.clients.try_remove(key);
                    if !may(begun, now) {
                        continue;
                    }
                    self.open(clients)?
                } else {
                    key
                };
                while self.is_free(key) && may(begun, now) {
                    self.begin(clients, key, now)?;
                    begun += 1;
                }
                self.send(key)?;
            }
        }
        played.took = began.elapsed();
        *self.answered.entry(clients.server).or_default() += played.done;
        Ok(played)
    }

    /// Opens connections until there are so many, each with one request that was answered; they stay open.
    pub(crate) fn hold(&mut self, clients: &mut Clients, connections: usize) -> Result<()> {
        let mut held = Vec::new();
        while held.len() < connections {
            let more = AT_ONCE.min(connections - held.len());
            self.play(clients, more, Until::Count(0))?;
            for key in clients.open.clone() {
                self.begin(clients, key, Instant::now())?;
                self.send(key)?;
            }
            let began = Instant::now();
            let mut answered = 0;
            while answered < more {
                for (key, is_over) in self.turn(Some(Duration::from_millis(100)))? {
                    ensure!(!is_over, "a connection that ended");
                    self.send(key)?;
                }
                answered += self.done.len();
                self.done.clear();
                ensure!(
                    began.elapsed() < PATIENCE,
                    "{answered} of {more} new connections were answered within {PATIENCE:?}"
                );
            }
            held.append(&mut clients.open);
        }
        clients.open = held;
        Ok(())
    }

    /// Has requests be due at random moments, `rate` a second on average, whatever became of those before; returns how long each took from the
    /// moment it was due, waiting for a connection included.
    pub(crate) fn pace(
        &mut self,
        clients: &mut Clients,
        connections: usize,
        rate: f64,
        length: Duration,
        seed: u64,
    ) -> Result<Vec<Duration>> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pause = || Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / rate);
        while clients.open.len() < connections {
            self.open(clients)?;
        }
        let mut free: Vec<usize> = clients.open.clone();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut took = Vec::new();
        let began = Instant::now();
        let end = began + length;
        let (mut due, mut begun) = (began + pause(), 0);
        loop {
            let now = Instant::now();
            while due < end && due <= now {
                waiting.push_back(due);
                due += pause();
            }
            while let Some(key) = free.pop() {
                let Some(due) = waiting.pop_front() else {
                    free.push(key);
                    break;
                };
                self.begin(clients, key, due)?;
                self.send(key)?;
                begun += 1;
            }
            if due >= end && waiting.is_empty() && took.len() == begun {
                return Ok(took);
            }
            ensure!(
                now < end + PATIENCE,
                "{} of {begun} requests were answered {PATIENCE:?} after the last was due",
                took.len()
            );
            // Without a pause: the next is due within microseconds.
            let ready = self.turn(Some(Duration::ZERO))?;
            let now = Instant::now();
            let done = self.done.drain(..);
            took.extend(done.map(|done| now.saturating_duration_since(done.due)));
            for (key, is_over) in ready {
                if !self.is_of(key, clients)? {
                    continue;
                }
                ensure!(!is_over, "a connection that ended");
                self.send(key)?;
                if self.is_free(key) && !free.contains(&key) {
                    free.push(key);
                }
            }
        }
    }

    /// Asks once, and returns the body.
    pub(crate) fn ask(&mut self, clients: &mut Clients) -> Result<Vec<u8>> {
        self.play(clients, 1, Until::Count(1))?;
        let client = clients.open.first().and_then(|key| self.clients.get(*key));
        match client.map(|client| &client.talk) {
            Some(Talk::H1(h1)) => Ok(h1.kept.clone()),
            Some(Talk::H2(h2)) => Ok(h2.kept.clone()),
            _ => bail!("a client that keeps no answers"),
        }
    }

    fn open(&mut self, clients: &mut Clients) -> Result<usize> {
        let mut wire = Wire::connect(clients.server, clients.tls.as_ref())?;
        let talk = match &clients.kind {
            Kind::H1 => Talk::H1(H1::default()),
            Kind::H1Fresh => Talk::H1(H1::that_closes()),
            Kind::H2(limit) => Talk::H2(H2::new(*limit)),
            Kind::Tunnel => Talk::Tunnel(Tunnel::new()),
            Kind::Handshake(tickets) => Talk::Handshake(Handshake::new(tickets.clone())),
        };
        let entry = self.clients.vacant_entry();
        let key = entry.key();
        self.poll.registry().register(
            &mut wire.tcp,
            Token(2 * key),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Client {
            of: clients.number,
            wire,
            talk,
        });
        clients.open.push(key);
        Ok(key)
    }

    /// Whether it is one of these. Another, whose server had something to say, only answers.
    fn is_of(&mut self, key: usize, clients: &Clients) -> Result<bool> {
        let of = self.clients.get(key).map(|client| client.of);
        if of.is_some_and(|of| of != clients.number) {
            self.send(key)?;
        }
        Ok(of == Some(clients.number))
    }

    fn is_free(&self, key: usize) -> bool {
        self.clients
            .get(key)
            .is_some_and(|client| match &client.talk {
                Talk::H1(h1) => h1.is_free(),
                Talk::H2(h2) => h2.is_free(),
                Talk::Tunnel(tunnel) => tunnel.is_free(),
                Talk::Handshake(handshake) => handshake.is_free(),
            })
    }

    fn begin(&mut self, clients: &mut Clients, key: usize, due: Instant) -> Result<()> {
        let client = self.clients.get_mut(key).context("a client that is gone")?;
        let turn = clients.next;
        clients.next = turn.wrapping_add(1);
        let exchange = || {
            let exchanges = &clients.exchanges;
            let chosen = exchanges.get(turn % exchanges.len().max(1));
            chosen.cloned().context("nothing to ask")
        };
        match &mut client.talk {
            Talk::H1(h1) => h1.start(exchange()?, due),
            Talk::H2(h2) => h2.start(exchange()?, due),
            Talk::Tunnel(tunnel) => tunnel.start(due),
            Talk::Handshake(handshake) => handshake.start(due),
        }
        Ok(())
    }

    fn send(&mut self, key: usize) -> Result<()> {
        let Some(Client { wire, talk, .. }) = self.clients.get_mut(key) else {
            return Ok(());
        };
        match talk {
            Talk::H1(h1) => h1.send(wire),
            Talk::H2(h2) => h2.send(wire),
            Talk::Tunnel(tunnel) => tunnel.send(wire),
            Talk::Handshake(_) => wire.flush().map(|_| ()),
        }
    }

    /// One turn of the loop: `self.done` is filled; the clients something happened to are returned, and whether they are over.
    fn turn(&mut self, timeout: Option<Duration>) -> Result<Vec<(usize, bool)>> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(Vec::new()),
            polled => polled?,
        }
        let mut touched = Vec::new();
        for event in &self.events {
            let token = event.token();
            if token == LISTENER {
                let registry = self.poll.registry();
                self.application
                    .accept(registry, |key| Token(2 * key + 1))?;
                continue;
            }
            let key = token.0 / 2;
            if token.0 % 2 == 1 {
                self.application.ready(key, event, &mut self.scratch)?;
                continue;
            }
            let Some(Client { wire, talk, .. }) = self.clients.get_mut(key) else {
                continue;
            };
            wire.is_closing |= event.is_read_closed() || event.is_error();
            wire.readable |= event.is_readable() || wire.is_closing;
            let (scratch, done) = (&mut self.scratch, &mut self.done);
            let is_over = match talk {
                Talk::H1(h1) => h1.receive(wire, scratch, done),
                Talk::H2(h2) => h2.receive(wire, scratch, done),
                Talk::Tunnel(tunnel) => tunnel.receive(wire, scratch, done),
                Talk::Handshake(handshake) => handshake.receive(wire, scratch, done),
            }?;
            touched.push((key, is_over));
        }
        Ok(touched)
    }
}

#[cfg(test)]
mod tests;
