//! What L4 does for anything that is not HTTP: TCP and UDP services, ICMP, TTL, refusal.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use demo::admin;
use demo::chain::{Chain, DIRECT_PORT};
use demo::topology::{APPS, L4, VIP};
use e2e::{Curl, echo_datagram, ping};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Case;

/// The VIP of the services that go to the applications without L7.
const DIRECT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

pub(crate) const CASES: &[Case] = &[
    ("the_vip_answers_ping", pinged),
    ("udp_is_forwarded_by_weight_and_answered_from_the_vip", udp),
    ("large_datagrams_pass_up_to_the_mtu", large_datagrams),
    ("tcp_is_forwarded_without_l7", tcp),
    ("a_dead_target_gets_no_new_connections", target_dies),
    (
        "icmp_errors_of_targets_reach_the_client_as_if_from_the_vip",
        icmp_errors,
    ),
    ("every_new_connection_is_counted_once", counted),
    ("a_service_without_targets_refuses_at_once", refused),
    ("each_forwarder_takes_one_from_the_ttl", time_to_live),
];

fn pinged(chain: &mut Chain) -> Result<()> {
    for vip in [VIP, DIRECT] {
        for size in ["0", "56", "1472"] {
            let text = ping(
                chain.lab(),
                &[
                    "-c",
                    "5",
                    "-i",
                    "0.05",
                    "-W",
                    "1",
                    "-s",
                    size,
                    &vip.to_string(),
                ],
            )?;
            ensure!(
                text.contains("5 received, 0% packet loss"),
                "{vip}, {size} bytes:\n{text}"
            );
        }
    }
    Ok(())
}

fn udp(chain: &mut Chain) -> Result<()> {
    let vip = SocketAddrV4::new(DIRECT, DIRECT_PORT);
    let mut served = BTreeMap::<String, u32>::new();
    for n in 0..80 {
        let payload = format!("datagram {n}");
        let (answer, from) = echo_datagram(chain.lab(), vip, payload.as_bytes())?;
        ensure!(from == SocketAddr::V4(vip), "the answer came from {from}");
        let text = String::from_utf8(answer)?;
        let (app, echoed) = text.split_once(' ').context("no name in front")?;
        ensure!(echoed == payload, "{text}");
        *served.entry(app.to_owned()).or_default() += 1;
    }
    // Weights 2, 1, 1 on each of two nodes: 40, 20, 20, give or take the rounds both are in the middle of.
    let share = |app: &str| served.get(app).copied().unwrap_or(0);
    ensure!((36..=44).contains(&share("app-1")), "{served:?}");
    ensure!(
        (16..=24).contains(&share("app-2")) && (16..=24).contains(&share("app-3")),
        "{served:?}"
    );
    Ok(())
}

fn large_datagrams(chain: &mut Chain) -> Result<()> {
    let vip = SocketAddrV4::new(DIRECT, DIRECT_PORT);
    // 1500 - 20 (IPv4) - 8 (UDP), less the application's name and a blank in the answer.
    for length in [0, 1, 2, 511, 512, 1465, 1466] {
        let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let (answer, _) =
            echo_datagram(chain.lab(), vip, &payload).with_context(|| format!("{length} bytes"))?;
        ensure!(
            answer[6..] == payload[..],
            "{length} bytes came back changed"
        );
    }
    Ok(())
}

fn tcp(chain: &mut Chain) -> Result<()> {
    let mut served = BTreeMap::<String, u32>::new();
    for _ in 0..40 {
        let seen = Curl::new(chain.lab())
            .get(&format!("http://{DIRECT}:{DIRECT_PORT}/"))?
            .seen()?;
        ensure!(seen.service == "direct", "{seen:?}");
        ensure!(
            seen.peer.ip().to_string().starts_with("10.3.0.1"),
            "the application saw {}, not a LocalIP",
            seen.peer
        );
        *served.entry(seen.app).or_default() += 1;
    }
    ensure!(served.len() == 3, "served by {served:?}");
    Ok(())
}

fn target_dies(chain: &mut Chain) -> Result<()> {
    chain.processes.kill("app-2")?;
    let begin = Instant::now();
    // Probes run every 200 ms and take two failures: well within a second no new connection goes there.
    std::thread::sleep(Duration::from_millis(1000));
    for _ in 0..30 {
        let seen = Curl::new(chain.lab())
            .get(&format!("http://{DIRECT}:{DIRECT_PORT}/"))?
            .seen()?;
        ensure!(seen.app != "app-2", "a dead application answered");
    }
    println!(
        "30 connections {:?} after the kill, none failed",
        begin.elapsed()
    );
    chain.start("app-2")?;
    chain.wait_whole()
}

