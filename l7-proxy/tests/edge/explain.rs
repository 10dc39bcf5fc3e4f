//! What the running proxy says it would do is what it does.

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::Proxy;

fn start() -> (Proxy, Backend) {
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        r#"
        [upstreams.shop]
        balance = "least_connections"
        backends = [{{ address = "{}" }}, {{ address = "127.0.0.1:9", weight = 0 }}]
        [upstreams.dead]
        backends = [{{ address = "127.0.0.1:9" }}]
        health = {{ type = "tcp", initially = "down" }}
        [[routes]]
        name = "all"
        hosts = ["*.test"]
        upstream = "shop"
        [[routes]]
        name = "shop"
        hosts = ["shop.test"]
        upstream = "shop"
        [[routes]]
        name = "api"
        hosts = ["shop.test"]
        path = {{ prefix = "/api" }}
        upstream = "shop"
        [[routes]]
        name = "dead"
        hosts = ["dead.test"]
        upstream = "dead"
        "#,
        app.address
    ));
    (proxy, app)
}

#[test]
fn it_says_which_route_and_why_which_came_close_and_what_would_be_sent() {
    let (proxy, _app) = start();
    let said = proxy
        .run(&[
            "explain",
            "GET",
            "http://SHOP.test/api//v1/../v2?q=1",
            "-H",
            "X-Forwarded-For: 1.2.3.4",
            "-H",
            "Connection: x-private",
            "-H",
            "X-Private: 1",
            "--client",
            "198.51.100.7",
        ])
        .expect("explained");
    for line in [
        "listener    web (",
        "client      198.51.100.7",
        "host        shop.test",
        "path        /api/v2",
        "route       api: host shop.test, path prefix \"/api\"",
        "  not       shop: path any is less specific than prefix \"/api\"",
        "  not       all: host *.test is less specific than shop.test",
        "upstream    shop (least_connections)",
        "x-forwarded-for: 198.51.100.7",
    ] {
        assert!(said.contains(line), "{line:?} in:\n{said}");
    }
    let idle = said.lines().find(|line| line.contains("127.0.0.1:9 "));
    let columns: Vec<&str> = idle.unwrap_or_default().split_whitespace().collect();
    assert_eq!(columns, ["127.0.0.1:9", "up", "0", "0", "-"], "{said}");
    assert!(!said.contains("x-private"), "{said}");
    assert!(!said.contains("1.2.3.4"), "{said}");
    // What it says is sent is what is sent.
    let mut connection = Connection::open(proxy.web());
    connection.send("GET /api//v1/../v2?q=1 HTTP/1.1\r\nHost: SHOP.test\r\n\r\n");
    let echoed = connection.read().expect("a response").text();
    let sent = said.lines().find_map(|line| line.strip_prefix("sent"));
    let request_line = sent.expect("a request line").trim();
    assert!(
        echoed.contains(request_line),
        "{request_line:?} in {echoed:?}"
    );
}

#[test]
fn it_says_what_a_backend_would_be_asked_to_switch_to() {
    let (proxy, _app) = start();
    let said = proxy
        .run(&[
            "explain",
            "GET",
            "http://shop.test/",
            "-H",
            "Connection: Upgrade",
            "-H",
            "Upgrade: websocket, h2c",
        ])
        .expect("explained");
    assert!(said.contains("connection: upgrade"), "{said}");
    assert!(said.contains("upgrade: websocket\n"), "{said}");
}

#[test]
fn it_says_why_a_request_would_be_refused() {
    let (proxy, _app) = start();
    for (url, answered) in [
        ("http://elsewhere.example/", "answered    404 (no_route)"),
        ("http://dead.test/", "answered    503 (no_backend)"),
        ("http://shop.test/%zz", "answered    400 (target_invalid)"),
    ] {
        let said = proxy.run(&["explain", "GET", url]).expect("explained");
        assert!(said.contains(answered), "{answered:?} in:\n{said}");
        assert!(!said.contains("\nsent "), "{said}");
    }
    for (arguments, why) in [
        (["GET", "shop.test/"], "\"shop.test/\" is not a URL"),
        (["GET", "https://shop.test/"], "no listener speaks https"),
        (["G T", "http://shop.test/"], "is not a method"),
    ] {
        let said = proxy.run(&[&["explain"], &arguments[..]].concat());
        let refused = said.expect_err("refused");
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn all_that_is_known_is_shown_as_json() {
    let (proxy, _app) = start();
    let said = proxy.run(&["explain", "GET", "http://shop.test/api", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said.expect("explained")).unwrap();
    assert_eq!(said["listener"], "web", "{said:#}");
    assert!(said["upstream"]["backends"].is_array(), "{said:#}");
}
