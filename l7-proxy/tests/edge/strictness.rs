//! Raw bytes that two servers could read differently: refused, and the connection closed; nothing of them reaches a backend.

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start() -> (Proxy, Backend) {
    Proxy::with_app("")
}

/// A request that would be noticed if it came through behind another.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn ambiguous_heads_get_400_and_the_connection_is_closed() {
    let (mut proxy, app) = start();
    let table: &[(&str, &str)] = &[
        (
            "both lengths",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "both lengths, other order",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths that differ",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "two lengths that agree",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        ),
        (
            "a list of lengths",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
        ),
        (
            "a signed length",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        ),
        (
            "a hexadecimal length",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
        ),
        (
            "an empty length",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        ),
        (
            "a length beyond reason",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na",
        ),
        (
            "space before the colon",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na",
        ),
        (
            "space before the colon of TE",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "unknown coding",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked not last",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "misspelt coding",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "coding hidden by a tab",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked from HTTP/1.0",
            "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "folded line",
            "GET /x HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        ),
        (
            "folded first line",
            "GET /x HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
        ),
        (
            "bare LF after a field",
            "GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        ),
        (
            "bare LF after the request line",
            "GET /x HTTP/1.1\nHost: a\r\n\r\n",
        ),
        ("bare LF only", "GET /x HTTP/1.1\nHost: a\n\n"),
        (
            "bare LF before the body",
            "GET /x HTTP/1.1\r\nHost: a\r\n\n",
        ),
        (
            "bare CR in a value",
            "GET /x HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        ),
        (
            "NUL in a value",
            "GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        ),
        ("no colon", "GET /x HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
        ("empty name", "GET /x HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
        (
            "space in a name",
            "GET /x HTTP/1.1\r\nHost: a\r\nA B: x\r\n\r\n",
        ),
        ("no host", "GET /x HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (
            "two equal hosts",
            "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        ),
        ("bad host", "GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("user in host", "GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (
            "host and target differ",
            "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        ("no such version", "GET /x HTTP/3.1\r\nHost: a\r\n\r\n"),
        ("no version", "GET /x\r\nHost: a\r\n\r\n"),
        ("bad method", "G{T /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    ];
    for (what, request) in table {
        let answer = client::raw(proxy.web(), format!("{request}{SMUGGLED}").as_bytes());
        let statuses: Vec<&str> = answer
            .split("HTTP/1.")
            .skip(1)
            .filter_map(|part| part.split(' ').nth(1))
            .collect();
        assert_eq!(statuses, ["400"], "{what}: {answer}");
    }
    assert_eq!(app.requests(), 0, "something came through");
    // Each is in the log and in the metrics, once, whoever refused it.
    eventually("each is counted", || {
        proxy.metric("weir_l7_requests_total", &["class=\"4xx\""]) == table.len() as f64
    });
    for reason in [
        "length_conflict",
        "header_invalid",
        "host_missing",
        "host_repeated",
    ] {
        assert_eq!(
            proxy.logged(|entry| entry["reason"] == reason)["status"],
            400
        );
    }
    assert!(proxy.alive());
    assert!(proxy.metric("weir_l7_framing_violations_total", &["both_lengths"]) >= 2.0);
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn ambiguous_chunks_end_the_request_and_the_connection() {
    let (proxy, app) = start();
    for (what, body) in [
        ("no digits", "\r\nhello\r\n0\r\n\r\n"),
        ("not hexadecimal", "g\r\nhello\r\n0\r\n\r\n"),
        ("signed", "-5\r\nhello\r\n0\r\n\r\n"),
        ("prefixed", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("trailing space", "5 \r\nhello\r\n0\r\n\r\n"),
        ("too large", "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("data longer than the size", "4\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than the size", "6\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in trailers", "5\r\nhello\r\n0\r\nX: y\n\r\n"),
        (
            "endless extension",
            &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000)),
        ),
    ] {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let answer = client::raw(proxy.web(), request.as_bytes());
        let statuses: Vec<&str> = answer
            .split("HTTP/1.")
            .skip(1)
            .filter_map(|part| part.split(' ').nth(1))
            .collect();
        assert!(
            statuses == ["400"] || statuses.is_empty(),
            "{what}: {answer}"
        );
    }
    assert_eq!(app.requests(), 0, "the backend saw a whole request");
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn a_bad_request_behind_a_good_one_does_not_harm_it() {
    let (proxy, app) = start();
    let answer = client::raw(
        proxy.web(),
        b"GET /slow/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\nHost: a\n\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("slowHTTP/1.1 400"),
        "{answer}"
    );
    eventually("only the good one arrived", || app.requests() == 1);
}

#[test]
fn heads_in_small_pieces_are_read_the_same() {
    let (proxy, _app) = start();
    let mut connection = Connection::open(proxy.web());
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for byte in request.chars() {
        connection.send(byte.encode_utf8(&mut [0; 4]));
    }
    assert!(
        connection
            .read()
            .is_some_and(|response| response.status == 200 && response.text().ends_with("\nhello"))
    );
}

#[test]
fn an_absolute_target_is_forwarded_in_origin_form() {
    let (proxy, _app) = start();
    let mut connection = Connection::open(proxy.web());
    connection.send("GET http://a.test/echo?x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let text = connection.read().expect("a response").text();
    assert!(text.contains("GET /echo?x HTTP/1.1\r\n"), "{text}");
}

#[test]
fn connect_is_refused() {
    let (proxy, app) = start();
    let answer = client::raw(
        proxy.web(),
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    // A client that did not wait for the answer sends its tunnel's bytes, which may have been written by somebody else.
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.matches("HTTP/1.1").count() == 1,
        "{answer}"
    );
    assert_eq!(app.requests(), 0);
}
