//! Another process takes over, and nobody notices.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use test_support::ServiceManager;

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

const DRAIN: &str = "[drain]\ngrace = \"1s\"\ndeadline = \"2s\"\nupgrade_deadline = \"60s\"\n";

/// Sends requests, each on a connection of its own, `rate` a second over four threads, until told to stop. Returns how many were answered, and
/// what went wrong.
fn connect_at(address: std::net::SocketAddr, rate: u32, stop: &AtomicBool) -> (usize, Vec<String>) {
    let answered = AtomicUsize::new(0);
    let failures = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    let pause = Duration::from_secs(4) / rate;
                    let mut next = Instant::now();
                    while !stop.load(Ordering::Relaxed) {
                        let asked = (|| -> std::io::Result<String> {
                            let mut stream = std::net::TcpStream::connect(address)?;
                            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                            stream.write_all(
                                b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                            )?;
                            let mut answer = String::new();
                            stream.read_to_string(&mut answer)?;
                            Ok(answer)
                        })();
                        match asked {
                            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(answer) => {
                                failures.push(answer.lines().next().unwrap_or("closed").to_owned())
                            }
                            Err(error) => failures.push(error.to_string()),
                        }
                        next += pause;
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                    failures
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("client"))
            .collect()
    });
    (answered.into_inner(), failures)
}

#[test]
fn five_upgrades_under_new_connections_and_a_websocket_fail_nothing() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let web = proxy.web();
    let mut tunnel = Connection::websocket(web);
    let stop = AtomicBool::new(false);
    let (answered, failures) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| connect_at(web, 2_000, &stop));
        let first = u64::from(proxy.process());
        let mut seen = vec![first];
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(500));
            let process = proxy.upgrade();
            assert!(!seen.contains(&process), "another process each time");
            seen.push(process);
            tunnel.echo(b"still here");
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        clients.join().expect("clients")
    });
    assert_eq!(failures, [""; 0]);
    assert!(answered > 1_000, "{answered}");
    tunnel.echo(b"to the end");
    assert!(proxy.alive(), "the first process still has a tunnel");
    drop(tunnel);
    let ended = proxy.wait(Duration::from_secs(10));
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_keep_alive_connection_is_moved_over_between_two_of_its_requests() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let mut old = Connection::open(proxy.web());
    let before = old.get("a", "/echo").expect("a response");
    assert_eq!((before.status, before.field("connection")), (200, ""));
    proxy.upgrade();
    let last = old.get("a", "/echo").expect("a response");
    assert_eq!((last.status, last.field("connection")), (200, "close"));
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    assert!(proxy.wait(Duration::from_secs(10)).success());
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
}

#[test]
fn connections_that_nobody_has_read_from_or_even_accepted_are_served() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    // Accepted by the old process, which waits for their first byte.
    let mut unread: Vec<Connection> = (0..100).map(|_| Connection::open(proxy.web())).collect();
    eventually("they are accepted", || proxy.status()["connections"] == 100);
    let process = proxy.upgrade().to_string();
    for connection in &mut unread {
        let answer = connection.get("a", "/echo").expect("a response");
        assert_eq!(answer.status, 200);
    }
    // Completed by the kernel: the old process accepts no longer, the new one not yet.
    let signal = |name| {
        let done = Command::new("kill").args(["-s", name, &process]).status();
        assert!(done.expect("kill").success());
    };
    signal("STOP");
    let mut waiting: Vec<Connection> = (0..200).map(|_| Connection::open(proxy.web())).collect();
    signal("CONT");
    for connection in &mut waiting {
        let answer = connection.get("a", "/echo").expect("a response");
        assert_eq!((answer.status, answer.field("connection")), (200, ""));
    }
}

#[test]
fn a_new_process_that_cannot_serve_leaves_the_old_one_serving() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let process = proxy.status()["process"].clone();
    proxy.rewrite(|text| text + "\n[bogus]\n");
    let why = proxy.ask("upgrade").unwrap_err();
    assert!(why.contains("bogus: unknown key"), "{why}");
    assert!(why.contains("the running process serves on"), "{why}");
    // Sound by itself, but its second listener is somebody else's.
    let taken = std::net::TcpListener::bind(proxy.at(8099)).expect("a port");
    let address = taken.local_addr().expect("address");
    proxy.rewrite(|text| {
        text.replace("[bogus]", "")
            + &format!("[[listeners]]\nname = \"more\"\naddress = \"{address}\"\n")
    });
    let why = proxy.ask("upgrade").unwrap_err();
    assert!(
        why.contains(&format!("cannot listen on {address}")),
        "{why}"
    );
    assert_eq!(proxy.status()["process"], process);
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    drop(taken);
    proxy.upgrade();
    assert_eq!(client::get(address, "a", "/echo").status, 200);
}

