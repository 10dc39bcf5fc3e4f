//! The command line of `l7-proxy`.

mod explain;

use std::net::SocketAddr;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use shared::admin::client::{self, ClientError};
use shared::cli::{Action, By, Next, Process, cell, state};
use shared::config::{Configuration, Loaded, Table, Warning};

use self::explain::Explain;
use crate::config::{ADMIN_PORT, Config};
use crate::edge::tls::Tickets;
use crate::node::identity;
use crate::node::run::StartError;
use crate::observe::access_log;

/// Weir's L7 tier: an HTTP reverse proxy
#[derive(Debug, Parser)]
#[command(name = "l7-proxy", version = shared::build::VERSION)]
pub struct Cli {
    #[command(flatten)]
    process: Process,
    #[command(subcommand)]
    action: Option<Own>,
    /// Given by a running process to the one it hands over to
    #[arg(long, hide = true, global = true)]
    take_over: bool,
}

#[derive(Debug, Subcommand)]
enum Own {
    #[command(flatten)]
    Shared(Action),
    /// Start the binary that is in place now and have it take over: it is given the listening sockets, no connection is refused or reset
    ///
    /// It reads the configuration file anew. If it does not serve, the running process serves on and the reasons are printed.
    Upgrade {
        /// Only if another binary than the running one is in place; reload otherwise
        #[arg(long)]
        if_replaced: bool,
        #[command(flatten)]
        by: By,
    },
    /// Ask what the running process would do with a request: listener, certificate, route and why, backends and their states, what would be sent
    ///
    /// `l7-proxy explain GET https://shop.example.com/cart -H 'X-Debug: 1'`
    Explain(Explain),
}

/// What to run with.
#[derive(Debug)]
pub struct Run {
    /// The configuration, as it was read.
    pub loaded: Loaded<Config>,
    /// Whether the process that started this one hands over to it.
    pub takes_over: bool,
}

impl Cli {
    /// Carries out all subcommands but `run`, for which what to run with is handed back.
    pub fn act(self) -> Next<Run> {
        let Cli {
            process,
            action,
            take_over: takes_over,
        } = self;
        let next = match action {
            None => process.carry_out(Action::Run),
            Some(Own::Shared(action)) => process.carry_out(action),
            // Whoever can't be asked now is asked once more, and the failure is printed.
            Some(Own::Upgrade {
                if_replaced: true,
                by,
            }) if process.answer(ADMIN_PORT, is_replaced) == Ok(false) => {
                process.carry_out(Action::Reload(by))
            }
            Some(Own::Upgrade { by, .. }) => {
                Next::Exit(process.ask(ADMIN_PORT, |admin| upgrade(admin, by)))
            }
            Some(Own::Explain(question)) => {
                Next::Exit(process.ask(ADMIN_PORT, |admin| explain(admin, question)))
            }
        };
        match next {
            Next::Run(loaded) => Next::Run(Run { loaded, takes_over }),
            Next::Exit(code) => Next::Exit(code),
        }
    }
}

/// Whether another binary is in place than the one that runs.
async fn is_replaced(admin: SocketAddr) -> Result<bool, String> {
    Ok(state(admin).await?["binary"]["replaced"] == true)
}

async fn upgrade(admin: SocketAddr, by: By) -> Result<String, String> {
    let args = json!({ "by": by.name() });
    let answer = client::command(admin, "upgrade", &args).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(409, why) => format!("{why}\nthe running process serves on"),
        other => other.to_string(),
    })?;
    Ok(format!(
        "process {} has taken over\n",
        cell(&answer["process"])
    ))
}

async fn explain(admin: SocketAddr, question: Explain) -> Result<String, String> {
    let ask = async || client::command(admin, "explain", &question.arguments()).await;
    let text = |answer: &Value| format!("{}\n", explain::text(&question, answer).trim_end());
    question.shown.show(ask, text).await
}

impl Configuration for Config {
    const TIER: &'static str = "l7";
    const ADMIN_PORT: u16 = ADMIN_PORT;
    const UPGRADE: Option<&'static str> = Some("l7-proxy upgrade");

    fn parse(root: &mut Table<'_>) -> Option<Config> {
        Config::parse(root)
    }

    /// Whether the certificates and keys it names can be used, and the access log's group by this user.
    fn feasible(&self) -> Result<Vec<Warning>, String> {
        let identity = Tickets::new()
            .map_err(StartError::from)
            .and_then(|tickets| identity(self, &tickets))
            .map_err(|error| error.to_string())?;
        let doubts = identity.map(|identity| identity.doubts(SystemTime::now()));
        let doubts = doubts.into_iter().flatten();
        let log = self.access_log.as_ref();
        let doubts = doubts.chain(log.and_then(access_log::Settings::doubt));
        Ok(doubts.map(Warning).collect())
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Config) -> impl PartialEq + '_ {
            let Config {
                node,
                admin,
                bus,
                log,
                workers,
                listeners: _,
                certificates: _,
                routes: _,
                upstreams: _,
                registrations: _,
                access_log: _,
                forwarding: _,
                drain: _,
            } = config;
            (node, admin, bus, log, workers)
        }
        fixed(self) == fixed(other)
    }
}
