//! The command line of the `bgp-ctl` binary, and what `run` starts.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use shared::admin::client;
use shared::bus::Bus;
use shared::cli::{Action, Command, Next, Process, cell, table};
use shared::lifecycle::{Request, Signals, reload_not_offered};
use shared::telemetry::{init_logs, init_metrics};

use crate::actors::route_control::{RouteControl, Shutdown};
use crate::admin::Front;
use crate::config::{ADMIN_PORT, Config};
use crate::error::Error;
use crate::status::StatusBoard;

/// How long the last records may take to reach the bus at exit.
const FLUSH: Duration = Duration::from_secs(1);

/// Announces the VIPs of an L4 node to routers by BGP.
#[derive(Debug, Parser)]
#[command(name = "bgp-ctl", version)]
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
    /// Print the sessions of the running process as a table
    #[command(alias = "neighbors")]
    Neighbours,
    /// Force a VIP of the running process, or leave it to the facts again
    Force {
        /// The VIP
        vip: Ipv4Addr,
        /// announce (whatever its targets' health), withdraw, or none
        #[arg(value_parser = ["announce", "withdraw", "none"])]
        force: String,
    },
}

impl Cli {
    /// Does what the command line says; for `run`, until a signal ends it.
    pub fn run(self) -> ExitCode {
        let done = match &self.action {
            Some(Own::Neighbours) => self.ask(|admin| async move {
                let status = client::get(admin, "/status").await?;
                Ok(sessions(&serde_json::from_str(&status)?))
            }),
            Some(Own::Force { vip, force }) => {
                let args = json!({ "vip": vip, "force": force });
                self.ask(|admin| async move {
                    Ok(format!(
                        "{:#}",
                        client::command(admin, "force", &args).await?
                    ))
                })
            }
            Some(Own::Shared(Action::Check)) => {
                match self
                    .shared(Some(Action::Run))
                    .run(ADMIN_PORT, Config::parse)
                {
                    Next::Run(config) => check(&config),
                    Next::Exit(code) => return code,
                }
            }
            own => {
                let action = own.as_ref().and_then(|own| match own {
                    Own::Shared(action) => Some(*action),
                    Own::Neighbours | Own::Force { .. } => None,
                });
                match self.shared(action).run(ADMIN_PORT, Config::parse) {
                    Next::Run(config) => run(config).map(|()| String::new()),
                    Next::Exit(code) => return code,
                }
            }
        };
        // A closed pipe is not a failure worth words.
        let (written, code) = match done {
            Ok(text) if text.is_empty() => (Ok(()), ExitCode::SUCCESS),
            Ok(text) => (
                writeln!(std::io::stdout(), "{}", text.trim_end()),
                ExitCode::SUCCESS,
            ),
            Err(error) => (writeln!(std::io::stderr(), "{error:#}"), ExitCode::FAILURE),
        };
        if written.is_ok() {
            code
        } else {
            ExitCode::FAILURE
        }
    }

    fn shared(&self, action: Option<Action>) -> Command {
        Command {
            process: self.process.clone(),
            action,
        }
    }

    fn ask<F>(&self, question: impl FnOnce(SocketAddr) -> F) -> anyhow::Result<String>
    where
        F: Future<Output = anyhow::Result<String>>,
    {
        let admin = self
            .process
            .admin_listener(ADMIN_PORT)
            .map_err(anyhow::Error::msg)?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(question(admin))
    }
}

/// What parsing alone can't see: the files named.
fn check(config: &Config) -> anyhow::Result<String> {
    let mut failures = Vec::new();
    for neighbour in &config.bgp.neighbours {
        if let Some(Err(error)) = neighbour.password.as_ref().map(|password| password.read()) {
            failures.push(format!("neighbour {}: {error}", neighbour.address));
        }
    }
    anyhow::ensure!(failures.is_empty(), failures.join("\n"));
    Ok("ok".to_owned())
}

fn run(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log);
    let metrics = init_metrics().context("metrics")?;
    actix::System::new().block_on(async move {
        let mut signals = Signals::new().context("signals")?;
        let address = config.admin.listen;
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })
            .context("admin")?;
        let bus = Bus::start(&config.bus, &config.node.id);
        let status = StatusBoard::default();
        let control =
            RouteControl::start_reporting(config.bgp, config.follow, bus.clone(), status.clone());
        let front = Arc::new(Front {
            status,
            control: control.clone(),
            bus: bus.clone(),
        });
        let (stop_admin, admin_stopped) = tokio::sync::oneshot::channel::<()>();
        let admin = actix_rt::spawn(shared::admin::serve(
            listener,
            metrics,
            front.clone(),
            async {
                let _ = admin_stopped.await;
            },
        ));
        tracing::info!(node = config.node.id, admin = %address, "bgp-ctl runs");
        loop {
            match signals.next().await {
                Request::Drain => drop(front.drain(true, "signal")),
                Request::Undrain => drop(front.drain(false, "signal")),
                Request::Reload => reload_not_offered(),
                Request::Terminate => break,
            }
        }
        let leaving = async {
            let _ = control
                .send(Shutdown {
                    text: "shutting down".to_owned(),
                })
                .await;
            bus.flush(FLUSH).await;
        };
        tokio::select! {
            () = leaving => {}
            () = signals.terminate() => return Ok(()),
        }
        let _ = stop_admin.send(());
        let _ = admin.await;
        Ok(())
    })
}

/// The sessions as a table, from the JSON of `/status`.
fn sessions(status: &Value) -> String {
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
    for (address, neighbour) in status["neighbours"].as_object().into_iter().flatten() {
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