#[test]
fn a_new_process_that_cannot_serve_after_all_loses_no_connection_by_its_additional_workers() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let web = proxy.web();
    let taken = std::net::TcpListener::bind(proxy.at(8099)).expect("a port");
    let address = taken.local_addr().expect("address");
    proxy.rewrite(|text| {
        text.replace("workers = 2", "workers = 8")
            + &format!("[[listeners]]\nname = \"more\"\naddress = \"{address}\"\n")
    });
    let stop = AtomicBool::new(false);
    let (answered, failures) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| connect_at(web, 2_000, &stop));
        for _ in 0..3 {
            let why = proxy.ask("upgrade").unwrap_err();
            assert!(why.contains("cannot listen on"), "{why}");
        }
        // So is the admin listener's address, which comes before those that join others.
        proxy.rewrite(|text| {
            let admin = format!("listen = \"{}\"", proxy.admin());
            text.replace(&admin, &format!("listen = \"{address}\""))
                .replace(
                    &format!("address = \"{address}\""),
                    &format!("address = \"{}\"", proxy.at(8098)),
                )
        });
        for _ in 0..3 {
            let why = proxy.ask("upgrade").unwrap_err();
            assert!(why.contains("(admin.listen)"), "{why}");
        }
        stop.store(true, Ordering::Relaxed);
        clients.join().expect("clients")
    });
    assert_eq!(failures, [""; 0]);
    assert!(answered > 100, "{answered}");
}

#[test]
fn the_new_process_serves_by_the_file_as_it_is_now_with_more_or_fewer_workers() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    for workers in [4, 1, 3] {
        proxy.rewrite(|text| {
            let (_, rest) = text.split_once('\n').expect("lines");
            format!("workers = {workers}\n{rest}")
        });
        proxy.upgrade();
        assert_eq!(proxy.status()["workers"], workers);
        for _ in 0..20 {
            assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
        }
    }
}

#[test]
fn a_node_that_drains_is_not_upgraded() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    proxy.command("drain");
    let why = proxy.ask("upgrade").unwrap_err();
    assert!(why.contains("the node drains"), "{why}");
}

#[test]
fn a_backend_known_to_be_down_stays_down() {
    let other = r#"
        [upstreams.other]
        backends = [{ address = "127.0.0.1:9" }]
        health = { type = "tcp", interval = "60s", fall = 1, retries = 0 }
        [[routes]]
        name = "other"
        hosts = ["other.test"]
        upstream = "other"
        "#;
    let (mut proxy, _app) = Proxy::with_app(&format!("{DRAIN}{other}"));
    let down = |proxy: &Proxy| proxy.status()["upstreams"][1]["backends"][0]["state"] == "down";
    eventually("it is found down", || down(&proxy));
    proxy.upgrade();
    assert!(down(&proxy));
}

#[test]
fn with_the_same_binary_in_place_it_reloads_instead_where_asked_to() {
    let (proxy, _app) = Proxy::with_app(DRAIN);
    let process = proxy.status()["process"].clone();
    proxy.rewrite(|text| text.replace("grace = \"1s\"", "grace = \"2s\""));
    let said = proxy.run(&["upgrade", "--if-replaced"]).expect("reloaded");
    assert!(said.contains("drain.grace: \"1s\" -> \"2s\""), "{said}");
    assert_eq!(proxy.status()["process"], process);
    assert_eq!(proxy.status()["binary"]["replaced"], false);
}

#[test]
fn systemd_is_told_when_it_serves_and_which_process_took_over() {
    let systemd = ServiceManager::start();
    let app = Backend::start("app");
    let config = format!(
        "[upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nname = \"all\"\nupstream = \"app\"\n",
        app.address
    );
    let mut proxy = Proxy::start_told(&systemd, &config);
    assert_eq!(systemd.hears(), "READY=1");
    let process = proxy.upgrade();
    assert_eq!(systemd.hears(), format!("MAINPID={process}"));
}

/// A proxy whose binary is then replaced by one that finds every configuration sound and takes `seconds` to start; and where it leaves a file when
/// it begins to.
struct Slow {
    proxy: Proxy,
    _app: Backend,
    folder: tempfile::TempDir,
}

impl Slow {
    fn start(seconds: u32) -> Slow {
        let folder = tempfile::tempdir().expect("folder");
        let binary = folder.path().join("l7-proxy");
        let app = Backend::start("app");
        let proxy = Proxy::start_copy(
            &binary,
            &format!(
                "{DRAIN}[upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nname = \"all\"\nupstream = \"app\"\n",
                app.address
            ),
        );
        let began = folder.path().join("began");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = check ] && exit 0\ntouch {}\n[ {seconds} -gt 10 ] && exec sleep {seconds}\nsleep {seconds}\nexec {} \"$@\"\n",
            began.display(),
            env!("CARGO_BIN_EXE_l7-proxy"),
        );
        let next = folder.path().join("next");
        std::fs::write(&next, script).expect("a script");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&next, executable).expect("permissions");
        std::fs::rename(&next, &binary).expect("the script in place");
        Slow {
            proxy,
            _app: app,
            folder,
        }
    }

    /// Asks for an upgrade, has `meanwhile` done while the new process starts, and returns what was printed.
    fn upgrade(&self, meanwhile: impl FnOnce()) -> Result<String, String> {
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| self.proxy.ask("upgrade"));
            self.began();
            meanwhile();
            upgrade.join().expect("asked")
        })
    }

    fn began(&self) {
        let began = self.folder.path().join("began");
        eventually("the new process is started", || began.exists());
    }
}

