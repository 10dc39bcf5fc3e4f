//! The parts of a run, and the rows of each.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_report::{Better, Reach, Series, Windows};
use rustls::ClientConfig;

use crate::bench::{Bench, Measured, Window, compared, of_series};
use crate::certificates::Key;
use crate::counted;
use crate::load::{Answer, Clients, Exchange, HOST, Kind, MESSAGE, Tickets, Until, path, pattern};
use crate::server::{Server, Setup, route};

/// Connections at once where nothing else is said.
const CONNECTIONS: usize = 32;
/// Over HTTP/2: fewer, with more requests at once on each.
const H2_CONNECTIONS: usize = 8;
const STREAMS: usize = 8;
/// Of large bodies.
const FEW: usize = 4;
const ROUTES: usize = 1000;
/// Of the slowest's peak.
const LOADED: f64 = 0.7;
/// Connections at most when requests are due at a rate; those that find none wait.
const PACED: usize = 128;

/// One part: its name for `--rows`, and what it does.
pub(crate) type Part = (&'static str, fn(&mut Bench) -> Result<()>);

/// In the order in which they are measured.
pub(crate) const PARTS: [Part; 14] = [
    ("plain", |bench| small(bench, &PLAIN)),
    ("tls", |bench| small(bench, &TLS)),
    ("h2", |bench| small(bench, &H2)),
    ("h2c", |bench| small(bench, &H2C)),
    ("routes", routes),
    ("downloads", downloads),
    ("uploads", uploads),
    ("connections", connections),
    ("handshakes", handshakes),
    ("tunnel", tunnel),
    ("latency", latency),
    ("memory", memory),
    ("syscalls", counted::system_calls),
    ("instructions", counted::instructions),
];

/// How clients speak to a proxy.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// By ALPN, over TLS.
    alpn: Option<&'static str>,
    /// Requests at once on a connection of HTTP/2.
    streams: Option<usize>,
    connections: usize,
    /// Of the better yardstick's CPU, by DESIGN 5.
    reach: Option<f64>,
}

pub(crate) const PLAIN: Way = Way {
    name: "plain h1",
    alpn: None,
    streams: None,
    connections: CONNECTIONS,
    reach: Some(0.95),
};
pub(crate) const TLS: Way = Way {
    name: "TLS h1",
    alpn: Some("http/1.1"),
    reach: Some(0.90),
    ..PLAIN
};
pub(crate) const H2: Way = Way {
    name: "h2 over TLS",
    alpn: Some("h2"),
    streams: Some(STREAMS),
    connections: H2_CONNECTIONS,
    reach: Some(0.95),
};
const H2C: Way = Way {
    name: "h2c",
    alpn: None,
    reach: None,
    ..H2
};

