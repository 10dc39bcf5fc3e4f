//! Requests by host and path to the right backend, with the right head.

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::Proxy;

fn two() -> (Proxy, Backend, Backend) {
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    let proxy = Proxy::start(&format!(
        r#"
        [upstreams.blue]
        backends = [{{ address = "{}" }}]
        [upstreams.green]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "blue"
        hosts = ["blue.test"]
        upstream = "blue"
        [[routes]]
        name = "wild"
        hosts = ["*.green.test"]
        upstream = "green"
        [[routes]]
        name = "api"
        hosts = ["blue.test"]
        path = {{ prefix = "/api" }}
        upstream = "green"
        "#,
        blue.address, green.address
    ));
    (proxy, blue, green)
}

#[test]
fn requests_go_by_host_and_path_and_unknown_hosts_get_404() {
    let (proxy, _blue, _green) = two();
    for (host, path, name) in [
        ("blue.test", "/echo", "blue"),
        ("BLUE.test:80", "/echo", "blue"),
        ("blue.test", "/api/v1", "green"),
        ("a.green.test", "/echo", "green"),
    ] {
        let response = client::get(proxy.web(), host, path);
        assert_eq!(
            (response.status, response.text().lines().next()),
            (200, Some(name)),
            "{host}{path}"
        );
    }
    let unknown = client::get(proxy.web(), "other.test", "/");
    assert_eq!(unknown.status, 404);
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 404)["reason"],
        "no_route"
    );
    proxy.await_metric(
        "weir_l7_requests_total",
        &["route=\"api\"", "class=\"2xx\"", "upstream=\"green\""],
        1.0,
    );
    proxy.await_metric("weir_l7_answered_by_proxy_total", &["no_route"], 1.0);
}

