//! Too big, too slow, too many.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start(listener: &str) -> (Proxy, Backend) {
    Proxy::with_listener(listener, "")
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let (proxy, app) = start("max_header_size = \"8KiB\"\nmax_headers = 50");
    let one = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(10_000)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(60));
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(200_000));
    for request in [one, many, endless] {
        let answer = client::raw(proxy.web(), request.as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 431"),
            "{} bytes: {answer}",
            request.len()
        );
    }
    assert_eq!(app.requests(), 0);
}

#[test]
fn a_head_that_comes_too_slowly_gets_408() {
    let (proxy, _app) = start("header_timeout = \"500ms\"\nidle_timeout = \"10s\"");
    let began = Instant::now();
    let mut connection = Connection::open(proxy.web());
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n");
    // A byte now and then does not help.
    let mut trickle = connection.0.try_clone().expect("clone");
    let feeding = std::thread::spawn(move || {
        while trickle.write_all(b"X").is_ok() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let response = connection.read().expect("a response");
    assert_eq!(response.status, 408);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    drop(connection);
    feeding.join().expect("joined");
    proxy.await_metric("weir_l7_slow_heads_total", &[], 1.0);
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 408)["reason"],
        "header_timeout"
    );
}

#[test]
fn a_head_that_begins_as_http2_does_has_no_more_time_than_another() {
    let (proxy, _app) = start("http2 = true\nheader_timeout = \"500ms\"\nidle_timeout = \"20s\"");
    for (number, start) in ["P", "PRI", "PO", "POST / HTTP/1.1\r\n"]
        .into_iter()
        .enumerate()
    {
        let began = Instant::now();
        let mut connection = Connection::open(proxy.web());
        for byte in start.chars() {
            connection.send(byte.encode_utf8(&mut [0; 4]));
        }
        assert_eq!(
            connection.read().map(|response| response.status),
            Some(408),
            "{start:?}"
        );
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(400)..Duration::from_secs(2)).contains(&took),
            "{start:?}: {took:?}"
        );
        proxy.await_metric("weir_l7_slow_heads_total", &[], number as f64 + 1.0);
    }
    // No head of HTTP/1 begins like this.
    let mut almost = Connection::open(proxy.web());
    almost.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r");
    assert_eq!(almost.read().map(|response| response.status), Some(400));
    // One that says nothing at all has as long as between two requests.
    let mut silent = Connection::open(proxy.web());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        silent.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 408)["reason"],
        "header_timeout"
    );
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let (proxy, _app) = start("idle_timeout = \"500ms\"");
    let mut fresh = Connection::open(proxy.web());
    assert_eq!(client::until_closed(&mut fresh.0), "");
    let mut used = Connection::open(proxy.web());
    assert_eq!(
        used.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
    assert_eq!(client::until_closed(&mut used.0), "");
    // A connection whose request runs is not idle.
    assert_eq!(client::get(proxy.web(), "a", "/slow/1200").status, 200);
}

#[test]
fn a_body_that_stops_arriving_gets_408() {
    let (proxy, _app) = start("body_timeout = \"500ms\"");
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nstart");
    let response = connection.read().expect("a response");
    assert_eq!(
        (response.status, response.field("connection")),
        (408, "close")
    );
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 408)["reason"],
        "body_timeout"
    );
}

#[test]
fn connections_over_the_limit_are_told_so_and_those_within_are_served() {
    let (proxy, _app) = start("max_connections = 2\nhttp2 = true");
    let mut kept: Vec<Connection> = (0..2).map(|_| Connection::open(proxy.web())).collect();
    for connection in &mut kept {
        assert_eq!(
            connection.get("a", "/echo").map(|response| response.status),
            Some(200)
        );
    }
    // What the client still sends while the answer is on its way must not reset the connection.
    let mut third = Connection::open(proxy.web());
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";
    third.send(&format!("{head}{}", "x".repeat(20_000)));
    let response = third.read().expect("a response");
    assert_eq!(response.status, 503);
    assert_eq!(response.field("connection"), "close");
    assert_eq!(response.field("retry-after"), "1");
    assert_eq!(client::until_closed(&mut third.0), "");
    let entry = proxy.logged(|entry| entry["reason"] == "connection_limit");
    assert_eq!(
        (&entry["status"], &entry["method"], &entry["target"]),
        (&503.into(), &"-".into(), &"-".into())
    );
    assert_eq!(
        entry["client"],
        third.0.local_addr().expect("address").ip().to_string()
    );

    // HTTP/2 hears that no stream was looked at.
    let mut h2 = client::connect(proxy.web());
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("write");
    let mut answer = Vec::new();
    let _ = h2.read_to_end(&mut answer);
    assert_eq!(
        answer.get(9..13),
        Some(&b"\x00\x00\x08\x07"[..]),
        "GOAWAY: {answer:?}"
    );
    assert_eq!(
        answer.get(18..),
        Some(&b"\0\0\0\0\0\0\0\x0b"[..]),
        "of no stream: {answer:?}"
    );

    let value = |name, parts: &[&str]| proxy.metric(name, parts);
    assert_eq!(value("weir_l7_connections_over_limit_total", &[]), 2.0);
    assert_eq!(
        value("weir_l7_answered_by_proxy_total", &["connection_limit"]),
        2.0
    );
    assert_eq!(
        value("weir_l7_requests_total", &["class=\"5xx\"", "route=\"\""]),
        2.0
    );
    assert!(proxy.said().contains("the listener is full"));
    drop(kept);
    eventually("the next one is served", || {
        client::try_get(proxy.web(), "a", "/echo").is_some_and(|response| response.status == 200)
    });
}

