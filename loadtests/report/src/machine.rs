//! Where and of what figures were taken, in words.

use std::process::Command;

/// The processor and the kernel.
pub fn processor() -> String {
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, Linux {}", kernel.trim())
}

/// The load average of the last minute.
pub fn load() -> String {
    let load = read("/proc/loadavg");
    load.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Which commit is checked out, and whether anything but results differs from it.
pub fn tree() -> String {
    let git = |arguments: &[&str]| {
        let run = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&run.stdout).trim().to_owned();
        run.status.success().then_some(text)
    };
    let Some(commit) = git(&["log", "-1", "--format=%h of %cs"]) else {
        return "commit not known: no git, or no repository".into();
    };
    let results = [":!loadtests/results", ":!loadtests/RESULTS.md"];
    let status = git(&["status", "--porcelain", "--", ".", results[0], results[1]]);
    match status.as_deref() {
        Some("") => format!("commit {commit}, nothing changed"),
        Some(_) => format!("commit {commit}, with changes that are not committed"),
        None => format!("commit {commit}, not known whether anything was changed"),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
