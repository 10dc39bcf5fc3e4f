//! Starts the binary with a configuration, and ends it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_support::ServiceManager;

use crate::backend::Backend;
use crate::client;

/// A loopback address no other test and no other test process uses, so that ports can be fixed.
pub fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 500, "addresses for one process are used up");
    let half = (number / 250) as u8;
    let last = (number % 250 + 1) as u8;
    IpAddr::V4(Ipv4Addr::new(127, 64 + 64 * half + high % 64, low, last))
}

const BINARY: &str = env!("CARGO_BIN_EXE_l7-proxy");

/// A running proxy. Killed when dropped.
pub struct Proxy {
    child: Child,
    folder: TempDir,
    address: IpAddr,
    heirs: Vec<u64>,
}

impl Proxy {
    /// Starts the proxy with a plain listener on port 8080 and what `config` adds, and waits until it is ready. `{address}` in it becomes
    /// the proxy's address, `{folder}` its folder.
    pub fn start(config: &str) -> Proxy {
        Proxy::spawn(config, Command::new(BINARY))
    }

    /// The same, with a backend that every request goes to as upstream `app`, and what `more` says.
    pub fn with_app(more: &str) -> (Proxy, Backend) {
        let app = Backend::start("app");
        let proxy = Proxy::start(&format!(
            "[upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nname = \"all\"\nhosts = [\"*\"]\nupstream = \"app\"\n{more}",
            app.address
        ));
        (proxy, app)
    }

    /// As [`Proxy::with_app`], by a listener with keys of its own.
    pub fn with_listener(keys: &str, more: &str) -> (Proxy, Backend) {
        let listener =
            format!("[[listeners]]\nname = \"web\"\naddress = \"{{address}}:8080\"\n{keys}\n");
        Proxy::with_app(&format!("{more}\n{listener}"))
    }

    /// The same under another `node.id`.
    pub fn start_as(id: &str, config: &str) -> Proxy {
        let mut command = Command::new(BINARY);
        command.env("WEIR__NODE__ID", id);
        Proxy::spawn(config, command)
    }

    /// The same from a copy of the binary at `path`, which may be replaced.
    pub fn start_copy(path: &Path, config: &str) -> Proxy {
        fs::copy(BINARY, path).expect("a copy of the binary");
        Proxy::spawn(config, Command::new(path))
    }

