//! A changed configuration in the running process: nothing that is open ends, and what begins goes by what the file says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

const DRAIN: &str = "[drain]\ngrace = \"1s\"\ndeadline = \"5s\"\n";

fn other(address: SocketAddr) -> String {
    format!(
        "\n[upstreams.other]\nbackends = [{{ address = \"{address}\" }}]\n[[routes]]\nname = \"other\"\nhosts = [\"other.test\"]\nupstream = \"other\"\n"
    )
}

/// The backend that answered.
fn name(response: Option<client::Response>) -> String {
    let text = response.expect("a response").text();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn open_connections_go_on_and_their_next_request_goes_by_the_new_file() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let other_app = Backend::start("other");
    let mut kept = Connection::open(proxy.web());
    assert_eq!(name(kept.get("other.test", "/name")), "app");
    let mut tunnel = Connection::websocket(proxy.web());
    // A request half sent: its head is complete before the reload, its body after.
    let mut half = Connection::open(proxy.web());
    half.send("POST /name HTTP/1.1\r\nHost: other.test\r\nContent-Length: 5\r\n\r\nhe");
    eventually("it is under way", || {
        proxy.status()["upstreams"][0]["backends"][0]["active"] == 2
    });
    proxy.rewrite(|text| text + &other(other_app.address));
    let said = proxy.command("reload");
    for line in ["routes.other: added", "upstreams.other: added"] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    half.send("llo");
    assert_eq!(name(half.read()), "app");
    assert_eq!(name(kept.get("other.test", "/name")), "other");
    assert_eq!(name(kept.get("a.test", "/name")), "app");
    tunnel.echo(b"still here");
    // The access log says of each what served it.
    let of = |upstream: &'static str, method: &'static str| {
        proxy.logged(move |entry| {
            entry["host"] == "other.test"
                && entry["method"] == method
                && entry["upstream"] == upstream
        })
    };
    assert_eq!(of("app", "POST")["route"], "all");
    assert_eq!(of("other", "GET")["route"], "other");
}

#[test]
fn a_file_with_a_mistake_or_a_change_that_needs_a_restart_changes_nothing() {
    let (proxy, app) = Proxy::with_app(DRAIN);
    let before = std::fs::read_to_string(proxy.file("l7.toml")).expect("configuration");
    let taken = std::net::TcpListener::bind(proxy.at(8099)).expect("a port");
    let taken_at = taken.local_addr().expect("address");
    let listener = format!("[[listeners]]\nname = \"more\"\naddress = \"{taken_at}\"\n");
    let elsewhere = before.replace("upstream = \"app\"", "upstream = \"app2\"");
    for (text, why) in [
        (before.clone() + "\n[bogus]\n", "bogus: unknown key"),
        (elsewhere, "app2"),
        (
            before
                .replace("workers = 2", "workers = 3")
                .replace("\"1s\"", "\"2s\""),
            "/l7.toml:1: workers: takes effect by a restart or `l7-proxy upgrade` only\nput them back",
        ),
        (before.clone() + &listener, "cannot listen on"),
        (
            before.replace("/access.log", "/nonexistent/access.log"),
            "cannot open the access log",
        ),
    ] {
        proxy.rewrite(|_| text);
        let refused = proxy.ask("reload").expect_err("refused");
        assert!(refused.contains(why), "{why:?} in {refused}");
        assert!(refused.contains("nothing was changed"), "{refused}");
        let standing = proxy.status()["configuration"].clone();
        let last = standing["refused"].as_str().expect("refused").to_owned();
        assert!(last.contains(why), "{why:?} in {last}");
        assert_eq!(name(Some(client::get(proxy.web(), "a", "/name"))), "app");
    }
    proxy.await_metric("weir_l7_config_last_reload_successful", &[], 0.0);
    let said = proxy.said();
    let lines = said
        .lines()
        .filter(|line| line.contains("configuration not reloaded"));
    assert_eq!(lines.count(), 5, "one for each: {said}");
    assert!(said.contains("only (and 1 more, see status)"), "{said}");
    drop(taken);
    proxy.rewrite(|_| before + &listener);
    proxy.command("reload");
    proxy.await_metric("weir_l7_config_last_reload_successful", &[], 1.0);
    assert_eq!(name(Some(client::get(taken_at, "a", "/name"))), "app");
    drop(app);
}

