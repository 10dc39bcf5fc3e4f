//! `make bench-l7`: what a request through l7-proxy costs, beside nginx and HAProxy doing the same work.
//!
//! ```text
//!   core 0: this program, one thread           core 1: one of these at a time
//!   clients ── TCP or TLS, h1, h2 ──▶          ┌ l7-proxy, release, one worker
//!                                              ├ nginx, one worker
//!   applications ◀── TCP, h1, kept ──          └ haproxy, one thread
//! ```
//!
//! - `rows`: what a run consists of; `bench`: windows of all sides in turn, and the rows they make; `counted`: strace and callgrind;
//! - `server`: the proxies, their configurations, what they cost; `certificates`: for both ends of TLS;
//! - `load`: clients and applications.
//!
//! Each window of l7-proxy is paired with those of the others in the same turn, and the ratio is the median over the pairs, as shared machines
//! change their speed from second to second. CPU time is the process's own by the kernel's account, so it doesn't grow when others take the core.
#![forbid(unsafe_code)]

mod bench;
mod certificates;
mod counted;
mod load;
mod rows;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench_report::needs::Needs;
use bench_report::{Report, machine};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use bench::{Bench, Pace, Profiled};
use load::Load;
use rows::PARTS;
use server::{Place, Side};

/// Where a whole run's rows go, and those of one that isn't.
const RESULTS: &str = "loadtests/results/l7.json";
const SOME_RESULTS: &str = "target/l7-some.json";
/// Connections held for their memory, and descriptors needed beside them.
const HELD: usize = 10_000;
const DESCRIPTORS: u64 = 1_000;

/// Measures l7-proxy against nginx and HAProxy on this machine's two first cores.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Seconds of measuring a row, all sides together.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Only these parts, separated by commas: plain, tls, h2, h2c, routes, downloads, uploads, connections, handshakes, tunnel, latency,
    /// memory, syscalls, instructions.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Which rows are looked into by perf: those that fall short of what they should reach, all, or none.
    #[arg(long, value_enum, default_value_t = Profiled::Short)]
    profile: Profiled,
    /// The proxy.
    #[arg(long, default_value = "target/release/l7-proxy")]
    proxy: PathBuf,
    /// Another l7-proxy, that takes its turns like the others: whether a change helped.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Everything as small as it can be, in seconds: whether the bench works, not what it says.
    #[arg(long)]
    smoke: bool,
    /// Where the rows are written: loadtests/results/l7.json, or target/l7-some.json with --rows or --smoke.
    #[arg(long)]
    results: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let is_part = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(unknown) = arguments.rows.iter().find(|name| !is_part(name)) {
        bail!("there is no part {unknown:?}; see --help");
    }
    let is_wanted =
        |part: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == part);
    let is_whole = arguments.rows.is_empty() && !arguments.smoke;
    let results = if is_whole { RESULTS } else { SOME_RESULTS };
    let results = arguments.results.clone().unwrap_or_else(|| results.into());
    let directory = tempfile::tempdir()?;
    check(&arguments, &results, directory.path(), is_wanted)?;

    let mut pace = pace(
        arguments.seconds,
        arguments.smoke,
        arguments.before.is_some(),
    )?;
    let may_hold = raise_descriptors()?;
    let mut sides = vec![Side::Weir(arguments.proxy.canonicalize()?)];
    if let Some(before) = &arguments.before {
        sides.push(Side::Before(before.canonicalize()?));
    }
    sides.extend([Side::Nginx, Side::Haproxy]);
    let mut report = Report::new("l7");
    report.circumstances = circumstances(&sides, pace);
    if pace.held > may_hold {
        report.circumstances.push(format!(
            "no more than {may_hold} connections are held, for want of file descriptors (ulimit -n)"
        ));
        pace.held = may_hold;
    }
    if !is_whole {
        let parts = arguments.rows.join(", ");
        report
            .circumstances
            .push(format!("not a whole run: {parts}"));
    }
    let cpu = take_cpu(arguments.smoke)?;
    let load = Load::start()?;
    let place = Place {
        directory: directory.path().to_owned(),
        cpu,
        application: load.application()?,
    };
    let profiled = arguments.profile;
    let mut bench = Bench::new(load, place, sides, pace, profiled, report);
    for (name, part) in PARTS.into_iter().filter(|(name, _)| is_wanted(name)) {
        // What was measured before and after a failure is worth having.
        if let Err(error) = part(&mut bench) {
            eprintln!("{name}: {error:#}");
            bench.report.failures.push(format!("{name}: {error:#}"));
            bench.load.clear();
        }
        let mut so_far = so_far(&bench);
        so_far.failures.push(format!("the run ended after {name}"));
        save(&so_far, &results)?;
    }
    let report = so_far(&bench);
    report.print();
    save(&report, &results)?;
    println!("{}", results.display());
    if !report.failures.is_empty() {
        bail!("{} things failed, see above", report.failures.len());
    }
    Ok(())
}

