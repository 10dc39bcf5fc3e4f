//! What a gateway owes those on either side of it: Via, Max-Forwards, Allow, expectations.

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::frames;
use crate::proxy::Proxy;

fn start(forwarding: &str) -> (Proxy, Backend) {
    Proxy::with_listener("http2 = true", forwarding)
}

/// The values of a field that the backend saw.
fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let named = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim_end()).collect()
}

#[test]
fn a_backend_sees_that_a_request_came_through_a_gateway() {
    let (proxy, _app) = start("");
    for (version, hop) in [("1.1", "1.1 weir"), ("1.0", "1.0 weir")] {
        let text = client::raw(
            proxy.web(),
            format!(
                "GET /echo HTTP/{version}\r\nHost: a\r\nVia: 1.0 fred\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(values(&text, "via"), ["1.0 fred", hop], "{text}");
    }
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/echo"),
        (":authority", "a"),
    ];
    let outcome = frames::request(proxy.web(), &fields, &[], None);
    let text = String::from_utf8_lossy(&outcome.body).into_owned();
    assert_eq!(values(&text, "via"), ["2.0 weir"], "{text}");

    let (proxy, _app) = start("[forwarding]\nvia = \"edge-1\"");
    let text = client::get(proxy.web(), "a", "/echo").text();
    assert_eq!(values(&text, "via"), ["1.1 edge-1"], "{text}");
    let (proxy, _app) = start("[forwarding]\nvia = \"off\"");
    let text = client::get(proxy.web(), "a", "/echo").text();
    assert_eq!(values(&text, "via"), [""; 0], "{text}");
}

#[test]
fn options_and_trace_go_as_far_as_they_say() {
    let (proxy, app) = start("");
    let mut connection = Connection::open(proxy.web());
    let mut ask = |method: &str, hops: &str| {
        connection.send(&format!(
            "{method} /echo HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n"
        ));
        connection.read().expect("a response")
    };
    for method in ["OPTIONS", "TRACE"] {
        let text = ask(method, "3").text();
        assert_eq!(values(&text, "max-forwards"), ["2"], "{method}: {text}");
    }
    let text = ask("GET", "0").text();
    assert_eq!(
        values(&text, "max-forwards"),
        ["0"],
        "others don't count: {text}"
    );
    assert_eq!(app.requests(), 3);
    let answer = ask("OPTIONS", "0");
    assert_eq!((answer.status, answer.field("content-length")), (200, "0"));
    assert!(answer.field("allow").contains("GET"), "{answer:?}");
    let answer = ask("TRACE", "0");
    assert_eq!(answer.status, 405);
    assert!(answer.field("allow").contains("OPTIONS"), "{answer:?}");
    for (method, text) in [("OPTIONS", ""), ("TRACE", "405 Method Not Allowed\n")] {
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", "/echo"),
            (":authority", "a"),
            ("max-forwards", "0"),
        ];
        let outcome = frames::request(proxy.web(), &fields, &[], None);
        assert_eq!(outcome.body, text.as_bytes(), "{method} over HTTP/2");
    }
    let broken = client::raw(
        proxy.web(),
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n",
    );
    assert!(broken.starts_with("HTTP/1.1 400"), "{broken}");
    assert_eq!(app.requests(), 3, "none of these went on");
    assert_eq!(
        proxy.logged(|entry| entry["reason"] == "max_forwards")["status"],
        200
    );
}

#[test]
fn a_405_says_what_is_allowed() {
    let (proxy, _app) = start("");
    let answer = client::raw(
        proxy.web(),
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.contains("\r\nallow: GET, HEAD, POST"),
        "{answer}"
    );
}

#[test]
fn what_a_client_expects_beyond_100_continue_is_for_the_backend_to_refuse() {
    let (proxy, _app) = start("");
    let mut connection = Connection::open(proxy.web());
    connection
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\nhi");
    let text = connection.read().expect("a response").text();
    assert_eq!(values(&text, "expect"), ["miracles"], "{text}");
}
