//! The PROXY protocol in front of TLS and HTTP: who is believed, and what a broken header does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

/// Test clients come from 127.0.0.1 unless they say otherwise.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn start(more: &str) -> (Proxy, Backend, rcgen::CertifiedKey<rcgen::KeyPair>) {
    start_with("60s", more)
}

fn start_with(idle: &str, more: &str) -> (Proxy, Backend, rcgen::CertifiedKey<rcgen::KeyPair>) {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("certificate");
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).expect("write");
    std::fs::write(
        folder.path().join("k.pem"),
        made.signing_key.serialize_pem(),
    )
    .expect("write");
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        r#"
        [[listeners]]
        name = "web"
        address = "{{address}}:8080"
        proxy_protocol = {{ trusted = ["127.0.0.1/32"] }}
        header_timeout = "1s"
        idle_timeout = "{idle}"
        [[listeners]]
        name = "secure"
        address = "{{address}}:8443"
        protocol = "https"
        proxy_protocol = {{ trusted = ["10.0.0.0/8", "127.0.0.1/32"] }}
        [[certificates]]
        certificate = "{path}/c.pem"
        key = "{path}/k.pem"
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        upstream = "app"
        {more}
        "#,
        app.address,
        path = folder.path().display(),
    ));
    (proxy, app, made)
}

fn binary(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, kind],
        &length,
        block,
    ]
    .concat()
}

/// From 203.0.113.7:51000 to 10.0.0.100:443.
const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 100, 0xc7, 0x38, 1, 0xbb];

/// From 2001:db8::7 to 2001:db8::64.
fn v6() -> Vec<u8> {
    let mut block = vec![0; 32];
    for (at, last) in [(0, 7), (16, 0x64)] {
        block[at..at + 4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        block[at + 15] = last;
    }
    block.extend([0xc7, 0x38, 1, 0xbb]);
    block
}

/// Connects from an address of one's own choice.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket
        .bind(&SocketAddr::from((source, 0)).into())
        .expect("bind");
    socket.connect(&to.into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    stream
}

#[test]
fn the_header_names_the_client() {
    let (proxy, app, _) = start("");
    let unique = [5, 0, 3, b'a', b'b', b'c'];
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "version 1",
            b"PROXY TCP4 203.0.113.7 10.0.0.100 51000 443\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            "version 1, IPv6",
            b"PROXY TCP6 2001:db8::7 2001:db8::64 51000 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            "version 1, unknown",
            b"PROXY UNKNOWN\r\n".to_vec(),
            "127.0.0.1",
        ),
        ("version 2", binary(0x21, 0x11, &V4), "203.0.113.7"),
        ("version 2, IPv6", binary(0x21, 0x21, &v6()), "2001:db8::7"),
        (
            "version 2, extended",
            binary(0x21, 0x11, &[&V4[..], &unique].concat()),
            "203.0.113.7",
        ),
        ("version 2, LOCAL", binary(0x20, 0, &[]), "127.0.0.1"),
        ("version 2, unspecified", binary(0x21, 0, &[]), "127.0.0.1"),
    ];
    for (number, (what, header, client)) in table.into_iter().enumerate() {
        let request =
            format!("GET /echo/{number} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
        let pieces: [Vec<&[u8]>; 3] = [
            vec![&header, request.as_bytes()],
            header.chunks(1).chain([request.as_bytes()]).collect(),
            vec![],
        ];
        for pieces in pieces {
            let mut connection = Connection::open(proxy.web());
            connection.0.set_nodelay(true).expect("no delay");
            if pieces.is_empty() {
                // As the L4 tier sends it: one segment.
                connection
                    .0
                    .write_all(&[&header, request.as_bytes()].concat())
                    .expect("write");
            }
            for piece in pieces {
                connection.0.write_all(piece).expect("write");
                std::thread::sleep(Duration::from_millis(1));
            }
            let text = connection.read().expect(what).text();
            assert!(
                text.contains(&format!("x-forwarded-for: {client}\r\n")),
                "{what}: {text}"
            );
            assert!(
                text.contains(&format!("x-real-ip: {client}\r\n")),
                "{what}: {text}"
            );
            // It is the connection's, not the request's.
            let text = connection.get("a", "/echo").expect(what).text();
            assert!(
                text.contains(&format!("x-forwarded-for: {client}\r\n")),
                "{what}: {text}"
            );
        }
        proxy.logged(|entry| {
            entry["client"] == client && entry["target"] == format!("/echo/{number}")
        });
    }
    assert_eq!(app.requests(), 8 * 3 * 2);
    proxy.await_metric(
        "weir_l7_proxy_headers_total",
        &["\"proxied\"", "\"web\""],
        5.0 * 3.0,
    );
    proxy.await_metric(
        "weir_l7_proxy_headers_total",
        &["\"direct\"", "\"web\""],
        3.0 * 3.0,
    );
}