#[test]
fn an_upgrade_goes_on_when_whoever_asked_for_it_goes_away() {
    let mut slow = Slow::start(1);
    let first = u64::from(slow.proxy.process());
    let mut asks = Connection::open(slow.proxy.admin());
    asks.send("POST /command/upgrade HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n");
    slow.began();
    drop(asks);
    let ended = slow.proxy.wait(Duration::from_secs(20));
    assert!(ended.success(), "{ended}");
    assert_ne!(slow.proxy.taken_over(), first);
}

#[test]
fn a_process_that_is_asked_to_end_gives_up_being_taken_over_from() {
    let mut slow = Slow::start(30);
    let why = slow.upgrade(|| slow.proxy.signal("TERM")).unwrap_err();
    assert!(why.contains("given up"), "{why}");
    assert!(slow.proxy.wait(Duration::from_secs(10)).success());
    let refused = std::net::TcpStream::connect(slow.proxy.web());
    assert!(refused.is_err(), "nobody serves any more");
}

#[test]
fn a_drain_asked_for_in_the_middle_is_passed_on() {
    let mut slow = Slow::start(1);
    let upgraded = slow.upgrade(|| {
        slow.proxy.signal("USR1");
    });
    assert!(upgraded.is_ok(), "{upgraded:?}");
    assert_ne!(slow.proxy.taken_over(), u64::from(slow.proxy.process()));
    eventually("the new process drains", || {
        slow.proxy.status()["ready"] == false
    });
    assert_eq!(slow.proxy.status()["drain"]["exiting"], false);
}

#[test]
fn no_reload_comes_between_what_the_new_process_has_read_and_its_serving() {
    let mut slow = Slow::start(1);
    let reload = std::cell::Cell::new(None);
    let upgraded = slow.upgrade(|| {
        slow.proxy
            .rewrite(|text| text.replace("grace = \"1s\"", "grace = \"2s\""));
        reload.set(Some(slow.proxy.ask("reload")));
    });
    assert!(upgraded.is_ok(), "{upgraded:?}");
    let why = reload.take().expect("asked").unwrap_err();
    assert!(why.contains("the process is leaving"), "{why}");
    slow.proxy.taken_over();
    let said = slow.proxy.command("reload");
    assert!(said.contains("nothing has changed"), "{said}");
}

#[test]
fn what_holds_on_to_the_old_process_is_cut_by_the_drain_when_that_is_asked_to_end() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let mut tunnel = Connection::websocket(proxy.web());
    proxy.upgrade();
    tunnel.echo(b"still here");
    proxy.signal("TERM");
    tunnel.echo(b"until the deadline");
    assert!(proxy.wait(Duration::from_secs(10)).success());
    let last = format!("ended pid={} cut=1", proxy.process());
    assert!(proxy.said().contains(&last), "{}", proxy.said());
}

#[test]
fn the_log_says_which_process_serves_which_drains_and_when_it_ends() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let old = proxy.process();
    let new = proxy.upgrade();
    assert!(proxy.wait(Duration::from_secs(10)).success());
    let said = proxy.said();
    let of = |what: &str, process: u64| {
        let pid = format!(" pid={process} ");
        let mut lines = said.lines().map(|line| format!("{line} "));
        lines.any(|line| line.contains(what) && line.contains(&pid))
    };
    assert!(of("serving", old.into()) && of("serving", new), "{said}");
    assert!(of("drain", old.into()) && !of("drain", new), "{said}");
    let last = format!("ended pid={old} cut=0");
    assert_eq!(said.matches("ended pid=").count(), 1, "{said}");
    assert!(said.contains(&last), "{said}");
}

#[test]
fn the_old_process_ends_when_the_one_that_took_over_has_crashed() {
    let (mut proxy, _app) = Proxy::with_app(DRAIN);
    let mut tunnel = Connection::websocket(proxy.web());
    let process = proxy.upgrade().to_string();
    tunnel.echo(b"still here");
    let killed = Command::new("kill").args(["-s", "KILL", &process]).status();
    assert!(killed.expect("kill").success());
    assert!(proxy.wait(Duration::from_secs(10)).success());
    assert!(proxy.said().contains("the process that took over is gone"));
}
