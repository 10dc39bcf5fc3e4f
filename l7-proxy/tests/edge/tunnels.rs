//! Upgrades: WebSocket and what pretends to be one.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start() -> (Proxy, Backend) {
    start_with("")
}

/// With more keys of the route.
fn start_with(route: &str) -> (Proxy, Backend) {
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        r#"
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        {route}
        [drain]
        grace = "500ms"
        deadline = "2s"
        "#,
        app.address
    ));
    (proxy, app)
}

const UPGRADE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn open(proxy: &Proxy) -> Connection {
    Connection::websocket(proxy.web())
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_it_is_closed() {
    let (proxy, app) = start();
    let mut connection = open(&proxy);
    connection.echo(b"\x81\x85\x00\x00\x00\x00hello");
    connection.echo(&vec![7; 300_000]);
    assert_eq!(
        proxy.metric("weir_l7_tunnels{", &[]) + proxy.metric("weir_l7_tunnels ", &[]),
        1.0
    );
    assert_eq!(proxy.status()["upstreams"][0]["backends"][0]["active"], 1);
    connection.0.write_all(b"last").expect("write");
    connection.0.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(client::until_closed(&mut connection.0), "last");
    let entry = proxy.logged(|entry| entry["status"] == 101);
    assert_eq!(
        (&entry["bytes_received"], &entry["bytes_sent"]),
        (&300_015.into(), &300_015.into())
    );
    eventually("the backend is free again", || {
        proxy.status()["upstreams"][0]["backends"][0]["active"] == 0
    });
    assert_eq!(
        (app.requests(), proxy.status()["connections"].as_u64()),
        (1, Some(0))
    );
    proxy.await_metric("weir_l7_tunnels_total", &["closed"], 1.0);
}

#[test]
fn bytes_sent_along_with_the_request_reach_the_backend_only_after_its_101() {
    let (proxy, _app) = start();
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!("GET /ws HTTP/1.1\r\n{UPGRADE}early"));
    assert_eq!(connection.read().map(|response| response.status), Some(101));
    let mut back = [0; 5];
    connection.0.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"early");
}

#[test]
fn a_backend_that_does_not_switch_leaves_the_connection_in_http() {
    let (proxy, app) = start();
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!("GET /echo HTTP/1.1\r\n{UPGRADE}"));
    assert_eq!(connection.read().map(|response| response.status), Some(200));
    assert_eq!(
        connection.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
    assert_eq!(app.requests(), 2);
    // What follows is read as strictly as ever.
    connection.send(&format!(
        "GET /echo HTTP/1.1\r\n{UPGRADE}GET /smuggled HTTP/1.1\nHost: a\n\n"
    ));
    assert_eq!(connection.read().map(|response| response.status), Some(200));
    assert_eq!(connection.read().map(|response| response.status), Some(400));
    assert_eq!(app.requests(), 3);
}

#[test]
fn an_upgrade_behind_other_requests_is_not_settled_by_them() {
    let (proxy, _app) = start();
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!(
        "GET /slow/300 HTTP/1.1\r\nHost: a\r\n\r\nBREW /\\ HTTP/1.1\r\nHost: a..b\r\n\r\nGET /ws HTTP/1.1\r\n{UPGRADE}"
    ));
    assert_eq!(connection.read().map(|response| response.status), Some(200));
    assert_eq!(connection.read().map(|response| response.status), Some(400));
    assert!(
        connection.read().is_none(),
        "a refused request ends the connection"
    );

    let mut connection = Connection::open(proxy.web());
    connection.send(&format!(
        "GET /slow/300 HTTP/1.1\r\nHost: a\r\n\r\nGET /ws HTTP/1.1\r\n{UPGRADE}"
    ));
    assert_eq!(connection.read().map(|response| response.status), Some(200));
    assert_eq!(connection.read().map(|response| response.status), Some(101));
    connection.echo(b"\0not\nHTTP\n\n");
}

#[test]
fn a_switch_nobody_asked_for_is_502() {
    let (proxy, _app) = start();
    assert_eq!(client::get(proxy.web(), "a", "/ws").status, 502);
}

/// What the backend saw of a request that was served as HTTP, in lower case.
fn seen(proxy: &Proxy, request: &str) -> String {
    let mut connection = Connection::open(proxy.web());
    connection.send(request);
    let response = connection.read().expect("a response");
    assert_eq!(response.status, 200, "{request:?}: {response:?}");
    if request.contains("HTTP/1.1") {
        let next = connection.get("a", "/echo").map(|response| response.status);
        assert_eq!(next, Some(200), "the connection goes on after {request:?}");
    }
    response.text().to_lowercase()
}

