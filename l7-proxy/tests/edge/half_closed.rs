//! Clients that have said what they had to say, and close their sending side: with a whole request, or in the middle of one.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client;
use crate::proxy::{Proxy, eventually};

fn start(listener: &str) -> (Proxy, Backend) {
    Proxy::with_listener(listener, "")
}

/// Sends bytes, closes that direction, and returns all that comes back.
fn said(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = client::connect(proxy.web());
    stream.write_all(bytes).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    client::until_closed(&mut stream)
}

fn statuses(answer: &str) -> Vec<&str> {
    let parts = answer.split("HTTP/1.1 ").skip(1);
    parts.map(|part| part.get(..3).unwrap_or(part)).collect()
}

#[test]
fn whole_requests_are_answered() {
    let (proxy, _app) = start("");
    for (request, end) in [
        ("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\n"),
        ("GET /slow/700 HTTP/1.1\r\nHost: a\r\n\r\n", "slow"),
        ("GET /slow/700 HTTP/1.0\r\n\r\n", "slow"),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "\nhello",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "\nhello",
        ),
        (
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "\r\n\n",
        ),
        (
            "GET /slow/300 HTTP/1.1\r\nHost: a\r\n\r\nGET /slow/301 HTTP/1.1\r\nHost: a\r\n\r\n",
            "slow",
        ),
        ("GET /big/3000000 HTTP/1.1\r\nHost: a\r\n\r\n", "xxx"),
    ] {
        let answer = said(&proxy, request.as_bytes());
        assert!(
            answer.contains("200 OK") && answer.ends_with(end),
            "{request:?}: {}",
            answer.get(..300).unwrap_or(&answer)
        );
        assert_eq!(
            statuses(&answer).len().max(1),
            request.matches(" HTTP/1.").count(),
            "{request:?}"
        );
    }
    let entry = proxy.logged(|entry| entry["target"] == "/slow/700");
    assert_eq!(
        (&entry["status"], &entry["reason"]),
        (&200.into(), &serde_json::Value::Null)
    );
    eventually("nothing is left of them", || {
        proxy.status()["connections"] == 0
    });
}

#[test]
fn a_request_that_ends_too_early_is_told_so_wherever_it_ends() {
    let (mut proxy, app) = start("http2 = true");
    let requests = [
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "PUT /echo HTTP/1.1\r\nHost: a\r\nTrailer: t\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    ];
    let mut cuts = 0;
    for request in requests {
        for end in 1..request.len() {
            let answer = said(&proxy, &request.as_bytes()[..end]);
            assert_eq!(
                statuses(&answer),
                ["400"],
                "{:?}: {answer}",
                &request[..end]
            );
            cuts += 1;
        }
    }
    assert_eq!(app.requests(), 0, "none was whole");
    assert_eq!(said(&proxy, b""), "", "nothing was asked");
    for request in requests {
        assert_eq!(
            statuses(&said(&proxy, request.as_bytes())),
            ["200"],
            "{request:?}"
        );
    }
    // The answer to what came before is not lost to what is cut.
    let answer = said(&proxy, b"GET /slow/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /ec");
    assert_eq!(statuses(&answer), ["200", "400"], "{answer}");
    eventually("each is counted", || {
        proxy.metric("weir_l7_answered_by_proxy_total", &["request_cut"]) == f64::from(cuts + 1)
    });
    assert!(proxy.alive());
}

#[test]
fn a_client_that_says_and_gets_nothing_for_too_long_is_gone() {
    let (proxy, _app) = start("half_closed_timeout = \"600ms\"");
    let began = Instant::now();
    assert_eq!(said(&proxy, b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(500)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        proxy.logged(|entry| entry["target"] == "/hang")["reason"],
        "client_gone"
    );
    // But not while it is served, however long that takes.
    let answer = said(&proxy, b"GET /drip/8 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nxxxxxxxx"), "{answer}");
}