fn check(
    arguments: &Arguments,
    results: &Path,
    directory: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut needs = Needs::default();
    let build = "cargo build --release -p l7-proxy --bins";
    needs.file(&arguments.proxy, build);
    if let Some(before) = &arguments.before {
        needs.file(before, "an l7-proxy to compare with");
    }
    for (program, package) in [
        ("nginx", "nginx-light"),
        ("haproxy", "haproxy"),
        ("taskset", "util-linux"),
        ("setpriv", "util-linux"),
    ] {
        needs.program(program, package);
    }
    if is_wanted("syscalls") {
        needs.program("strace", "strace");
    }
    if is_wanted("instructions") {
        needs.program("valgrind", "valgrind");
    }
    if arguments.profile != Profiled::None {
        needs.profiler(directory, "--profile none");
    }
    needs.writable(results);
    needs.met()
}

fn so_far(bench: &Bench) -> Report {
    let mut report = bench.report.clone();
    let windows = bench.windows;
    report.circumstances.push(format!(
        "others had one of the two cores for more than 5 % of the time in {} of {} windows; rates and latencies are not judged with more than a \
         quarter of such, CPU time is, as it is the process's own",
        windows.disturbed, windows.kept
    ));
    report
}

fn save(report: &Report, results: &Path) -> Result<()> {
    report
        .write(results)
        .with_context(|| results.display().to_string())
}

fn pace(seconds: f64, smoke: bool, before: bool) -> Result<Pace> {
    if !(0.0..=600.0).contains(&seconds) {
        bail!("expected 0 to 600 seconds a row, got {seconds}");
    }
    if smoke {
        return Ok(Pace {
            warm: Duration::from_millis(5),
            window: Duration::from_millis(10),
            rest: Duration::from_millis(10),
            turns: 2,
            held: 70,
            counted: 4,
            is_smoke: true,
        });
    }
    let (warm, window) = (Duration::from_millis(40), Duration::from_millis(200));
    let sides = if before { 4.0 } else { 3.0 };
    let turns = (seconds / (sides * (warm + window).as_secs_f64())).ceil() as usize;
    Ok(Pace {
        warm,
        window,
        rest: Duration::from_secs(15),
        turns: turns.max(3),
        held: HELD,
        counted: 500,
        is_smoke: false,
    })
}

/// Takes one CPU for this thread; returns the proxies'.
fn take_cpu(smoke: bool) -> Result<usize> {
    let cpus = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let (Some(own), theirs) = (allowed.next(), allowed.next()) else {
        bail!("no CPU to run on");
    };
    // Whether it works can be seen on one as well.
    let Some(theirs) = theirs.or(smoke.then_some(own)) else {
        bail!("this needs two CPUs: one for clients and applications, one for the proxies");
    };
    let mut only_own = CpuSet::new();
    only_own.set(own);
    sched_setaffinity(None, &only_own)?;
    Ok(theirs)
}

/// Lets this process and those it starts have as many open files as is allowed; how many connections that is.
fn raise_descriptors() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    let most = limit.maximum.unwrap_or(u64::MAX);
    Ok(usize::try_from(most.saturating_sub(DESCRIPTORS)).unwrap_or(usize::MAX))
}

/// The machine, the programs and the tree, in words.
fn circumstances(sides: &[Side], pace: Pace) -> Vec<String> {
    let versions: Vec<String> = sides.iter().map(Side::version).collect();
    vec![
        machine::processor(),
        versions.join("; "),
        machine::tree(),
        format!(
            "{} windows of {} ms of each side a row, in turns",
            pace.turns,
            pace.window.as_millis()
        ),
        format!("load average before the run: {}", machine::load()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_seconds_asked_for_and_three_turns_at_least() {
        assert_eq!(pace(10.0, false, false).unwrap().turns, 14);
        assert_eq!(pace(10.0, false, true).unwrap().turns, 11);
        assert_eq!(pace(0.0, false, false).unwrap().turns, 3);
        assert!(pace(-1.0, false, false).is_err());
        assert!(pace(f64::NAN, false, false).is_err());
    }
}
