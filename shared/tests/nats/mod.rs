//! nats-servers of a test's own, and buses over them.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use shared::bus::{Bus, Change, Prefix};
use shared::config::Document;
use shared::config::sections::BusSection;
use tokio::time::{Instant, sleep};

/// A nats-server of our own on loopback; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn binary() -> PathBuf {
        #[expect(
            clippy::disallowed_methods,
            reason = "PATH is not configuration of ours"
        )]
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
        places.push("/usr/sbin".into());
        places
            .into_iter()
            .map(|place| place.join("nats-server"))
            .find(|file| file.is_file())
            .expect(
                "nats-server is neither on PATH nor in /usr/sbin: install the package nats-server",
            )
    }

    pub(crate) fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    pub(crate) async fn start(port: u16, store: &Path) -> Self {
        let store = store.to_str().unwrap();
        Self::with(port, &["--jetstream", "--store_dir", store]).await
    }

    pub(crate) async fn without_jetstream() -> Self {
        Self::with(Self::free_port(), &[]).await
    }

    /// One of a cluster whose members find each other at `routes`; `number` is its place among them.
    pub(crate) async fn member(port: u16, store: &Path, number: usize, routes: &[u16]) -> Self {
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let (name, own) = (format!("s{number}"), urls[number].clone());
        let routes = urls.join(",");
        let store = store.to_str().unwrap();
        let args = [
            "--jetstream",
            "--store_dir",
            store,
            "--server_name",
            &name,
            "--cluster_name",
            "weir",
            "--cluster",
            &own,
            "--routes",
            &routes,
            "--no_advertise",
        ];
        Self::with(port, &args).await
    }

    async fn with(port: u16, more: &[&str]) -> Self {
        let mut process = Command::new(Self::binary())
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..500 {
            if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok()
            {
                return Self { process, port };
            }
            assert!(
                process.try_wait().unwrap().is_none(),
                "nats-server ended at once"
            );
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nats-server does not listen on port {port}");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

pub(crate) fn section(port: u16) -> BusSection {
    section_of(&[port], "retry_max = \"200ms\"")
}

/// The section of a bus over servers at these ports, with `more` keys of `[bus.nats]`.
pub(crate) fn section_of(ports: &[u16], more: &str) -> BusSection {
    let servers: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let text = format!("[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = {servers:?}\n{more}");
    Document::from_toml("test.toml", &text)
        .unwrap()
        .parse(|root| Some(BusSection::parse(root)))
        .unwrap()
}

/// A watcher that writes down what it is told.
#[derive(Clone, Default)]
pub(crate) struct Watcher(Arc<Mutex<Vec<Change>>>);

impl Actor for Watcher {
    type Context = Context<Self>;
}

impl Handler<Change> for Watcher {
    type Result = ();

    fn handle(&mut self, change: Change, _: &mut Context<Self>) {
        self.0.lock().unwrap().push(change);
    }
}

impl Watcher {
    pub(crate) fn of(bus: &Bus, prefix: Prefix) -> Self {
        let watcher = Self::default();
        bus.watch(prefix, watcher.clone().start().recipient());
        watcher
    }

    pub(crate) fn heard(&self) -> Vec<Change> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) async fn hears(&self, what: impl Fn(&Change) -> bool) {
        eventually("the watcher to hear of it", || {
            self.heard().iter().any(&what)
        })
        .await;
    }
}

pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn connected(buses: &[&Bus]) {
    eventually("the bus to connect", || {
        buses.iter().all(|bus| bus.status().connected)
    })
    .await;
}

/// Writes past the bus, as a rogue client would.
pub(crate) async fn rogue(port: u16) -> async_nats::Client {
    async_nats::connect(format!("127.0.0.1:{port}"))
        .await
        .unwrap()
}

/// Sends a signal to a process this test started.
pub(crate) fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill")
        .args([name, &server.process.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}
