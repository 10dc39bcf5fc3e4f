//! Backends that are dead, slow, broken or forgetful.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::backend::{self, Backend};
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start(upstream: &str) -> Proxy {
    Proxy::start(&format!(
        r#"
        [upstreams.app]
        {upstream}
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        "#
    ))
}

fn one(backend: &Backend) -> String {
    format!("backends = [{{ address = \"{}\" }}]", backend.address)
}

#[test]
fn what_goes_wrong_has_a_status_and_a_reason() {
    let app = Backend::start("app");
    let proxy = start(&format!("response_timeout = \"500ms\"\n{}", one(&app)));
    for (path, status, reason) in [
        ("/close", 502, "upstream_closed"),
        ("/garbage", 502, "upstream_invalid"),
        ("/hang", 504, "response_timeout"),
    ] {
        assert_eq!(client::get(proxy.web(), "a", path).status, status, "{path}");
        let entry = proxy.logged(|entry| entry["target"] == path);
        assert_eq!(
            (&entry["status"], &entry["reason"]),
            (&status.into(), &reason.into()),
            "{path}"
        );
        assert!(
            proxy.metric("weir_l7_upstream_errors_total", &[reason]) >= 1.0,
            "{path}"
        );
    }
}

#[test]
fn a_response_whose_length_is_ambiguous_is_502() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    for number in 0..4 {
        let path = format!("/ambiguous/{number}");
        assert_eq!(client::get(proxy.web(), "a", &path).status, 502, "{path}");
        let entry = proxy.logged(|entry| entry["target"] == path.as_str());
        assert_eq!(entry["reason"], "upstream_invalid", "{path}");
    }
    // What was left on those connections met no other request.
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn interim_responses_without_end_are_502_long_before_the_response_timeout() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let began = Instant::now();
    assert_eq!(client::get(proxy.web(), "a", "/interim").status, 502);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        proxy.logged(|entry| entry["target"] == "/interim")["reason"],
        "upstream_invalid"
    );
    assert_eq!(client::get(proxy.web(), "a", "/big/3000000").status, 200);
}

#[test]
fn a_backend_that_refuses_connections_is_502() {
    let proxy = start(&format!(
        "backends = [{{ address = \"{}\" }}]",
        backend::refusing()
    ));
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 502);
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 502)["reason"],
        "connect_failed"
    );
}

#[test]
fn requests_move_off_a_dead_backend_whatever_their_method() {
    let app = Backend::start("app");
    let proxy = start(&format!(
        "backends = [{{ address = \"{}\" }}, {{ address = \"{}\" }}]",
        backend::refusing(),
        app.address
    ));
    let mut connection = Connection::open(proxy.web());
    for number in 0..20 {
        connection.send(&format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{number:02}"
        ));
        let response = connection.read().expect("a response");
        assert!(
            response.status == 200 && response.text().ends_with(&format!("\n{number:02}")),
            "{response:?}"
        );
    }
    assert_eq!(app.requests(), 20);
    assert!(proxy.metric("weir_l7_retries_total", &[]) >= 10.0);
    assert_eq!(proxy.logged(|entry| entry["tries"] == 2)["status"], 200);
}

#[test]
fn a_backend_found_down_by_its_check_gets_nothing_and_none_up_is_503() {
    let app = Backend::start("app");
    let dead = backend::refusing();
    let proxy = start(&format!(
        "backends = [{{ address = \"{}\" }}, {{ address = \"{dead}\" }}]\nretries = 0\n\
         [upstreams.app.health]\ntype = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nrise = 1\nfall = 1",
        app.address
    ));
    let states = || {
        let status = proxy.status();
        let backends = status["upstreams"][0]["backends"]
            .as_array()
            .expect("backends")
            .clone();
        backends
            .iter()
            .map(|backend| backend["state"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    eventually("the dead one is seen", || states() == ["up", "down"]);
    for _ in 0..10 {
        assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    }
    drop(app);
    eventually("the other one, too", || states() == ["down", "down"]);
    let response = client::get(proxy.web(), "a", "/echo");
    assert_eq!((response.status, response.field("retry-after")), (503, "1"));
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 503)["reason"],
        "no_backend"
    );
    proxy.await_metric("weir_l7_backend_up", &[], 0.0);
}

#[test]
fn a_pooled_connection_that_went_stale_is_not_the_clients_problem() {
    let app = Backend::forgetful("app", 3);
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    for number in 0..60 {
        assert_eq!(
            connection.get("a", "/echo").map(|response| response.status),
            Some(200),
            "request {number}"
        );
    }
    assert_eq!(app.requests(), 60);
}

#[test]
fn a_request_that_may_have_been_acted_on_is_not_repeated() {
    let app = Backend::start("app");
    let proxy = start(&format!(
        "backends = [{{ address = \"{}\" }}]\nretries = 3",
        app.address
    ));
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(connection.read().map(|response| response.status), Some(502));
    assert_eq!(app.requests(), 1);
}

#[test]
fn a_body_the_backend_cuts_is_cut_for_the_client_too() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let text = client::raw(proxy.web(), b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        text.to_lowercase().contains("content-length: 100") && text.ends_with("short"),
        "{text}"
    );
    assert_eq!(
        proxy.logged(|entry| entry["target"] == "/cut")["reason"],
        "response_cut"
    );
    // curl tells a cut body from a whole one.
    let (code, text) = client::curl(&[&format!("http://{}/cut", proxy.web())]);
    assert_eq!(code, 18, "{text}");
}

