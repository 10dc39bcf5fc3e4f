//! Upgrades: WebSocket and what pretends to be one.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start() -> (Proxy, Backend) {
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        r#"
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
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
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!("GET /ws HTTP/1.1\r\n{UPGRADE}"));
    let response = connection.read().expect("a response");
    assert_eq!(
        (
            response.status,
            response.field("upgrade"),
            response.field("connection").to_lowercase().as_str()
        ),
        (101, "websocket", "upgrade")
    );
    assert_eq!(response.field("sec-websocket-accept"), "x");
    connection
}

fn echo(connection: &mut Connection, bytes: &[u8]) {
    connection.0.write_all(bytes).expect("write");
    let mut back = vec![0; bytes.len()];
    connection.0.read_exact(&mut back).expect("read");
    assert_eq!(back, bytes);
}

#[test]
fn a_websocket_carries_bytes_both_ways_until_it_is_closed() {
    let (proxy, app) = start();
    let mut connection = open(&proxy);
    echo(&mut connection, b"\x81\x85\x00\x00\x00\x00hello");
    echo(&mut connection, &vec![7; 300_000]);
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
    assert_eq!(proxy.metric("weir_l7_tunnels_total", &["closed"]), 1.0);
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
    echo(&mut connection, b"\0not\nHTTP\n\n");
}

#[test]
fn a_switch_nobody_asked_for_is_502() {
    let (proxy, _app) = start();
    assert_eq!(client::get(proxy.web(), "a", "/ws").status, 502);
}

#[test]
fn an_upgrade_field_without_its_connection_option_is_not_an_upgrade() {
    let (proxy, _app) = start();
    let mut connection = Connection::open(proxy.web());
    connection.send("GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n");
    let response = connection.read().expect("a response");
    assert!(
        response.status == 200 && !response.text().to_lowercase().contains("upgrade"),
        "{response:?}"
    );
    assert_eq!(
        connection.get("a", "/echo").map(|response| response.status),
        Some(200)
    );
}

#[test]
fn a_tunnel_survives_a_drain_up_to_its_deadline() {
    let (mut proxy, _app) = start();
    let mut connection = open(&proxy);
    proxy.signal("TERM");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    echo(&mut connection, b"still here");
    assert_eq!(client::until_closed(&mut connection.0), "");
    assert!(proxy.wait(std::time::Duration::from_secs(5)).success());
}
