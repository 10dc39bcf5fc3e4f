//! `make bench-l4`: the L4 gateway measured against the wire.
//!
//! ```text
//!   core 0: this program                          core 1: one of these at a time
//!   clients  ── memif "outer" ──▶ ┌ l4-gateway, release, an ordinary configuration
//!   targets  ── memif "inner" ──▶ └ dpdk-testpmd macswap in its place
//! ```
//!
//! - `rig`: our end of the wire, `packet` and `address`: what goes over it;
//! - `stream`: frames of established flows; `connections`: TCP from SYN to FIN;
//! - `peer` and `config`: the processes on the other core;
//! - `bench`: windows of both in turn, and the rows they make; `instructions`: callgrind.
//!
//! Each window of the gateway is paired with one of testpmd right before or after it, and the ratio is the median over the pairs, as
//! shared machines change their speed from second to second.
#![forbid(unsafe_code)]

mod address;
mod bench;
mod config;
mod connections;
mod instructions;
mod packet;
mod peer;
mod rig;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench_report::Report;
use clap::Parser;
use dataplane::Protocol;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use address::Addressing;
use bench::{Bench, Pace};
use config::Variant;
use peer::Place;
use stream::Flows;

/// Flow counts and what DESIGN wants of macswap's rate at each.
const STEPS: [(u32, f64); 3] = [(1_000, 0.70), (100_000, 0.60), (1_000_000, 0.55)];
/// Connections a second that a worker shall reach.
const CONNECTIONS: f64 = 1e6;
/// The gateway's default, which holds the largest step.
const FLOWS: u32 = 1 << 20;

/// Measures the L4 gateway against dpdk-testpmd on this machine's two first cores.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Seconds of measuring a row.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Rows to measure: those of parts whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Without hugepages.
    #[arg(long)]
    ordinary_pages: bool,
    /// The gateway.
    #[arg(long, default_value = "target/release/l4-gateway")]
    gateway: PathBuf,
    /// The dataplane's example for callgrind.
    #[arg(long, default_value = "target/release/examples/cycles")]
    cycles: PathBuf,
    /// Where the rows are written.
    #[arg(long, default_value = "loadtests/results/l4.json")]
    results: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // DPDK's own complaints.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let cpus = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let (Some(own), Some(theirs)) = (allowed.next(), allowed.next()) else {
        bail!("this needs two CPUs: one for the generator, one for the gateway");
    };
    let directory = tempfile::tempdir()?;
    let huge_pages = !arguments.ordinary_pages;
    let place = Place {
        directory: directory.path().to_owned(),
        cpu: theirs,
        huge_pages,
    };
    let mut only_own = CpuSet::new();
    only_own.set(own);
    sched_setaffinity(None, &only_own)?;

    let (warm, window) = (Duration::from_millis(20), Duration::from_millis(150));
    let pairs = (arguments.seconds / (2.0 * (warm + window).as_secs_f64())).ceil() as usize;
    let pace = Pace {
        warm,
        window,
        pairs: pairs.max(3),
    };
    let mut report = Report::new("l4");
    report.circumstances = circumstances(huge_pages);
    let gateway = arguments
        .gateway
        .canonicalize()
        .with_context(|| format!("{}: build it first", arguments.gateway.display()))?;
    let mut bench = Bench::start(place, gateway, pace, report)?;
    let wanted = |part: &str| part.contains(&arguments.only);
    // What was measured before a failure is worth having.
    let outcome = measure(&mut bench, wanted);
    if wanted("instructions") {
        for row in instructions::rows(&arguments.cycles, directory.path())? {
            bench.report.add(row);
        }
    }
    let report = bench.finish();
    report.print();
    report
        .write(&arguments.results)
        .with_context(|| arguments.results.display().to_string())?;
    outcome
}

fn measure(bench: &mut Bench, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let plain = |protocol| Variant {
        name: "FULLNAT",
        addressing: Addressing {
            protocol,
            services: 1,
            targets: 16,
        },
        scheduler: "wrr",
        proxy: false,
        flows: FLOWS,
    };
    if wanted("streams udp")
        && let Some(mut running) = bench.gateway(plain(Protocol::Udp))?
    {
        let mut flows = Flows::new(plain(Protocol::Udp).addressing);
        for (count, reach) in STEPS {
            let rate = bench.streams(&mut running, &mut flows, count, Some(reach))?;
            if count == 100_000 {
                bench.latency(&mut running, &flows, count, rate / 2.0)?;
            }
        }
    }
    if wanted("streams tcp")
        && let Some(mut running) = bench.gateway(plain(Protocol::Tcp))?
    {
        let mut flows = Flows::new(plain(Protocol::Tcp).addressing);
        for (count, reach) in STEPS {
            bench.streams(&mut running, &mut flows, count, Some(reach))?;
        }
    }
    if wanted("connections")
        && let Some(mut running) = bench.gateway(plain(Protocol::Tcp))?
    {
        bench.connections(&mut running, Some(CONNECTIONS))?;
    }
    let proxy = Variant {
        name: "PROXY v2",
        proxy: true,
        ..plain(Protocol::Tcp)
    };
    if wanted(proxy.name)
        && let Some(mut running) = bench.gateway(proxy)?
    {
        bench.connections(&mut running, None)?;
    }
    let variants = [
        Variant {
            name: "maglev",
            scheduler: "maglev",
            ..plain(Protocol::Tcp)
        },
        Variant {
            name: "1,000 services x 100 targets",
            addressing: Addressing {
                protocol: Protocol::Tcp,
                services: 1000,
                targets: 100,
            },
            ..plain(Protocol::Tcp)
        },
    ];
    for variant in variants {
        if !wanted(variant.name) {
            continue;
        }
        if let Some(mut running) = bench.gateway(variant)? {
            bench.connections(&mut running, None)?;
            let mut flows = Flows::new(variant.addressing);
            bench.streams(&mut running, &mut flows, 100_000, None)?;
        }
    }
    if wanted("memory") {
        bench.memory(plain(Protocol::Udp), [1 << 18, 1 << 20])?;
    }
    Ok(())
}

/// The machine, in words.
fn circumstances(huge_pages: bool) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or_default();
    let pages = if huge_pages {
        "frames in hugepages"
    } else {
        "frames in ordinary pages, for want of hugepages"
    };
    vec![
        format!("{model}, Linux {}, {pages}", kernel.trim()),
        format!("load average before the run: {load}"),
    ]
}
