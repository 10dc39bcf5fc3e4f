//! A listener is one process's, though its workers share it.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::client;
use crate::proxy::{self, Proxy};

/// Runs a process to its end, which must come soon: one that serves after all is ended and fails the test.
fn ends(folder: &std::path::Path, config: &str) -> Output {
    let file = folder.join("l7.toml");
    std::fs::write(&file, config).expect("write");
    let mut child = Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
        .args(["run", "--config"])
        .arg(file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let mut said = String::new();
            let _ = child
                .stderr
                .take()
                .map(|mut pipe| pipe.read_to_string(&mut said));
            panic!("it runs: {said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("output")
}

fn configuration(listener: &str, admin: &str) -> String {
    format!(
        "workers = 2\nnode.id = \"second\"\nadmin.listen = \"{admin}\"\nlisteners = [{{ name = \"web\", address = \"{listener}\" }}]\n\
         routes = [{{ upstream = \"app\" }}]\nupstreams.app.backends = [{{ address = \"127.0.0.1:1\" }}]\n"
    )
}

#[test]
fn a_second_process_is_refused_and_told_who_is_there() {
    let proxy = Proxy::start(
        "[upstreams.app]\nbackends = [{ address = \"127.0.0.1:1\" }]\n[[routes]]\nupstream = \"app\"\n",
    );
    let folder = tempfile::tempdir().expect("folder");
    let admin = format!("{}:9402", proxy::address());
    // The same address, and the wildcard that covers it.
    for listener in [proxy.web().to_string(), "0.0.0.0:8080".to_owned()] {
        let done = ends(folder.path(), &configuration(&listener, &admin));
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{said}");
        let expected = format!(
            "cannot listen on {listener} (listener `web`): Address already in use (os error 98), by "
        );
        assert!(said.contains(&expected), "{said}");
        if listener == proxy.web().to_string() {
            assert!(
                said.contains(&format!("by l7-proxy (pid {})", proxy.pid())),
                "{said}"
            );
        }
    }
    // The admin listener likewise.
    let web = format!("{}:8080", proxy::address());
    let taken = proxy.admin().to_string();
    let done = ends(folder.path(), &configuration(&web, &taken));
    let said = String::from_utf8_lossy(&done.stderr);
    let expected = format!(
        "cannot listen on {taken} (admin.listen): Address already in use (os error 98), by l7-proxy (pid {})",
        proxy.pid()
    );
    assert!(!done.status.success() && said.contains(&expected), "{said}");
    for _ in 0..20 {
        assert_eq!(
            client::get(proxy.web(), "a", "/").status,
            502,
            "all go to the first"
        );
    }
}

#[test]
fn any_other_process_that_listens_there_is_named_even_if_it_would_share() {
    let address = format!("{}:8080", proxy::address());
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.set_reuse_port(true).expect("option");
    socket
        .bind(
            &address
                .parse::<std::net::SocketAddr>()
                .expect("address")
                .into(),
        )
        .expect("bind");
    socket.listen(1).expect("listen");
    let _other = TcpListener::from(socket);
    let folder = tempfile::tempdir().expect("folder");
    let done = ends(
        folder.path(),
        &configuration(&address, &format!("{}:9402", proxy::address())),
    );
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains(&format!("(pid {})", std::process::id())),
        "{said}"
    );
}

#[test]
fn a_process_takes_the_place_of_one_that_ended_whatever_lingers_and_may_overlap_with_itself() {
    let address = proxy::address();
    // The wildcard address is everybody's: a port that other runs of these tests don't use.
    let port = 20_000 + (std::process::id() % 10_000) as u16;
    let config = format!(
        "[[listeners]]\nname = \"all\"\naddress = \"0.0.0.0:{port}\"\n[[listeners]]\nname = \"one\"\naddress = \"{address}:{port}\"\n\
         [upstreams.app]\nbackends = [{{ address = \"127.0.0.1:1\" }}]\n[[routes]]\nupstream = \"app\"\n"
    );
    for _ in 0..2 {
        let mut proxy = Proxy::start(&config);
        // The server closes first, so that the connection's end lingers on its side.
        let answer = client::raw(
            std::net::SocketAddr::new(address, port),
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        proxy.logged(|entry| entry["listener"] == "one");
        proxy.signal("KILL");
        proxy.wait(Duration::from_secs(5));
    }
}
