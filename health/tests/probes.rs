//! Single probes against real sockets on the loopback, friendly, silent, broken and hostile ones.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use health::threshold::Outcome::{self, Failure, Silence, Success, Unknown};
use health::{Check, CheckSettings, HttpProbe, Probe, UdpProbe, probe};
use socket2::{Domain, SockRef, Socket, Type};

/// For targets that never answer.
const TIMEOUT: Duration = Duration::from_millis(300);

/// For those that do: far above what the loopback needs, so that a busy machine is not taken for a dead target.
const PATIENCE: Duration = Duration::from_secs(10);

fn check(address: SocketAddr, probe: Probe) -> Check {
    CheckSettings {
        probe,
        timeout: PATIENCE,
        ..CheckSettings::default()
    }
    .check("test", address)
}

fn hasty(address: SocketAddr, probe: Probe) -> Check {
    let mut check = check(address, probe);
    check.settings.timeout = TIMEOUT;
    check
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Probes once; the outcome and reason, having made sure that it kept to its timeout.
fn once(check: &Check) -> (Outcome, String) {
    let started = Instant::now();
    let finding = run(probe(check));
    let took = started.elapsed();
    assert!(
        took < check.settings.timeout + Duration::from_secs(3),
        "took {took:?}: {finding:?}"
    );
    (finding.outcome, finding.reason)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn closed_tcp_port() -> SocketAddr {
    listener().1
}

/// Answers one connection: reads the request's head, then hands the stream and that head to `answer`.
fn serve(answer: impl FnOnce(TcpStream, String) + Send + 'static) -> SocketAddr {
    let (listener, address) = listener();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        answer(stream, String::from_utf8(head).unwrap());
    });
    address
}

#[test]
fn tcp_listening_is_up() {
    let (_listener, address) = listener();
    assert_eq!(
        once(&check(address, Probe::Tcp)),
        (Success, "connected".to_owned())
    );
}

#[test]
fn tcp_over_ipv6_is_up() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let check = check(listener.local_addr().unwrap(), Probe::Tcp);
    assert_eq!(once(&check).0, Success);
}

#[test]
fn tcp_refused_is_down() {
    let found = once(&check(closed_tcp_port(), Probe::Tcp));
    assert_eq!(found, (Failure, "connect refused".to_owned()));
}

#[test]
fn tcp_unanswered_is_down() {
    // With its accept queue full, the kernel drops further SYNs.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the queue never fills");
    }
    let found = once(&hasty(address, Probe::Tcp));
    assert_eq!(
        found,
        (Failure, "timed out after 300ms connecting".to_owned())
    );
}

