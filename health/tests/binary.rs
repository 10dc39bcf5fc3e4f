//! The binary from outside: command line, admin listener, signals.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use test_support::ServiceManager;

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
    let observer = start(name, targets, health());
    within("the admin listener answers", || {
        TcpStream::connect(observer.admin).is_ok()
    });
    observer
}

fn start(name: &str, targets: &[SocketAddr], mut health: Command) -> Observer {
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
    let process = health
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Observer {
        process,
        admin,
        config,
    }
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
fn how_busy_it_is_is_measured() {
    let observer = observe("busy", &[free_port()]);
    let value = |series: &str| -> f64 {
        let metrics = observer.ask("GET /metrics");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    };
    within("it waits for most of two seconds, and probes", || {
        value("weir_health_worker_time_seconds{worker=\"0\",state=\"idle\"}") > 1.5
            && value("weir_health_worker_time_seconds{worker=\"0\",state=\"busy\"}") > 0.0
    });
    let ratio = value("weir_health_worker_busy_ratio{worker=\"0\"}");
    assert!(0.0 < ratio && ratio < 0.9, "{ratio}");
}

#[test]
fn systemd_is_told_when_it_observes() {
    let systemd = ServiceManager::start();
    let mut command = health();
    systemd.starts(&mut command);
    let observer = start("systemd", &[free_port()], command);
    assert_eq!(systemd.hears(), "READY=1");
    assert_eq!(observer.status()["node"], "observer-1");
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
    for line in metrics.lines() {
        if let Some((name, _)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            assert!(
                metrics.contains(&format!("# HELP {name} ")),
                "{name} has no HELP"
            );
        }
    }
    assert!(
        observer
            .ask("POST /command/drain")
            .contains("nothing to drain")
    );
    assert!(observer.terminate().success());
}

#[test]
fn checks_come_and_go_by_a_reload_and_the_others_keep_their_state() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [stays, comes] = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    let goes = free_port();
    let observer = observe("reload", &[stays, goes]);
    let ready = || observer.ask("GET /readyz").starts_with("HTTP/1.1 200");
    within("all targets are probed", ready);
    let seen = |address: SocketAddr| {
        let status = observer.status();
        let targets = status["services"]["web"]["targets"].as_array().unwrap();
        let mut targets = targets.iter();
        targets
            .find(|target| target["addr"] == address.to_string())
            .cloned()
    };
    let before = seen(stays).unwrap();
    let config = observer.config.to_str().unwrap();
    let text = std::fs::read_to_string(config).unwrap();
    let ask = |action: &str| run(&[action, "--config", config]);

    let changed = text.replace(&goes.to_string(), &comes.to_string());
    std::fs::write(config, changed.replace("rise = 1", "rise = 2")).unwrap();
    let lines = format!(
        "services.web.health.rise: 1 -> 2\n\
         services.web.targets: [\"{stays}\", \"{goes}\"] -> [\"{stays}\", \"{comes}\"]\n"
    );
    let planned = format!("{lines}a reload would do this; nothing was changed\n");
    assert_eq!(ask("plan"), (0, planned));
    assert!(seen(goes).is_some());
    assert_eq!(ask("reload"), (0, format!("{lines}reloaded {config}\n")));
    assert_eq!(seen(goes), None);
    within("the new target is probed", ready);
    assert_eq!(seen(comes).unwrap()["state"], "up");
    assert_eq!(seen(stays).unwrap(), before);
    within("the record of what is gone is taken back", || {
        observer.status()["bus"]["keys"] == 3
    });

    for (wrong, why) in [
        (
            text.replace("\"tcp\"", "\"tpc\""),
            "expected one of \"tcp\"",
        ),
        (
            text.replace("observer-1", "observer-2"),
            "node.id: takes effect by a restart only",
        ),
    ] {
        std::fs::write(config, wrong).unwrap();
        let (code, printed) = ask("reload");
        assert!(code == 1 && printed.contains(why), "{printed}");
        assert!(printed.ends_with("nothing was changed\n"), "{printed}");
        let refused = observer.status()["configuration"]["refused"].clone();
        assert!(refused.as_str().unwrap().contains(why), "{refused}");
        assert!(
            observer
                .ask("GET /metrics")
                .contains("weir_health_config_last_reload_successful 0")
        );
    }
    assert_eq!(seen(stays).unwrap(), before);

    std::fs::write(config, text).unwrap();
    let pid = observer.process.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(sent.success());
    within("a signal does the same", || seen(goes).is_some());
    assert!(
        observer
            .ask("GET /metrics")
            .contains("weir_health_config_last_reload_successful 1")
    );
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
    let (code, printed) = run(&["probe", &closed, "--json"]);
    let found: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &found["verdict"]), (1, &"not healthy".into()));
    assert_eq!(found["reason"], "connect refused");
    assert!(found["took_seconds"].as_f64().unwrap() < 2.0);
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
        code == 2 && printed.contains("service \"apo\": expected one of api"),
        "{printed}"
    );
    std::fs::remove_file(config).unwrap();
}

#[test]
fn the_version_says_what_was_built_of_what_and_with_what() {
    let (code, printed) = run(&["--version"]);
    assert_eq!(code, 0);
    let version = format!("health {} (commit ", env!("CARGO_PKG_VERSION"));
    let rest = printed
        .strip_prefix(&version)
        .unwrap_or_else(|| panic!("{printed}"));
    let built: Vec<&str> = rest.trim_end_matches(")\n").split(", ").collect();
    let [commit, compiler, profile, target] = built[..] else {
        panic!("{printed}");
    };
    assert!(commit == "unknown" || commit.len() == 12, "{printed}");
    assert!(compiler.starts_with("rustc 1."), "{printed}");
    assert!(["debug", "release"].contains(&profile), "{printed}");
    assert!(target.contains("-linux-"), "{printed}");
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
