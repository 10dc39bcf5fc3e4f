//! The proxies: processes on a core of their own, with what they cost read from the kernel.

mod configuration;
mod cost;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::certificates::Certificate;
pub(crate) use configuration::route;
use configuration::{Told, haproxy, nginx, weir};
pub(crate) use cost::Cost;

/// How long a proxy may take to listen, and to end; under valgrind everything takes long.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(10);
/// How long lines may be under way into a log.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

const VECTOR_COPIES: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824";

/// Who proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Weir(PathBuf),
    /// An earlier l7-proxy to compare with.
    Before(PathBuf),
    Nginx,
    Haproxy,
}

/// Where and how proxies run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) cpu: usize,
    pub(crate) application: SocketAddr,
}

/// What is special.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) certificate: &'a Certificate,
    pub(crate) routes: usize,
    /// A program to run it under, with its arguments.
    pub(crate) under: &'a [String],
}

/// A proxy that runs.
pub(crate) struct Server {
    pub(crate) side: Side,
    child: Child,
    /// The processes that serve: with whatever it is run under left out.
    processes: Vec<u32>,
    pub(crate) plain: SocketAddr,
    pub(crate) h2c: SocketAddr,
    pub(crate) tls: SocketAddr,
    log: PathBuf,
    errors: PathBuf,
}

impl Side {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Side::Weir(_) => "weir",
            Side::Before(_) => "before",
            Side::Nginx => "nginx",
            Side::Haproxy => "haproxy",
        }
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> String {
        let (program, argument) = match self {
            Side::Weir(path) | Side::Before(path) => (path.as_path(), "--version"),
            Side::Nginx => (Path::new("nginx"), "-v"),
            Side::Haproxy => (Path::new("haproxy"), "-v"),
        };
        let run = Command::new(program).arg(argument).output();
        let said = run.map(|run| [run.stdout, run.stderr].concat());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        let line = said.lines().next().unwrap_or("version not known");
        let line = line.strip_prefix("nginx version: ").unwrap_or(line);
        line.split(" - ").next().unwrap_or(line).to_owned()
    }
}

impl Server {
    pub(crate) fn start(
        place: &Place,
        side: &Side,
        number: usize,
        setup: Setup<'_>,
    ) -> Result<Server> {
        let name = side.name();
        let directory = place.directory.join(format!("{number}-{name}"));
        fs::create_dir_all(&directory)?;
        let [plain, h2c, tls, admin] = free_addresses()?;
        let (log, errors) = (directory.join("access.log"), directory.join("errors.log"));
        let told = Told {
            directory: &directory,
            log: &log,
            application: place.application,
            plain,
            h2c,
            tls,
            admin,
            certificate: setup.certificate,
            routes: setup.routes,
            alone: !setup.under.is_empty(),
        };
        let file = directory.join("configuration");
        let mut command = pinned(place, setup.under);
        let output = File::options().create(true).append(true).open(&log)?;
        let errors_to = File::create(&errors)?;
        match side {
            Side::Weir(program) | Side::Before(program) => {
                fs::write(&file, weir(&told))?;
                command.arg(program).args(["run", "--config"]).arg(&file);
                command.stdout(errors_to.try_clone()?);
            }
            Side::Nginx => {
                fs::write(&file, nginx(&told))?;
                command.args(["nginx", "-c"]).arg(&file);
                command.arg("-e").arg(directory.join("nginx-errors.log"));
                command.stdout(errors_to.try_clone()?);
            }
            Side::Haproxy => {
                let (text, map) = haproxy(&told);
                fs::write(&file, text)?;
                fs::write(directory.join("haproxy.map"), map)?;
                command.args(["haproxy", "-db", "-f"]).arg(&file);
                command.stdout(output);
            }
        }
        command.stdin(Stdio::null()).stderr(errors_to);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Server {
            side: side.clone(),
            child,
            processes: Vec::new(),
            plain,
            h2c,
            tls,
            log,
            errors,
        };
        server.await_listeners()?;
        server.processes = server.find_processes(setup.under.first())?;
        Ok(server)
    }

