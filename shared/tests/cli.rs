//! The subcommands every binary has, with a process to talk to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::admin::{Admin, CommandError, serve};
use shared::cli::{Command, Next};
use shared::config::sections::NodeSection;
use shared::config::{Configuration, Table};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    shared: Command,
}

struct Config {
    node: NodeSection,
}

impl Configuration for Config {
    const TIER: &'static str = "test";
    const ADMIN_PORT: u16 = 1;

    fn parse(root: &mut Table<'_>) -> Option<Self> {
        Some(Self {
            node: NodeSection::parse(root)?,
        })
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Config) -> impl PartialEq + '_ {
            let Config { node } = config;
            node
        }
        fixed(self) == fixed(other)
    }
}

/// Runs the command line; the node's name if it is to run, or the exit code as text.
fn run(arguments: &[&str]) -> Result<String, String> {
    let arguments = std::iter::once("weir-test").chain(arguments.iter().copied());
    match Cli::try_parse_from(arguments)
        .map_err(|error| error.to_string())?
        .shared
        .run::<Config>()
    {
        Next::Run(loaded) => Ok(loaded.config.node.id.clone()),
        Next::Exit(code) => Err(format!("{code:?}")),
    }
}

fn exit(code: ExitCode) -> Result<String, String> {
    Err(format!("{code:?}"))
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn run_is_the_default_and_needs_a_configuration_without_mistakes() {
    let files = Files::new();
    let good = files.write("good.toml", "[node]\nid = \"a\"");
    let bad = files.write("bad.toml", "[node]\nidd = \"a\"");
    assert_eq!(run(&["--config", &good]), Ok("a".to_owned()));
    assert_eq!(run(&["run", "--config", &good]), Ok("a".to_owned()));
    assert_eq!(run(&["--config", &good, "run"]), Ok("a".to_owned()));
    assert_eq!(run(&["--config", &bad]), exit(ExitCode::FAILURE));
    assert_eq!(run(&["--config", "/nonexistent"]), exit(ExitCode::FAILURE));
    assert_eq!(run(&[]), exit(ExitCode::FAILURE));
    assert!(
        run(&["fly"])
            .unwrap_err()
            .contains("unrecognized subcommand")
    );
}

#[test]
fn check_exits_with_0_or_1() {
    let files = Files::new();
    let good = files.write("good.toml", "[node]\nid = \"a\"");
    let bad = files.write("bad.toml", "[node]\nid = 1");
    assert_eq!(run(&["check", "--config", &good]), exit(ExitCode::SUCCESS));
    assert_eq!(run(&["check", "--config", &bad]), exit(ExitCode::FAILURE));
}

#[test]
fn run_and_check_refuse_the_address_of_somebody_to_ask() {
    let files = Files::new();
    let good = files.write("good.toml", "[node]\nid = \"a\"");
    for action in [&["run"][..], &["check"], &[]] {
        let arguments = [action, &["--config", &good, "--admin", "127.0.0.1:1"]].concat();
        assert_eq!(run(&arguments), exit(ExitCode::FAILURE), "{action:?}");
    }
}

#[derive(Default)]
struct Process(Mutex<Vec<(String, Value)>>);

impl Admin for Process {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn status(&self) -> Value {
        json!({})
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        self.0.lock().unwrap().push((name.to_owned(), args));
        let answer = if name == "undrain" {
            Err(CommandError::Refused("terminating".into()))
        } else {
            Ok(json!("draining"))
        };
        std::future::ready(answer).boxed()
    }
}

/// A process with an admin listener, for as long as the test runs.
fn start() -> (SocketAddr, Arc<Process>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let process = Arc::new(Process::default());
    let admin = process.clone();
    let metrics = shared::telemetry::init_metrics().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, metrics, admin, std::future::pending()).await;
        });
    });
    (addr, process)
}

#[test]
fn status_and_drain_find_the_process_by_address_or_configuration() {
    let (addr, process) = start();
    let files = Files::new();
    // A mistake elsewhere in the file does not stand in the way of a drain; a wildcard address is reached by loopback.
    let config = files.write(
        "f.toml",
        &format!("wrong = 1\n[admin]\nlisten = \"0.0.0.0:{}\"", addr.port()),
    );
    assert_eq!(
        run(&["status", "--admin", &addr.to_string()]),
        exit(ExitCode::SUCCESS)
    );
    assert_eq!(
        run(&["status", "--json", "--admin", &addr.to_string()]),
        exit(ExitCode::SUCCESS)
    );
    assert_eq!(
        run(&["drain", "--config", &config, "--by", "alice"]),
        exit(ExitCode::SUCCESS)
    );
    assert_eq!(
        run(&["undrain", "--config", &config, "--by", "alice"]),
        exit(ExitCode::FAILURE)
    );
    let asked = process.0.lock().unwrap().clone();
    let by = json!({ "by": "alice" });
    assert_eq!(
        asked,
        [("drain".to_owned(), by.clone()), ("undrain".to_owned(), by)]
    );
    assert_eq!(
        run(&["status", "--admin", "127.0.0.1:1"]),
        exit(ExitCode::FAILURE)
    );
    assert_eq!(run(&["status"]), exit(ExitCode::FAILURE));
}

#[test]
fn an_address_without_a_port_is_told_what_one_looks_like() {
    for wrong in ["localhost", "127.0.0.1", "::1", "[::1]", "localhost:9401"] {
        let why = run(&["status", "--admin", wrong]).unwrap_err();
        let expected = format!(
            "invalid value '{wrong}' for '--admin <ADDR:PORT>': expected an IP address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80"
        );
        assert!(why.contains(&expected), "{why}");
    }
}