#[test]
fn probes_leave_no_socket_behind() {
    let (listener, tcp) = listener();
    for _ in 0..20 {
        assert_eq!(once(&check(tcp, Probe::Tcp)).0, Success);
    }
    drop(listener);
    let http = serve(|mut stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .unwrap();
        // Holds the connection, so that the prober is the first to close.
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(
        once(&check(http, Probe::Http(HttpProbe::default()))).0,
        Success
    );
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    for address in [tcp, http] {
        let remote = format!(":{:04X}", address.port());
        let left: Vec<&str> = sockets
            .lines()
            .filter(|line| {
                line.split_whitespace()
                    .nth(2)
                    .is_some_and(|field| field.ends_with(&remote))
            })
            .collect();
        assert_eq!(
            left,
            [] as [&str; 0],
            "no TIME_WAIT and nothing else towards {address}"
        );
    }
}

#[test]
fn the_configured_source_is_used() {
    let (listener, address) = listener();
    let source = "127.0.0.2".parse().unwrap();
    let mut check = check(address, Probe::Http(HttpProbe::default()));
    check.settings.source = Some(source);
    let peer = thread::spawn(move || listener.accept().unwrap().1.ip());
    once(&check);
    assert_eq!(peer.join().unwrap(), source);
}

#[test]
fn trouble_on_this_node_is_unknown_not_down() {
    let (_listener, address) = listener();
    let ours = check(address, Probe::Tcp);
    // An address of the documentation range, which this node does not have; and one of the other family.
    for source in ["192.0.2.1", "2001:db8::1"] {
        let mut check = ours.clone();
        check.settings.source = Some(source.parse().unwrap());
        let (outcome, reason) = once(&check);
        assert_eq!(outcome, Unknown, "{reason}");
        assert!(
            reason.starts_with(&format!("binding to {source}: ")),
            "{reason}"
        );
    }
}

#[test]
fn http_asks_as_configured() {
    let (heads, asked) = std::sync::mpsc::channel();
    let address = serve(move |mut stream, head| {
        heads.send(head).unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    let probe = HttpProbe {
        path: "/healthz?deep=1".parse().unwrap(),
        host: Some("app.example.com".parse().unwrap()),
        expect: "204".parse().unwrap(),
        ..HttpProbe::default()
    };
    assert_eq!(
        once(&check(address, Probe::Http(probe))),
        (Success, "status 204".to_owned())
    );
    assert_eq!(
        asked.recv().unwrap(),
        "GET /healthz?deep=1 HTTP/1.1\r\nhost: app.example.com\r\nuser-agent: weir-health/0.1.0\r\naccept: */*\r\n\
         connection: close\r\n\r\n"
    );
}

#[test]
fn http_begins_with_a_proxy_header_where_the_target_asks_for_one() {
    let (listener, address) = listener();
    let target = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 16];
        stream.read_exact(&mut header).unwrap();
        let mut request = [0; 14];
        stream.read_exact(&mut request).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        (header, request)
    });
    let http = HttpProbe {
        proxy_protocol: true,
        ..HttpProbe::default()
    };
    let (outcome, reason) = once(&check(address, Probe::Http(http)));
    assert_eq!(outcome, Success, "{reason}");
    let (header, request) = target.join().unwrap();
    // Version 2, LOCAL, no family, no length; the request follows at once.
    assert_eq!(&header, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    assert_eq!(&request, b"GET / HTTP/1.1");
}

#[test]
fn http_names_the_address_without_a_host() {
    let (heads, asked) = std::sync::mpsc::channel();
    let address = serve(move |_, head| heads.send(head).unwrap());
    once(&check(address, Probe::Http(HttpProbe::default())));
    assert!(
        asked
            .recv()
            .unwrap()
            .contains(&format!("\r\nhost: {address}\r\n"))
    );
}

#[test]
fn http_answers_decide() {
    for (answer, outcome, reason) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Success,
            "status 200",
        ),
        (
            "HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            Success,
            "status 301",
        ),
        (
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            Success,
            "status 200",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Success,
            "status 200",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Success,
            "status 200",
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            Failure,
            "status 503, expected 200-399",
        ),
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            Failure,
            "status 404, expected 200-399",
        ),
        (
            "",
            Failure,
            "response: the target closed the connection before its end",
        ),
        (
            "HTTP/1.1 200",
            Failure,
            "response: the target closed the connection before its end",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-le",
            Failure,
            "response: the target closed the connection before its end",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
            Failure,
            "body: the target closed the connection before its end",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok",
            Failure,
            "body: ",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            Failure,
            "body: ",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            Failure,
            "response: not HTTP/1.1",
        ),
        (
            "HTTP/1.1 9999 What\r\n\r\n",
            Failure,
            "response: not HTTP/1.1",
        ),
        (
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            Failure,
            "response: not HTTP/1.1",
        ),
        ("\u{16}\u{3}\u{1}\0\0\0", Failure, "response: not HTTP/1.1"),
    ] {
        let address = serve(move |mut stream, _| stream.write_all(answer.as_bytes()).unwrap());
        let found = once(&check(address, Probe::Http(HttpProbe::default())));
        assert_eq!(found.0, outcome, "{answer:?}: {}", found.1);
        assert!(found.1.starts_with(reason), "{answer:?}: {}", found.1);
    }
}

#[test]
fn http_on_a_connection_that_is_reset_is_down() {
    let address = serve(|stream, _| {
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap()
    });
    let (outcome, reason) = once(&check(address, Probe::Http(HttpProbe::default())));
    assert_eq!(
        (outcome, reason.as_str()),
        (Failure, "response: connection reset by the target")
    );
}

#[test]
fn http_refused_is_down() {
    let found = once(&check(closed_tcp_port(), Probe::Http(HttpProbe::default())));
    assert_eq!(found, (Failure, "connect refused".to_owned()));
}

/// Writes `start`, then `again` for ever until the prober hangs up, `every` so often.
fn drip(start: &'static [u8], again: &'static [u8], every: Duration) -> SocketAddr {
    serve(move |mut stream, _| {
        let _ = stream.write_all(start);
        while stream.write_all(again).is_ok() {
            thread::sleep(every);
        }
    })
}