#[test]
fn http2_in_clear_text_is_never_upgraded_to() {
    let (proxy, _app) = start();
    const SETTINGS: &str = "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    for fields in [
        "Upgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
        "Connection: HTTP2-Settings\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, TLS/1.0,\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: HTTP/2.0\r\n",
    ] {
        for (settings, version) in [("", "1.1"), (SETTINGS, "1.1"), (SETTINGS, "1.0")] {
            let text = seen(
                &proxy,
                &format!("GET /echo HTTP/{version}\r\nHost: a\r\n{fields}{settings}\r\n"),
            );
            for part in ["upgrade", "h2c", "http2-settings", "connection"] {
                assert!(!text.contains(part), "{part} after {fields:?}: {text}");
            }
        }
    }
    // Next to something the route allows.
    for fields in [
        "Upgrade: h2c, websocket\r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
    ] {
        let text = seen(
            &proxy,
            &format!(
                "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n{fields}{SETTINGS}\r\n"
            ),
        );
        assert!(
            text.contains("upgrade: websocket\r\n") && !text.contains("h2c"),
            "{text}"
        );
    }
}

#[test]
fn bytes_behind_an_upgrade_that_is_ignored_are_read_as_http() {
    let (proxy, app) = start();
    // What a client sends that takes the 101 for granted: the preface of HTTP/2, and a request in it.
    let answer = client::raw(
        proxy.web(),
        b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n\
          PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    );
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(app.requests(), 1);
}

#[test]
fn a_request_with_a_body_is_served_whatever_it_would_upgrade_to() {
    let (proxy, _app) = start();
    for protocol in ["h2c", "websocket", "TLS/1.0", "h2c, websocket"] {
        for body in [
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            for method in ["POST", "GET"] {
                let text = seen(
                    &proxy,
                    &format!(
                        "{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n{body}"
                    ),
                );
                assert!(
                    text.ends_with("\nhello") && !text.contains("upgrade"),
                    "{text}"
                );
            }
        }
    }
    // As curl does it, which would switch if it could.
    let url = format!("http://{}/echo", proxy.web());
    let (code, text) = client::curl(&["--http2", "--data", "hello", &url]);
    assert!(code == 0 && text.ends_with("\nhello"), "{text}");
}

#[test]
fn an_early_answer_to_a_request_whose_upgrade_is_ignored_is_not_lost() {
    let (proxy, _app) = start();
    for _ in 0..5 {
        let mut connection = Connection::open(proxy.web());
        connection.send("POST /early HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 200000\r\n\r\n");
        // More than the proxy reads; it may have closed meanwhile.
        let _ = connection.0.write_all(&[b'x'; 150_000]);
        let answer = client::until_closed(&mut connection.0);
        assert!(
            answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("early"),
            "{answer}"
        );
    }
}

#[test]
fn a_route_says_which_protocols_it_may_be_upgraded_to() {
    let (proxy, _app) = start_with("upgrades = [\"chat\"]");
    let ask = |path: &str, protocol: &str| {
        let mut connection = Connection::open(proxy.web());
        connection.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        ));
        let response = connection.read().expect("a response");
        (response, connection)
    };
    let (response, mut connection) = ask("/switch/chat", "websocket, Chat");
    assert_eq!((response.status, response.field("upgrade")), (101, "chat"));
    connection.echo(b"\0not\nHTTP\n\n");
    let (response, _) = ask("/echo", "websocket");
    assert!(response.status == 200 && !response.text().to_lowercase().contains("upgrade"));

    let (proxy, _app) = start_with("upgrades = []");
    let text = seen(&proxy, &format!("GET /echo HTTP/1.1\r\n{UPGRADE}"));
    assert!(!text.contains("upgrade"), "{text}");
}

#[test]
fn a_backend_switches_to_nothing_it_was_not_asked_for() {
    let (proxy, _app) = start();
    for protocol in ["h2c", "chat", "websocket,%20h2c", ","] {
        let mut connection = Connection::open(proxy.web());
        let path = format!("/switch/{protocol}");
        connection.send(&format!("GET {path} HTTP/1.1\r\n{UPGRADE}"));
        let response = connection.read().expect("a response");
        assert_eq!(response.status, 502, "{protocol}");
        // It never left HTTP.
        let next = connection.get("a", "/echo").map(|response| response.status);
        assert_eq!(next, Some(200), "{protocol}");
    }
    proxy.logged(|entry| entry["status"] == 502 && entry["reason"] == "upstream_invalid");
}

#[test]
fn what_a_426_requires_is_passed_on() {
    let (proxy, _app) = start();
    let response = client::get(proxy.web(), "a", "/required");
    assert_eq!(
        (
            response.status,
            response.field("upgrade"),
            response.field("connection"),
            response.field("http2-settings")
        ),
        (426, "chat/2, websocket", "upgrade", "")
    );
}

#[test]
fn a_tunnel_survives_a_drain_up_to_its_deadline() {
    let (mut proxy, _app) = start();
    let mut connection = open(&proxy);
    proxy.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    connection.echo(b"still here");
    assert_eq!(client::until_closed(&mut connection.0), "");
    assert!(proxy.wait(std::time::Duration::from_secs(5)).success());
}
