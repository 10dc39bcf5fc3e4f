//! Request targets in all their forms: what a backend is asked for is what was routed.

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::Proxy;

fn start() -> (Proxy, Backend, Backend) {
    let (open, admin) = (Backend::start("open"), Backend::start("admin"));
    let proxy = Proxy::start(&format!(
        r#"
        [upstreams.open]
        backends = [{{ address = "{}" }}]
        [upstreams.admin]
        backends = [{{ address = "{}" }}]
        [[routes]]
        path = {{ prefix = "/public" }}
        upstream = "open"
        [[routes]]
        path = {{ exact = "/public/admin" }}
        upstream = "admin"
        [[routes]]
        upstream = "open"
        "#,
        open.address, admin.address
    ));
    (proxy, open, admin)
}

/// The request line that the backend saw, behind the backend's name; or the status.
fn seen(connection: &mut Connection, line: &str) -> String {
    connection.send(&format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    let response = connection.read().expect("a response");
    if response.status != 200 {
        return response.status.to_string();
    }
    response
        .text()
        .lines()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_target_is_a_path_or_a_whole_uri() {
    let (proxy, _open, _admin) = start();
    for (line, expected) in [
        ("GET /x?y", "open GET /x?y HTTP/1.1"),
        ("GET http://a.test", "open GET / HTTP/1.1"),
        ("GET http://a.test?y", "open GET /?y HTTP/1.1"),
        ("GET HTTP://A.test:80/x", "open GET /x HTTP/1.1"),
        ("GET a.test", "400"),
        ("GET a.test:80", "400"),
        ("GET ://a.test/x", "400"),
        ("GET //a.test/x", "open GET //a.test/x HTTP/1.1"),
        ("GET ftp://a.test/x", "400"),
        ("GET http:/x", "400"),
        ("GET http:///x", "400"),
        ("GET http://b.test/x", "400"),
        ("GET *", "400"),
        ("GET http://a.test#x", "open GET / HTTP/1.1"),
        ("GET http://a.test/x#y", "open GET /x HTTP/1.1"),
        ("GET #x", "400"),
        ("GET ?x", "400"),
        ("GET x", "400"),
        ("OPTIONS a.test", "400"),
    ] {
        let mut connection = Connection::open(proxy.web());
        assert_eq!(seen(&mut connection, line), expected, "{line}");
    }
}

#[test]
fn options_about_the_server_are_asked_with_an_asterisk() {
    let (proxy, _open, _admin) = start();
    let mut connection = Connection::open(proxy.web());
    for (line, expected) in [
        ("OPTIONS *", "open OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a.test", "open OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a.test:80", "open OPTIONS * HTTP/1.1"),
        ("OPTIONS http://a.test/", "open OPTIONS / HTTP/1.1"),
        ("OPTIONS http://a.test?x", "open OPTIONS /?x HTTP/1.1"),
        ("OPTIONS /", "open OPTIONS / HTTP/1.1"),
        ("GET http://a.test", "open GET / HTTP/1.1"),
    ] {
        assert_eq!(seen(&mut connection, line), expected, "{line}");
    }
    // Each for itself, however many are sent at once, and with other things the proxy waits for.
    let rest = "HTTP/1.1\r\nHost: a.test\r\n";
    connection.send(&format!(
        "OPTIONS http://a.test/ {rest}\r\nOPTIONS http://a.test {rest}\r\nOPTIONS http://a.test/ {rest}\r\n\
         OPTIONS http://a.test {rest}Connection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /x {rest}\r\n"
    ));
    for expected in [
        "OPTIONS / ",
        "OPTIONS * ",
        "OPTIONS / ",
        "OPTIONS * ",
        "GET /x ",
    ] {
        let text = connection.read().expect("a response").text();
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let conflict = client::raw(
        proxy.web(),
        b"OPTIONS http://b.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
    );
    assert!(conflict.starts_with("HTTP/1.1 400"), "{conflict}");
}

#[test]
fn parameters_of_a_segment_lead_past_no_route() {
    let (proxy, _open, admin) = start();
    for (path, expected) in [
        ("/public/admin", "admin GET /public/admin HTTP/1.1"),
        ("/public/admin;x", "400"),
        ("/public/admin;jsessionid=1?y", "400"),
        ("/public;x/admin", "400"),
        ("/;/public/admin", "400"),
        ("/public/admin%3bx", "400"),
        ("/public/;x/admin", "400"),
        ("/public/admin;x%2f..", "400"),
        ("/public/other;x", "open GET /public/other;x HTTP/1.1"),
        ("/elsewhere;v=1/b;c", "open GET /elsewhere;v=1/b;c HTTP/1.1"),
        (
            "/a?b;c=/public/admin",
            "open GET /a?b;c=/public/admin HTTP/1.1",
        ),
    ] {
        let mut connection = Connection::open(proxy.web());
        assert_eq!(
            seen(&mut connection, &format!("GET {path}")),
            expected,
            "{path}"
        );
    }
    assert_eq!(admin.requests(), 1);
    assert_eq!(
        proxy.logged(|entry| entry["target"] == "/public/admin;x")["reason"],
        "path_ambiguous"
    );
}