#[test]
fn a_plan_says_what_a_reload_would_do_and_does_nothing() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let _tunnel = Connection::websocket(proxy.web());
    let address = proxy.at(8090);
    let file = proxy.file("l7.toml").display().to_string();
    let plan = || {
        let said = proxy.run(&["plan", "--config", &file]);
        said.unwrap_or_else(|said| said)
    };
    assert!(plan().contains("nothing"), "{}", plan());
    proxy.rewrite(|text| text.replacen(":8080\"", ":8090\"", 1));
    let said = plan();
    for line in [
        "listeners.web.address: ",
        "1 connections of listener web",
        "those left after 5s are cut",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    proxy.rewrite(|text| text.replace("workers = 2", "workers = 3"));
    let said = plan();
    assert!(said.contains("workers: 2 -> 3 (needs a restart)"), "{said}");
    assert!(TcpStream::connect(address).is_err(), "nothing has changed");
    assert_eq!(proxy.status()["workers"], 2);
}

#[test]
fn a_listener_that_leaves_finishes_what_runs_and_one_that_comes_serves() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let old = proxy.web();
    let mut idle = Connection::open(old);
    assert_eq!(idle.get("a", "/name").expect("a response").status, 200);
    let mut half = Connection::open(old);
    half.send("POST /name HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    eventually("it is under way", || {
        proxy.status()["upstreams"][0]["backends"][0]["active"] == 1
    });
    proxy.rewrite(|text| text.replacen(":8080\"", ":8090\"", 1));
    proxy.command("reload");
    assert_eq!(client::get(proxy.at(8090), "a", "/name").status, 200);
    eventually("the old one is closed", || TcpStream::connect(old).is_err());
    assert_eq!(proxy.status()["leaving"][0]["address"], old.to_string());
    // Idle connections are closed, what runs is finished.
    assert_eq!(client::until_closed(&mut idle.0), "");
    half.send("llo");
    let last = half.read().expect("a response");
    assert_eq!((last.status, last.field("connection")), (200, "close"));
    eventually("nobody is left", || {
        proxy.status()["leaving"] == serde_json::json!([])
    });
    // It comes back as if it had never left.
    proxy.rewrite(|text| text.replacen(":8090\"", ":8080\"", 1));
    proxy.command("reload");
    assert_eq!(client::get(old, "a", "/name").status, 200);
    eventually("the other is closed", || {
        TcpStream::connect(proxy.at(8090)).is_err()
    });
}

#[test]
fn weights_timeouts_and_keep_alive_change_while_backends_keep_their_counts() {
    let second = Backend::start("second");
    let (proxy, app) = Proxy::with_app(DRAIN);
    let mut slow = Connection::open(proxy.web());
    slow.send("POST /name HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    eventually("it is under way", || {
        proxy.status()["upstreams"][0]["backends"][0]["active"] == 1
    });
    let (first, second_at) = (app.address, second.address);
    proxy.rewrite(|text| {
        text.replace(
            &format!("backends = [{{ address = \"{first}\" }}]"),
            &format!(
                "keep_alive = {{ idle = 0 }}\nbackends = [{{ address = \"{second_at}\", weight = 3 }}, {{ address = \"{first}\", weight = 1 }}]"
            ),
        )
    });
    proxy.command("reload");
    let backends = proxy.status()["upstreams"][0]["backends"].clone();
    assert_eq!(
        (&backends[1]["address"], &backends[1]["active"]),
        (&first.to_string().into(), &1.into()),
        "{backends}"
    );
    let mut names = Vec::new();
    for _ in 0..80 {
        names.push(name(Some(client::get(proxy.web(), "a", "/name"))));
    }
    // Each of two workers turns by itself.
    let share = names.iter().filter(|name| *name == "second").count();
    assert!(
        (58..=62).contains(&share),
        "{share} of 80 went to a weight of 3 of 4"
    );
    let before = second.connections();
    for _ in 0..8 {
        assert_eq!(client::get(proxy.web(), "a", "/name").status, 200);
    }
    assert!(second.connections() >= before + 5, "nothing is kept alive");
    slow.send("llo");
    assert_eq!(name(slow.read()), "app");
}

#[test]
fn the_access_log_moves_to_another_file_and_format_without_losing_a_line() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let mut kept = Connection::open(proxy.web());
    for _ in 0..10 {
        assert_eq!(kept.get("a", "/before").expect("a response").status, 200);
    }
    proxy.rewrite(|text| {
        text.replace("/access.log", "/second.log")
            .replace("format = \"json\"", "format = \"combined\"")
    });
    proxy.command("reload");
    for _ in 0..10 {
        assert_eq!(kept.get("a", "/after").expect("a response").status, 200);
    }
    let read = |name: &str| std::fs::read_to_string(proxy.file(name)).unwrap_or_default();
    // The last line before the reload is handed over by it.
    assert_eq!(read("access.log").matches("/before").count(), 10);
    eventually("the others are there", || {
        read("second.log").matches("GET /after HTTP/1.1").count() == 10
    });
    assert_eq!(read("access.log").matches("/after").count(), 0);
}