/// A killed application's kernel answers datagrams with port unreachable, from its own address about a LocalIP; the
/// client must see it about its own socket and the VIP. The kernel takes it for that only if every rewritten field fits.
fn icmp_errors(chain: &mut Chain) -> Result<()> {
    for app in APPS {
        chain.processes.kill(app)?;
    }
    // Probes take the targets down within half a second; until then datagrams still go there.
    let outcome = chain.lab().namespace("client").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((DIRECT, DIRECT_PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(300) {
            // The error of an earlier datagram is reported by the next call.
            let sent = socket.send(b"anyone?").map(drop);
            let error = sent
                .and_then(|()| socket.recv(&mut [0; 64]).map(drop))
                .err();
            if error
                .as_ref()
                .is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    for app in APPS {
        chain.start(app)?;
    }
    chain.wait_whole()?;
    ensure!(outcome, "no port unreachable arrived");
    Ok(())
}

/// Flows created on all L4 nodes for the service `name`.
fn flows_created(chain: &Chain, name: &str) -> Result<u64> {
    let mut sum = 0;
    for node in L4 {
        let status = admin::status(chain.lab(), node)?;
        let services = status["services"]
            .as_array()
            .context("no services in /status")?;
        let service = services
            .iter()
            .find(|service| service["name"] == name)
            .context("the service is missing")?;
        sum += service["flows_created"]
            .as_u64()
            .context("no flows_created")?;
    }
    Ok(sum)
}

fn counted(chain: &mut Chain) -> Result<()> {
    let before = flows_created(chain, "direct-tcp")?;
    for _ in 0..25 {
        Curl::new(chain.lab()).get(&format!("http://{DIRECT}:{DIRECT_PORT}/"))?;
    }
    let created = flows_created(chain, "direct-tcp")? - before;
    ensure!(created == 25, "25 connections were counted as {created}");
    Ok(())
}

fn refused(chain: &mut Chain) -> Result<()> {
    let begin = Instant::now();
    let outcome = chain.lab().namespace("client").enter(|| {
        let address = SocketAddr::from((DIRECT, 7001));
        Ok(TcpStream::connect_timeout(&address, Duration::from_secs(3))
            .map(drop)
            .map_err(|error| error.kind()))
    })?;
    ensure!(outcome == Err(ErrorKind::ConnectionRefused), "{outcome:?}");
    ensure!(
        begin.elapsed() < Duration::from_millis(500),
        "refused only after {:?}",
        begin.elapsed()
    );
    Ok(())
}

/// Sends a datagram to the direct service with `ttl` and waits for its answer or an ICMP time exceeded.
fn probe(chain: &Chain, ttl: u32) -> Result<Reached> {
    chain.lab().namespace("client").enter(|| {
        let icmp = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
            .context("raw ICMP socket")?;
        icmp.set_read_timeout(Some(Duration::from_millis(200)))?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_ttl(ttl)?;
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        socket.send_to(b"hop", (DIRECT, DIRECT_PORT))?;
        let port = socket.local_addr()?.port();
        let begin = Instant::now();
        let mut packet = [0; 1500];
        while begin.elapsed() < Duration::from_secs(2) {
            let mut answer = [0; 64];
            if socket.recv_from(&mut answer).is_ok() {
                return Ok(Reached::Application);
            }
            let Ok(length) = (&icmp).read(&mut packet) else {
                continue;
            };
            if let Some(expired) = TimeExceeded::parse(&packet[..length])
                && (expired.source_port, expired.destination)
                    == (port, SocketAddrV4::new(DIRECT, DIRECT_PORT))
            {
                return Ok(Reached::Expired(expired.from));
            }
        }
        bail!("neither an answer nor an ICMP error within 2 s")
    })
}

/// An ICMP time exceeded (RFC 792) about a UDP datagram, as a raw socket hands it up: with its IPv4 header.
struct TimeExceeded {
    from: Ipv4Addr,
    source_port: u16,
    destination: SocketAddrV4,
}

impl TimeExceeded {
    fn parse(packet: &[u8]) -> Option<TimeExceeded> {
        let header = |packet: &[u8]| Some(usize::from(packet.first()? & 0x0f) * 4);
        let address = |bytes: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?));
        let icmp = packet.get(header(packet)?..)?;
        if icmp.get(..2)? != [11, 0] {
            return None;
        }
        let quoted = icmp.get(8..)?;
        let udp = quoted.get(header(quoted)?..)?;
        let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
        Some(TimeExceeded {
            from: address(packet.get(12..16)?)?,
            source_port: port(0)?,
            destination: SocketAddrV4::new(address(quoted.get(16..20)?)?, port(2)?),
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Application,
    Expired(Ipv4Addr),
}

fn time_to_live(chain: &mut Chain) -> Result<()> {
    let router = probe(chain, 1)?;
    ensure!(
        router == Reached::Expired(Ipv4Addr::new(10, 1, 0, 1)),
        "TTL 1: {router:?}"
    );
    let l4 = probe(chain, 2)?;
    let nodes = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];
    ensure!(
        matches!(&l4, Reached::Expired(from) if nodes.contains(from)),
        "TTL 2: {l4:?}"
    );
    let through = probe(chain, 3)?;
    ensure!(through == Reached::Application, "TTL 3: {through:?}");
    Ok(())
}
