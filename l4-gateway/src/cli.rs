//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use shared::admin::client;
use shared::cli::{Action, Next, Process, state};
use shared::config::Loaded;

use crate::announce::{self, Announce};
use crate::capture::{BYTES, Blocks, PACKETS, Request, SECONDS, SNAP, Tally};
use crate::config::{ADMIN_PORT, Config};
use crate::filter::End;
use crate::flows::{self, Flows};
use crate::intent;
use crate::machine::{Machine, Part};
use crate::neighbours::{self, Neighbours};
use crate::persistence::{self, Persistence};
use crate::range;
use crate::views;

/// Weir's L4 gateway: forwards TCP and UDP from VIPs to targets (FULLNAT, DR or tunnel, over DPDK).
#[derive(Debug, Parser)]
#[command(name = "l4-gateway", version = shared::build::VERSION)]
pub struct Cli {
    #[command(flatten)]
    process: Process,
    #[command(subcommand)]
    action: Option<Own>,
}

#[derive(Debug, Subcommand)]
enum Own {
    #[command(flatten)]
    Shared(Action),
    /// List the services of the running process
    Services(views::Services),
    /// List the targets of the running process
    Targets(views::Targets),
    /// List the ports of the running process, with their links and counters
    Ports(Machine),
    /// List the workers of the running process, with how busy they are and what they hold
    Workers(Machine),
    /// List why the running process has dropped packets, and how many, the most frequent reason first
    Drops(Machine),
    /// Tell the running process what is wanted of a target: it holds before configuration and registration, until taken back or the process ends
    #[command(subcommand)]
    Target(intent::Target),
    /// Have the running process withdraw one of its VIPs, or announce it again: it has to announce routes itself
    #[command(subcommand)]
    Vip(intent::Vip),
    /// List flows of the running process, or end them (--cut); each part of the filter that is given must match
    Flows(Flows),
    /// List the next hops of the running process with their MACs: routers and their state, targets, other hosts on its segments
    Neighbours(Neighbours),
    /// Have the running process announce its addresses on their segments now (gratuitous ARP, unsolicited neighbour advertisements)
    Announce(Announce),
    /// List the sources (clients or prefixes of them) that the running process keeps at their targets
    Persistence(Persistence),
    /// Write frames of the running process to a file or standard output (pcapng), as they came in and as they left
    ///
    /// `l4-gateway capture --client 10.2.0.1 | tshark -r -` or `| tcpdump -nr -`. One at a time. It ends at its bounds or by Ctrl-C.
    Capture(Capture),
}

/// Each an address, a network, or an address with a port.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// Only flows of this client: 10.2.0.1, 10.2.0.0/24 or 10.2.0.1:40312
    #[arg(long, value_name = "END")]
    pub(crate) client: Option<End>,
    /// Only flows to this VIP
    #[arg(long, value_name = "END")]
    pub(crate) vip: Option<End>,
    /// Only flows that the target sees coming from here: a LocalIP, with or without a port
    #[arg(long, value_name = "END")]
    pub(crate) local: Option<End>,
    /// Only flows to this target
    #[arg(long, value_name = "END")]
    pub(crate) target: Option<End>,
}

#[derive(Debug, Args)]
struct Capture {
    #[command(flatten)]
    ends: Wanted,
    /// The file to write; standard output without one
    #[arg(long, short, value_name = "FILE")]
    write: Option<PathBuf>,
    #[arg(long, default_value_t = Request::default().packets, value_parser = range::parser(PACKETS),
          help = range::help("End after so many frames, both sides counted", &PACKETS))]
    packets: u64,
    #[arg(long, default_value_t = Request::default().bytes, value_parser = range::parser(BYTES),
          help = range::help("End after so many bytes of frames", &BYTES))]
    bytes: u64,
    #[arg(long, default_value_t = Request::default().seconds, value_parser = range::parser(SECONDS),
          help = range::help("End after so many seconds", &SECONDS))]
    seconds: u64,
    #[arg(long, default_value_t = Request::default().snap, value_parser = range::parser(SNAP),
          help = range::help("Bytes kept of each frame", &SNAP))]
    snap: usize,
}

