//! The binary from outside: command line, admin listener, signals.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// The observer, ended with the test.
struct Observer {
    process: Child,
    admin: SocketAddr,
    config: PathBuf,
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

fn health() -> Command {
    Command::new(env!("CARGO_BIN_EXE_health"))
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn config_file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("weir-health-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn observe(name: &str, targets: &[SocketAddr]) -> Observer {
    let admin = free_port();
    let targets: Vec<String> = targets
        .iter()
        .map(|target| format!("\"{target}\""))
        .collect();
    let config = config_file(
        name,
        &format!(
            "node.id = \"observer-1\"\nadmin.listen = \"{admin}\"\n[services.web]\ntargets = [{}]\n\
             health = {{ type = \"tcp\", interval = \"50ms\", rise = 1, fall = 2 }}\n",
            targets.join(", ")
        ),
    );
    let process = health()
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let observer = Observer {
        process,
        admin,
        config,
    };
    within("the admin listener answers", || {
        TcpStream::connect(admin).is_ok()
    });
    observer
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Observer {
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            self.admin
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(&self) -> serde_json::Value {
        let answer = self.ask("GET /status");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn targets_are_shown_as_they_come_and_go() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (open, closed) = (listener.local_addr().unwrap(), free_port());
    let observer = observe("status", &[open, closed]);
    within("all targets are probed", || {
        observer.ask("GET /readyz").starts_with("HTTP/1.1 200")
    });
    let target = |address: SocketAddr| {
        let status = observer.status();
        let targets = status["services"]["web"]["targets"]
            .as_array()
            .unwrap()
            .clone();
        targets
            .into_iter()
            .find(|target| target["addr"] == address.to_string())
            .unwrap()
    };
    assert_eq!(
        (&target(open)["state"], &target(open)["reason"]),
        (&"up".into(), &"connected".into())
    );
    assert_eq!(
        (&target(closed)["state"], &target(closed)["reason"]),
        (&"down".into(), &"connect refused".into())
    );
    assert_eq!(observer.status()["services"]["web"]["up"], 1);

    drop(listener);
    within("the loss is seen", || target(open)["state"] == "down");
    let metrics = observer.ask("GET /metrics");
    for line in [
        "weir_health_targets{service=\"web\",state=\"down\"} 2",
        "weir_health_changes_total{type=\"tcp\"} 1",
        "weir_health_probes_total{type=\"tcp\",outcome=\"success\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(
        observer
            .ask("POST /command/drain")
            .contains("nothing to drain")
    );
    assert!(observer.terminate().success());
}

#[test]
fn its_records_reach_the_bus_as_target_records() {
    // In-process there is nobody else to ask, but the count of keys tells: the node and two targets.
    let observer = observe("bus", &[free_port(), free_port()]);
    within("the records are put", || {
        observer.status()["bus"]["keys"] == 3
    });
}

fn run(arguments: &[&str]) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = health().args(arguments).output().unwrap();
    let printed = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(printed).unwrap())
}

#[test]
fn one_probe_is_told_in_words_and_by_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (open, closed) = (
        listener.local_addr().unwrap().to_string(),
        free_port().to_string(),
    );
    let (code, printed) = run(&["probe", &open]);
    assert!(
        code == 0 && printed.starts_with(&format!("tcp {open}: healthy: connected (took ")),
        "{code} {printed}"
    );
    let (code, printed) = run(&["probe", &closed, "type=http", "path=/healthz", "expect=200"]);
    assert!(
        code == 1 && printed.contains("http") && printed.contains("not healthy: connect refused"),
        "{printed}"
    );
    let (code, printed) = run(&["probe", &open, "source=192.0.2.1"]);
    assert!(
        code == 2 && printed.contains("can't tell: binding to 192.0.2.1"),
        "{printed}"
    );
    let (code, printed) = run(&["probe", &open, "type=http", "timeout=200ms"]);
    assert!(
        code == 1 && printed.contains("timed out after 200ms waiting for the response"),
        "{printed}"
    );
    for (arguments, complaint) in [
        (vec!["probe", &open, "pathh=/"], "pathh: unknown key"),
        (vec!["probe", &open, "path"], "\"path\" is not KEY=VALUE"),
        (vec!["probe", &open, "a]\nb=1"], "is not a key"),
        (
            vec!["probe", &open, "type=http", "path=\"\nx = 1"],
            "path: expected a path",
        ),
        (
            vec!["probe", "localhost:80"],
            "expected an IP address with a port",
        ),
    ] {
        let (code, printed) = run(&arguments);
        assert!(
            code == 2 && printed.contains(complaint),
            "{arguments:?}: {printed}"
        );
    }
}

#[test]
fn a_service_is_probed_as_configured() {
    let config = config_file(
        "service",
        "node.id = \"a\"\n[services.api]\ntargets = [\"127.0.0.1:1\"]\nhealth = { type = \"http\", timeout = \"200ms\" }\n",
    );
    let config = config.to_str().unwrap();
    let closed = free_port().to_string();
    let (code, printed) = run(&["probe", &closed, "--config", config, "--service", "api"]);
    assert!(code == 1 && printed.starts_with("http "), "{printed}");
    let (code, printed) = run(&["probe", &closed, "--config", config, "--service", "apo"]);
    assert!(
        code == 2 && printed.contains("there is no service \"apo\", only api"),
        "{printed}"
    );
    std::fs::remove_file(config).unwrap();
}

#[test]
fn check_prints_every_mistake() {
    let config = config_file(
        "mistakes",
        "max_probes = 0\n[services.web]\ntargets = []\nhealth = { type = \"tpc\" }\n",
    );
    let (code, printed) = run(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!((code, printed.lines().count()), (1, 4), "{printed}");
    std::fs::write(&config, include_str!("../../deploy/examples/health.toml")).unwrap();
    assert_eq!(
        run(&["check", "--config", config.to_str().unwrap()]),
        (0, "ok\n".to_owned())
    );
    std::fs::remove_file(config).unwrap();
}
