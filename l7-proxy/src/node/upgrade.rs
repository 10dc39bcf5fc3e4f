//! A new binary takes over from the running one, without a connection refused or reset.
//!
//! The running process checks the configuration with the new binary, starts it, and hands it the listening sockets themselves: what the kernel
//! has completed and nobody has accepted waits in them, whoever accepts next. Both accept until the new one serves; then the old one stops,
//! asks its clients to move over, and ends when the last of them has gone. If anything goes wrong before that, the old one serves on.
//!
//! While both are there, the old one is the new one's parent, so it alone hears of its end (systemd, which is told of a process that is not its child,
//! does not). If that end is not a good one, the old one ends as well, and whoever supervises the node starts it again.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use actix::Addr;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::bus::{Life, SUCCEEDS};
use shared::lifecycle::Request;
use shared::reload::Reloader;

use super::handover::{Channel, Inheritance, LOOK, Patience};
use super::supervisor::{Bequeath, Exit, HandOver, Supervisor};
use crate::config::Config;

/// What a process is started with, besides the arguments of the one it takes over from.
const TAKE_OVER: &str = "--take-over";

/// Time for the new process to take the sockets, and for the old one to give them.
const HANDOVER: Duration = Duration::from_secs(10);

/// Time for the new process to serve: reading its configuration, certificates, opening its log. It has as long again to check them first.
const START: Duration = Duration::from_secs(60);

/// Most that is told of what the new binary says of a configuration, in bytes.
const MAX_SAID: u64 = 64 << 10;

/// How this process was started, to be started anew.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    binary: PathBuf,
    arguments: Vec<OsString>,
}

impl Origin {
    /// To be called at the start: once the file has been replaced, the kernel no longer knows its name.
    ///
    /// # Errors
    /// If /proc is not there.
    pub(super) fn of_this_process() -> io::Result<Origin> {
        Ok(Origin {
            binary: std::env::current_exe()?,
            arguments: std::env::args_os()
                .skip(1)
                .filter(|argument| argument != TAKE_OVER)
                .collect(),
        })
    }

    /// Whether another file than the running one is in place.
    ///
    /// # Errors
    /// If there is none.
    fn is_replaced(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let running = std::fs::metadata("/proc/self/exe")?;
        let in_place = std::fs::metadata(&self.binary)?;
        Ok((running.dev(), running.ino()) != (in_place.dev(), in_place.ino()))
    }

    /// Has the new binary check the configuration file.
    ///
    /// # Errors
    /// What is wrong with it, in the new binary's words; or that there was no `patience` left to wait for them.
    fn check(&self, configuration: &Path, patience: &Patience<'_>) -> Result<(), String> {
        let binary = self.binary.display();
        let mut child = Command::new(&self.binary)
            .arg("check")
            .arg("--config")
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {binary}: {error}"))?;
        let said = listen(child.stderr.take());
        let checked = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(format!("cannot wait for {binary}: {error}")),
            }
            let what = format!("{binary} does not check {}", configuration.display());
            if let Err(why) = patience.lasts(&what) {
                end(&mut child);
                return Err(why);
            }
            std::thread::sleep(LOOK);
        };
        if checked.success() {
            return Ok(());
        }
        let said = said.recv_timeout(LOOK).unwrap_or_default();
        Err(format!(
            "{binary} refuses {}:\n{}",
            configuration.display(),
            said.trim_end()
        ))
    }

    /// Starts the new binary and gives it what this process has. Ends when it serves, and returns it. Blocks for as long as it takes, or until
    /// `given_up`.
    ///
    /// # Errors
    /// Why it does not serve; it is gone then, and nothing has changed here.
    pub(super) fn hand_over(
        &self,
        configuration: &Path,
        inheritance: &Inheritance,
        given_up: &AtomicBool,
    ) -> Result<Child, String> {
        self.check(configuration, &Patience::new(START, given_up))?;
        let failed = |what: &str, error: io::Error| format!("{what}: {error}");
        let (ours, theirs) = Channel::pair().map_err(|error| failed("no socket pair", error))?;
        let mut child = Command::new(&self.binary)
            .args(&self.arguments)
            .arg(TAKE_OVER)
            // Both are on the bus for a while, under one name.
            .env(SUCCEEDS, Life::of_process().id.to_string())
            .stdin(Stdio::from(theirs.into_fd()))
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", self.binary.display()))?;
        let given = ours
            .give(inheritance, HANDOVER)
            .map_err(|error| failed("the new process does not take the sockets", error));
        match given.and_then(|()| ours.answered(&Patience::new(START, given_up))) {
            Ok(()) => Ok(child),
            Err(why) => {
                end(&mut child);
                Err(format!("the new process: {why}"))
            }
        }
    }
}

/// The running process's side of an upgrade.
#[derive(Debug)]
pub(super) struct Upgrade {
    origin: Origin,
    file: PathBuf,
    /// The admin listener, until it is given away.
    admin: Mutex<Option<(SocketAddr, TcpListener)>>,
    running: AtomicBool,
    given_up: AtomicBool,
}