#[test]
fn an_answer_that_comes_before_the_request_body_is_passed_on() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart");
    let response = connection.read().expect("a response");
    assert_eq!((response.status, response.text().as_str()), (413, "early"));
}

#[test]
fn a_response_without_a_length_is_cut_when_its_request_is() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /endless HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\npart");
    let mut some = [0; 64];
    assert!(connection.0.read(&mut some).expect("a head") > 0);
    connection
        .0
        .shutdown(Shutdown::Write)
        .expect("the request ends too early");
    let rest = client::until_closed(&mut connection.0);
    assert!(
        rest.contains('x') && !rest.ends_with("\r\n0\r\n\r\n"),
        "the client is told that it has all: {rest}"
    );
}

#[test]
fn a_response_without_a_length_is_cut_by_a_reset_during_the_upload() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    for _ in 0..20 {
        let mut connection = Connection::open(proxy.web());
        connection.send("POST /torn HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n");
        // The proxy closes before it has all.
        let _ = connection.0.write_all(&vec![b'u'; 9_000_000]);
        let text = client::until_closed(&mut connection.0);
        assert!(
            text.contains("early") && !text.ends_with("\r\n0\r\n\r\n"),
            "{text}"
        );
    }
}

#[test]
fn a_client_whose_answered_upload_nobody_takes_can_leave() {
    let app = Backend::start("app");
    let proxy = start(&format!("response_timeout = \"500ms\"\n{}", one(&app)));
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /sated HTTP/1.1\r\nHost: a\r\nContent-Length: 99000000\r\n\r\n");
    assert_eq!(connection.read().expect("a response").text(), "sated");
    let timeout = Some(Duration::from_millis(200));
    connection.0.set_write_timeout(timeout).expect("timeout");
    let stuck = connection.0.write_all(&vec![b'u'; 24 << 20]);
    stuck.expect_err("nobody takes it");
    drop(connection);
    eventually("its connection is closed", || {
        proxy.status()["listeners"][0]["connections"] == 0
    });
}

#[test]
fn an_upload_goes_on_while_its_client_does_not_take_the_answer_yet() {
    // More than all buffers on the way hold.
    const BYTES: usize = 24 << 20;
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    connection.send(&format!(
        "POST /duplex/{BYTES} HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"
    ));
    let upload = vec![b'u'; BYTES];
    connection.0.write_all(&upload).expect("all is taken");
    let response = connection.read().expect("a response");
    assert_eq!((response.status, response.body.len()), (200, BYTES));
    eventually("all arrived", || app.received() == BYTES);
    let next = connection.get("a", "/echo").expect("a response");
    assert_eq!(
        (next.status, app.connections()),
        (200, 1),
        "the connection goes on"
    );
}

#[test]
fn what_a_backend_says_unasked_is_no_answer_to_the_next_request() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    let first = connection.get("a", "/unasked").expect("a response");
    assert_eq!(first.text(), "unasked");
    std::thread::sleep(Duration::from_millis(200));
    let second = connection.get("a", "/echo").expect("a response");
    assert!(second.text().starts_with("app\n"), "{}", second.text());
    assert_eq!(app.connections(), 2);
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    connection.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
    let active = || proxy.status()["upstreams"][0]["backends"][0]["active"].as_u64();
    eventually("the request is at the backend", || {
        app.requests() == 1 && active() == Some(1)
    });
    drop(connection);
    eventually("it is counted no more", || active() == Some(0));
    let entry = proxy.logged(|entry| entry["target"] == "/hang");
    assert_eq!(
        (&entry["status"], &entry["reason"]),
        (&499.into(), &"client_gone".into())
    );
}