/// h2load or another client in the background; what it printed.
struct Load(Child);

impl Load {
    fn start(program: &str, arguments: &[&str]) -> Load {
        let child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Load(child.expect("the client starts"))
    }

    fn finish(mut self) -> String {
        let mut said = String::new();
        let mut output = self.0.stdout.take().expect("output");
        output.read_to_string(&mut said).expect("text");
        assert!(self.0.wait().expect("wait").success(), "{said}");
        said
    }
}

#[test]
fn fifty_reloads_in_a_row_under_load_fail_no_request_and_end_no_tunnel() {
    let folder = tempfile::tempdir().expect("folder");
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("certificate");
        std::fs::write(folder.path().join("a.pem"), made.cert.pem()).expect("write");
        std::fs::write(
            folder.path().join("a.key"),
            made.signing_key.serialize_pem(),
        )
        .expect("write");
    };
    certificate("a.test");
    let app = Backend::start("app");
    let second = Backend::start("second");
    let path = folder.path().display();
    let proxy = Proxy::start(&format!(
        r#"
        [[listeners]]
        name = "plain"
        address = "{{address}}:8080"
        http2 = true
        [[listeners]]
        name = "secure"
        address = "{{address}}:8443"
        protocol = "https"
        [[certificates]]
        certificate = "{path}/a.pem"
        key = "{path}/a.key"
        default = true
        [upstreams.app]
        backends = [{{ address = "{}" }}, {{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        "#,
        app.address, second.address
    ));
    let base = std::fs::read_to_string(proxy.file("l7.toml")).expect("configuration");
    let mut tunnel = Connection::websocket(proxy.web());
    let (plain, secure) = (
        format!("http://{}/echo", proxy.web()),
        format!("https://{}/echo", proxy.at(8443)),
    );
    let loads = [
        Load::start("h2load", &["-D", "8", "-c", "8", "-t", "1", "--h1", &plain]),
        Load::start(
            "h2load",
            &["-D", "8", "-c", "4", "-m", "8", "-t", "1", &plain],
        ),
        Load::start(
            "h2load",
            &["-D", "8", "-c", "4", "-m", "8", "-t", "1", &secure],
        ),
    ];
    // New connections all the while.
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        for number in 0..50 {
            let text = match number % 5 {
                0 => base.clone() + &other(app.address),
                1 => base.replace("name = \"all\"", "name = \"every\""),
                2 => base.replace(
                    "[upstreams.app]",
                    "[upstreams.app]\nbalance = \"least_connections\"",
                ),
                3 => {
                    certificate("a.test");
                    base.replace("http2 = true", "http2 = true\nidle_timeout = \"30s\"")
                }
                _ => {
                    base.clone()
                        + "[[listeners]]\nname = \"more\"\naddress = \""
                        + &proxy.at(8090).to_string()
                        + "\"\n"
                }
            };
            proxy.rewrite(|_| text);
            proxy.command("reload");
            tunnel.echo(b"still here");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(done.load(Ordering::Relaxed) > 50);
    for load in loads {
        let said = load.finish();
        let summary = said
            .lines()
            .find(|line| line.starts_with("requests:"))
            .expect("a summary");
        assert!(
            summary.contains(" 0 failed, 0 errored, 0 timeout")
                && !summary.contains(" 0 succeeded"),
            "{summary}"
        );
    }
    tunnel.echo(b"to the end");
    let said = proxy.said();
    assert!(
        !said.contains("panicked") && !said.contains("ERROR"),
        "{said}"
    );
}

#[test]
fn a_thousand_reloads_cost_no_memory_and_no_descriptors() {
    let (proxy, app) = Proxy::with_app(DRAIN);
    let base = std::fs::read_to_string(proxy.file("l7.toml")).expect("configuration");
    let mut kept = Connection::open(proxy.web());
    let mut reload = |number: usize| {
        let text = match number % 2 {
            0 => base.clone() + &other(app.address),
            _ => base.clone(),
        };
        proxy.rewrite(|_| text);
        proxy.reload();
        if number.is_multiple_of(50) {
            assert_eq!(kept.get("a", "/name").expect("a response").status, 200);
        }
    };
    (0..200).for_each(&mut reload);
    let (memory, files) = (proxy.memory(), proxy.open_files());
    (0..1_000).for_each(&mut reload);
    // The allocator gives pages back some time after they were freed.
    eventually("hardly more memory than after 200 reloads", || {
        assert_eq!(client::get(proxy.web(), "a", "/name").status, 200);
        proxy.memory() < memory + 2048
    });
    let files_after = proxy.open_files();
    assert!(
        files_after <= files + 2,
        "{files} files before, {files_after} after"
    );
}

#[test]
fn a_certificate_rotated_in_place_is_a_change_and_tickets_outlive_it() {
    let folder = tempfile::tempdir().expect("folder");
    let rotate = || {
        let made =
            rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("certificate");
        std::fs::write(folder.path().join("a.pem"), made.cert.pem()).expect("write");
        std::fs::write(
            folder.path().join("a.key"),
            made.signing_key.serialize_pem(),
        )
        .expect("write");
        made.cert.pem()
    };
    let first = rotate();
    let path = folder.path().display();
    let app = Backend::start("app");
    let proxy = Proxy::start(&format!(
        r#"
        [[listeners]]
        name = "secure"
        address = "{{address}}:8443"
        protocol = "https"
        [[certificates]]
        certificate = "{path}/a.pem"
        key = "{path}/a.key"
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        "#,
        app.address
    ));
    let session = folder.path().join("session");
    let handshake = |more: [&str; 2]| {
        let done = Command::new("openssl")
            .args(["s_client", "-servername", "a.test", "-tls1_3", "-connect"])
            .arg(proxy.at(8443).to_string())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .and_then(|mut child| {
                // The tickets come with the first answer.
                let mut input = child.stdin.take().expect("input");
                input.write_all(
                    b"GET /name HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
                )?;
                std::thread::sleep(Duration::from_millis(300));
                drop(input);
                child.wait_with_output()
            });
        String::from_utf8_lossy(&done.expect("openssl").stdout).into_owned()
    };
    let session = session.to_str().expect("path");
    let fresh = handshake(["-sess_out", session]);
    assert!(fresh.contains(first.trim()), "{fresh}");
    assert_eq!(
        proxy
            .command("reload")
            .lines()
            .last()
            .map(|line| line.contains("nothing has changed")),
        Some(true)
    );
    let second = rotate();
    let said = proxy.command("reload");
    assert!(
        said.contains("certificates[0: a.test].certificate: ")
            && said.contains("certificates[0: a.test].key: the content of "),
        "{said}"
    );
    assert!(
        said.contains("a.test"),
        "the certificate is described: {said}"
    );
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    let resumed = handshake(["-sess_in", session]);
    assert!(resumed.contains("Reused, TLSv1.3"), "{resumed}");
    let fresh = handshake(["-sess_out", session]);
    assert!(
        fresh.contains(second.trim()) && fresh.contains("New, TLSv1.3"),
        "{fresh}"
    );
    // A key that is not the certificate's is refused, and the old pair serves on.
    let other = rcgen::KeyPair::generate().expect("key");
    std::fs::write(folder.path().join("a.key"), other.serialize_pem()).expect("write");
    let refused = proxy.ask("reload").expect_err("refused");
    assert!(refused.contains("certificates[0].key"), "{refused}");
    assert!(handshake(["-sess_out", session]).contains(second.trim()));
}

#[test]
fn what_holds_on_to_a_listener_that_left_is_cut_by_the_times_of_the_latest_file() {
    let (proxy, _app) = Proxy::with_app("[drain]\ngrace = \"1s\"\ndeadline = \"60s\"\n");
    let mut tunnel = Connection::websocket(proxy.web());
    // Another name for the address that comes: the metrics of the one that left are its own.
    proxy.rewrite(|text| {
        let text = text.replacen(":8080\"", ":8090\"", 1);
        text.replacen("name = \"web\"", "name = \"next\"", 1)
    });
    let connections = |listener: &str| {
        let text = proxy.metrics();
        let series = format!("weir_l7_connections{{listener=\"{listener}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map(str::to_owned)
    };
    proxy.command("reload");
    tunnel.echo(b"still here");
    assert_eq!(proxy.status()["leaving"][0]["connections"], 1);
    assert_eq!(connections("web").as_deref(), Some("1"));
    assert_eq!(connections("next").as_deref(), Some("0"));
    proxy.rewrite(|text| text.replace("\"60s\"", "\"2s\""));
    proxy.command("reload");
    eventually("it is cut", || {
        proxy.status()["leaving"] == serde_json::json!([])
    });
    assert_eq!(connections("web").as_deref(), Some("0"));
}
