//! `make bench-l4`: the L4 gateway measured against the wire.
//!
//! ```text
//!   core 0: this program                          core 1: one of these at a time
//!   clients  ── memif "outer" ──▶ ┌ l4-gateway, release, an ordinary configuration
//!   targets  ── memif "inner" ──▶ └ dpdk-testpmd macswap in its place
//! ```
//!
//! - `needs`: what must be there, asked first; `parts`: what a run consists of;
//! - `rig`: our end of the wire, `packet` and `address`: what goes over it;
//! - `flows` and `stream`: frames of established flows; `connections`: TCP from SYN to FIN;
//! - `peer` and `config`: the processes on the other core; `distance`: how far away that is;
//! - `bench`: windows of both in turn, and the rows they make; `windows`: whether anything disturbed them; `instructions`: callgrind.
//!
//! Each window of the gateway is paired with one of testpmd right before or after it, and the ratio is the median over the pairs, as
//! shared machines change their speed from second to second.
#![forbid(unsafe_code)]

mod address;
mod bench;
mod config;
mod connections;
mod distance;
mod flows;
mod instructions;
mod needs;
mod packet;
mod parts;
mod peer;
mod rig;
mod stream;
mod windows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench_report::{Report, machine};
use clap::Parser;
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use bench::{Bench, Pace, Profiled};
use needs::Needs;
use parts::PARTS;
use peer::Place;

/// The part that needs no gateway.
const INSTRUCTIONS: &str = "instructions";
/// Where a whole run's rows go, and those of one that isn't.
const RESULTS: &str = "loadtests/results/l4.json";
const SOME_RESULTS: &str = "target/l4-some.json";

/// Measures the L4 gateway against dpdk-testpmd on this machine's two first cores.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Seconds of measuring a row.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Only the parts whose name holds this: streams udp, streams tcp, connections, PROXY v2, maglev, 1,000 services x 100 targets, memory,
    /// instructions.
    #[arg(long, default_value = "")]
    only: String,
    /// Which rows are looked into by perf: those that fall short of what they should reach, all, or none.
    #[arg(long, value_enum, default_value_t = Profiled::Short)]
    profile: Profiled,
    /// Without hugepages.
    #[arg(long)]
    ordinary_pages: bool,
    /// The gateway.
    #[arg(long, default_value = "target/release/l4-gateway")]
    gateway: PathBuf,
    /// The dataplane's example for callgrind.
    #[arg(long, default_value = "target/release/examples/cycles")]
    cycles: PathBuf,
    /// Where the rows are written: loadtests/results/l4.json, or target/l4-some.json with --only.
    #[arg(long)]
    results: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // DPDK's own complaints.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let wanted = |part: &str| part.contains(&arguments.only);
    if !(PARTS.iter().any(|(name, _)| wanted(name)) || wanted(INSTRUCTIONS)) {
        bail!("no part has {:?} in its name; see --help", arguments.only);
    }
    let is_whole = arguments.only.is_empty();
    let results = if is_whole { RESULTS } else { SOME_RESULTS };
    let results = arguments.results.unwrap_or_else(|| results.into());
    let directory = tempfile::tempdir()?;
    needs::check(&Needs {
        gateway: &arguments.gateway,
        cycles: wanted(INSTRUCTIONS).then_some(&arguments.cycles),
        profiler: arguments.profile != Profiled::None,
        results: &results,
        directory: directory.path(),
    })?;
    let pace = pace(arguments.seconds)?;
    let mut report = Report::new("l4");
    report.circumstances = circumstances(!arguments.ordinary_pages, pace);
    if !is_whole {
        let some = format!("only the parts with \"{}\" in their name", arguments.only);
        report.circumstances.push(some);
    }
    let mut bench = None;
    if PARTS.iter().any(|(name, _)| wanted(name)) {
        let place = place(directory.path(), !arguments.ordinary_pages)?;
        let gateway = arguments.gateway.canonicalize()?;
        let bench = bench.insert(Bench::start(
            place,
            gateway,
            pace,
            arguments.profile,
            report,
        )?);
        for (name, part) in PARTS.into_iter().filter(|(name, _)| wanted(name)) {
            // What was measured before and after a failure is worth having.
            if let Err(error) = part(bench) {
                eprintln!("{name}: {error:#}");
                bench.report.failures.push(format!("{name}: {error:#}"));
                if let Err(error) = bench.recover() {
                    let last = format!("nothing after {name}: testpmd: {error:#}");
                    bench.report.failures.push(last);
                    break;
                }
            }
            let mut so_far = bench.so_far();
            so_far.failures.push(format!("the run ended after {name}"));
            save(&so_far, &results)?;
        }
        report = bench.so_far();
    }
    if wanted(INSTRUCTIONS)
        && let Err(error) = instructions::rows(&arguments.cycles, directory.path(), &mut report)
    {
        report.failures.push(format!("{INSTRUCTIONS}: {error:#}"));
    }
    report.print();
    save(&report, &results)?;
    println!("{}", results.display());
    if !report.failures.is_empty() {
        bail!("{} things failed, see above", report.failures.len());
    }
    Ok(())
}

fn save(report: &Report, results: &Path) -> Result<()> {
    report
        .write(results)
        .with_context(|| results.display().to_string())
}

fn pace(seconds: f64) -> Result<Pace> {
    if !(0.0..=600.0).contains(&seconds) {
        bail!("expected 0 to 600 seconds a row, got {seconds}");
    }
    let (warm, window) = (Duration::from_millis(20), Duration::from_millis(150));
    let pairs = (seconds / (2.0 * (warm + window).as_secs_f64())).ceil() as usize;
    Ok(Pace {
        warm,
        window,
        pairs: pairs.max(3),
    })
}

/// Before all that is meant to run only when this thread leaves something: see [`peer::Peer::spread`].
const NICE: i32 = -20;

/// Takes one CPU for this thread; the forwarders get the other.
fn place(directory: &Path, huge_pages: bool) -> Result<Place> {
    let cpus = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let (Some(own), Some(theirs)) = (allowed.next(), allowed.next()) else {
        bail!("this needs two CPUs: one for the generator, one for the gateway");
    };
    let mut only_own = CpuSet::new();
    only_own.set(own);
    sched_setaffinity(None, &only_own)?;
    setpriority_process(None, NICE).context("a priority that only root may have")?;
    Ok(Place {
        directory: directory.to_owned(),
        own,
        cpu: theirs,
        huge_pages,
    })
}

/// The machine and the tree, in words.
fn circumstances(huge_pages: bool, pace: Pace) -> Vec<String> {
    let pages = if huge_pages {
        "frames in hugepages"
    } else {
        "frames in ordinary pages, for want of hugepages"
    };
    vec![
        format!("{}, {pages}", machine::processor()),
        machine::tree(),
        format!(
            "{} pairs of windows of {} ms a row, {:.1} s of measuring",
            pace.pairs,
            pace.window.as_millis(),
            2.0 * pace.window.as_secs_f64() * pace.pairs as f64
        ),
        format!("load average before the run: {}", machine::load()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_seconds_asked_for_and_three_pairs_at_least() {
        assert_eq!(pace(6.0).unwrap().pairs, 18);
        assert_eq!(pace(0.0).unwrap().pairs, 3);
        assert!(pace(-1.0).is_err());
        assert!(pace(f64::NAN).is_err());
    }
}
