//! The command line.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use shared::admin::client::{self, ClientError};
use shared::cli::{Action, Command, Next, cell, table};

use crate::config::{ADMIN_PORT, Config};

/// Weir's L4 gateway: forwards TCP and UDP from VIPs to targets (FULLNAT over DPDK).
#[derive(Debug, Parser)]
#[command(name = "l4-gateway", version)]
pub struct Cli {
    /// Configuration file
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the admin listener (default: admin.listen of the configuration)
    #[arg(long, global = true, value_name = "ADDR")]
    admin: Option<SocketAddr>,
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
    /// List flows of the running process
    Flows(Flows),
}

#[derive(Debug, Args)]
struct Flows {
    /// Only flows of this client
    #[arg(long, value_name = "IP")]
    client: Option<Ipv4Addr>,
    /// Only flows to this target
    #[arg(long, value_name = "IP:PORT")]
    target: Option<SocketAddrV4>,
    /// Only flows that the target sees coming from here
    #[arg(long, value_name = "IP:PORT")]
    local: Option<SocketAddrV4>,
    /// How many at most
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

impl Cli {
    /// Carries out everything but `run`, for which the file and its configuration are handed back.
    pub fn next(self) -> Next<(PathBuf, Config)> {
        let Cli {
            config,
            admin,
            action,
        } = self;
        let action = match action {
            None => Action::Run,
            Some(Own::Shared(action)) => action,
            Some(own) => {
                let command = Command {
                    config,
                    admin,
                    action: None,
                };
                return match command
                    .admin_listener(ADMIN_PORT)
                    .and_then(|admin| answer(own, admin))
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
        let file = config.clone().unwrap_or_default();
        let command = Command {
            config,
            admin,
            action: Some(action),
        };
        match command.run(ADMIN_PORT, Config::parse) {
            Next::Run(config) => Next::Run((file, config)),
            Next::Exit(code) => Next::Exit(code),
        }
    }
}

fn answer(own: Own, admin: SocketAddr) -> Result<String, String> {
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
            Own::Reload => reload(admin).await,
            Own::Services => Ok(table(&SERVICES, &services(&status().await?))),
            Own::Targets => Ok(table(&TARGETS, &targets(&status().await?))),
            Own::Flows(Flows {
                client,
                target,
                local,
                limit,
            }) => {
                let args =
                    json!({ "client": client, "target": target, "local": local, "limit": limit });
                let flows = client::command(admin, "flows", &args)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(table(&FLOWS, &rows(&flows, &FLOWS)))
            }
        }
    })
}

/// Mistakes and what needs a restart are printed as `check` prints them.
async fn reload(admin: SocketAddr) -> Result<String, String> {
    let args = json!({ "by": "command line" });
    let answer = client::command(admin, "reload", &args).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(409, why) => format!("{why}\nnothing was changed"),
        other => other.to_string(),
    })?;
    let changes = answer["changes"].as_array().map(Vec::as_slice);
    Ok(match changes.unwrap_or_default() {
        [] => "reloaded: nothing has changed\n".into(),
        changes => {
            let lines: Vec<String> = changes.iter().map(cell).collect();
            format!("{}\nreloaded\n", lines.join("\n"))
        }
    })
}

const SERVICES: [&str; 10] = [
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
];
const TARGETS: [&str; 9] = [
    "service",
    "address",
    "weight",
    "up",
    "draining",
    "flows",
    "packets_in",
    "packets_out",
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
            { "name": "web", "targets": [{ "address": "10.0.0.1:80", "weight": 2, "up": true }] },
            { "name": "dns", "targets": [] },
        ] });
        let text = table(&TARGETS, &targets(&status));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("SERVICE  ADDRESS"), "{text}");
        assert!(
            lines[1].starts_with("web      10.0.0.1:80  2       true"),
            "{text}"
        );
    }
}
