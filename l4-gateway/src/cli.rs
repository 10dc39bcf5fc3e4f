//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use shared::admin::client::{self, ClientError};
use shared::cli::{Action, Command, Next, Process, cell, table};
use shared::config::Table;

use crate::admin::{LIMIT, LISTED};
use crate::capture::{BYTES, Blocks, PACKETS, Request, SECONDS, SNAP, Tally};
use crate::config::{ADMIN_PORT, Config};
use crate::filter::End;
use crate::names::{PROTOCOLS, STATES};
use crate::range;

/// Weir's L4 gateway: forwards TCP and UDP from VIPs to targets (FULLNAT, DR or tunnel, over DPDK).
#[derive(Debug, Parser)]
#[command(name = "l4-gateway", version)]
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
    /// Have the running process read its configuration again: all of it takes effect, or nothing changes and the reasons are printed
    Reload,
    /// List the services of the running process
    Services,
    /// List the targets of the running process
    Targets,
    /// List flows of the running process; each part of the filter that is given must match
    Flows(Flows),
    /// Write frames of the running process to a file or standard output (pcapng), as they came in and as they left
    ///
    /// `l4-gateway capture --client 10.2.0.1 | tshark -r -` or `| tcpdump -nr -`. One at a time. It ends at its bounds or by Ctrl-C.
    Capture(Capture),
}

#[derive(Debug, Args)]
struct Flows {
    #[command(flatten)]
    ends: Wanted,
    /// Only flows of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows of this protocol
    #[arg(long, value_parser = PROTOCOLS.parser())]
    protocol: Option<String>,
    /// Only flows in this state, as the last column shows it
    #[arg(long, value_parser = STATES.parser())]
    state: Option<String>,
    #[arg(long, default_value_t = LISTED, value_parser = range::parser(LIMIT), help = range::help("How many at most", &LIMIT))]
    limit: usize,
}

/// Each an address, a network, or an address with a port.
#[derive(Debug, Args)]
struct Wanted {
    /// Only flows of this client: 10.2.0.1, 10.2.0.0/24 or 10.2.0.1:40312
    #[arg(long, value_name = "END")]
    client: Option<End>,
    /// Only flows to this VIP
    #[arg(long, value_name = "END")]
    vip: Option<End>,
    /// Only flows that the target sees coming from here: a LocalIP, with or without a port
    #[arg(long, value_name = "END")]
    local: Option<End>,
    /// Only flows to this target
    #[arg(long, value_name = "END")]
    target: Option<End>,
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
    /// Carries out everything but `run`, for which the file and its configuration are handed back.
    pub fn next(self) -> Next<(PathBuf, Config)> {
        let Cli { process, action } = self;
        let action = match action {
            None => Action::Run,
            Some(Own::Shared(action)) => action,
            Some(own) => {
                return match process
                    .admin_listener(ADMIN_PORT)
                    .and_then(|admin| answer(own, admin, process.config.as_deref()))
                {
                    Ok(text) => {
                        let written = std::io::stdout().write_all(text.as_bytes());
                        Next::Exit(if written.is_ok() {
                            ExitCode::SUCCESS
                        } else {
                            ExitCode::FAILURE
                        })
                    }
                    Err(why) => {
                        let _closed = writeln!(std::io::stderr(), "{why}");
                        Next::Exit(ExitCode::FAILURE)
                    }
                };
            }
        };
        let file = process.config.clone().unwrap_or_default();
        let command = Command {
            process,
            action: Some(action),
        };
        let checks = action == Action::Check;
        let parse = |root: &mut Table<'_>| {
            let config = Config::parse(root)?;
            for warning in checks.then(|| config.warnings()).into_iter().flatten() {
                let _closed = writeln!(std::io::stderr(), "warning: {warning}");
            }
            Some(config)
        };
        match command.run(ADMIN_PORT, parse) {
            Next::Run(config) => Next::Run((file, config)),
            Next::Exit(code) => Next::Exit(code),
        }
    }
}

