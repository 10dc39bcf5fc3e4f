//! The subcommands every binary has.
//!
//! A tier flattens [`Command`] into its own clap parser and calls [`Command::run`] with its parse function; what comes back is the
//! configuration to run with, or nothing left to do. One with subcommands of its own flattens [`Process`] and [`Action`].
//!
//! ```no_run
//! use clap::Parser;
//! use shared::cli::{Command, Next};
//!
//! #[derive(Parser)]
//! #[command(name = "weir-l7", version)]
//! struct Cli {
//!     #[command(flatten)]
//!     shared: Command,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let next = Cli::parse().shared.run(9107, |root| {
//!         Some(shared::config::sections::NodeSection::parse(root)?)
//!     });
//!     match next {
//!         Next::Run(_node) => std::process::ExitCode::SUCCESS, // start the process
//!         Next::Exit(code) => code,
//!     }
//! }
//! ```

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::admin::client;
use crate::config::sections::AdminSection;
use crate::config::{Document, Mistakes, Table};

/// Which process is meant: the one to become, or the one to ask.
#[derive(Debug, Clone, Args)]
pub struct Process {
    /// Configuration file
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port of the admin listener of the process to ask (default: admin.listen of the configuration)
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = address_and_port)]
    pub admin: Option<SocketAddr>,
}

/// The shared part of a binary's command line. Without a subcommand, `run`.
#[derive(Debug, Args)]
pub struct Command {
    /// Which process is meant
    #[command(flatten)]
    pub process: Process,
    /// What to do; `run` if left out
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Run in the foreground (the default)
    Run,
    /// Check the configuration: print all mistakes and exit with 1, or "ok"
    Check,
    /// Print the running process's state as JSON
    Status,
    /// Ask the running process to drain: routers and other tiers are to send new traffic elsewhere; what comes all the same is served (`health` carries none, and refuses)
    Drain,
    /// Ask the running process to take traffic again, after a drain
    Undrain,
}

/// What is left to do after [`Command::run`].
#[derive(Debug)]
pub enum Next<T> {
    /// Run with this configuration.
    Run(T),
    /// Exit with this code; everything was printed.
    Exit(ExitCode),
}

impl Command {
    /// Carries out all actions but `run`, for which the parsed configuration is handed back. `admin_port` is the tier's default.
    pub fn run<T>(
        self,
        admin_port: u16,
        parse: impl FnOnce(&mut Table<'_>) -> Option<T>,
    ) -> Next<T> {
        let action = self.action.unwrap_or(Action::Run);
        if self.process.admin.is_some() && matches!(action, Action::Run | Action::Check) {
            return failed(
                "--admin is the address of a running process to ask: run and check ask nobody, and the one to listen at is admin.listen of the configuration",
            );
        }
        match action {
            Action::Run => match self.load(parse) {
                Ok(parsed) => Next::Run(parsed),
                Err(failure) => failed(&failure),
            },
            Action::Check => match self.load(parse) {
                Ok(_) => printed("ok"),
                Err(failure) => failed(&failure),
            },
            action @ (Action::Status | Action::Drain | Action::Undrain) => {
                match self.ask(action, admin_port) {
                    Ok(answer) => printed(answer.trim_end()),
                    Err(failure) => failed(&failure),
                }
            }
        }
    }

    fn load<T>(&self, parse: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Result<T, String> {
        self.process
            .document()?
            .parse(parse)
            .map_err(|mistakes: Mistakes| mistakes.to_string())
    }

    fn ask(&self, action: Action, default_port: u16) -> Result<String, String> {
        let addr = self.process.admin_listener(default_port)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let args = json!({ "by": "command line" });
        let command = |name| client::command(addr, name, &args);
        let answer = runtime.block_on(async {
            match action {
                Action::Drain => command("drain").await.map(|answer| format!("{answer:#}")),
                Action::Undrain => command("undrain").await.map(|answer| format!("{answer:#}")),
                Action::Run | Action::Check | Action::Status => client::get(addr, "/status").await,
            }
        });
        answer.map_err(|error| error.to_string())
    }
}

impl Process {
    /// The admin listener to ask: as given, or as configured. Mistakes elsewhere in the file don't stand in the way of a drain.
    ///
    /// # Errors
    /// If neither is given, or the file can't be read.
    pub fn admin_listener(&self, default_port: u16) -> Result<SocketAddr, String> {
        if let Some(addr) = self.admin {
            return Ok(addr);
        }
        if self.config.is_none() {
            return Err(
                "whom to ask? give the process's --config FILE or --admin ADDR:PORT".to_owned(),
            );
        }
        let mut listen = AdminSection::parse(&mut self.document()?.root(), default_port).listen;
        if listen.ip().is_unspecified() {
            let loopback = if listen.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            };
            listen.set_ip(loopback);
        }
        Ok(listen)
    }

    fn document(&self) -> Result<Document, String> {
        let path = self
            .config
            .as_ref()
            .ok_or("no configuration file: give one with --config FILE")?;
        Document::load(path).map_err(|mistakes| mistakes.to_string())
    }
}

/// An address with a port, for `value_parser` of an argument.
///
/// # Errors
/// What is expected, if it isn't one. Names are not looked up.
pub fn address_and_port(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80".to_owned()
    })
}

/// Lines of columns as wide as what is in them, the heading in capitals.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A value of a JSON answer as a cell of [`table`].
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints to standard output; a closed pipe (`status | head`) is not a failure worth words.
fn printed<T>(text: &str) -> Next<T> {
    let written = writeln!(std::io::stdout(), "{text}");
    Next::Exit(if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn failed<T>(text: &str) -> Next<T> {
    let _closed = writeln!(std::io::stderr(), "{text}");
    Next::Exit(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&Value; 3]| cells.map(cell).to_vec();
        let rows = [
            row([&json!("web"), &json!(2), &json!(true)]),
            row([&json!("dns"), &json!(null), &json!(false)]),
        ];
        assert_eq!(
            table(&["name", "weight", "up"], &rows),
            "NAME  WEIGHT  UP\nweb   2       true\ndns   -       false\n"
        );
    }
}
