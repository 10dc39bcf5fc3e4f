//! The lab's processes: started inside a namespace with a log file, remembered in `state.json`, ended by pid.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;

/// Set in the environment of every process of a lab to the lab's directory, so that one left over from a run
/// whose `state.json` was lost can still be told apart from anything else.
const OWNER_VARIABLE: &str = "DEMO_LAB";
/// How long a process may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to start one process.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name in the state file and of the log: `l4-1`.
    pub name: String,
    /// The node whose namespace it runs in.
    pub node: String,
    /// The executable.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
}

/// What the state file keeps of a running process.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Running {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`): together with the pid it names
    /// one process for ever, so a pid used again by a stranger is never signalled.
    pub started: u64,
    /// Where its output goes.
    pub log: PathBuf,
    /// What was run.
    pub command: String,
}

impl Running {
    /// Whether exactly this process still runs. A zombie does not, unless other threads of it are still on their way out: they hold its sockets,
    /// and whoever is started in its place would find the addresses taken.
    pub fn is_alive(&self) -> bool {
        stat(self.pid)
            .is_some_and(|stat| stat.started == self.started && !(stat.zombie && stat.threads <= 1))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("pid 0 in the state file")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error)
                .with_context(|| format!("signalling {} (pid {})", self.command, self.pid)),
        }
    }
}

/// The processes of one lab.
#[derive(Debug)]
pub struct Processes {
    lab: Lab,
    running: BTreeMap<String, Running>,
    /// Those started by this very process: they must be reaped, or they stay zombies.
    children: BTreeMap<String, Child>,
}

