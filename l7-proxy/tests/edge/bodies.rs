//! Bodies and trailers arrive whole or not at all, whatever the method, over HTTP/1 and HTTP/2.

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::frames;
use crate::proxy::Proxy;

fn start() -> (Proxy, Backend) {
    Proxy::with_listener("http2 = true", "")
}

/// Methods that usually come with a body, those that don't, and ones nobody heard of.
const METHODS: [&str; 11] = [
    "GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "QUERY", "PROPFIND",
    "BREW",
];

#[test]
fn a_body_reaches_the_backend_whatever_the_method() {
    let (proxy, app) = start();
    let mut arrived = 0;
    for method in METHODS {
        for body in [
            "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            "Content-Length: 5\r\n\r\nhello",
        ] {
            let answer = client::raw(
                proxy.web(),
                format!("{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}")
                    .as_bytes(),
            );
            assert!(answer.starts_with("HTTP/1.1 200 "), "{method}: {answer}");
            assert!(
                method == "HEAD" || answer.ends_with("\nhello"),
                "{method}: {answer}"
            );
            arrived += 5;
            assert_eq!(app.received(), arrived, "{method} {body:?}");
        }
        let outcome = frames::request(
            proxy.web(),
            &[
                (":method", method),
                (":scheme", "http"),
                (":path", "/echo"),
                (":authority", "a"),
            ],
            &[b"hel", b"lo"],
            None,
        );
        assert_eq!((outcome.status, outcome.error), (200, None), "{method}");
        arrived += 5;
        assert_eq!(app.received(), arrived, "{method} over HTTP/2");
    }
    // All of them in bodies that were sent, none left over for the next request.
    assert_eq!(app.requests(), METHODS.len() * 3);
}

#[test]
fn no_body_is_made_up_where_there_is_none() {
    let (proxy, _app) = start();
    for method in METHODS {
        if method == "HEAD" {
            continue;
        }
        let answer = client::raw(
            proxy.web(),
            format!("{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let text = answer.to_lowercase();
        let (_, seen) = text.split_once("app\n").expect("an echo");
        assert!(!seen.contains("transfer-encoding"), "{method}: {answer}");
    }
}

#[test]
fn trailers_without_a_body_reach_the_backend() {
    let (proxy, _app) = start();
    for method in ["GET", "POST", "BREW"] {
        let answer = client::raw(
            proxy.web(),
            format!("{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 5\r\n\r\n").as_bytes(),
        );
        assert!(answer.ends_with("\nx-sum: 5\r\n"), "{method}: {answer}");
        let outcome = frames::request(
            proxy.web(),
            &[
                (":method", method),
                (":scheme", "http"),
                (":path", "/echo"),
                (":authority", "a"),
                ("trailer", "x-sum"),
            ],
            &[],
            Some(&[("x-sum", "5")]),
        );
        assert!(
            outcome.body.ends_with(b"\nx-sum: 5\r\n"),
            "{method}: {outcome:?}"
        );
    }
}

/// Names that mean something in a head.
const MISPLACED: [&str; 18] = [
    "x-forwarded-for",
    "x_forwarded_for",
    "x-forwarded-user",
    "x-real-ip",
    "forwarded",
    "connection",
    "keep-alive",
    "upgrade",
    "expect",
    "proxy-authorization",
    "authorization",
    "cookie",
    "host",
    "content-length",
    "transfer-encoding",
    "te",
    "x-hop",
    "x-own",
];

#[test]
fn a_clients_trailers_say_nothing_that_belongs_in_a_head() {
    let (proxy, _app) = start();
    let lines: String = MISPLACED
        .iter()
        .map(|name| {
            format!(
                "{name}: {}\r\n",
                if *name == "connection" {
                    "x-own"
                } else {
                    "forged"
                }
            )
        })
        .collect();
    let announced = MISPLACED.join(", ");
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nTrailer: {announced}, x-sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}x-sum: 5\r\n\r\n"
    ));
    let text = connection.read().expect("a response").text();
    assert!(text.ends_with("\nhellox-sum: 5\r\n"), "{text}");
    // And where nothing is left of them, the body ends as it would without.
    connection.send(&format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTrailer: {announced}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Real-IP: forged\r\n\r\n"
    ));
    assert!(
        connection
            .read()
            .is_some_and(|response| response.text().ends_with("\nhello"))
    );
    assert_eq!(
        connection.get("a", "/echo").map(|response| response.status),
        Some(200)
    );

    let mut trailers: Vec<(&str, &str)> = MISPLACED
        .iter()
        // HTTP/2 doesn't know these at all: h2 refuses the stream.
        .filter(|name| {
            ![
                "connection",
                "keep-alive",
                "upgrade",
                "transfer-encoding",
                "te",
                "x-hop",
                "x-own",
            ]
            .contains(name)
        })
        .map(|name| (*name, "forged"))
        .collect();
    trailers.push(("x-sum", "5"));
    let outcome = frames::request(
        proxy.web(),
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/echo"),
            (":authority", "a"),
            ("trailer", "x-sum"),
            ("trailer", "x-forwarded-for, x-real-ip"),
        ],
        &[b"hello"],
        Some(&trailers),
    );
    let text = String::from_utf8_lossy(&outcome.body).into_owned();
    assert!(text.ends_with("\nhellox-sum: 5\r\n"), "{text}");
}

#[test]
fn a_backends_trailers_say_nothing_that_belongs_in_a_head() {
    let (proxy, _app) = start();
    let text = client::raw(
        proxy.web(),
        b"GET /misplaced HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
    );
    assert!(text.ends_with("hello\r\n0\r\nx-sum: 5\r\n\r\n"), "{text}");
    // On HTTP/2 one of them would turn the whole answer into a reset.
    let url = format!("http://{}/misplaced", proxy.web());
    let (code, text) = client::curl(&["--http2-prior-knowledge", "--dump-header", "-", &url]);
    assert!(
        code == 0
            && text.contains("hello")
            && text.contains("x-sum: 5")
            && !text.contains("no\r\n"),
        "{code}: {text}"
    );
}

#[test]
fn a_204_has_no_length_and_what_it_announced_is_not_the_next_response() {
    let (proxy, _app) = start();
    for _ in 0..3 {
        // One client connection, so one worker and its connections to the backend.
        let mut connection = Connection::open(proxy.web());
        let response = connection.get("a", "/announced").expect("a response");
        assert_eq!(
            (response.status, response.field("content-length")),
            (204, "")
        );
        for _ in 0..3 {
            let next = connection.get("a", "/echo").expect("a response").text();
            assert!(next.starts_with("app\n"), "{next}");
        }
    }
    let url = format!("http://{}/announced", proxy.web());
    let (code, text) = client::curl(&["--http2-prior-knowledge", "--dump-header", "-", &url]);
    assert!(
        code == 0 && text.contains(" 204") && !text.to_lowercase().contains("content-length"),
        "{code}: {text}"
    );
}