#[test]
fn http_without_end_is_bounded() {
    let never = Duration::from_secs(5);
    let slowly = Duration::from_millis(20);
    let at_once = Duration::ZERO;
    for (what, address, outcome, reason) in [
        (
            "says nothing",
            drip(b"", b"", never),
            Failure,
            "timed out after 300ms waiting for the response",
        ),
        (
            "drips its head",
            drip(b"HTTP/1.1 200 OK\r\nx: ", b"x", slowly),
            Failure,
            "timed out after 300ms waiting for the response",
        ),
        (
            "drips its body",
            drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x", slowly),
            Failure,
            "timed out after 300ms reading the body",
        ),
        (
            "stops in its body",
            drip(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"", never),
            Failure,
            "timed out after 300ms reading the body",
        ),
        (
            "sends headers for ever",
            drip(
                b"HTTP/1.1 200 OK\r\n",
                b"x-padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
                at_once,
            ),
            Failure,
            "response: the head is longer than",
        ),
        (
            "sends one header for ever",
            drip(
                b"HTTP/1.1 200 OK\r\nx: ",
                b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                at_once,
            ),
            Failure,
            "response: the head is longer than",
        ),
        (
            "sends interim responses for ever",
            drip(
                b"",
                b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
                at_once,
            ),
            Failure,
            "timed out after 300ms waiting for the response",
        ),
        (
            "sends a body for ever",
            drip(
                b"HTTP/1.1 200 OK\r\n\r\n",
                b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                at_once,
            ),
            Success,
            "status 200",
        ),
    ] {
        let found = once(&hasty(address, Probe::Http(HttpProbe::default())));
        assert_eq!(found.0, outcome, "{what}: {}", found.1);
        assert!(found.1.starts_with(reason), "{what}: {}", found.1);
    }
}

/// Answers each datagram with `reply`, if there is one.
fn udp_server(reply: Option<&'static [u8]>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut payload = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut payload) {
            match reply {
                Some(b"echo") => drop(socket.send_to(&payload[..length], from)),
                Some(reply) => drop(socket.send_to(reply, from)),
                None => {}
            }
        }
    });
    address
}

fn udp(payload: &[u8], expect: &[u8], require_reply: bool) -> Probe {
    Probe::Udp(UdpProbe {
        payload: payload.to_vec(),
        expect: expect.to_vec(),
        require_reply,
    })
}

#[test]
fn udp_port_unreachable_is_down_at_once() {
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for require_reply in [false, true] {
        let started = Instant::now();
        let found = once(&check(closed, udp(b"", b"", require_reply)));
        assert_eq!(found, (Failure, "port unreachable (ICMP)".to_owned()));
        assert!(started.elapsed() < PATIENCE, "it does not wait for a reply");
    }
}

#[test]
fn udp_silence_says_nothing_unless_a_reply_is_required() {
    let found = once(&hasty(udp_server(None), udp(b"ping", b"", false)));
    assert_eq!(
        found,
        (
            Silence,
            "no reply within 300ms, and none is required".to_owned()
        )
    );
    let found = once(&hasty(udp_server(None), udp(b"ping", b"", true)));
    assert_eq!(found, (Failure, "no reply within 300ms".to_owned()));
}

#[test]
fn udp_replies_are_compared() {
    for (reply, expect, outcome, reason) in [
        (&b"echo"[..], &b"ping"[..], Success, "reply of 4 bytes"),
        (b"pong!", b"pong", Success, "reply of 5 bytes"),
        (b"", b"", Success, "reply of 0 bytes"),
        (
            b"\xff\x00nope",
            b"pong",
            Failure,
            "the reply begins with \"\\xff\\x00no\", expected \"pong\"",
        ),
        (
            b"po",
            b"pong",
            Failure,
            "the reply begins with \"po\", expected \"pong\"",
        ),
    ] {
        let found = once(&check(udp_server(Some(reply)), udp(b"ping", expect, true)));
        assert_eq!(found, (outcome, reason.to_owned()));
    }
}

#[test]
fn udp_replies_of_strangers_are_not_taken() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    thread::spawn(move || {
        let (_, prober) = target.recv_from(&mut [0; 16]).unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            stranger.send_to(b"pong", prober).unwrap();
        }
        thread::sleep(2 * TIMEOUT);
    });
    assert_eq!(
        once(&hasty(address, udp(b"ping", b"pong", true))).0,
        Failure
    );
}