impl Cli {
    /// Carries out everything but `run`, for which the configuration is handed back.
    pub fn next(self) -> Next<Loaded<Config>> {
        let Cli { process, action } = self;
        match action {
            None => process.carry_out(Action::Run),
            Some(Own::Shared(action)) => process.carry_out(action),
            Some(own) => Next::Exit(process.ask(ADMIN_PORT, |admin| answer(own, admin))),
        }
    }
}

async fn answer(own: Own, admin: SocketAddr) -> Result<String, String> {
    match own {
        Own::Shared(_) => Err("is not a question".into()),
        Own::Services(services) => services.show(async || state(admin).await).await,
        Own::Targets(targets) => targets.show(async || state(admin).await).await,
        Own::Ports(ports) => ports.show(Part::Ports, async || state(admin).await).await,
        Own::Workers(workers) => {
            workers
                .show(Part::Workers, async || state(admin).await)
                .await
        }
        Own::Drops(drops) => drops.show(Part::Drops, async || state(admin).await).await,
        Own::Target(target) => intent::ask(admin, target).await,
        Own::Vip(vip) => intent::ask_vip(admin, vip).await,
        Own::Flows(wanted) => flows::ask(admin, &wanted).await,
        Own::Neighbours(wanted) => neighbours::ask(admin, &wanted).await,
        Own::Announce(wanted) => announce::ask(admin, wanted).await,
        Own::Persistence(wanted) => persistence::ask(admin, &wanted).await,
        Own::Capture(capture) => record(admin, capture).await,
    }
}

/// Writes whole blocks only, so that the file can be read however the capture ends.
async fn record(admin: SocketAddr, capture: Capture) -> Result<String, String> {
    let Capture {
        ends,
        write,
        packets,
        bytes,
        seconds,
        snap,
    } = capture;
    let request = Request {
        client: ends.client,
        vip: ends.vip,
        local: ends.local,
        target: ends.target,
        packets,
        bytes,
        seconds,
        snap,
    };
    let args = serde_json::to_value(request).map_err(|error| error.to_string())?;
    // Opened when the first frames come: a capture that never begins must not empty the file of another.
    let mut out: Option<Box<dyn Write>> = None;
    let mut blocks = Blocks::default();
    let mut failed = None;
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the handler, the signal ends the process as ever.
            std::future::pending::<()>().await;
        }
    };
    let piece = |bytes: bytes::Bytes| {
        let written = blocks.push(&bytes).and_then(|whole| {
            let out = match &mut out {
                Some(out) => out,
                None => out.insert(open(write.as_deref())?),
            };
            let written = out.write_all(&whole).and_then(|()| out.flush());
            written.map_err(|error| format!("writing the capture: {error}"))
        });
        failed = written.err();
        failed.is_none()
    };
    let streamed = client::stream(admin, "capture", &args, interrupted, piece).await;
    let Tally { packets, lost } = blocks.tally();
    if out.is_some() {
        let _closed = writeln!(
            std::io::stderr(),
            "{packets} frames captured, {lost} that matched were lost for want of room"
        );
    }
    match (failed, streamed) {
        (Some(why), _) => Err(why),
        (None, streamed) => streamed
            .map(|()| String::new())
            .map_err(|error| error.to_string()),
    }
}

/// Where a capture goes: a file, which is emptied, or standard output.
fn open(file: Option<&Path>) -> Result<Box<dyn Write>, String> {
    Ok(match file {
        Some(file) => {
            let opened = std::fs::File::create(file);
            Box::new(opened.map_err(|error| format!("{}: {error}", file.display()))?)
        }
        None => Box::new(std::io::stdout().lock()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
