//! Metrics of the process itself, under the names every Prometheus client gives them. They are written straight into the text: the
//! recorder counts in whole numbers, and CPU time is none. `metrics-process` does the same by way of `procfs`, cut to whole seconds.

use std::fmt::Write;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Appends what can be found out now.
pub(super) fn render(text: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = clock_ticks_per_second() as f64;
    if let Some(process) = Process::parse(&stat) {
        let cpu = process.cpu_ticks as f64 / ticks;
        let memory = process.resident_pages * page_size() as u64;
        let kinds = "counter";
        line(
            text,
            "process_cpu_seconds_total",
            kinds,
            "User and system CPU time spent, in seconds",
            cpu,
        );
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                memory as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                process.virtual_bytes as f64,
            ),
            ("process_threads", "Threads", process.threads as f64),
        ];
        for (name, help, value) in gauges {
            line(text, name, "gauge", help, value);
        }
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "));
        if let Some(boot) = boot.and_then(|boot| boot.trim().parse::<f64>().ok()) {
            let began = boot + process.start_ticks as f64 / ticks;
            line(
                text,
                "process_start_time_seconds",
                "gauge",
                "When the process started, in seconds since 1970",
                began,
            );
        }
    }
    if let Some(open) = open_files() {
        line(text, "process_open_fds", "gauge", "Open files", open as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        line(
            text,
            "process_max_fds",
            "gauge",
            "The most open files there may be",
            most as f64,
        );
    }
}

fn line(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a String can't fail.
    let _ = write!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
    );
}

/// Linux 6.2 and later says the number of files as the folder's size; counting a hundred thousand takes a while.
fn open_files() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // The folder itself is open while its entries are counted.
        0 => Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
        files => Some(files),
    }
}

/// What `/proc/self/stat` says (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    cpu_ticks: u64,
    threads: u64,
    /// After the machine's start.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Process> {
        // The name is in parentheses and may contain any character, parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields are numbered from 1 in proc(5); the third, the state, is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Process {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 17 25 0 0 20 0 9 0 88 1048576 300 18446744073709551615 1 1";
        let expected = Process {
            cpu_ticks: 42,
            threads: 9,
            start_ticks: 88,
            virtual_bytes: 1_048_576,
            resident_pages: 300,
        };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse("42 (a"), None);
    }

    #[test]
    fn this_process_is_plausible() {
        let mut text = String::new();
        render(&mut text);
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name}: {text}"))
                .rsplit(' ')
                .next()
                .and_then(|value| value.parse().ok())
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        let began = value("process_start_time_seconds");
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs_f64();
        assert!((now - 3600.0..=now + 2.0).contains(&began), "{began} {now}");
        assert!((3.0..10_000.0).contains(&value("process_open_fds")));
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    }
}