impl Upgrade {
    /// For a process that was started as `origin` says with the configuration `file`, and whose admin listener is `socket`, at `address`.
    pub(super) fn new(
        origin: Origin,
        file: PathBuf,
        address: SocketAddr,
        socket: TcpListener,
    ) -> Upgrade {
        Upgrade {
            origin,
            file,
            admin: Mutex::new(Some((address, socket))),
            running: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    /// This process is to end, and so is a node that goes by its name: an upgrade that is under way is given up.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// What would be run, for `/status`.
    pub(super) fn binary(&self) -> Value {
        json!({
            "file": self.origin.binary.display().to_string(),
            "replaced": self.origin.is_replaced().ok(),
        })
    }

    /// Has a new process take over. Ends when it serves and this one has stopped accepting; returns its process id. No reload comes between.
    ///
    /// # Errors
    /// Why this process serves on.
    pub(super) async fn run(
        self: Arc<Upgrade>,
        supervisor: Addr<Supervisor>,
        reloader: Reloader<Config>,
    ) -> Result<u32, String> {
        // In a task of its own: who asked may go away, and two processes that serve side by side must not be what is left.
        let task = tokio::spawn(async move { self.take_turn(supervisor, reloader).await });
        task.await
            .map_err(|error| format!("the upgrade broke off: {error}"))?
    }

    async fn take_turn(
        self: Arc<Upgrade>,
        supervisor: Addr<Supervisor>,
        reloader: Reloader<Config>,
    ) -> Result<u32, String> {
        if self.running.swap(true, Ordering::AcqRel) {
            return Err("an upgrade is under way".into());
        }
        let outcome = reloader.leave(self.clone().hand_over(supervisor)).await;
        self.running.store(false, Ordering::Release);
        match &outcome {
            Ok(process) => tracing::info!(
                process,
                "upgraded: another process serves in this one's place"
            ),
            Err(why) => tracing::error!(why, "not upgraded: this process serves on"),
        }
        outcome
    }

    async fn hand_over(self: Arc<Upgrade>, supervisor: Addr<Supervisor>) -> Result<u32, String> {
        let ended = |_| "the supervisor does not answer".to_owned();
        let mut inheritance = supervisor.send(Bequeath).await.map_err(ended)??;
        inheritance.admin = self.admin()?;
        let giving = self.clone();
        let child = tokio::task::spawn_blocking(move || {
            let Upgrade {
                origin,
                file,
                given_up,
                ..
            } = &*giving;
            origin.hand_over(file, &inheritance, given_up)
        })
        .await
        .map_err(|error| error.to_string())??;
        let process = child.id();
        shared::lifecycle::tell_successor(process);
        // The kernel would go on completing connections to a socket that nobody accepts from.
        self.admin_listener().take();
        let asked = supervisor.send(HandOver).await.map_err(ended)?;
        if let Some(request) = asked {
            pass_on(&child, request);
        }
        follow(child, supervisor);
        Ok(process)
    }

    fn admin(&self) -> Result<Option<(SocketAddr, TcpListener)>, String> {
        let duplicate = |(address, socket): &(SocketAddr, TcpListener)| {
            let duplicate = socket.try_clone();
            duplicate.map(|socket| (*address, socket))
        };
        let duplicate = self.admin_listener().as_ref().map(duplicate).transpose();
        duplicate.map_err(|error| format!("duplicating the admin listener: {error}"))
    }

    fn admin_listener(&self) -> MutexGuard<'_, Option<(SocketAddr, TcpListener)>> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process says on standard error, once it has said it all: its first [`MAX_SAID`] bytes.
fn listen(stderr: Option<ChildStderr>) -> mpsc::Receiver<String> {
    let (said, hears) = mpsc::sync_channel(1);
    aside(move || {
        let Some(mut stderr) = stderr else { return };
        let mut text = Vec::new();
        // What was read before a failure is all there is to tell.
        let _ = stderr.by_ref().take(MAX_SAID).read_to_end(&mut text);
        let _ = io::copy(&mut stderr, &mut io::sink());
        let _ = said.send(String::from_utf8_lossy(&text).into_owned());
    });
    hears
}

/// Asks the new process for what this one was asked for while it was being taken over from.
fn pass_on(child: &Child, request: Request) {
    let signal = match request {
        Request::Terminate => Signal::TERM,
        Request::Drain => Signal::USR1,
        Request::Undrain | Request::Reload => return,
    };
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match process.map(|process| kill_process(process, signal)) {
        Some(Ok(())) => tracing::info!(?request, "passed on to the process that took over"),
        failed => {
            tracing::error!(
                ?request,
                ?failed,
                "the process that took over can't be asked"
            )
        }
    }
}

/// Hears of the end of the process that took over, for as long as this one is there.
fn follow(mut child: Child, supervisor: Addr<Supervisor>) {
    aside(move || match child.wait() {
        // It was asked to end, or taken over from itself.
        Ok(status) if status.success() => {}
        ended => {
            tracing::error!(
                process = child.id(),
                ?ended,
                "the process that took over is gone: this one ends, too, for the node to be started again"
            );
            supervisor.do_send(Exit);
        }
    });
}

/// Has something done that waits for another process.
fn aside(waits: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("upgrade".to_owned());
    if let Err(error) = thread.spawn(waits) {
        tracing::warn!(%error, "no thread to wait for the new process");
    }
}

/// Whatever state it is in, it must not serve beside us.
fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// The side that takes over.
#[derive(Debug)]
pub(super) struct Heir {
    channel: Channel,
}

impl Heir {
    /// What this process inherits from the one that started it to take over.
    ///
    /// # Errors
    /// If it is not given everything.
    pub(super) fn receive() -> io::Result<(Heir, Inheritance)> {
        let channel = Channel::from_stdin()?;
        let inheritance = channel.take(HANDOVER)?;
        Ok((Heir { channel }, inheritance))
    }

    /// Tells the process that started this one how it went.
    pub(super) fn answer(self, outcome: Result<(), String>) {
        if let Err(error) = self.channel.answer(outcome) {
            tracing::warn!(%error, "the process that was to be taken over from is gone");
        }
    }
}