#[test]
fn the_backend_learns_who_the_client_is_and_cannot_be_lied_to() {
    let (proxy, _blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    connection.send(
        "GET /echo?q=1 HTTP/1.1\r\nHost: blue.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Kept: yes\r\nConnection: keep-alive, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nProxy-Authorization: secret\r\n\r\n",
    );
    let text = connection.read().expect("a response").text().to_lowercase();
    assert!(text.contains("get /echo?q=1 http/1.1\r\n"), "{text}");
    for line in [
        "host: blue.test",
        "x-forwarded-for: 127.0.0.1",
        "x-real-ip: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: blue.test",
        "x-kept: yes",
    ] {
        assert_eq!(
            text.lines()
                .filter(|found| found.trim_end() == line)
                .count(),
            1,
            "{line} in {text}"
        );
    }
    for part in ["6.6.6.6", "secret", "x-hop", "keep-alive", "gzip"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
}

#[test]
fn fields_of_the_backends_connection_are_not_passed_on() {
    let (proxy, _blue, _green) = two();
    let response = client::get(proxy.web(), "blue.test", "/private");
    assert_eq!(
        (response.field("x-kept"), response.text().as_str()),
        ("yes", "ok")
    );
    for field in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(response.field(field), "", "{field}");
    }
}

#[test]
fn many_requests_share_one_client_and_one_backend_connection() {
    let (proxy, blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    for _ in 0..50 {
        assert_eq!(
            connection
                .get("blue.test", "/echo")
                .map(|response| response.status),
            Some(200)
        );
    }
    assert_eq!((blue.requests(), blue.connections()), (50, 1));
    proxy.await_metric(
        "weir_l7_upstream_connections_total",
        &["from=\"pool\""],
        49.0,
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (proxy, _blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    connection.send("GET /slow/200 HTTP/1.1\r\nHost: blue.test\r\n\r\nGET /echo HTTP/1.1\r\nHost: a.green.test\r\n\r\n");
    assert_eq!(
        connection.read().map(|response| response.text()).as_deref(),
        Some("slow")
    );
    assert!(
        connection
            .read()
            .is_some_and(|response| response.text().starts_with("green"))
    );
}

#[test]
fn bodies_go_both_ways_sized_and_chunked() {
    let (proxy, _blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: blue.test\r\nContent-Length: 5\r\n\r\nhello");
    assert!(
        connection
            .read()
            .is_some_and(|response| response.text().ends_with("\nhello"))
    );
    connection.send("POST /echo HTTP/1.1\r\nHost: blue.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n");
    assert!(
        connection
            .read()
            .is_some_and(|response| response.text().ends_with("\nhello"))
    );
    assert_eq!(
        connection
            .get("blue.test", "/chunked")
            .map(|response| response.text())
            .as_deref(),
        Some("hello world")
    );
    let entry = proxy.logged(|entry| entry["method"] == "POST");
    assert_eq!(entry["bytes_received"], 5);
}

#[test]
fn responses_without_a_body_keep_the_connection() {
    let (proxy, blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    for path in ["/status/204", "/status/304", "/status/204"] {
        let response = connection.get("blue.test", path).expect("a response");
        assert_eq!(response.field("content-length"), "", "{path}");
        assert_eq!(response.field("transfer-encoding"), "", "{path}");
    }
    connection.send("HEAD /echo HTTP/1.1\r\nHost: blue.test\r\n\r\n");
    let mut head = [0; 1024];
    let read = std::io::Read::read(&mut connection.0, &mut head).expect("a head");
    let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
    assert!(
        head.starts_with("http/1.1 200")
            && head.contains("content-length: ")
            && !head.contains("content-length: 0"),
        "{head}"
    );
    assert_eq!(
        connection
            .get("blue.test", "/status/204")
            .map(|response| response.status),
        Some(204)
    );
    assert_eq!(blue.connections(), 1);
}

#[test]
fn trailers_reach_a_client_that_asks_for_them() {
    let (proxy, _blue, _green) = two();
    let text = client::raw(proxy.web(), b"GET /trailers HTTP/1.1\r\nHost: blue.test\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n");
    assert!(text.contains("hello\r\n0\r\nx-sum: 5\r\n\r\n"), "{text}");
}

#[test]
fn an_http_1_0_client_is_served_and_closed() {
    let (proxy, _blue, _green) = two();
    let text = client::raw(
        proxy.web(),
        b"GET /chunked HTTP/1.0\r\nHost: blue.test\r\n\r\n",
    );
    assert!(
        text.starts_with("HTTP/1.0 200") && text.ends_with("\r\n\r\nhello world"),
        "{text}"
    );
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on_only_when_a_backend_is_there() {
    let (proxy, blue, _green) = two();
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: other.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.read().map(|response| response.status), Some(404));

    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: blue.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.read().map(|response| response.status), Some(100));
    connection.send("hello");
    let response = connection.read().expect("a response");
    assert!(
        response.status == 200 && response.text().ends_with("\nhello"),
        "{response:?}"
    );
    assert!(
        !response.text().to_lowercase().contains("expect"),
        "{response:?}"
    );
    assert_eq!(blue.requests(), 1);
}

#[test]
fn http2_with_prior_knowledge_where_the_listener_allows_it() {
    let blue = Backend::start("blue");
    let proxy = Proxy::start(&format!(
        r#"
        [[listeners]]
        name = "web"
        address = "{{address}}:8080"
        http2 = true
        [upstreams.blue]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "blue"
        "#,
        blue.address
    ));
    let url = format!("http://{}/echo", proxy.web());
    let (code, text) = client::curl(&[
        "--http2-prior-knowledge",
        "--write-out",
        "\n%{http_version} %{http_code}",
        &url,
        "--data",
        "hello",
    ]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with("\n2 200")
            && text.contains("\nhello\n")
            && text.contains(&format!("host: {}\r\n", proxy.web())),
        "{text}"
    );
    // The same port still speaks HTTP/1.
    assert_eq!(client::get(proxy.web(), "any.test", "/echo").status, 200);
    assert_eq!(
        client::raw(proxy.web(), b"PRI * HTTP/1.1\r\n\r\n")
            .split(' ')
            .nth(1),
        Some("400")
    );
}
