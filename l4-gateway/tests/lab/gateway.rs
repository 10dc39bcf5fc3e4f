//! The real binary at work in the laboratory, asked by its admin listener and its subcommands.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::MacAddr;
use serde_json::Value;

use super::{ADMIN, Lab, Place};

/// A running gateway; killed with this value.
pub(crate) struct Gateway {
    child: Child,
    place: Place,
    config: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Starts the real binary and waits until it is ready.
    pub(crate) fn start(lab: &Lab, config: &str) -> Gateway {
        let gateway = Gateway::launch(lab, config);
        gateway.wait("ready", || gateway.ready() == Ok(()));
        gateway
    }

    pub(crate) fn launch(lab: &Lab, config: &str) -> Gateway {
        Gateway::launch_by(lab, config, |_| {})
    }

    /// Starts the real binary by a command that `set_up` has changed.
    pub(crate) fn launch_by(lab: &Lab, config: &str, set_up: impl FnOnce(&mut Command)) -> Gateway {
        let path = lab.directory.path().join("l4.toml");
        std::fs::write(&path, config).unwrap();
        let log = lab.directory.path().join("l4.log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = lab.gateway().command(env!("CARGO_BIN_EXE_l4-gateway"));
        command
            .args(["run", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(output);
        set_up(&mut command);
        // `ip netns exec` replaces itself by the program, so the pid is the gateway's.
        Gateway {
            child: command.spawn().expect("iproute2's ip"),
            place: lab.gateway(),
            config: path,
            log,
        }
    }

    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "not {what} in time; log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn ready(&self) -> Result<(), String> {
        match self.get("/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((_, why)) | Err(why) => Err(why),
        }
    }

    pub(crate) fn status(&self) -> Value {
        let (code, body) = self
            .get("/status")
            .unwrap_or_else(|why| panic!("{why}; log:\n{}", self.log()));
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").unwrap().1
    }

    /// One number of `/metrics`, by its name and labels.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let metrics = self.metrics();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"));
        value.parse().unwrap()
    }

    /// The MAC of a port.
    pub(crate) fn mac(&self, port: &str) -> MacAddr {
        let status = self.status();
        let ports = status["ports"].as_array().unwrap();
        let port = ports.iter().find(|shown| shown["name"] == port).unwrap();
        let mac = port["mac"].as_str().unwrap().split(':');
        let bytes: Vec<u8> = mac
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        MacAddr(bytes.try_into().unwrap())
    }

    /// Memory that the process has, as far as it was touched.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// A service of `/status`, by name.
    pub(crate) fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().unwrap();
        services
            .iter()
            .find(|service| service["name"] == name)
            .unwrap()
            .clone()
    }

    /// The sum of a counter over all workers.
    pub(crate) fn workers(&self, counter: &str) -> Vec<u64> {
        self.status()["workers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|worker| worker[counter].as_u64().unwrap())
            .collect()
    }

    /// Runs the binary's subcommand against this node.
    pub(crate) fn subcommand(&self, arguments: &[&str]) -> String {
        self.try_subcommand(arguments)
            .unwrap_or_else(|why| panic!("{arguments:?}: {why}"))
    }

    /// Begins a subcommand that goes on until it is killed, and whose standard output is to be read.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_l4-gateway"));
        command.args(arguments).args(["--admin", ADMIN]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// As [`Gateway::subcommand`], with what it prints to standard error when it fails.
    pub(crate) fn try_subcommand(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_l4-gateway"));
        let output = command
            .args(arguments)
            .args(["--admin", ADMIN])
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalling the gateway");
    }

    /// The thread of the first worker.
    pub(crate) fn worker_thread(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        let worker = tasks.find(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "rte-worker-1\n")
        });
        let worker = worker.expect("a thread called rte-worker-1");
        worker.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Waits for the process's end.
    pub(crate) fn end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it did not end in {within:?}; log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Has the node read this configuration in place of its own.
    pub(crate) fn reload(&self, config: &str) -> String {
        std::fs::write(&self.config, config).unwrap();
        self.subcommand(&["reload"])
    }

    /// The flows that match a filter, as the admin listener lists them.
    pub(crate) fn flows(&self, filter: &Value) -> Vec<Value> {
        let (code, answer) = self.command("flows", filter);
        assert_eq!(code, 200, "{answer}");
        answer["flows"].as_array().unwrap().clone()
    }

    /// A command of the admin listener: the status code and the answer.
    pub(crate) fn command(&self, name: &str, arguments: &Value) -> (u16, Value) {
        let body = arguments.to_string();
        let length = body.len();
        let request = format!(
            "POST /command/{name} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let (code, answer) = self.ask(request).unwrap();
        (code, serde_json::from_str(&answer).unwrap())
    }

    fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.ask(format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        ))
    }

    fn ask(&self, request: String) -> Result<(u16, String), String> {
        self.place.run(move || {
            let mut stream = TcpStream::connect(ADMIN).map_err(|error| error.to_string())?;
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .map_err(|error| error.to_string())?;
            stream
                .write_all(request.as_bytes())
                .map_err(|error| error.to_string())?;
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .map_err(|error| error.to_string())?;
            let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
            let code = head
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .ok_or("no status")?;
            Ok((code, body.to_owned()))
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