    /// The same with at most that many open files.
    pub fn start_with_files(files: u32, config: &str) -> Proxy {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}")).arg(BINARY);
        Proxy::spawn(config, command)
    }

    /// The same, telling a service manager.
    pub fn start_told(systemd: &ServiceManager, config: &str) -> Proxy {
        let mut command = Command::new(BINARY);
        systemd.starts(&mut command);
        Proxy::spawn(config, command)
    }

    fn spawn(config: &str, command: Command) -> Proxy {
        let mut proxy = Proxy::start_unready(config, command);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !proxy.ready() {
            if let Ok(Some(status)) = proxy.child.try_wait() {
                panic!("the proxy ended: {status}\n{}", proxy.said());
            }
            assert!(
                Instant::now() < deadline,
                "the proxy did not get ready:\n{}",
                proxy.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    fn start_unready(config: &str, mut command: Command) -> Proxy {
        let folder = tempfile::tempdir().expect("folder");
        let address = address();
        let config = config
            .replace("{address}", &address.to_string())
            .replace("{folder}", &folder.path().display().to_string());
        let listener = if config.contains("[[listeners]]") {
            String::new()
        } else {
            format!("[[listeners]]\nname = \"web\"\naddress = \"{address}:8080\"\n")
        };
        let path = folder.path().display();
        let text = format!(
            "workers = 2\n[node]\nid = \"l7-test\"\n[admin]\nlisten = \"{address}:9402\"\n[log]\nlevel = \"info,l7_proxy=debug\"\n\
             [access_log]\npath = \"{path}/access.log\"\nformat = \"json\"\n{listener}{config}"
        );
        fs::write(folder.path().join("l7.toml"), text).expect("configuration");
        let errors = fs::File::create(folder.path().join("stderr")).expect("stderr");
        let child = command
            .args(["run", "--config"])
            .arg(folder.path().join("l7.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the binary starts");
        Proxy {
            child,
            folder,
            address,
            heirs: Vec::new(),
        }
    }

    /// Where the listener on `port` is.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// The plain listener.
    pub fn web(&self) -> SocketAddr {
        self.at(8080)
    }

    /// The admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.at(9402)
    }

    /// Whether /readyz says so.
    pub fn ready(&self) -> bool {
        client::try_get(self.admin(), "admin", "/readyz")
            .is_some_and(|response| response.status == 200)
    }

    /// What /status says.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&client::get(self.admin(), "admin", "/status").body).expect("JSON")
    }

    /// What /metrics says.
    pub fn metrics(&self) -> String {
        String::from_utf8(client::get(self.admin(), "admin", "/metrics").body).expect("text")
    }

    /// The value of a metric whose line begins with `prefix` and contains all of `parts`; 0 when there is none.
    pub fn metric(&self, prefix: &str, parts: &[&str]) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|line| {
            line.starts_with(prefix) && parts.iter().all(|part| line.contains(part))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until [`Proxy::metric`] has this value: what is counted at the end of an exchange may be a moment behind its response.
    pub fn await_metric(&self, prefix: &str, parts: &[&str], value: f64) {
        eventually(&format!("{prefix} {parts:?} is {value}"), || {
            self.metric(prefix, parts) == value
        });
    }

    /// A command, as `l7-proxy drain` gives it.
    pub fn command(&self, action: &str) -> String {
        match self.ask(action) {
            Ok(said) => said,
            Err(why) => panic!("{action}: {why}\n{}", self.said()),
        }
    }

    /// A command that may be refused; what was printed.
    pub fn ask(&self, action: &str) -> Result<String, String> {
        self.run(&[action])
    }

    /// A command with arguments; what was printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let done = Command::new(BINARY)
            .args(arguments)
            .args(["--admin", &self.admin().to_string()])
            .output()
            .expect("command");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        match done.status.success() {
            true => Ok(text(done.stdout)),
            false => Err(text(done.stderr)),
        }
    }

    /// Asks for a reload without the cost of a process.
    pub fn reload(&self) {
        let body = "{\"by\":\"test\"}";
        let mut connection = client::Connection::open(self.admin());
        connection.send(&format!(
            "POST /command/reload HTTP/1.1\r\nHost: admin\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = connection.read().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Descriptors the process holds.
    pub fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        files.expect("descriptors").count()
    }

    /// Has another process take over; its id.
    pub fn upgrade(&mut self) -> u64 {
        self.command("upgrade");
        self.taken_over()
    }

    /// Looks who serves now, which it ends as well when dropped; its id.
    pub fn taken_over(&mut self) -> u64 {
        let process = self.status()["process"].as_u64().expect("process");
        self.heirs.push(process);
        process
    }

    /// Changes the configuration file.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let file = self.file("l7.toml");
        let text = fs::read_to_string(&file).expect("configuration");
        fs::write(&file, change(text)).expect("configuration");
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(done.success(), "kill -s {name}");
    }

    /// The id of the process that was started first.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the proxy did not exit within {within:?}:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    /// The process's own log.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// A file in the proxy's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The first access log entry for which `wanted` holds; waits for it.
    pub fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let text = fs::read_to_string(self.file("access.log")).unwrap_or_default();
            let entries = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(entry) = entries.into_iter().find(&wanted) {
                return entry;
            }
            assert!(
                Instant::now() < deadline,
                "no such entry in the access log:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // After upgrades, those that took over.
        for process in &self.heirs {
            let _ = Command::new("kill")
                .args(["-s", "KILL", &process.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy said:\n{}", self.said());
        }
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