impl Way {
    /// Clients of one server that ask this.
    pub(crate) fn clients(
        &self,
        bench: &mut Bench,
        server: &Server,
        exchanges: Vec<Rc<Exchange>>,
    ) -> Result<Clients> {
        let tls = match self.alpn {
            Some(alpn) => {
                let certificate = bench.certificate(Key::Ecdsa)?;
                Some(certificate.client(alpn, &Tickets::new(false))?)
            }
            None => None,
        };
        let address = match (self.alpn, self.streams) {
            (Some(_), _) => server.tls,
            (None, Some(_)) => server.h2c,
            (None, None) => server.plain,
        };
        let kind = self.streams.map_or(Kind::H1, Kind::H2);
        Ok(bench.load.clients(address, tls, kind, exchanges))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// What the application must be told about the client.
    fn expected(&self) -> [String; 5] {
        let scheme = if self.alpn.is_some() { "https" } else { "http" };
        [
            format!("host: {HOST}"),
            "x-forwarded-for: 127.0.0.1".into(),
            format!("x-forwarded-proto: {scheme}"),
            format!("x-forwarded-host: {HOST}"),
            "x-real-ip: 127.0.0.1".into(),
        ]
    }

    /// Looks whether a proxy does the work it is to do; once, as its configuration is always the same.
    fn look(&self, bench: &mut Bench, server: &Server) -> Result<()> {
        if !bench.looked_at.insert((server.side.name(), self.name)) {
            return Ok(());
        }
        let ask = Exchange::get(path::HEAD, Answer::Kept, false);
        let mut clients = self.clients(bench, server, vec![ask])?;
        let head = bench.load.ask(&mut clients)?;
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let name = server.side.name();
        for field in self.expected() {
            let times = head.lines().filter(|line| *line == field).count();
            ensure!(
                times == 1,
                "{name} sent \"{field}\" {times} times to the application:\n{head}"
            );
        }
        ensure!(
            !head.contains("connection: close"),
            "{name} doesn't keep its connections to the application:\n{head}"
        );
        server.expect_lines(1)?;
        let line = server.first_line()?;
        for part in [HOST, path::HEAD, "127.0.0.1", "200", "Mozilla/5.0"] {
            ensure!(line.contains(part), "{name} logged no {part}: {line}");
        }
        bench.load.close(&mut clients);
        Ok(())
    }
}

fn small(bench: &mut Bench, way: &Way) -> Result<()> {
    let servers = bench.servers(Key::Ecdsa, 0)?;
    let what = format!("small, {}", way.name);
    let exchanges = vec![Exchange::small()];
    requests(bench, &servers, way, &what, exchanges, way.reach, true)?;
    all_logged(bench, &servers)
}

/// Each request that was answered must be in the log: one that isn't is work that was not done.
fn all_logged(bench: &Bench, servers: &[Server]) -> Result<()> {
    for server in servers {
        let answered = server.addresses().map(|at| bench.load.answered(at));
        server.expect_lines(answered.iter().sum())?;
    }
    Ok(())
}

/// CPU per request and requests a second for one kind of request.
fn requests(
    bench: &mut Bench,
    servers: &[Server],
    way: &Way,
    what: &str,
    exchanges: Vec<Rc<Exchange>>,
    reach: Option<f64>,
    rate: bool,
) -> Result<()> {
    let mut clients = Vec::new();
    for server in servers {
        way.look(bench, server)?;
        clients.push(way.clients(bench, server, exchanges.clone())?);
    }
    let connections = way.connections;
    let turns = bench.pace.turns;
    let measured = bench.measure(servers, &mut clients, connections, turns)?;
    let row = bench.cost(
        format!("{what}, CPU per request"),
        "us",
        1.0,
        &measured,
        reach,
    );
    if rate {
        bench.rate(format!("{what}, peak"), "1/s", &measured);
    }
    bench.profile(&row, &servers[0], &mut clients[0], connections)?;
    for clients in &mut clients {
        bench.load.close(clients);
    }
    Ok(())
}

fn routes(bench: &mut Bench) -> Result<()> {
    let servers = bench.servers(Key::Ecdsa, ROUTES)?;
    let small = || Answer::Exactly(pattern(128).into());
    let exchanges = (0..ROUTES)
        // All of them, in an order in which neighbours are far apart.
        .map(|at| Exchange::get(&format!("{}item", route(at * 617 % ROUTES)), small(), false));
    requests(
        bench,
        &servers,
        &PLAIN,
        "small, plain h1, 1,000 routes",
        exchanges.collect(),
        None,
        false,
    )?;
    all_logged(bench, &servers)
}

const SIZES: [(usize, &str, usize, Option<f64>); 3] = [
    (1 << 10, "1 KiB", CONNECTIONS, None),
    (100 << 10, "100 KiB", CONNECTIONS, Some(0.90)),
    (10 << 20, "10 MiB", FEW, None),
];

fn downloads(bench: &mut Bench) -> Result<()> {
    bodies(bench, "to the client", Exchange::download)
}

fn uploads(bench: &mut Bench) -> Result<()> {
    bodies(bench, "from the client", Exchange::upload)
}

fn bodies(bench: &mut Bench, way: &str, exchange: fn(usize) -> Rc<Exchange>) -> Result<()> {
    let servers = bench.servers(Key::Ecdsa, 0)?;
    for (bytes, name, connections, reach) in SIZES {
        let what = format!("{name} {way}, plain h1");
        let plain = Way {
            connections,
            ..PLAIN
        };
        requests(
            bench,
            &servers,
            &plain,
            &what,
            vec![exchange(bytes)],
            reach,
            false,
        )?;
    }
    all_logged(bench, &servers)
}

fn connections(bench: &mut Bench) -> Result<()> {
    let servers = bench.servers(Key::Ecdsa, 0)?;
    let answer = Answer::Exactly(pattern(128).into());
    let exchange = Exchange::get(path::SMALL, answer, true);
    let mut clients: Vec<Clients> = servers
        .iter()
        .map(|server| {
            let exchanges = vec![exchange.clone()];
            bench
                .load
                .clients(server.plain, None, Kind::H1Fresh, exchanges)
        })
        .collect();
    let turns = bench.pace.turns;
    let measured = bench.measure(&servers, &mut clients, CONNECTIONS, turns)?;
    let what = "small, a new TCP connection for each";
    let row = bench.cost(
        format!("{what}, CPU per request"),
        "us",
        1.0,
        &measured,
        None,
    );
    bench.rate(format!("{what}, peak"), "1/s", &measured);
    bench.profile(&row, &servers[0], &mut clients[0], CONNECTIONS)?;
    all_logged(bench, &servers)
}

fn handshakes(bench: &mut Bench) -> Result<()> {
    /// Handshakes at once: each client's is work for the clients' core as well.
    const AT_ONCE: usize = 8;
    for (key, name) in [(Key::Ecdsa, "ECDSA P-256"), (Key::Rsa, "RSA 2048")] {
        let servers = bench.servers(key, 0)?;
        let certificate = bench.certificate(key)?;
        for resumed in [false, true] {
            let mut clients = Vec::new();
            for server in &servers {
                let tickets = Tickets::new(resumed);
                let tls: Arc<ClientConfig> = certificate.client("http/1.1", &tickets)?;
                let kind = Kind::Handshake(tickets);
                let mut shaking = bench.load.clients(server.tls, Some(tls), kind, Vec::new());
                // Where tickets come from.
                let first = Until::Count(4 * AT_ONCE as u64);
                bench.load.play(&mut shaking, AT_ONCE, first)?;
                clients.push(shaking);
            }
            let turns = bench.pace.turns;
            let measured = bench.measure(&servers, &mut clients, AT_ONCE, turns)?;
            for side in &measured {
                let is_right =
                    |window: &Window| window.resumed == if resumed { window.done } else { 0 };
                ensure!(
                    side.windows.iter().all(is_right),
                    "{}: not all handshakes were {}",
                    side.name,
                    if resumed { "resumed" } else { "full" }
                );
            }
            let kind = if resumed { "resumed" } else { "full" };
            let what = format!("TLS 1.3 handshakes, {kind}, {name}");
            let each = |window: &Window| window.done as f64 / (window.cost.total as f64 / 1e9);
            let unit = "1/CPU s";
            let mut row = compared(what, unit, Better::Higher, &measured, each);
            let done: u64 = measured.iter().map(Measured::done).sum();
            row.note = format!("with the TCP connection, two tickets each; {done} checked");
            if !resumed {
                row = row.reach(Reach::AtLeast(2.0));
            }
            let row = bench.add(row);
            bench.profile(&row, &servers[0], &mut clients[0], AT_ONCE)?;
        }
    }
    Ok(())
}

fn tunnel(bench: &mut Bench) -> Result<()> {
    let servers = bench.servers(Key::Ecdsa, 0)?;
    let mut clients: Vec<Clients> = servers
        .iter()
        .map(|server| {
            bench
                .load
                .clients(server.plain, None, Kind::Tunnel, Vec::new())
        })
        .collect();
    let turns = bench.pace.turns;
    let measured = bench.measure(&servers, &mut clients, FEW, turns)?;
    let per = (1 << 20) as f64 / (2 * MESSAGE) as f64;
    let what = "WebSocket, 16 KiB there and back, CPU per MiB";
    let row = bench.cost(what.into(), "us", per, &measured, None);
    bench.profile(&row, &servers[0], &mut clients[0], FEW)?;
    for clients in &mut clients {
        bench.load.close(clients);
    }
    Ok(())
}

/// Latency while requests are due at random moments, at a rate that all can serve.
fn latency(bench: &mut Bench) -> Result<()> {
    for way in [&PLAIN, &TLS] {
        let servers = bench.servers(Key::Ecdsa, 0)?;
        let mut clients = Vec::new();
        for server in &servers {
            clients.push(way.clients(bench, server, vec![Exchange::small()])?);
        }
        let turns = bench.pace.turns.min(5);
        let peaks = bench.measure(&servers, &mut clients, CONNECTIONS, turns)?;
        let peaks = compared("peaks".into(), "1/s", Better::Higher, &peaks, |window| {
            window.done as f64 / window.took.as_secs_f64()
        });
        let others = peaks.sides.iter().map(|side| side.value);
        let slowest = others.fold(peaks.value, f64::min);
        let rate = LOADED * slowest;
        let window = bench.pace.window.max(Duration::from_millis(20));
        let mut series: [Vec<Series>; 2] = std::array::from_fn(|_| {
            servers
                .iter()
                .map(|server| Series {
                    name: server.side.name().into(),
                    values: Vec::new(),
                })
                .collect()
        });
        let mut windows = Windows::default();
        let mut all = 0;
        for turn in 0..bench.pace.turns {
            let mut disturbed = false;
            for index in 0..servers.len() {
                let index = (turn + index) % servers.len();
                let before = servers[index].cost()?;
                // The same moments for all.
                let (seed, clients) = (turn as u64, &mut clients[index]);
                let mut took = bench.load.pace(clients, PACED, rate, window, seed)?;
                let waited = (servers[index].cost()? - before).waited;
                disturbed |= waited as f64 > 0.05 * window.as_nanos() as f64;
                all += took.len();
                took.sort_unstable();
                for (series, share) in series.iter_mut().zip([0.5, 0.99]) {
                    let at = (took.len().saturating_sub(1) as f64 * share) as usize;
                    let took = took.get(at).context("no request was due in a window")?;
                    series[index].values.push(took.as_secs_f64() * 1e6);
                }
            }
            windows.add(disturbed);
        }
        for (series, (name, reach)) in series.into_iter().zip([("p50", None), ("p99", Some(1.0))]) {
            let what = format!(
                "small, {}, {name} at {rate:.0}/s, 70 % of the slowest's peak",
                way.name
            );
            let mut row = of_series(what, "us", Better::Lower, series)
                .note(format!("from when each was due; {all} checked"))
                .windows(windows);
            if let Some(reach) = reach {
                row = row.reach(Reach::AtMost(reach));
            }
            bench.add(row);
        }
        for clients in &mut clients {
            bench.load.close(clients);
        }
    }
    Ok(())
}

/// Bytes of a connection that was used once and is kept.
fn memory(bench: &mut Bench) -> Result<()> {
    let certificate = bench.certificate(Key::Ecdsa)?;
    let one_stream = Way {
        streams: Some(1),
        reach: None,
        ..H2
    };
    for (way, reach) in [(&PLAIN, Some(1.0)), (&TLS, Some(1.0)), (&one_stream, None)] {
        let mut series = Vec::new();
        let held = bench.pace.held;
        for side in bench.sides.clone() {
            let setup = Setup {
                certificate: &certificate,
                routes: 0,
                under: &[],
            };
            let server = bench.server(&side, setup)?;
            let mut clients = way.clients(bench, &server, vec![Exchange::small()])?;
            // What the first requests need isn't any connection's.
            bench.load.hold(&mut clients, held.min(100))?;
            bench.load.close(&mut clients);
            std::thread::sleep(bench.pace.window);
            let before = server.memory()?;
            bench
                .load
                .hold(&mut clients, held)
                .with_context(|| side.name())?;
            std::thread::sleep(bench.pace.rest);
            let bytes = server.memory()?.saturating_sub(before) as f64 / held as f64;
            series.push(Series {
                name: side.name().into(),
                values: vec![bytes],
            });
            bench.load.close(&mut clients);
        }
        let what = format!("memory of an idle connection, {}", way.name);
        let note = format!(
            "PSS of {held} that were each asked once and idle for {} s since, without the kernel's part",
            bench.pace.rest.as_secs()
        );
        let mut row = of_series(what, "B", Better::Lower, series).note(note);
        row.spread = None;
        if let Some(reach) = reach {
            row = row.reach(Reach::AtMost(reach));
        }
        bench.add(row);
    }
    Ok(())
}