#[test]
fn a_flood_over_the_limit_costs_neither_files_nor_lines() {
    let (proxy, _app) = start("max_connections = 1");
    let mut kept = Connection::open(proxy.web());
    assert_eq!(
        kept.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
    let files = || {
        let folder = format!("/proc/{}/fd", proxy.pid());
        std::fs::read_dir(folder).expect("files").count()
    };
    let before = files();
    let silent: Vec<_> = (0..600).map(|_| client::connect(proxy.web())).collect();
    eventually("all were turned away", || {
        proxy.metric("weir_l7_connections_over_limit_total", &[]) >= 600.0
    });
    let more = files().saturating_sub(before);
    assert!(
        more <= 2 * 64 + 8,
        "{more} more files for those that say nothing"
    );
    drop(silent);
    eventually("they are forgotten", || files() <= before + 8);

    let answered = (0..400)
        .filter(|_| {
            client::try_get(proxy.web(), "a", "/").is_some_and(|response| response.status == 503)
        })
        .count();
    assert!(
        answered >= 300,
        "one after the other there is room for: {answered}"
    );
    std::thread::sleep(Duration::from_millis(1500));
    let log = std::fs::read_to_string(proxy.file("access.log")).expect("log");
    let lines = log
        .lines()
        .filter(|line| line.contains("connection_limit"))
        .count();
    assert!((1..=100).contains(&lines), "{lines} lines");
    assert_eq!(proxy.said().matches("the listener is full").count(), 1);
    assert_eq!(
        kept.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
}

#[test]
fn a_slow_reader_does_not_make_the_proxy_hold_a_whole_body() {
    let (proxy, _app) = start("");
    let before = proxy.memory();
    let mut readers: Vec<Connection> = (0..4).map(|_| Connection::open(proxy.web())).collect();
    for reader in &mut readers {
        reader.send("GET /big/200000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = proxy.memory().saturating_sub(before);
    assert!(
        grown < 32 * 1024,
        "{grown} KiB more for 4 readers that don't read"
    );
    // And it still flows when it is read.
    let mut part = vec![0; 1 << 20];
    let mut read = 0;
    while read < 10_000_000 {
        read += readers[0].0.read(&mut part).expect("more of the body");
    }
}

#[test]
fn a_client_that_takes_nothing_of_its_response_is_cut() {
    let (proxy, _app) = start("send_timeout = \"500ms\"");
    let mut reader = Connection::open(proxy.web());
    reader.send("GET /big/200000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    // One that is only slow is not cut, however long it takes.
    let mut slow = Connection::open(proxy.web());
    slow.send("GET /big/200000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut part = vec![0; 4 << 20];
    for _ in 0..8 {
        slow.0.read_exact(&mut part).expect("more of the body");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(
        proxy.logged(|entry| entry["target"] == "/big/200000000")["reason"],
        "client_gone"
    );
    proxy.await_metric("weir_l7_slow_readers_total", &["web"], 1.0);
    slow.0.read_exact(&mut part).expect("more of the body");
    drop(slow);
    eventually("the backend is free of both", || {
        proxy.metric("weir_l7_backend_active", &[]) == 0.0
    });
}

#[test]
fn an_upload_flows_while_the_backend_reads_and_is_not_collected() {
    let (proxy, app) = start("");
    let before = proxy.memory();
    let mut connection = Connection::open(proxy.web());
    let total = 100_000_000_usize;
    connection.send(&format!(
        "POST /status/204 HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"
    ));
    let part = vec![b'u'; 1_000_000];
    for _ in 0..total / part.len() / 2 {
        connection.0.write_all(&part).expect("write");
    }
    eventually("half of it is at the backend already", || {
        app.received() > total / 3
    });
    for _ in 0..total / part.len() / 2 {
        connection.0.write_all(&part).expect("write");
    }
    assert_eq!(connection.read().map(|response| response.status), Some(204));
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

#[test]
fn running_out_of_descriptors_pauses_accepting_and_passes() {
    let app = Backend::start("app");
    let mut proxy = Proxy::start_with_files(
        48,
        &format!(
            "[upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nupstream = \"app\"\n",
            app.address
        ),
    );
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    let crowd: Vec<Connection> = (0..100).map(|_| Connection::open(proxy.web())).collect();
    std::thread::sleep(Duration::from_millis(500));
    assert!(proxy.alive());
    drop(crowd);
    eventually("it serves again", || {
        client::try_get(proxy.web(), "a", "/echo").is_some_and(|response| response.status == 200)
    });
    assert!(proxy.metric("weir_l7_accept_errors_total", &["too_many_files"]) >= 1.0);
}
