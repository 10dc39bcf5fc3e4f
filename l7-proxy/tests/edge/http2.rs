//! HTTP/2 requests that HTTP/2 forbids, or that would be something else as HTTP/1: refused, and nothing of them reaches a backend.

use crate::backend::Backend;
use crate::frames;
use crate::proxy::Proxy;

fn start() -> (Proxy, Backend) {
    Proxy::with_listener("http2 = true", "")
}

const HEAD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/echo"),
    (":authority", "a.test"),
];

#[test]
fn malformed_requests_are_refused() {
    let (mut proxy, app) = start();
    // In place of, or behind, the fields of a good request.
    let table: &[(&str, &[(&str, &str)])] = &[
        ("a quotation mark in a name", &[("x\"", "1")]),
        ("a capital in a name", &[("X-Up", "1")]),
        ("a space in a name", &[("x y", "1")]),
        ("a colon in a name", &[("x:y", "1")]),
        ("an empty name", &[("", "1")]),
        ("a line in a value", &[("x", "1\r\nhost: b")]),
        ("a NUL in a value", &[("x", "1\0")]),
        ("a space before a value", &[("x", " 1")]),
        ("a space behind a value", &[("x", "1 ")]),
        ("an empty scheme", &[(":scheme", "")]),
        ("no scheme's name", &[(":scheme", "1http")]),
        ("another scheme", &[(":scheme", "ftp")]),
        ("a scheme with more", &[(":scheme", "http://b.test")]),
        ("an empty path", &[(":path", "")]),
        ("a path without a slash", &[(":path", "echo")]),
        ("a host for a path", &[(":path", "a.test:80")]),
        ("an asterisk that isn't asked", &[(":path", "*")]),
        ("a space in the path", &[(":path", "/a b")]),
        (
            "a line in the path",
            &[(":path", "/ HTTP/1.1\r\nhost: b\r\n\r\nGET /")],
        ),
        ("an empty method", &[(":method", "")]),
        ("a space in the method", &[(":method", "GET /x")]),
        ("a user in the authority", &[(":authority", "u@a.test")]),
        ("a path in the authority", &[(":authority", "a.test/x")]),
        ("another host", &[("host", "b.test")]),
        ("two hosts", &[("host", "a.test"), ("host", "a.test")]),
        ("an unknown pseudo field", &[(":x", "1")]),
        ("a status", &[(":status", "200")]),
        ("a protocol", &[(":protocol", "websocket")]),
        ("connection", &[("connection", "close")]),
        ("keep-alive", &[("keep-alive", "1")]),
        ("proxy-connection", &[("proxy-connection", "close")]),
        ("upgrade", &[("upgrade", "websocket")]),
        ("transfer-encoding", &[("transfer-encoding", "chunked")]),
        ("te", &[("te", "gzip")]),
        ("a length without a body", &[("content-length", "5")]),
        ("a length that is none", &[("content-length", "+0")]),
        (
            "two lengths",
            &[("content-length", "0"), ("content-length", "0")],
        ),
    ];
    for (what, changes) in table {
        let mut fields = HEAD.to_vec();
        for (name, value) in *changes {
            match fields
                .iter_mut()
                .find(|(known, _)| known == name && name.starts_with(':'))
            {
                Some(known) => known.1 = value,
                // Pseudo fields come first.
                None if name.starts_with(':') => fields.insert(4, (name, value)),
                None => fields.push((name, value)),
            }
        }
        let outcome = frames::request(proxy.web(), &fields, &[], None);
        assert!(
            outcome.status == 400 || outcome.error.is_some(),
            "{what}: {outcome:?}"
        );
    }
    for missing in 0..3 {
        let mut fields = HEAD.to_vec();
        fields.remove(missing);
        // Its host in a field of its own, which is where HTTP/1 has it.
        for host in [(":authority", "a.test"), ("host", "a.test")] {
            fields.pop();
            fields.push(host);
            let outcome = frames::request(proxy.web(), &fields, &[], None);
            assert!(
                outcome.status == 400 || outcome.error.is_some(),
                "{fields:?}: {outcome:?}"
            );
        }
    }
    // A pseudo field behind others, and one said twice.
    for more in [
        [("x", "1"), (":authority", "a.test")],
        [(":path", "/a"), ("x", "1")],
    ] {
        let fields = [&HEAD[..3], &more].concat();
        let outcome = frames::request(proxy.web(), &fields, &[], None);
        assert!(outcome.error.is_some(), "{outcome:?}");
    }
    assert_eq!(app.requests(), 0, "something came through");
    assert!(proxy.alive());
    let outcome = frames::request(proxy.web(), &HEAD, &[], None);
    assert_eq!(outcome.status, 200, "{outcome:?}");
}

#[test]
fn bodies_are_as_long_as_they_say() {
    let (proxy, app) = start();
    for length in ["4", "6", "0"] {
        let fields = [&HEAD[..], &[("content-length", length)]].concat();
        let outcome = frames::request(proxy.web(), &fields, &[b"hello"], None);
        assert!(
            outcome.status == 400 || outcome.error.is_some(),
            "{length}: {outcome:?}"
        );
    }
    assert_eq!(app.requests(), 0, "none arrived whole");
    let fields = [&HEAD[..], &[("content-length", "5")]].concat();
    let outcome = frames::request(proxy.web(), &fields, &[b"hel", b"lo"], None);
    assert!(outcome.body.ends_with(b"\nhello"), "{outcome:?}");
}

#[test]
fn pseudo_fields_of_trailers_go_nowhere() {
    let (proxy, app) = start();
    for name in [":path", ":authority", ":method", ":status", ":x"] {
        let outcome = frames::request(proxy.web(), &HEAD, &[b"hello"], Some(&[(name, "/forged")]));
        let text = String::from_utf8_lossy(&outcome.body).into_owned();
        // h2 drops those it knows; the rest it refuses.
        assert!(
            outcome.error.is_some() || (outcome.status == 200 && !text.contains("forged")),
            "{name}: {outcome:?}"
        );
    }
    assert!(app.requests() <= 5);
}
