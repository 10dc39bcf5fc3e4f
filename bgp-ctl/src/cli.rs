//! The command line of the `bgp-ctl` binary.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use shared::admin::client;
use shared::cli::{Action, By, Next, Process, Reason, Shown, cell, document, state, table};

use crate::config::{ADMIN_PORT, Config};
use crate::run::run;

/// Announces the VIPs of an L4 node to routers by BGP.
#[derive(Debug, Parser)]
#[command(name = "bgp-ctl", version = shared::build::VERSION)]
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
    /// Show the sessions of the running process
    #[command(alias = "neighbors")]
    Neighbours(Shown),
    /// Force a VIP of the running process, or leave it to the facts again
    Force {
        /// The VIP
        vip: Ipv4Addr,
        /// announce (whatever its targets' health), withdraw, or none
        #[arg(value_parser = ["announce", "withdraw", "none"])]
        force: String,
        #[command(flatten)]
        by: By,
        #[command(flatten)]
        reason: Reason,
    },
}

impl Cli {
    /// Does what the command line says; for `run`, until a signal ends it.
    pub fn run(self) -> ExitCode {
        let Cli { process, action } = self;
        let next = match action {
            None => process.carry_out::<Config>(Action::Run),
            Some(Own::Shared(action)) => process.carry_out(action),
            Some(own) => Next::Exit(process.ask(ADMIN_PORT, |admin| answer(own, admin))),
        };
        match next {
            Next::Exit(code) => code,
            Next::Run(loaded) => shared::lifecycle::run(run(loaded)),
        }
    }
}

async fn answer(own: Own, admin: SocketAddr) -> Result<String, String> {
    match own {
        Own::Shared(_) => Err("is not a question".into()),
        Own::Neighbours(shown) => {
            let neighbours = async || Ok::<_, String>(state(admin).await?["neighbours"].take());
            shown.show(neighbours, sessions).await
        }
        Own::Force {
            vip,
            force,
            by,
            reason: Reason { reason },
        } => {
            let args = json!({ "vip": vip, "force": force, "by": by.name(), "reason": reason });
            let answer = client::command(admin, "force", &args).await;
            let answer = answer.map_err(|error| error.to_string())?;
            Ok(document(&answer))
        }
    }
}

/// The sessions as a table, from the neighbours of `/status`.
fn sessions(neighbours: &Value) -> String {
    const COLUMNS: [&str; 7] = [
        "neighbour",
        "as",
        "state",
        "for",
        "hold",
        "vips",
        "last error",
    ];
    let mut rows = Vec::new();
    for (address, neighbour) in neighbours.as_object().into_iter().flatten() {
        let since = neighbour["since_unix_ms"].as_u64().unwrap_or_default();
        let advertised = neighbour["advertised"].as_array().map_or(0, Vec::len);
        rows.push(vec![
            address.clone(),
            cell(&neighbour["remote_as"]),
            cell(&neighbour["state"]),
            format!("{}s", shared::bus::unix_ms().saturating_sub(since) / 1000),
            cell(&neighbour["hold_time"]),
            advertised.to_string(),
            cell(&neighbour["last_error"]),
        ]);
    }
    table(&COLUMNS, &rows)
}