impl Processes {
    /// The processes the state file of `lab` names; none when there is no file.
    pub fn load(lab: &Lab) -> Result<Processes> {
        let path = state_file(lab);
        let running = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("reading {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        Ok(Processes {
            lab: lab.clone(),
            running,
            children: BTreeMap::new(),
        })
    }

    /// Starts `program` in its namespace. Its output is appended to its log; it survives this process, and
    /// Ctrl-C in the terminal does not reach it.
    pub fn start(&mut self, program: &Program) -> Result<Running> {
        if self
            .running
            .get(&program.name)
            .is_some_and(Running::is_alive)
        {
            bail!("{} is already running", program.name);
        }
        let log = self.lab.log(&program.name);
        let mut command = self
            .lab
            .namespace(&program.node)
            .command(&program.executable);
        command
            .args(&program.arguments)
            .envs(program.environment.iter().map(|(key, value)| (key, value)))
            .env(OWNER_VARIABLE, self.lab.directory())
            .current_dir(self.lab.directory());
        let child = spawn_logged(&mut command, &log)?;
        let pid = i32::try_from(child.id()).context("pid out of range")?;
        let shown: Vec<String> = std::iter::once(program.executable.display().to_string())
            .chain(program.arguments.iter().cloned())
            .collect();
        let started = stat(pid).map(|stat| stat.started).unwrap_or(0);
        let running = Running {
            pid,
            started,
            log,
            command: shown.join(" "),
        };
        self.children.insert(program.name.clone(), child);
        self.running.insert(program.name.clone(), running.clone());
        self.save()?;
        Ok(running)
    }

    /// Another process, which `name`'s own has started, goes by its name from now on; the old one is known as its [`predecessor`] until it ends.
    pub fn succeeded(&mut self, name: &str, pid: i32) -> Result<()> {
        let old = self
            .running
            .remove(name)
            .with_context(|| format!("{name} was never started"))?;
        let started = stat(pid)
            .with_context(|| format!("process {pid} is gone"))?
            .started;
        let new = Running {
            pid,
            started,
            ..old.clone()
        };
        self.running.insert(predecessor(name), old);
        if let Some(child) = self.children.remove(name) {
            self.children.insert(predecessor(name), child);
        }
        self.running.insert(name.to_owned(), new);
        self.save()
    }

    /// What the state file knows of `name`.
    pub fn get(&self, name: &str) -> Option<&Running> {
        self.running.get(name)
    }

    /// Every process, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Running)> {
        self.running.iter()
    }

    /// An error with the end of its log when `name` no longer runs.
    pub fn check_alive(&mut self, name: &str) -> Result<()> {
        let Some(running) = self.running.get(name) else {
            bail!("{name} was never started")
        };
        let exit = self
            .children
            .get_mut(name)
            .and_then(|child| child.try_wait().ok().flatten());
        if exit.is_none() && running.is_alive() {
            return Ok(());
        }
        let status = exit
            .map(|status| format!(" ({status})"))
            .unwrap_or_default();
        bail!(
            "{name} has ended{status}; the end of {}:\n{}",
            running.log.display(),
            tail(&running.log, 15)
        );
    }

    /// Sends `signal` to `name`, without waiting.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.running
            .get(name)
            .with_context(|| format!("{name} was never started"))?
            .signal(signal)
    }

    /// `kill -9`; returns the moment the signal was sent, once the process is gone.
    pub fn kill(&mut self, name: &str) -> Result<std::time::SystemTime> {
        let at = std::time::SystemTime::now();
        self.signal(name, Signal::KILL)?;
        self.wait_gone(name, PATIENCE)?;
        Ok(at)
    }

    /// SIGTERM, and SIGKILL for what has not ended within `patience`. Returns whether it ended by itself.
    pub fn terminate(&mut self, name: &str, patience: Duration) -> Result<bool> {
        self.signal(name, Signal::TERM)?;
        if self.wait_gone(name, patience).is_ok() {
            return Ok(true);
        }
        self.signal(name, Signal::KILL)?;
        self.wait_gone(name, PATIENCE)?;
        Ok(false)
    }

    /// Waits until `name` no longer runs.
    pub fn wait_gone(&mut self, name: &str, limit: Duration) -> Result<()> {
        let running = self
            .running
            .get(name)
            .with_context(|| format!("{name} was never started"))?
            .clone();
        let begin = Instant::now();
        loop {
            if let Some(child) = self.children.get_mut(name) {
                // Reaping: the answer itself comes from /proc, as for processes of an earlier run.
                let _ = child.try_wait();
            }
            if !running.is_alive() {
                self.children.remove(name);
                self.running.remove(name);
                return self.save();
            }
            if begin.elapsed() >= limit {
                bail!(
                    "{name} (pid {}) still runs after {:.1} s",
                    running.pid,
                    limit.as_secs_f64()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends every process of the lab: all get SIGTERM at once, a second one soon after (do not drain, end now), and
    /// SIGKILL where that was not enough. Also ends those whose entry in the state file was lost.
    pub fn end_all(&mut self) -> Result<()> {
        for (pid, running) in strays(&self.lab) {
            self.running.entry(format!("pid-{pid}")).or_insert(running);
        }
        let names: Vec<String> = self.running.keys().cloned().collect();
        for pause in [Duration::from_millis(300), Duration::ZERO] {
            for name in &names {
                self.signal(name, Signal::TERM)?;
            }
            std::thread::sleep(pause);
        }
        let deadline = Instant::now() + PATIENCE;
        for name in &names {
            self.terminate(name, deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let path = state_file(&self.lab);
        let text = serde_json::to_string_pretty(&self.running)?;
        // Written beside and moved into place: a crash leaves the old or the new list, never half of one.
        let new = path.with_extension("json.new");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }
}

/// What the process is known as that `name`'s took over from.
pub fn predecessor(name: &str) -> String {
    format!("{name} before its upgrade")
}

/// The last `lines` lines of a log, for error messages.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let tail = &all[all.len().saturating_sub(lines)..];
    if tail.is_empty() {
        "  (empty)".into()
    } else {
        tail.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// Spawns `command` in a process group of its own, with both outputs appended to `log`.
pub(crate) fn spawn_logged(command: &mut Command, log: &Path) -> Result<Child> {
    let open = || -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))
    };
    command
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {command:?}"))
}

fn state_file(lab: &Lab) -> PathBuf {
    lab.directory().join("state.json")
}

struct Stat {
    started: u64,
    zombie: bool,
    threads: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): `pid (comm) state ppid ...`; comm may hold spaces and parentheses, so fields count from the last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        started: fields.get(19)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
    })
}

/// Processes that carry this lab's mark in their environment.
fn strays(lab: &Lab) -> Vec<(i32, Running)> {
    let mark = format!("{OWNER_VARIABLE}={}", lab.directory().display());
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == mark.as_bytes())
            })
        })
        .filter_map(|pid| {
            let stat = stat(pid)?;
            let command = format!("process {pid} left by an earlier run");
            (!stat.zombie).then_some((
                pid,
                Running {
                    pid,
                    started: stat.started,
                    log: PathBuf::new(),
                    command,
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_process_name_is_read_from_the_last_parenthesis() {
        let mut text =
            String::from("42 (a) Z (b) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 ");
        text += "987654 1000 10";
        let stat = parse_stat(&text).unwrap();
        assert_eq!(
            (stat.started, stat.zombie, stat.threads),
            (987_654, false, 1)
        );
    }

    #[test]
    fn a_used_again_pid_is_not_taken_for_the_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let started = stat(me).unwrap().started;
        let running = |started| Running {
            pid: me,
            started,
            log: PathBuf::new(),
            command: String::new(),
        };
        assert!(running(started).is_alive());
        assert!(!running(started + 1).is_alive());
    }
}
