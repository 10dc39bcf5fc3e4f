//! The `bgp-ctl` binary as operators meet it, following a node over a real nats-server. Needs the package nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shared::bus::{Bus, DrainRecord, NodeRecord, ServiceState, Tier};
use shared::config::Document;
use shared::config::sections::BusSection;
use test_support::ServiceManager;

const SOON: Duration = Duration::from_secs(15);

/// A process that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn nats(port: u16, store: &Path) -> Running {
    let mut command = Command::new("/usr/sbin/nats-server");
    command
        .args([
            "--addr",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--jetstream",
            "--store_dir",
        ])
        .arg(store);
    let server = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Debian package nats-server");
    wait_for("nats-server", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    Running(server)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn bgp_ctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bgp-ctl"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A metric that has to have its HELP.
fn metric(admin: u16, series: &str) -> f64 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, admin)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let name = series.split('{').next().unwrap();
    assert!(metrics.contains(&format!("# HELP {name} ")), "{metrics}");
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

fn node(healthy: u32) -> NodeRecord {
    let services = vec![ServiceState {
        service: "web".to_owned(),
        vip: Ipv4Addr::new(10, 0, 0, 100).into(),
        healthy,
        total: 3,
    }];
    NodeRecord {
        tier: Tier::L4,
        id: "l4-1".to_owned(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: "test".to_owned(),
        services,
        ttl_ms: 1500,
    }
}

/// The node of the test: writes its record every 300 ms, as told. It comes back to the bus as fast as the process does, or its record
/// might not live that long.
struct Node(mpsc::Sender<Option<u32>>);

impl Node {
    fn start(nats: u16) -> (Self, Bus) {
        let text = format!(
            "[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"127.0.0.1:{nats}\"]\nretry_max = \"200ms\"\n"
        );
        let document = Document::from_toml("bus", &text).unwrap();
        let section = document
            .parse(|root| Some(BusSection::parse(root)))
            .unwrap();
        let bus = Bus::start(&section, "l4-1");
        let (sender, orders) = mpsc::channel::<Option<u32>>();
        let own = bus.clone();
        std::thread::spawn(move || {
            let mut healthy = None;
            loop {
                match orders.recv_timeout(Duration::from_millis(300)) {
                    Ok(order) => healthy = order,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
                if let Some(healthy) = healthy {
                    own.put(node(healthy));
                }
            }
        });
        (Self(sender), bus)
    }
}

/// A router that takes the session and passes on what it is told: UPDATEs and NOTIFICATIONs, kind first. KEEPALIVEs are answered.
fn router() -> (u16, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, messages) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut header = [0; 19];
            while stream.read_exact(&mut header).is_ok() {
                let mut body =
                    vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
                stream.read_exact(&mut body).unwrap();
                let keepalive = [&[0xff; 16][..], &[0, 19, 4]].concat();
                match header[18] {
                    1 => {
                        let open = [
                            4, 0xfd, 0xe9, 0, 9, 10, 2, 0, 1, 14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4,
                            0, 0, 0xfd, 0xe9,
                        ];
                        let open = [&[0xff; 16][..], &[0, 43, 1], &open].concat();
                        stream.write_all(&open).unwrap();
                        stream.write_all(&keepalive).unwrap();
                    }
                    4 => stream.write_all(&keepalive).unwrap(),
                    kind => {
                        // End-of-RIB says nothing.
                        if body != [0; 4] && told.send([&[kind][..], &body].concat()).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    });
    (port, messages)
}

fn configuration(directory: &Path, nats: u16, router: u16) -> (String, u16) {
    let admin = free_port();
    let text = format!(
        "[node]\nid = \"bgp-1\"\n[follow]\nnode = \"l4-1\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"127.0.0.1:{nats}\"]\nretry_max = \"200ms\"\n\
         [bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\nannounce_after = \"50ms\"\nconnect_retry = \"200ms\"\n\
         [[bgp.neighbours]]\naddress = \"127.0.0.1\"\nport = {router}\nremote_as = 65001\n"
    );
    let path = directory.join("bgp-ctl.toml");
    std::fs::write(&path, text).unwrap();
    (path.display().to_string(), admin)
}

fn expect_announced(messages: &mpsc::Receiver<Vec<u8>>, what: &str) {
    let message = messages
        .recv_timeout(SOON)
        .unwrap_or_else(|_| panic!("{what}: announced"));
    assert!(
        message[0] == 2 && message.ends_with(&[32, 10, 0, 0, 100]),
        "{what}: {message:?}"
    );
}

fn expect_withdrawn(messages: &mpsc::Receiver<Vec<u8>>, what: &str) {
    let message = messages
        .recv_timeout(SOON)
        .unwrap_or_else(|_| panic!("{what}: withdrawn"));
    assert_eq!(message, [2, 0, 5, 32, 10, 0, 0, 100, 0, 0], "{what}");
}

#[test]
fn systemd_is_told_when_it_follows_whether_or_not_the_bus_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (config, admin) = configuration(directory.path(), free_port(), free_port());
    let systemd = ServiceManager::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bgp-ctl"));
    systemd.starts(&mut command);
    let _process = Running(
        command
            .args(["run", "--config", &config])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    assert_eq!(systemd.hears(), "READY=1");
    let answer = bgp_ctl(&["drain", "--admin", &format!("127.0.0.1:{admin}")]).stdout;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        answer["warnings"][0],
        "other nodes have not been told yet: bus servers unreachable"
    );
}

#[test]
fn the_binary_follows_a_node_and_never_withdraws_for_a_lost_bus() {
    let directory = tempfile::tempdir().unwrap();
    let nats_port = free_port();
    let server = nats(nats_port, &directory.path().join("nats"));
    let (router_port, messages) = router();
    let (config, admin) = configuration(directory.path(), nats_port, router_port);
    let mut process = Running(
        Command::new(env!("CARGO_BIN_EXE_bgp-ctl"))
            .args(["run", "--config", &config])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let (node, bus) = Node::start(nats_port);

    node.0.send(Some(2)).unwrap();
    expect_announced(&messages, "the node is well");
    node.0.send(Some(0)).unwrap();
    expect_withdrawn(&messages, "no target is healthy");
    node.0.send(Some(2)).unwrap();
    expect_announced(&messages, "well again");

    let table = String::from_utf8(bgp_ctl(&["neighbours", "--config", &config]).stdout).unwrap();
    assert!(
        table.lines().count() == 2 && table.contains("127.0.0.1  65001  established"),
        "{table}"
    );
    let shown = bgp_ctl(&["neighbours", "--json", "--config", &config]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["127.0.0.1"]["state"], "established", "{shown:#}");
    let status: serde_json::Value = serde_json::from_slice(
        &bgp_ctl(&["status", "--admin", &format!("127.0.0.1:{admin}")]).stdout,
    )
    .unwrap();
    assert_eq!(
        status["vips"]["10.0.0.100"]["state"], "announced",
        "{status:#}"
    );
    assert_eq!(
        status["neighbours"]["127.0.0.1"]["advertised"][0], "10.0.0.100",
        "{status:#}"
    );
    assert_eq!(status["bus_connected"], true, "{status:#}");
    let series = "weir_bgp_worker_time_seconds{worker=\"0\",state=\"idle\"}";
    wait_for("most of two seconds of idling", || {
        metric(admin, series) > 1.5
    });
    let ratio = metric(admin, "weir_bgp_worker_busy_ratio{worker=\"0\"}");
    assert!(0.0 < ratio && ratio < 0.9, "{ratio}");

    assert!(bgp_ctl(&["drain", "--config", &config]).status.success());
    expect_withdrawn(&messages, "drained by command");
    assert!(bgp_ctl(&["undrain", "--config", &config]).status.success());
    expect_announced(&messages, "undrained");
    assert!(
        bgp_ctl(
            &[
                &["force", "10.0.0.100", "withdraw", "--config", &config][..],
                &["--by", "ann", "--reason", "rack 3"],
            ]
            .concat()
        )
        .status
        .success()
    );
    expect_withdrawn(&messages, "forced");
    let status = bgp_ctl(&["status", "--json", "--config", &config]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let operator = &status["vips"]["10.0.0.100"]["operator"];
    assert_eq!(operator["by"], "ann", "{status:#}");
    assert_eq!(operator["reason"], "rack 3", "{status:#}");
    assert!(
        bgp_ctl(&["force", "10.0.0.100", "none", "--config", &config])
            .status
            .success()
    );
    expect_announced(&messages, "free again");

    // The bus goes for longer than records live: nothing may happen.
    drop(server);
    assert!(
        messages.recv_timeout(Duration::from_secs(3)).is_err(),
        "a lost bus withdraws nothing"
    );
    let _server = nats(nats_port, &directory.path().join("nats"));
    wait_for("the node's bus", || bus.status().connected);
    assert!(
        messages.recv_timeout(Duration::from_secs(1)).is_err(),
        "neither does its return"
    );

    // The node goes silent while the bus is there: its record expires.
    node.0.send(None).unwrap();
    expect_withdrawn(&messages, "the node is silent");
    node.0.send(Some(1)).unwrap();
    expect_announced(&messages, "the node is back");
    bus.put(DrainRecord {
        tier: Tier::L4,
        id: "l4-1".to_owned(),
        drain: true,
        by: "node".to_owned(),
        since_unix_ms: 0,
    });
    expect_withdrawn(&messages, "drained over the bus");
    bus.put(DrainRecord {
        tier: Tier::L4,
        id: "l4-1".to_owned(),
        drain: false,
        by: "node".to_owned(),
        since_unix_ms: 0,
    });
    expect_announced(&messages, "undrained over the bus");

    assert!(
        Command::new("kill")
            .args(["-TERM", &process.0.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    expect_withdrawn(&messages, "asked to terminate");
    let cease = messages.recv_timeout(SOON).unwrap();
    assert_eq!(cease[..3], [3, 6, 2], "then Cease, Administrative Shutdown");
    assert!(process.0.wait().unwrap().success(), "exit code 0");
}

#[test]
fn what_a_dead_node_left_at_the_servers_announces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let nats_port = free_port();
    let _server = nats(nats_port, &directory.path().join("nats"));
    let (dead, bus) = Node::start(nats_port);
    dead.0.send(Some(2)).unwrap();
    wait_for("its record at the servers", || {
        let status = bus.status();
        status.connected && status.keys == 1 && status.pending == 0
    });
    drop((dead, bus));
    std::thread::sleep(Duration::from_millis(500));

    let (router_port, messages) = router();
    let (config, _) = configuration(directory.path(), nats_port, router_port);
    let _process = Running(
        Command::new(env!("CARGO_BIN_EXE_bgp-ctl"))
            .args(["run", "--config", &config])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_for("the session", || {
        let table = bgp_ctl(&["neighbours", "--config", &config]).stdout;
        String::from_utf8_lossy(&table).contains("established")
    });
    assert!(
        messages.recv_timeout(Duration::from_secs(2)).is_err(),
        "it is not known to be there"
    );
    let (alive, _bus) = Node::start(nats_port);
    alive.0.send(Some(2)).unwrap();
    expect_announced(&messages, "the node is back");
}

#[test]
fn check_lists_all_mistakes_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (good, _) = configuration(directory.path(), 4222, 179);
    let output = bgp_ctl(&["check", "--config", &good]);
    assert!(output.status.success() && output.stdout == b"ok\n");

    let bad = directory.path().join("bad.toml");
    std::fs::write(
        &bad,
        "[node]\nid = \"b\"\n[bgp]\nrouter_id = \"x\"\nneighbours = []\n",
    )
    .unwrap();
    let output = bgp_ctl(&["check", "--config", &bad.display().to_string()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for expected in [
        "bgp.local_as: is missing",
        "bgp.router_id: expected an IPv4 address",
        "bgp.neighbours: expected at least one",
    ] {
        assert!(text.contains(expected), "{expected}\nis missing in\n{text}");
    }

    let text = std::fs::read_to_string(&good).unwrap() + "password_file = \"/nonexistent/key\"\n";
    std::fs::write(&bad, text).unwrap();
    let output = bgp_ctl(&["check", "--config", &bad.display().to_string()]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/nonexistent/key")
    );
}

#[test]
fn asking_nobody_says_what_to_do() {
    let output = bgp_ctl(&[
        "neighbours",
        "--admin",
        &format!("127.0.0.1:{}", free_port()),
    ]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("is the process running?")
    );
}
