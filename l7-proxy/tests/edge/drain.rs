//! Leaving without losing a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

fn start(grace: &str, deadline: &str) -> (Proxy, Backend) {
    Proxy::with_app(&format!(
        "[drain]\ngrace = \"{grace}\"\ndeadline = \"{deadline}\"\n"
    ))
}

/// Clients that keep their connections, and open another when an answer told them to; what they saw go wrong.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Clients {
    /// `to` says where the next connection goes, as the L4 tier would.
    fn start(count: usize, to: Arc<dyn Fn() -> std::net::SocketAddr + Send + Sync>) -> Clients {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let threads = (0..count).map(|_| {
            let (stop, done, to) = (stop.clone(), done.clone(), to.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut kept: Option<Connection> = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = kept.take().unwrap_or_else(|| Connection::open(to()));
                    match connection.get("a", "/echo") {
                        Some(response) if response.status == 200 => {
                            done.fetch_add(1, Ordering::Relaxed);
                            if response.field("connection") != "close" {
                                kept = Some(connection);
                            }
                        }
                        other => {
                            failures.push(format!("{:?}", other.map(|response| response.status)))
                        }
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                failures
            })
        });
        let threads = threads.collect();
        Clients {
            stop,
            done,
            threads,
        }
    }

    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client"))
            .collect();
        (self.done.load(Ordering::Relaxed), failures)
    }
}

#[test]
fn termination_under_load_loses_no_request_and_exits_0() {
    let (mut leaving, _one) = start("1s", "10s");
    let (staying, _two) = start("1s", "10s");
    let gone = Arc::new(AtomicBool::new(false));
    let (from, to, moved) = (leaving.web(), staying.web(), gone.clone());
    let clients = Clients::start(
        16,
        Arc::new(move || {
            if moved.load(Ordering::SeqCst) {
                to
            } else {
                from
            }
        }),
    );
    eventually("traffic flows", || {
        clients.done.load(Ordering::Relaxed) > 200
    });

    leaving.signal("TERM");
    eventually("it says that it is not ready", || !leaving.ready());
    // The L4 tier hears of it a moment later; until then new connections still come.
    std::thread::sleep(Duration::from_millis(300));
    gone.store(true, Ordering::SeqCst);
    let status = leaving.wait(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    let before = clients.done.load(Ordering::Relaxed);
    eventually("traffic flows elsewhere", || {
        clients.done.load(Ordering::Relaxed) > before + 200
    });
    let (done, failures) = clients.stop();
    assert!(
        failures.is_empty(),
        "{} of {done} failed: {failures:?}",
        failures.len()
    );
}

#[test]
fn a_drained_node_goes_on_serving_and_can_come_back() {
    let (proxy, _app) = start("200ms", "600ms");
    let web = proxy.web();
    let clients = Clients::start(8, Arc::new(move || web));
    eventually("traffic flows", || {
        clients.done.load(Ordering::Relaxed) > 100
    });
    proxy.command("drain");
    assert!(!proxy.ready());
    eventually("the drain ends", || {
        proxy.status()["drain"]["phase"] == "ended"
    });
    assert_eq!(client::get(web, "a", "/echo").field("connection"), "close");
    let before = clients.done.load(Ordering::Relaxed);
    eventually("late clients are served", || {
        clients.done.load(Ordering::Relaxed) > before + 100
    });
    proxy.command("undrain");
    assert!(proxy.ready());
    assert_eq!(client::get(web, "a", "/echo").field("connection"), "");
    let (done, failures) = clients.stop();
    assert!(
        failures.is_empty(),
        "{} of {done} failed: {failures:?}",
        failures.len()
    );
}

#[test]
fn signals_drain_and_undrain() {
    let (mut proxy, _app) = start("200ms", "600ms");
    proxy.signal("USR1");
    eventually("not ready", || !proxy.ready());
    proxy.signal("USR2");
    eventually("ready again", || proxy.ready());
    assert!(proxy.alive());
}

#[test]
fn a_running_request_is_finished_and_idle_connections_wait_for_the_grace() {
    let (mut proxy, _app) = start("1s", "10s");
    let mut idle = Connection::open(proxy.web());
    assert_eq!(
        idle.get("a", "/echo")
            .map(|response| response.field("connection").to_owned())
            .as_deref(),
        Some("")
    );
    let mut long = Connection::open(proxy.web());
    long.send("GET /slow/2500 HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(client::until_closed(&mut idle.0), "");
    assert!(
        began.elapsed() >= Duration::from_millis(800),
        "closed after {:?}",
        began.elapsed()
    );
    let response = long.read().expect("the answer");
    assert_eq!(
        (
            response.status,
            response.text().as_str(),
            response.field("connection")
        ),
        (200, "slow", "close")
    );
    assert!(proxy.wait(Duration::from_secs(5)).success());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it went on for {:?}",
        began.elapsed()
    );
}

#[test]
fn what_outlasts_the_deadline_is_cut_and_the_exit_is_still_0() {
    let (mut proxy, _app) = start("200ms", "1s");
    let mut stuck = Connection::open(proxy.web());
    stuck.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait(Duration::from_secs(6)).success());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(stuck.read().is_none());
}

#[test]
fn a_second_termination_ends_it_at_once() {
    let (mut proxy, _app) = start("30s", "60s");
    proxy.signal("TERM");
    eventually("it drains", || !proxy.ready());
    proxy.signal("TERM");
    assert!(proxy.wait(Duration::from_secs(5)).success());
}

#[test]
fn http2_clients_are_sent_away_gracefully() {
    let app = Backend::start("app");
    let mut proxy = Proxy::start(&format!(
        "[[listeners]]\nname = \"web\"\naddress = \"{{address}}:8080\"\nhttp2 = true\n[upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n\
         [[routes]]\nname = \"all\"\nhosts = [\"*\"]\nupstream = \"app\"\n[drain]\ngrace = \"2s\"\ndeadline = \"10s\"\n",
        app.address
    ));
    let url = format!("http://{}/slow/1000", proxy.web());
    let request = std::thread::spawn(move || {
        client::curl(&[
            "--http2-prior-knowledge",
            "--write-out",
            " %{http_code}",
            &url,
        ])
    });
    eventually("the request is at the backend", || app.requests() == 1);
    proxy.signal("TERM");
    let (code, text) = request.join().expect("curl");
    assert_eq!((code, text.as_str()), (0, "slow 200"));
    assert!(proxy.wait(Duration::from_secs(5)).success());
}
