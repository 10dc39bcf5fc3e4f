//! HTTP/2 clients that cost more than they pay, frame by frame.

use std::io::Write;
use std::time::Duration;

use crate::backend::Backend;
use crate::client;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, kinds, open,
};
use crate::proxy::{Proxy, eventually};

fn start() -> (Proxy, Backend) {
    start_with("")
}

fn start_with(listener: &str) -> (Proxy, Backend) {
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        "[[listeners]]\nname = \"web\"\naddress = \"{{address}}:8080\"\nhttp2 = true\nmax_streams = 16\nidle_timeout = \"500ms\"\nheader_timeout = \"500ms\"\n{listener}\n\
         [upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nupstream = \"app\"\n",
        app.address
    ));
    (proxy, app)
}

#[test]
fn streams_opened_and_reset_in_a_flood_end_their_connection_only() {
    let (mut proxy, app) = start();
    let mut stream = open(proxy.web());
    let mut flood = Vec::new();
    for number in 0..20_000 {
        flood.extend(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            number * 2 + 1,
            GET,
        ));
        flood.extend(frame(RST_STREAM, 0, number * 2 + 1, &8_u32.to_be_bytes()));
    }
    // It may end while the flood is still being written.
    let _ = stream.write_all(&flood);
    let seen = kinds(&mut stream);
    assert!(
        seen.contains(&GOAWAY) || seen.len() < 1000,
        "{} frames, no GOAWAY",
        seen.len()
    );
    assert!(proxy.alive());
    assert!(
        app.requests() < 2000,
        "{} of 20000 reached the backend",
        app.requests()
    );
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    eventually("nothing is left of it", || {
        proxy.status()["connections"] == 0
    });
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let (mut proxy, app) = start();
    let before = proxy.memory();
    let mut stream = open(proxy.web());
    let mut endless = frame(HEADERS, END_STREAM, 1, GET);
    // A literal field that is indexed nowhere, again and again.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 0x81, 0x01];
    field.extend(vec![b'y'; 256]);
    let part = field.repeat(60);
    for _ in 0..2000 {
        endless.extend(frame(CONTINUATION, 0, 1, &part));
    }
    let _ = stream.write_all(&endless);
    let _ = kinds(&mut stream);
    assert!(proxy.alive());
    assert!(
        proxy.memory().saturating_sub(before) < 16 * 1024,
        "{} KiB before, {} after",
        before,
        proxy.memory()
    );
    assert_eq!(app.requests(), 0);
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn small_frames_for_nothing_do_not_pile_up() {
    let (mut proxy, _app) = start();
    let before = proxy.memory();
    let mut stream = open(proxy.web());
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("timeout");
    // Pings whose answers are never read; empty DATA on no stream.
    for _ in 0..200 {
        let mut part = Vec::new();
        for _ in 0..1000 {
            part.extend(frame(PING, 0, 0, &[7; 8]));
        }
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    let _ = stream.write_all(&frame(DATA, 0, 1, &[]));
    assert!(proxy.alive());
    assert!(
        proxy.memory().saturating_sub(before) < 16 * 1024,
        "{} KiB before, {} after",
        before,
        proxy.memory()
    );
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn streams_whose_client_gives_no_window_are_cut_and_their_siblings_go_on() {
    let (proxy, _app) = start_with("send_timeout = \"500ms\"");
    let mut stream = client::connect(proxy.web());
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("preface");
    // SETTINGS_INITIAL_WINDOW_SIZE 0: no stream may send anything.
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .expect("settings");
    for number in 0..8 {
        stream
            .write_all(&frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                number * 2 + 1,
                GET,
            ))
            .expect("a request");
    }
    eventually("all of them are cut", || {
        proxy.metric("weir_l7_slow_readers_total", &["web"]) == 8.0
    });
    proxy.await_metric("weir_l7_backend_active", &[], 0.0);
    // One with a window is served on the same connection.
    let mut sibling = frame(HEADERS, END_HEADERS | END_STREAM, 17, GET);
    sibling.extend(frame(WINDOW_UPDATE, 0, 17, &60_000_u32.to_be_bytes()));
    stream.write_all(&sibling).expect("a request");
    let seen = kinds(&mut stream);
    assert_eq!(
        seen.iter().filter(|kind| **kind == RST_STREAM).count(),
        8,
        "{seen:?}"
    );
    assert!(seen.contains(&DATA), "{seen:?}");
}

#[test]
fn an_idle_http2_connection_is_told_and_closed() {
    let (proxy, _app) = start();
    let began = std::time::Instant::now();
    let mut silent = open(proxy.web());
    assert!(kinds(&mut silent).contains(&GOAWAY));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");

    // One that asked something is idle only after that.
    let mut asking = open(proxy.web());
    asking
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET))
        .expect("a request");
    let seen = kinds(&mut asking);
    assert!(
        seen.contains(&HEADERS) && seen.contains(&DATA) && seen.contains(&GOAWAY),
        "{seen:?}"
    );
}

#[test]
fn a_client_that_is_gone_does_not_hold_a_drain() {
    let app = Backend::start("app");
    let mut proxy = Proxy::start(&format!(
        "[[listeners]]\nname = \"web\"\naddress = \"{{address}}:8080\"\nhttp2 = true\n\
         [upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nupstream = \"app\"\n[drain]\ngrace = \"100ms\"\ndeadline = \"30s\"\n",
        app.address
    ));
    // It had its answer, and then its way to us broke without a FIN.
    let mut gone = open(proxy.web());
    gone.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET))
        .expect("a request");
    eventually("it was answered", || app.requests() == 1);
    proxy.signal("TERM");
    assert!(proxy.wait(Duration::from_secs(10)).success());
}

#[test]
fn a_client_does_not_write_the_log() {
    let (mut proxy, _app) = start();
    let before = proxy.said().lines().count();
    for _ in 0..4 {
        let mut stream = open(proxy.web());
        let mut flood = Vec::new();
        for _ in 0..10_000 {
            // Acknowledges what nobody sent: h2 warns of each.
            flood.extend(frame(PING, ACK, 0, &[7; 8]));
        }
        // On streams that are no more, or never were; and a reset of one that was just opened.
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, GET));
        flood.extend(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
        flood.extend(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
        flood.extend(frame(DATA, END_STREAM, 1, b"x"));
        let _ = stream.write_all(&flood);
        kinds(&mut stream);
    }
    let said = proxy.said();
    let lines = said
        .lines()
        .filter(|line| !line.contains("l7_proxy"))
        .count();
    assert!(lines.saturating_sub(before) <= 4, "{said}");
    assert!(said.contains("PING"), "they reached h2: {said}");
    assert!(proxy.alive());
}
