//! Connections between two requests: what they cost, and that nobody notices what they leave out.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

/// Longer than a connection needs to come to rest.
const AT_REST: Duration = Duration::from_millis(2_500);

fn start(listener: &str) -> (Proxy, Backend) {
    Proxy::with_listener(listener, "[drain]\ngrace = \"1s\"\ndeadline = \"20s\"\n")
}

fn asked(proxy: &Proxy) -> Connection {
    let mut connection = Connection::open(proxy.web());
    let answer = connection.get("a", "/echo").expect("a response");
    assert_eq!(answer.status, 200);
    connection
}

#[test]
fn an_idle_connection_holds_little_memory_and_serves_its_next_request() {
    let (proxy, _app) = start("");
    // What the first requests take is taken once.
    drop((0..50).map(|_| asked(&proxy)).collect::<Vec<_>>());
    std::thread::sleep(AT_REST);
    let before = proxy.memory();
    const CONNECTIONS: usize = 400;
    // All at once: they are given back however they lie among each other.
    let mut idle: Vec<Connection> = (0..CONNECTIONS).map(|_| asked(&proxy)).collect();
    // What was given back leaves the process over ten seconds.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let each = proxy.memory().saturating_sub(before) as f64 / CONNECTIONS as f64;
        if each < 7.0 {
            break;
        }
        assert!(Instant::now() < deadline, "{each} KiB a connection");
        std::thread::sleep(Duration::from_millis(200));
    }
    for _ in 0..2 {
        for connection in &mut idle {
            let answer = connection.get("a", "/echo").expect("a response");
            assert_eq!(answer.status, 200);
        }
        std::thread::sleep(AT_REST);
    }
}

#[test]
fn what_comes_in_pieces_or_several_at_a_time_is_served_after_a_rest() {
    let (proxy, _app) = start("header_timeout = \"1500ms\"");
    let mut connection = asked(&proxy);
    std::thread::sleep(AT_REST);
    for byte in "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n".chars() {
        connection.send(byte.encode_utf8(&mut [0; 4]));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(connection.read().expect("a response").status, 200);
    std::thread::sleep(AT_REST);
    connection.send(&"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    for _ in 0..20 {
        assert_eq!(connection.read().expect("a response").status, 200);
    }
    std::thread::sleep(AT_REST);
    // An ambiguous head is refused by the same guard.
    let mut other = asked(&proxy);
    std::thread::sleep(AT_REST);
    other.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(other.read().expect("a response").status, 400);
    // So has a head that begins after a rest its time, and no more.
    connection.send("GET / HTTP/1.1\r\n");
    let began = Instant::now();
    assert_eq!(connection.read().expect("a response").status, 408);
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(1400)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn idle_time_counts_through_a_rest() {
    let (proxy, _app) = start("idle_timeout = \"4s\"");
    let mut connection = asked(&proxy);
    let began = Instant::now();
    assert_eq!(connection.0.read(&mut [0]).expect("the end"), 0);
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(3900)..Duration::from_secs(7)).contains(&took),
        "{took:?}"
    );
    // A client that leaves at rest is gone at once.
    let connection = asked(&proxy);
    std::thread::sleep(AT_REST);
    assert_eq!(proxy.status()["connections"], 1);
    drop(connection);
    let began = Instant::now();
    eventually("it is gone", || proxy.status()["connections"] == 0);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_no_request_keeps_no_connection_open() {
    let (proxy, _app) = start("idle_timeout = \"1500ms\"\nheader_timeout = \"20s\"");
    // Before the first of them is opened: a slow machine makes them no younger.
    let began = Instant::now();
    let (mut fresh, mut begun) = (Connection::open(proxy.web()), Connection::open(proxy.web()));
    let mut used = asked(&proxy);
    // Allowed in front of a request line, and not part of a head.
    fresh.send("\r\n");
    used.send("\r\n");
    // A head that has begun has its own time, and no more than there is between requests.
    begun.send("GET / HTTP/1.1\r\n");
    for connection in [&mut fresh, &mut used, &mut begun] {
        assert_eq!(connection.0.read(&mut [0]).expect("the end"), 0);
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(1400)..Duration::from_secs(5)).contains(&took),
            "{took:?}"
        );
    }
}

#[test]
fn a_drain_closes_connections_at_rest_after_its_grace_and_not_before() {
    let (proxy, _app) = start("");
    let mut first = asked(&proxy);
    let mut second = asked(&proxy);
    std::thread::sleep(AT_REST);
    let began = Instant::now();
    proxy.command("drain");
    let answer = second.get("a", "/echo").expect("a response in the grace");
    assert_eq!((answer.status, answer.field("connection")), (200, "close"));
    assert_eq!(first.0.read(&mut [0]).expect("the end"), 0);
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn a_response_that_waits_for_its_client_is_whole_whatever_is_left_of_it() {
    let (proxy, _app) = start("");
    // Some of them fill the kernel's buffers but for what waits in ours.
    let sizes: Vec<usize> = (1..100).map(|step| step * 64 * 1024).collect();
    let mut readers: Vec<(usize, Connection)> = sizes
        .into_iter()
        .map(|size| {
            let mut reader = Connection::open(proxy.web());
            reader.send(&format!("GET /big/{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
            (size, reader)
        })
        .collect();
    std::thread::sleep(2 * AT_REST);
    for (size, reader) in &mut readers {
        let answer = reader.read().expect("a response");
        assert_eq!((answer.status, answer.body.len()), (200, *size));
        let next = reader.get("a", "/echo").expect("a response");
        assert_eq!(next.status, 200);
    }
}

#[test]
fn a_tunnel_begins_after_a_rest_and_never_rests_itself() {
    let (proxy, _app) = start("");
    let mut connection = asked(&proxy);
    std::thread::sleep(AT_REST);
    connection
        .0
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
        .expect("write");
    assert_eq!(connection.read().expect("a response").status, 101);
    for _ in 0..2 {
        connection.echo(b"through");
        std::thread::sleep(AT_REST);
    }
    drop(connection);
    let _ = client::get(proxy.web(), "a", "/echo");
}