fn answer(own: Own, admin: SocketAddr, config: Option<&Path>) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let status = async || -> Result<Value, String> {
            let text = client::get(admin, "/status")
                .await
                .map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        match own {
            Own::Shared(_) => Err("is not a question".into()),
            Own::Reload => reload(admin, &status().await?, config).await,
            Own::Services => Ok(table(&SERVICES, &services(&status().await?))),
            Own::Targets => Ok(table(&TARGETS, &targets(&status().await?))),
            Own::Flows(wanted) => flows(admin, &wanted).await,
            Own::Capture(capture) => record(admin, capture).await,
        }
    })
}

async fn flows(admin: SocketAddr, wanted: &Flows) -> Result<String, String> {
    let Flows {
        ends,
        service,
        protocol,
        state,
        limit,
    } = wanted;
    let args = json!({
        "client": ends.client, "vip": ends.vip, "local": ends.local, "target": ends.target,
        "service": service, "protocol": protocol, "state": state, "limit": limit,
    });
    let answer = client::command(admin, "flows", &args)
        .await
        .map_err(|error| error.to_string())?;
    let mut text = table(&FLOWS, &rows(&answer["flows"], &FLOWS));
    match answer["left_out"].as_u64() {
        None | Some(0) => {}
        Some(more) => text.push_str(&format!(
            "and {more} more: narrow the filter, or raise --limit\n"
        )),
    }
    Ok(text)
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

/// Mistakes and what needs a restart are printed as `check` prints them. The node reads the file it was started with, whatever `config` is.
async fn reload(
    admin: SocketAddr,
    status: &Value,
    config: Option<&Path>,
) -> Result<String, String> {
    let file = cell(&status["configuration"]["file"]);
    if let Some(other) = config.filter(|config| !is_same(config, Path::new(&file))) {
        let _closed = writeln!(
            std::io::stderr(),
            "warning: the node reads {file}, which it was started with, and not {}",
            other.display()
        );
    }
    let args = json!({ "by": "command line" });
    let answer = client::command(admin, "reload", &args).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(409, why) => format!("{why}\nnothing was changed"),
        other => other.to_string(),
    })?;
    let changes = answer["changes"].as_array().map(Vec::as_slice);
    Ok(match changes.unwrap_or_default() {
        [] => format!("reloaded {file}: nothing has changed\n"),
        changes => {
            let lines: Vec<String> = changes.iter().map(cell).collect();
            format!("{}\nreloaded {file}\n", lines.join("\n"))
        }
    })
}

/// Whether both paths lead to one file, as far as can be seen from here.
fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => std::path::absolute(one).is_ok_and(|one| one == other),
    }
}

const SERVICES: [&str; 12] = [
    "name",
    "vip",
    "port",
    "protocol",
    "healthy",
    "flows",
    "flows_created",
    "packets_in",
    "packets_out",
    "resets_sent",
    "denied",
    "limited",
];
const TARGETS: [&str; 11] = [
    "service",
    "address",
    "weight",
    "effective_weight",
    "up",
    "draining",
    "flows",
    "packets_in",
    "packets_out",
    "at_limit",
    "reason",
];
const FLOWS: [&str; 6] = ["protocol", "client", "vip", "local", "target", "state"];

fn services(status: &Value) -> Vec<Vec<String>> {
    rows(&status["services"], &SERVICES)
}

fn targets(status: &Value) -> Vec<Vec<String>> {
    let services = status["services"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let of_service = |service: &Value| {
        let name = cell(&service["name"]);
        let mut rows = rows(&service["targets"], &TARGETS);
        for row in &mut rows {
            row[0].clone_from(&name);
        }
        rows
    };
    services.iter().flat_map(of_service).collect()
}

fn rows(list: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .map(|item| columns.iter().map(|column| cell(&item[*column])).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn targets_are_listed_with_their_service() {
        let status = json!({ "services": [
            { "name": "web", "targets": [{ "address": "10.0.0.1:80", "weight": 2, "effective_weight": 0.5, "up": true }] },
            { "name": "dns", "targets": [] },
        ] });
        let text = table(&TARGETS, &targets(&status));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("SERVICE  ADDRESS"), "{text}");
        assert!(
            lines[1].starts_with("web      10.0.0.1:80  2       0.5               true"),
            "{text}"
        );
    }
}