#[test]
fn a_client_that_leaves_during_an_upload_takes_it_along() {
    let app = Backend::start("app");
    let proxy = start(&one(&app));
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    connection.0.write_all(b"some").expect("write");
    eventually("some arrived", || app.received() == 4);
    drop(connection);
    let active = || proxy.status()["upstreams"][0]["backends"][0]["active"].as_u64();
    eventually("it is counted no more", || active() == Some(0));
}

#[test]
fn least_connections_avoids_the_busy_backend() {
    let (busy, idle) = (Backend::start("busy"), Backend::start("idle"));
    let proxy = start(&format!(
        "balance = \"least_connections\"\nbackends = [{{ address = \"{}\" }}, {{ address = \"{}\" }}]",
        busy.address, idle.address
    ));
    let mut slow: Vec<Connection> = (0..4).map(|_| Connection::open(proxy.web())).collect();
    for connection in &mut slow {
        connection.send("GET /slow/3000 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("they are spread evenly", || {
        (busy.requests(), idle.requests()) == (2, 2)
    });
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    for connection in &mut slow {
        assert_eq!(connection.read().map(|response| response.status), Some(200));
    }
    let status = proxy.status();
    for backend in status["upstreams"][0]["backends"]
        .as_array()
        .expect("backends")
    {
        assert_eq!(backend["active"], 0, "{status}");
    }
}

#[test]
fn weights_share_requests_exactly() {
    let (heavy, light) = (Backend::start("heavy"), Backend::start("light"));
    let proxy = start(&format!(
        "backends = [{{ address = \"{}\", weight = 3 }}, {{ address = \"{}\", weight = 1 }}]",
        heavy.address, light.address
    ));
    // One connection is one worker, which turns by itself.
    let mut connection = Connection::open(proxy.web());
    for _ in 0..40 {
        assert_eq!(
            connection.get("a", "/echo").map(|response| response.status),
            Some(200)
        );
    }
    assert_eq!((heavy.requests(), light.requests()), (30, 10));
}

/// A listener whose queue is full, which drops further SYNs, and what fills it.
fn full() -> (socket2::Socket, std::net::SocketAddr, Vec<socket2::Socket>) {
    let stream = || {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket")
    };
    let socket = stream();
    let address = std::net::SocketAddr::new(crate::proxy::address(), 8000);
    socket.bind(&address.into()).expect("bind");
    socket.listen(0).expect("listen");
    let filling = (0..8)
        .map(|_| {
            let filler = stream();
            filler.set_nonblocking(true).expect("nonblocking");
            let _ = filler.connect(&address.into());
            filler
        })
        .collect();
    (socket, address, filling)
}

#[test]
fn a_backend_that_does_not_accept_is_504_in_time() {
    let (_socket, address, filling) = full();
    let proxy = start(&format!(
        "connect_timeout = \"300ms\"\nretries = 0\nbackends = [{{ address = \"{address}\" }}]"
    ));
    let began = Instant::now();
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 504);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        proxy.logged(|entry| entry["status"] == 504)["reason"],
        "connect_timeout"
    );
    drop(filling);
}

#[test]
fn the_time_for_an_answer_begins_with_the_connection() {
    let (socket, address, filling) = full();
    let proxy = start(&format!(
        "connect_timeout = \"10s\"\nresponse_timeout = \"600ms\"\nretries = 0\nbackends = [{{ address = \"{address}\" }}]"
    ));
    let serving = std::thread::spawn(move || {
        // Longer than an answer may take; the SYN comes again after a second.
        std::thread::sleep(Duration::from_millis(700));
        drop(filling);
        let listener = std::net::TcpListener::from(socket);
        loop {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap_or(0);
            if request[..read].starts_with(b"GET ") {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
                return stream.write_all(answer).expect("write");
            }
        }
    });
    let response = client::get(proxy.web(), "a", "/echo");
    assert_eq!((response.status, response.text().as_str()), (200, "late"));
    serving.join().expect("served");
}