    fn await_listeners(&mut self) -> Result<()> {
        let began = Instant::now();
        for address in [self.plain, self.h2c, self.tls] {
            while TcpStream::connect(address).is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!(
                        "{} ended with {status}:\n{}",
                        self.side.name(),
                        self.errors()
                    );
                }
                ensure!(
                    began.elapsed() < PATIENCE,
                    "{} does not listen on {address}:\n{}",
                    self.side.name(),
                    self.errors()
                );
                std::thread::sleep(AGAIN);
            }
        }
        Ok(())
    }

    /// Itself and what it started. What runs it is left out if it stays a process of its own, as strace does.
    fn find_processes(&self, under: Option<&String>) -> Result<Vec<u32>> {
        let is_traced = under.is_some_and(|program| program == "strace");
        // nginx listens before it has its worker.
        let has_worker = is_traced || (self.side == Side::Nginx && under.is_none());
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&path)?;
            let numbers = text.split_whitespace().map(str::parse::<u32>);
            let mut all: Vec<u32> = numbers.collect::<Result<_, _>>()?;
            if !all.is_empty() || !has_worker {
                if !is_traced {
                    all.insert(0, self.child.id());
                }
                return Ok(all);
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{} has no process that serves",
                self.side.name()
            );
            std::thread::sleep(AGAIN);
        }
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        [self.plain, self.h2c, self.tls]
    }

    /// What it has cost until now.
    pub(crate) fn cost(&self) -> Result<Cost> {
        let costs = self.processes.iter().map(|process| Cost::of(*process));
        costs.sum()
    }

    /// Bytes of memory that are its own, with its part of what it shares.
    pub(crate) fn memory(&self) -> Result<u64> {
        let memory = self.processes.iter().map(|process| cost::memory(*process));
        memory.sum()
    }

    /// The process that serves: of nginx the worker.
    pub(crate) fn process(&self) -> Result<u32> {
        self.processes.last().copied().context("no process")
    }

    /// Its threads.
    pub(crate) fn threads(&self) -> Result<Vec<u32>> {
        cost::threads(self.process()?)
    }

    /// Waits until the log has so many lines. One that is missing, or too much, is work that was not done, or not ours.
    pub(crate) fn expect_lines(&self, wanted: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let log = fs::read(&self.log)?;
            let lines = memchr::memchr_iter(b'\n', &log).count() as u64;
            if lines == wanted {
                return Ok(());
            }
            ensure!(
                lines < wanted && began.elapsed() < LOG_PATIENCE,
                "{} answered {wanted} requests and logged {lines}",
                self.side.name()
            );
            std::thread::sleep(AGAIN);
        }
    }

    /// The first line of the log.
    pub(crate) fn first_line(&self) -> Result<String> {
        let log = fs::read(&self.log)?;
        let line = log.split(|byte| *byte == b'\n').next();
        Ok(String::from_utf8_lossy(line.unwrap_or_default()).into_owned())
    }

    /// What it complained of, for people.
    pub(crate) fn errors(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = errors.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Has it end, and whatever it runs under, in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        for process in &self.processes {
            if let Some(process) = Pid::from_raw(i32::try_from(*process)?) {
                // It may have gone with another.
                let _ = kill_process(process, Signal::TERM);
            }
        }
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                began.elapsed() < PATIENCE,
                "{} does not end",
                self.side.name()
            );
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Those it started end with it only where they were told to.
        for process in &self.processes {
            let is_child = *process != self.child.id();
            if let Some(process) = i32::try_from(*process).ok().and_then(Pid::from_raw)
                && is_child
                && is_ours(process, &self.log)
            {
                let _ = kill_process(process, Signal::KILL);
            }
        }
    }
}

/// Whether a number still stands for a process that has this log open.
fn is_ours(process: Pid, log: &Path) -> bool {
    let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
    let Ok(files) = fs::read_dir(folder) else {
        return false;
    };
    files
        .flatten()
        .any(|file| fs::read_link(file.path()).is_ok_and(|file| file == log))
}

/// A program that has only the proxies' CPU, and ends with us, however that comes about: in an orderly way, or nginx would leave its worker behind.
fn pinned(place: &Place, under: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c"]);
    command.arg(place.cpu.to_string()).args(under);
    if !under.is_empty() {
        // glibc copies 2 KiB and more by `rep movsb`, which callgrind counts as an instruction for each byte.
        command.env("GLIBC_TUNABLES", VECTOR_COPIES);
    }
    command
}

/// Addresses that are free now; if another takes one before the proxy does, the proxy fails, loudly.
fn free_addresses() -> Result<[SocketAddr; 4]> {
    let listeners: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<std::io::Result<_>>()?;
    addresses.try_into().ok().context("four addresses")
}