#[test]
fn what_is_no_header_closes_the_connection_before_any_request() {
    let (mut proxy, app, _) = start("");
    let request = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut wrong_sum = V4.to_vec();
    wrong_sum.extend([3, 0, 4, 0, 0, 0, 0]);
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no header", vec![], "no_header"),
        (
            "a header of a newer version",
            binary(0x31, 0x11, &V4),
            "version",
        ),
        ("an unknown command", binary(0x22, 0x11, &V4), "command"),
        ("an unknown family", binary(0x21, 0x51, &V4), "family"),
        ("half an address", binary(0x21, 0x21, &V4), "addresses"),
        (
            "a broken extension",
            binary(0x21, 0x11, &[&V4[..], &[4, 9, 9]].concat()),
            "extension",
        ),
        (
            "a wrong checksum",
            binary(0x21, 0x11, &wrong_sum),
            "checksum",
        ),
        (
            "a broken line",
            b"PROXY TCP4 203.0.113.7\r\n".to_vec(),
            "line",
        ),
        (
            "an endless line",
            [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            "too_long",
        ),
    ];
    for (what, header, result) in table {
        assert_eq!(
            client::raw(proxy.web(), &[&header[..], request].concat()),
            "",
            "{what}"
        );
        assert_eq!(
            proxy.metric(
                "weir_l7_proxy_headers_total",
                &["\"web\"", &format!("\"{result}\"")]
            ),
            1.0,
            "{what}"
        );
    }
    // TLS without a header is not TLS.
    let hello = client::raw(proxy.at(8443), b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00");
    assert_eq!(hello, "");
    assert_eq!(app.requests(), 0);
    assert!(proxy.alive());
    // One line a second at most tells of it.
    let told = proxy
        .said()
        .lines()
        .filter(|line| line.contains("sent no valid PROXY header"))
        .count();
    assert!((1..=8).contains(&told), "{}", proxy.said());
}

#[test]
fn a_stranger_is_served_as_itself_and_its_header_is_a_broken_request() {
    let (proxy, app, _) = start("");
    let mut plain = Connection(connect_from(STRANGER, proxy.web()));
    let text = plain.get("a", "/echo").expect("a response").text();
    assert!(text.contains("x-forwarded-for: 127.0.0.9\r\n"), "{text}");

    let headers = [
        b"PROXY TCP4 203.0.113.7 10.0.0.100 51000 443\r\n".to_vec(),
        binary(0x21, 0x11, &V4),
        binary(0x20, 0, &[]),
    ];
    for header in headers {
        let mut stream = connect_from(STRANGER, proxy.web());
        stream
            .write_all(&[&header[..], b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"].concat())
            .expect("write");
        let answer = client::until_closed(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{header:?}: {answer}");
    }
    assert_eq!(app.requests(), 1, "only the first reached the backend");
    proxy.await_metric("weir_l7_proxy_headers_total", &["\"proxied\""], 0.0);
    let entry = proxy.logged(|entry| entry["status"] == 400);
    assert_eq!(entry["client"], "127.0.0.9");
}

#[test]
fn the_header_comes_before_tls() {
    let (proxy, _app, made) = start("");
    let certificate = proxy.file("ca.pem");
    std::fs::write(&certificate, made.cert.pem()).expect("write");
    // What the L4 tier is for curl: a hop that puts the header in front, here with the TLS hello in the same segment.
    let hop = TcpListener::bind("127.0.0.1:0").expect("hop");
    let port = hop.local_addr().expect("address").port();
    let secure = proxy.at(8443);
    std::thread::spawn(move || {
        for client in hop.incoming() {
            let (mut client, mut server) = (client.expect("client"), client::connect(secure));
            let mut first = vec![0; 4096];
            let read = client.read(&mut first).expect("hello");
            server
                .write_all(&[&binary(0x21, 0x11, &V4)[..], &first[..read]].concat())
                .expect("write");
            let (mut back, mut forth) = (
                client.try_clone().expect("clone"),
                server.try_clone().expect("clone"),
            );
            std::thread::spawn(move || std::io::copy(&mut server, &mut back));
            std::thread::spawn(move || std::io::copy(&mut client, &mut forth));
        }
    });
    for (flag, version) in [("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")] {
        let (code, text) = client::curl(&[
            flag,
            "--cacert",
            certificate.to_str().expect("path"),
            "--resolve",
            &format!("a.test:{port}:127.0.0.1"),
            &format!("https://a.test:{port}/echo"),
        ]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("x-forwarded-for: 203.0.113.7\r\n"), "{text}");
        assert!(text.contains("x-forwarded-proto: https\r\n"), "{text}");
        proxy.logged(|entry| entry["client"] == "203.0.113.7" && entry["version"] == version);
    }
    // A health check that opens the connection, says LOCAL and leaves.
    client::connect(secure)
        .write_all(&binary(0x20, 0, &[]))
        .expect("write");
    eventually("the check is counted", || {
        proxy.metric(
            "weir_l7_tls_handshakes_total",
            &["\"abandoned\"", "\"secure\""],
        ) == 1.0
    });
}

#[test]
fn the_client_in_the_header_is_the_hop_whose_forwarded_fields_may_be_believed() {
    // 203.0.113.0/24 is a CDN; 127.0.0.1, the L4 node, is not among the trusted.
    let (proxy, _app, _) = start("[forwarding]\ntrusted = [\"203.0.113.0/24\"]");
    let forwarded = |client: &str| {
        let mut connection = Connection::open(proxy.web());
        connection.send(&format!(
            "PROXY TCP4 {client} 10.0.0.100 51000 443\r\nGET /echo HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"
        ));
        connection.read().expect("a response").text()
    };
    let through_cdn = forwarded("203.0.113.7");
    assert!(
        through_cdn.contains("x-forwarded-for: 198.51.100.1, 203.0.113.7\r\n"),
        "{through_cdn}"
    );
    assert!(
        through_cdn.contains("x-real-ip: 198.51.100.1\r\n"),
        "{through_cdn}"
    );
    let direct = forwarded("192.0.2.1");
    assert!(
        direct.contains("x-forwarded-for: 192.0.2.1\r\n"),
        "{direct}"
    );
}

#[test]
fn an_old_client_without_a_host_reached_the_address_in_the_header() {
    let (proxy, _app, _) = start("");
    let mut connection = Connection::open(proxy.web());
    connection.send("PROXY TCP4 203.0.113.7 10.0.0.100 51000 8088\r\nGET /echo HTTP/1.0\r\n\r\n");
    let text = connection.read().expect("a response").text();
    assert!(text.contains("host: 10.0.0.100:8088\r\n"), "{text}");
}

/// How long the proxy keeps a connection on which `bytes` are all that is ever sent.
fn kept(proxy: &Proxy, bytes: &[u8]) -> Duration {
    let mut stream = client::connect(proxy.web());
    stream.write_all(bytes).expect("write");
    let began = Instant::now();
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    began.elapsed()
}

#[test]
fn a_check_that_only_connects_is_no_fault_and_one_that_stops_half_way_is() {
    let (proxy, _app, _) = start_with("2s", "");
    let result = |name: &str| {
        proxy.metric(
            "weir_l7_proxy_headers_total",
            &["\"web\"", &format!("\"{name}\"")],
        )
    };
    drop(client::connect(proxy.web()));
    eventually("the check is counted", || result("abandoned") == 1.0);
    // A client that opened a connection ahead of its need may say nothing for as long as between two requests.
    let silent = kept(&proxy, b"");
    assert!(silent >= Duration::from_millis(1800), "{silent:?}");
    assert_eq!(result("idle"), 1.0);
    assert!(!proxy.said().contains("PROXY header"), "{}", proxy.said());

    let slow = kept(&proxy, b"PROXY TCP4 203.0");
    assert!(
        (Duration::from_millis(800)..Duration::from_millis(1800)).contains(&slow),
        "{slow:?}"
    );
    assert_eq!(result("timeout"), 1.0);
    client::connect(proxy.web())
        .write_all(b"\r\n\r\n\0")
        .expect("write");
    eventually("the broken header is counted", || result("cut") == 1.0);
    assert!(
        proxy.said().contains("sent no valid PROXY header"),
        "{}",
        proxy.said()
    );
}

#[test]
fn connections_opened_ahead_of_their_need_do_not_hold_up_a_drain() {
    let (mut proxy, _app, _) = start("[drain]\ngrace = \"1s\"\ndeadline = \"60s\"");
    let address = proxy.web();
    let mut unused: Vec<TcpStream> = (0..4).map(|_| client::connect(address)).collect();
    eventually("they are open", || proxy.status()["connections"] == 4);
    proxy.signal("TERM");
    // In the grace, one is needed after all.
    unused[0]
        .write_all(
            b"PROXY TCP4 203.0.113.7 10.0.0.100 51000 443\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .expect("write");
    let answer = client::until_closed(&mut unused[0]);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("203.0.113.7"),
        "{answer}"
    );
    let began = Instant::now();
    assert!(proxy.wait(Duration::from_secs(10)).success());
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client::until_closed(&mut unused[1]), "");
}
