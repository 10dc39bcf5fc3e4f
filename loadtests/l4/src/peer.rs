//! The processes on the other core: the gateway, and dpdk-testpmd in its place. Only one of them runs at a time; the other is
//! stopped (SIGSTOP) meanwhile, so that windows of both can alternate.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

/// How long a forwarder may take to listen; a gateway with 100,000 targets reads megabytes of configuration first.
const PATIENCE: Duration = Duration::from_secs(60);

/// A forwarder on its core.
pub(crate) struct Peer {
    child: Child,
    /// `/proc/.../task/...` of its worker.
    worker: PathBuf,
    pub(crate) outer: PathBuf,
    pub(crate) inner: PathBuf,
    log: PathBuf,
    admin: Option<SocketAddr>,
}

/// Where and how peers run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// The generator's CPU, and that of the forwarders.
    pub(crate) own: usize,
    pub(crate) cpu: usize,
    pub(crate) huge_pages: bool,
}

impl Peer {
    /// dpdk-testpmd, swapping the MAC addresses of what it gets on one port and sending it by the other.
    pub(crate) fn testpmd(place: &Place) -> Result<Peer> {
        let (outer, inner) = sockets(place, "testpmd");
        let cpu = place.cpu;
        let mut command = pinned(place, Path::new("dpdk-testpmd"));
        command.args(["--lcores", &format!("0@{cpu},1@{cpu}"), "--no-pci"]);
        if place.huge_pages {
            command.arg("--in-memory");
        } else {
            command.args(["--no-huge", "-m", "256", "--no-shconf"]);
        }
        let prefix = format!("--file-prefix=bench-testpmd-{}", std::process::id());
        command.args([prefix.as_str(), "--single-file-segments"]);
        for (index, socket) in [&outer, &inner].into_iter().enumerate() {
            command.arg(format!("--vdev={}", device(index, socket)));
        }
        command.args(["--", "--auto-start", "--forward-mode=macswap"]);
        command.args(["--total-num-mbufs=16384", "--no-mlockall"]);
        // It runs until its standard input ends.
        command.stdin(Stdio::piped());
        Peer::start(place, "testpmd", command, (outer, inner), None)
    }

    /// The gateway, by `binary`, with the configuration that `config` makes of its devices and where it is to listen.
    pub(crate) fn gateway(
        place: &Place,
        binary: &Path,
        name: &str,
        config: impl FnOnce([String; 2], SocketAddr) -> String,
    ) -> Result<Peer> {
        let (outer, inner) = sockets(place, name);
        // A port that is free now; whoever else takes it until the gateway starts makes it fail, loudly.
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = place.directory.join(format!("{name}.toml"));
        fs::write(&path, config([device(0, &outer), device(1, &inner)], admin))?;
        let mut command = pinned(place, binary);
        command.args(["run", "--config"]).arg(&path);
        command.stdin(Stdio::null());
        Peer::start(place, name, command, (outer, inner), Some(admin))
    }

    fn start(
        place: &Place,
        name: &str,
        mut command: Command,
        (outer, inner): (PathBuf, PathBuf),
        admin: Option<SocketAddr>,
    ) -> Result<Peer> {
        let log = place.directory.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("{command:?} (Debian packages dpdk-dev and util-linux)"))?;
        let mut peer = Peer {
            child,
            worker: PathBuf::new(),
            outer,
            inner,
            log,
            admin,
        };
        let began = Instant::now();
        while !(peer.is_ready() && peer.find_worker()) {
            if let Some(status) = peer.child.try_wait()? {
                bail!("{name} ended with {status}; its log:\n{}", peer.log());
            }
            if began.elapsed() > PATIENCE {
                bail!("{name} does not listen; its log:\n{}", peer.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(peer)
    }

    /// Its sockets are there before its ports are set up, and who connects too early is turned away.
    fn is_ready(&self) -> bool {
        match self.admin {
            Some(_) => self.status().is_ok(),
            None => self.log().contains("Checking link statuses"),
        }
    }

    /// The first lcore that is not the main one forwards.
    fn find_worker(&mut self) -> bool {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else {
            return false;
        };
        let is_worker = |task: &PathBuf| {
            fs::read_to_string(task.join("comm"))
                .is_ok_and(|name| name.trim_end() == "rte-worker-1")
        };
        let worker = tasks.flatten().map(|task| task.path()).find(is_worker);
        match worker {
            Some(worker) => {
                self.worker = worker;
                true
            }
            None => false,
        }
    }

    /// Lets it run.
    pub(crate) fn go(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Has it wait.
    pub(crate) fn halt(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signalling a forwarder")
    }

    /// Leaves its CPU to its worker alone. The other threads go to `own`, the generator's, where they run when it leaves them something.
    pub(crate) fn spread(&self, own: usize) -> Result<()> {
        self.place_others(own, "--idle")
    }

    /// Has all its threads on `cpu` again.
    pub(crate) fn gather(&self, cpu: usize) -> Result<()> {
        self.place_others(cpu, "--other")
    }

    fn place_others(&self, cpu: usize, policy: &str) -> Result<()> {
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if task != self.worker {
                self.place(&task, cpu, policy)?;
            }
        }
        Ok(())
    }

    /// Binds a thread to a CPU, under a scheduling policy of sched(7).
    fn place(&self, task: &Path, cpu: usize, policy: &str) -> Result<()> {
        let thread = number(task)?;
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(Pid::from_raw(thread), &cpus)?;
        let status = Command::new("chrt")
            .args([policy, "--pid", "0", &thread.to_string()])
            .status()?;
        if !status.success() {
            bail!("chrt {policy} for thread {thread}: {status}");
        }
        Ok(())
    }

    /// Nanoseconds that its worker was ready to run but did not get the CPU.
    pub(crate) fn waited(&self) -> u64 {
        waited(&self.worker.join("schedstat"))
    }

    /// The thread that forwards.
    pub(crate) fn worker(&self) -> Result<u32> {
        Ok(number(&self.worker)?.unsigned_abs())
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that are its own or mapped and touched, hugepages apart.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes: u64 = line
            .and_then(|line| line.split_whitespace().next())
            .context("/proc has no RssAnon")?
            .parse()?;
        Ok(kibibytes << 10)
    }

    /// `/status` of a gateway; it must be running.
    pub(crate) fn status(&self) -> Result<Value> {
        let admin = self.admin.context("only gateways have a status")?;
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(serde_json::from_str(body)?)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Works on a stopped process too. It has nothing to tidy up: its memory has no files.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number of a thread, by its directory in `/proc`.
fn number(task: &Path) -> Result<i32> {
    let name = task.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok())
        .with_context(|| format!("{} is no thread", task.display()))
}

/// Nanoseconds that this thread was ready to run but did not get the CPU.
pub(crate) fn own_wait() -> u64 {
    waited(Path::new("/proc/thread-self/schedstat"))
}

fn waited(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let field = text.split_whitespace().nth(1);
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// A program that has only the forwarder's CPU, and ends with us, however that comes about: one that goes on polling would disturb
/// whatever runs next.
fn pinned(place: &Place, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c"]);
    command.arg(place.cpu.to_string()).arg(program);
    command
}

fn sockets(place: &Place, name: &str) -> (PathBuf, PathBuf) {
    let socket = |side: &str| place.directory.join(format!("{name}-{side}.sock"));
    (socket("outer"), socket("inner"))
}

fn device(index: usize, socket: &Path) -> String {
    format!(
        "net_memif{index},role=server,socket-abstract=no,socket={}",
        socket.display()
    )
}
